"""The lanes that one worker holds: taking them, keeping their leases, following changes, letting go.

The law of this room: the database first, memory after the commit. Where the connection breaks between the two,
`recover_leases` puts them together again.
"""

from __future__ import annotations

import logging
import time
import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import outbox
from ..delivery import AttemptResult, DeliveryTask, Destination, destinations
from ..health import Health, health_of
from ..ids import uuid7
from ..outbox import Lease
from .held_lane import TURN, UNKNOWN, HeldLane, Scheduler
from .search import LaneSearch
from .withdrawals import Withdrawals

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["REFRESH", "RENEW", "Lanes", "lease_length"]

logger = logging.getLogger("flask_webhooks.delivering")

RENEW = 10.0
"""Seconds between two renewals of the leases."""
REFRESH = 2.0
"""Seconds after which a change of a subscription, or of a delivery that waits here, has effect at the latest."""


def lease_length(timeout: float) -> timedelta:
    """Long enough for one whole attempt and the time between two renewals.

    A dead worker's lanes are free again within a minute, unless the timeout itself is longer than that.
    """
    return timedelta(seconds=max(45.0, timeout * 2 + 15))


class Lanes:
    """All lanes of one run.

    :param clock: returns what time the database's times are compared with; waiting goes by the monotonic clock.
    """

    def __init__(
        self,
        state: AppState,
        holder: str,
        scheduler: Scheduler,
        clock: t.Callable[[], datetime],
        *,
        renew: float = RENEW,
        refresh: float = REFRESH,
    ) -> None:
        self.state, self.holder, self.scheduler, self.clock = state, holder, scheduler, clock
        self.length = lease_length(state.settings.timeout[1])
        self.environments = state.settings.sent_environments
        self.held: dict[str, HeldLane] = {}
        self.search = LaneSearch(scheduler, state.settings.concurrency)
        self.withdrawals = Withdrawals(state, self.held, self._lease, clock)
        self._token, self._renew_after, self._refresh_after = uuid7(), renew, refresh
        self._renewed = self._refreshed = time.monotonic()
        self._turn_at = 0.0
        self._is_in_doubt = False
        """Whether more lanes may be ours than we know of: the connection broke while they were being taken."""
        self._avoided: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether lanes are held, or something is left to be held of those that are switched off."""
        return bool(self.held) or bool(self.withdrawals.switched_off)

    @property
    def buffered(self) -> int:
        """How many deliveries have been read and not yet written back. May be asked from any thread."""
        return sum(len(lane.buffered) for lane in list(self.held.values()))

    def set_clock(self, connection: sa.Connection) -> None:
        """Ask the database what time it is, if that is the clock that this run goes by."""
        if isinstance(self.clock, outbox.Clock):
            self.clock.set(connection)

    def _lease(self) -> Lease:
        return Lease(self.holder, self._token, self.clock() + self.length)

    # ---- taking ----------------------------------------------------------------------------------------

    def take(self, connection: sa.Connection, most: int) -> None:
        """Lease up to `most` lanes. Commits."""
        began, now = time.monotonic(), self.clock()
        self._is_in_doubt = True
        known = {*self.held, *self.withdrawals.switched_off}
        ours = {lane.owner for lane in self.held.values()} if self.search.is_sated else ()
        # Not those that are known, switched off ones among them, even if their lease has run out meanwhile.
        rows = outbox.lease(connection, self._lease(), now, most, known, self.environments, ours)
        connection.commit()
        self.search.note(began, len(rows), most)
        if rows:
            opened = destinations(self.state, connection, [row.subscription_id for row in rows], now)
            connection.rollback()
            for row in rows:
                destination = opened.get(row.subscription_id)
                if destination is None or not destination.active:
                    self.withdrawals.switched_off.append(row.subscription_id)
                else:
                    self._open(row, destination, began)
        self._is_in_doubt = False

    def _open(self, row: sa.Row[t.Any], destination: Destination, began: float) -> None:
        health, key = health_of(row), row.subscription_id
        lane = self.held[key] = HeldLane(
            key=key,
            owner=destination.recipient.owner,
            # From before the statement: the database counts from a moment in between, so that ours ends earlier.
            lease_until=began + self.length.total_seconds(),
            scheduler=self.scheduler,
            destination=destination,
            health=health,
            saved=health,
        )
        lane.open(row.sendable_at, self.clock(), is_avoided=key in self._avoided)

    # ---- keeping ---------------------------------------------------------------------------------------

    @property
    def is_renewal_due(self) -> bool:
        """Whether the leases must be renewed soon."""
        return bool(self.held) and time.monotonic() - self._renewed > self._renew_after

    def fence(self, connection: sa.Connection, keys: t.Collection[str]) -> dict[str, HeldLane]:
        """Return which lanes are still ours, locked until the commit; renew all leases when it is time.

        Also learns how their receivers do where that was written elsewhere: who switches a subscription on again begins
        at nothing, whatever this worker remembers.
        """
        began, renew = time.monotonic(), self.is_renewal_due
        checked = self.held.keys() if renew else keys
        if not checked:
            return {}
        saved = {key: self.held[key].saved for key in checked}
        found = outbox.fence(connection, self._lease(), saved, renew=renew)
        for key in saved.keys() - found.keys():
            lane = self.held[key]
            if not lane.is_closing:
                logger.warning("lane.taken_over", extra={"subscription": key, "worker": self.holder})
                lane.close()
        ours = {key: self.held[key] for key in found}
        for key, lane in ours.items():
            if found[key] is not lane.saved:
                lane.saved = found[key]
                lane.learn(found[key], self.clock())
        if renew:
            self._renewed = began
            # Before the commit: should that fail, the lease in memory is too long by some seconds at most, in which
            # the run is paused anyway, and `recover_leases` looks again before it goes on.
            for lane in ours.values():
                lane.renew(began + self.length.total_seconds())
        return ours

    def recover_leases(self, connection: sa.Connection) -> None:
        """After an outage: renew what is still ours, and give back what was taken without our learning of it."""
        self.doubt()
        self.fence(connection, ())
        outbox.give_back(connection, self._lease(), self.held.keys(), but=True)
        self._is_in_doubt = False
        self._renewed = float("-inf")  # for this transaction may not come to its end either

    def doubt(self) -> None:
        """Do not rely on what was saved and renewed: a transaction did not come to its end. The next fence looks."""
        self._renewed = float("-inf")
        for lane in self.held.values():
            lane.saved = UNKNOWN

    def refresh(self, connection: sa.Connection) -> None:
        """From time to time: see what was switched off, changed, rotated, cancelled or held meanwhile."""
        now = time.monotonic()
        if not self.held or now - self._refreshed < self._refresh_after:
            return
        self._refreshed = now
        known = {key: lane.destination for key, lane in self.held.items()}
        opened = destinations(self.state, connection, known.keys(), self.clock(), known)
        for key, lane in self.held.items():
            destination = opened.get(key)
            if destination is None or not destination.active:
                lane.close()
                continue
            lane.redirect(destination, self.clock())
            if known[key].patterns != destination.patterns:
                self._drop_deselected(lane)
        self._drop_moved(connection, now)

    def wants(self, lane: HeldLane, event: str, trigger: str) -> bool:
        """Whether the subscription of a lane still wants an event."""
        return lane.destination.still_wants(self.state.catalog, event, trigger)

    def _drop_deselected(self, lane: HeldLane) -> None:
        """Take what has not begun back where the event was deselected."""
        unwanted = {
            task
            for task in lane.buffered.values()
            if task.message is not None and not self.wants(lane, task.message.event, task.trigger)
        }
        for task in lane.drop(unwanted):
            self.withdrawals.deselect(task.id, task.due_at, task.number - 1)

    def _drop_moved(self, connection: sa.Connection, now: float) -> None:
        """Take back what waits here for a while and was cancelled, held or finished in the database."""
        waiting = {
            task.id: task
            for lane in self.held.values()
            for task in lane.buffered.values()
            if now - task.read_at > self._refresh_after
        }
        if not waiting:
            return
        gone: dict[str, set[DeliveryTask]] = {}
        for identifier in waiting.keys() - outbox.still_due(connection, list(waiting)):
            task = waiting[identifier]
            gone.setdefault(task.subscription_id, set()).add(task)
        for key, tasks in gone.items():
            self.held[key].drop(tasks)

    def hold(self, results: t.Iterable[AttemptResult]) -> None:
        """Have lanes wait that must, also those that are given back in the same transaction: before `save`."""
        for result in results:
            lane = self.held.get(result.task.subscription_id)
            if result.wait is not None and lane is not None:
                ago = (self.clock() - result.ended_at).total_seconds()
                lane.hold(time.monotonic() + result.wait - ago)

    # ---- letting go ------------------------------------------------------------------------------------

    def switch_off(self, lane: HeldLane) -> None:
        """Close a lane whose subscription was just switched off here, and have what is pending for it held."""
        lane.close()
        self.withdrawals.switch_off(lane.key)

    def avoid(self, lanes: t.Iterable[HeldLane]) -> None:
        """Close lanes that are slow, and take them for suspect from now on."""
        for lane in lanes:
            self._avoided.add(lane.key)
            lane.close()

    def take_turns(self, connection: sa.Connection) -> None:
        """Close lanes that had their turn, as many as wait for one; and those that can send only later."""
        now = time.monotonic()
        if now < self._turn_at:
            return
        self._turn_at = now + TURN / 2
        # What can do nothing here for a while goes first: it costs this worker nothing.
        for lane in self.held.values():
            can_wait = (lane.start_at > now + TURN and not lane.in_flight) or lane.is_starving(now)
            if can_wait and not lane.is_closing:
                lane.close()
        self._give_up_surplus()
        old = [
            lane
            for lane in self.held.values()
            if not lane.is_closing and lane.buffered and now - lane.since > TURN
        ]
        if old and not self.search.is_room_left(len(self.held)):
            others = outbox.waiting(connection, self.clock(), self.length, len(old), self.environments)
            for lane in old[:others]:
                lane.close()

    def _give_up_surplus(self) -> None:
        """Close lanes that wait here while every sender is busy: another worker may have nothing to do."""
        concurrency, in_flight = self.state.settings.concurrency, self.scheduler.in_flight
        surplus = in_flight + self.scheduler.startable()[0] - 2 * concurrency
        if in_flight < concurrency or surplus <= 0:
            return
        for lane in self.held.values():
            if surplus > 0 and lane.buffered and not lane.is_closing and not lane.in_flight:
                surplus -= min(len(lane.buffered), self.state.settings.subscription_concurrency)
                lane.close()

    def close_all(self) -> None:
        """Take nothing more from any lane."""
        for lane in self.held.values():
            lane.close()

    def finished(self, written: t.Collection[str] = ()) -> list[str]:
        """Return the lanes to give back, supposing that these deliveries are written."""
        return [key for key, lane in self.held.items() if lane.is_finished(written)]

    def save(
        self, connection: sa.Connection, health: t.Mapping[str, Health], closing: t.Collection[str]
    ) -> None:
        """Write how receivers do, where it is worth it, and give back the lanes that are done."""
        lease, rows = self._lease(), []
        # In the order in which every transaction locks lanes, so that two cannot wait for each other.
        for key in sorted({*health, *closing}):
            lane = self.held[key]
            known = health.get(key, lane.health)
            row = lane.row_to_save(known, is_last=key in closing, now=self.clock())
            if row is not None:
                rows.append(row)
        outbox.health(connection, lease, rows)
        if closing:
            outbox.give_back(connection, lease, closing)

    def give_all_back(self, connection: sa.Connection) -> None:
        """End all leases, also those that we have not learned of."""
        ours = self.fence(connection, self.held.keys())
        self.save(connection, {}, ours)
        if self._is_in_doubt or self.withdrawals.switched_off:
            outbox.give_back(connection, self._lease(), (), but=True)

    def forget(self, keys: t.Iterable[str]) -> None:
        """Drop lanes that have been given back."""
        for key in keys:
            self.held.pop(key).close()
