"""The lanes that one worker holds: taking them, knowing how long they are ours, keeping up with changes, letting go.

The law of this room: the database first, memory after the commit. Where the connection breaks between the two, `adopt`
puts them together again.
"""

from __future__ import annotations

import logging
import time
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import outbox, pace
from ..delivery import DeliveryTask, Destination, destinations
from ..health import Health, health_of
from ..ids import uuid7
from ..outbox import Lease
from ..pace import Burst
from .outage import TRANSIENT_ERRORS, is_cut_short
from .scheduler import FairScheduler

if t.TYPE_CHECKING:
    from ..delivery import AttemptResult
    from ..state import AppState

__all__ = ["HeldLane", "Lanes"]

logger = logging.getLogger("flask_webhooks.delivering")

FIRST, MORE, MOST = 16, 128, 512
"""Lanes that are taken at the first look, at any look, and held at most. Few at first: what one worker has taken
another cannot. Many in the end: those of receivers that hang are held, but do no work."""
OTHERS, GUESTS = 0.25, 16
"""Seconds between two looks, while there is enough to do, for owners of whom nothing is held, and lanes that are taken
then at most, also beyond `MOST`: else a new subscription would wait until a lane of somebody else had its turn."""
LITTLE = 0.03
"""Share of the time that these looks take at most."""
GULP = 1.0
"""Seconds that the lanes of one look shall last: when they do not, the next takes twice as many."""
SOONEST, LATEST, SHARE = 0.02, 0.25, 0.2
"""Seconds between two looks for more lanes: so long that looking in vain takes a fifth of the time at most."""
RENEW = 10.0
"""Seconds between two renewals of the leases."""
REFRESH = 2.0
"""Seconds after which a change of a subscription, or of a delivery that waits here, has effect at the latest."""
TURN = 2.0
"""Seconds after which a lane is given up although it has more, if other lanes wait."""
ENOUGH = 200
"""Tasks that are ready to be sent, below which a worker looks for more lanes."""
TRUST = timedelta(hours=1)
"""Age of a success that makes a lane trusted from the start."""
SAVE = 1.0
"""Seconds between two writes of a receiver's good health; bad news is written at once."""


def lease_length(timeout: float) -> timedelta:
    """Long enough for one whole attempt and the time between two renewals.

    A dead worker's lanes are free again within a minute, unless the timeout itself is longer than that.
    """
    return timedelta(seconds=max(45.0, timeout * 2 + 15))


DESELECTED = "deselected"
"""The reason of a delivery that is cancelled because its subscription does not listen to the event any more."""
UNKNOWN = Health(failures=-1)
LONGEST_WAIT = pace.DAY
"""Seconds that a lane waits at most."""


@dataclass(slots=True)
class HeldLane:
    """A lane that this worker holds."""

    destination: Destination
    health: Health
    since: float
    """Monotonic seconds when it was leased."""
    saved: Health
    """As it stood in the database when it was last looked at."""
    saved_at: float = 0.0
    behind: tuple[datetime, str] | None = None
    """How far it has been read."""
    buffered: dict[str, DeliveryTask] = field(default_factory=dict)
    """Deliveries read and not yet written back."""
    bytes: int = 0
    """What they weigh."""
    read_at: float = 0.0
    """Monotonic seconds before which it is not read again."""
    fed_at: float = 0.0
    """Monotonic seconds when it was last given tasks."""
    next_start: float = 0.0
    """Monotonic seconds before which its rate allows no request, when the scheduler does not know it any more."""
    is_dry: bool = False
    """The last look found nothing more."""
    burst: Burst = field(default_factory=Burst)
    """What its receiver has taken lately."""
    is_closing: bool = False
    """Takes nothing more; given back when nothing is under way."""
    backfilled: dict[tuple[str, str], DeliveryTask] = field(default_factory=dict)
    """Of `buffered`, what a backfill sends, by what it is about."""

    @property
    def key(self) -> str:
        """The subscription's id."""
        return self.destination.recipient.id

    def is_starving(self, now: float) -> bool:
        """Whether it has work for which there has been no memory for a while."""
        return not self.buffered and not self.is_dry and now - max(self.since, self.fed_at) > TURN

    def let_go(self, task: DeliveryTask) -> None:
        """Forget a task."""
        if self.buffered.pop(task.id, None) is not None:
            self.bytes -= task.size
        if self.backfilled and task.message is not None and self.backfilled.get(task.entity) is task:
            del self.backfilled[task.entity]


def _is_news(saved: Health, health: Health) -> bool:
    """Whether the next worker must know it: more than another success of a receiver that does well."""
    return any(
        getattr(health, name) != getattr(saved, name)
        for name in ("failures", "window_failed", "paused_until", "refusals", "waits_for")
    )


def vars_of(health: Health) -> dict[str, t.Any]:
    """The columns; `asdict` takes ten times as long, which counts at a thousand lanes a second."""
    return {name: getattr(health, name) for name in Health.__dataclass_fields__}


class Lanes:
    """All lanes of one run.

    :param clock: tells what time the database's times are compared with; waiting goes by the monotonic clock.
    """

    def __init__(
        self,
        state: AppState,
        holder: str,
        scheduler: FairScheduler[DeliveryTask],
        clock: t.Callable[[], datetime],
        *,
        renew: float = RENEW,
        refresh: float = REFRESH,
    ) -> None:
        self.state, self.holder, self.scheduler, self.clock = state, holder, scheduler, clock
        self.length = lease_length(state.settings.timeout[1])
        self.environments = state.settings.sent_environments
        self.held: dict[str, HeldLane] = {}
        self._token, self._renew_after, self._refresh_after = uuid7(), renew, refresh
        self._renewed = self._refreshed = time.monotonic()
        self._look_at = self._turn_at = 0.0
        self.again = SOONEST
        self._others_at = 0.0
        self._is_sated = False
        """Whether only lanes of owners of whom nothing is held are to be taken."""
        self._more, self._taken = FIRST, float("-inf")
        self._unwanted: list[str] = []
        """Lanes that are switched off, of which something may be left to be held."""
        self._unlistened: list[outbox.Row] = []
        """Deliveries of events that their subscription listens to no more, to be cancelled."""
        self._portion = outbox.PORTION
        self._is_in_doubt = False
        """Whether more lanes may be ours than we know of: the connection broke while they were being taken."""
        self._avoided: set[str] = set()

    # ---- taking ----------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more lanes to take now; while some are held, only from time to time."""
        now = time.monotonic()
        if self.held and now < self._look_at:
            return 0
        self._look_at = now + self.again
        room = min(self._more, MOST - len(self.held)) if self._is_hungry() else 0
        self._is_sated = not room
        if room or now < self._others_at:
            return room
        return min(GUESTS, MOST + GUESTS - len(self.held))

    def look_at_once(self) -> None:
        """Do not wait with the next look."""
        self._look_at = 0.0

    def _is_hungry(self) -> bool:
        """Whether the senders could do more than the lanes at hand give them.

        Only what may start now counts, so that lanes that hang, wait for their rate or have used up their slots do not
        pass for work.
        """
        slots, tasks = self.scheduler.startable()
        # Half as many again as can be in flight, or there would be a gap at each turn; and enough for a good batch.
        return self.scheduler.in_flight() + slots < 1.5 * self.state.settings.concurrency or tasks < ENOUGH

    def take(self, connection: sa.Connection, most: int) -> None:
        """Lease up to `most` lanes. Commits."""
        began, now = time.monotonic(), self.clock()
        self._is_in_doubt = True
        ours = {lane.destination.recipient.owner for lane in self.held.values()} if self._is_sated else ()
        rows = outbox.lease(
            connection, self._lease(now), now, most, {*self.held, *self._unwanted}, self.environments, ours
        )
        connection.commit()
        self._pace_looks(began, len(rows), most)
        if not rows:
            self._is_in_doubt = False
            return
        opened = destinations(self.state, connection, [row.subscription_id for row in rows], now)
        connection.rollback()
        for row in rows:
            destination = opened.get(row.subscription_id)
            if destination is None or not destination.active:
                self._unwanted.append(row.subscription_id)
            else:
                self._open(row, destination, began)
        self._is_in_doubt = False

    def _pace_looks(self, began: float, found: int, most: int) -> None:
        """Decide when to look again for lanes, and for how many."""
        took = time.monotonic() - began
        if self._is_sated:
            self._others_at = time.monotonic() + max(OTHERS, took / LITTLE)
        elif not found:
            self.again = min(LATEST, max(SOONEST, took / SHARE))
        else:
            self.again = SOONEST
            if found == most:
                self.look_at_once()  # there are more
            self._more = min(2 * self._more, MORE) if began - self._taken < GULP else FIRST
            self._taken = began

    def _lease(self, now: datetime) -> Lease:
        return Lease(self.holder, self._token, now + self.length)

    def _open(self, row: sa.Row[t.Any], destination: Destination, began: float) -> None:
        health = health_of(row)
        self.held[row.subscription_id] = HeldLane(destination, health, time.monotonic(), health)
        now = self.clock()
        rate = self._rate(destination, health, pace.FIRST_WAIT)
        self.scheduler.add(
            row.subscription_id,
            (),
            lease_until=began + self.length.total_seconds(),
            owner=destination.recipient.owner,
            rate=rate,
            even=rate is not None and rate != destination.rate,
            suspect=health.is_suspect or row.subscription_id in self._avoided,
            trusted=health.succeeded_at is not None and now - health.succeeded_at < TRUST,
            cap=1 if health.is_probed else None,
            not_before=self._not_before(row.sendable_at, rate, now),
        )

    def _rate(self, destination: Destination, health: Health, wait: float) -> float | None:
        """Requests a second: what its owner allows, or what its receiver has been learnt to take if that is less."""
        learnt = pace.rate_at(health, self.clock(), wait)
        return min((rate for rate in (destination.rate, learnt) if rate is not None), default=None)

    @staticmethod
    def _not_before(sendable_at: datetime | None, rate: float | None, now: datetime) -> float:
        """In monotonic seconds; never later than one interval, whatever the clocks say."""
        if sendable_at is None or rate is None:
            return 0.0
        return time.monotonic() + min(max((sendable_at - now).total_seconds(), 0.0), 1 / rate)

    @property
    def is_turning_away(self) -> bool:
        """Whether something may be left to be held."""
        return bool(self._unwanted)

    def turn_away(self) -> None:
        """Hold what is pending for lanes that are switched off, a portion at a time, and give them back."""
        left = self._portion
        while self._unwanted and left > 0:
            left -= self._settle(self._unwanted[0], left)

    def _settle(self, key: str, most: int) -> int:
        try:
            with self.state.own_engine.begin() as connection:
                found = outbox.reconcile(connection, key, self.clock(), most)
                if found < most and key not in self.held:
                    outbox.give_back(connection, self._lease(self.clock()), [key])
        except TRANSIENT_ERRORS as error:
            if not is_cut_short(error) or self._portion == 1:
                raise
            self._portion //= 2
            return most
        self._unwanted.remove(key)
        if found == most:
            self._unwanted.append(key)  # the next has its turn
        return found

    def switched_off(self, key: str) -> None:
        """Take nothing more from a lane whose subscription was just switched off here; hold what is pending."""
        self.close(key)
        if key not in self._unwanted:
            self._unwanted.append(key)

    # ---- keeping ---------------------------------------------------------------------------------------

    @property
    def is_renewal_due(self) -> bool:
        """Whether the leases must be renewed soon."""
        return bool(self.held) and time.monotonic() - self._renewed > self._renew_after

    def fence(self, connection: sa.Connection, keys: t.Collection[str]) -> set[str]:
        """Return which lanes are still ours, locked until the commit; renew all leases when it is time.

        Also learns how their receivers are doing where somebody else has written that: who switches a subscription on
        again begins at nothing, whatever this worker remembers.
        """
        began, renew = time.monotonic(), self.is_renewal_due
        checked = self.held.keys() if renew else keys
        if not checked:
            return set()
        known = {key: self.held[key].saved for key in checked}
        ours = outbox.fence(connection, self._lease(self.clock()), known, renew=renew)
        for key in set(checked) - ours.keys():
            if not self.held[key].is_closing:
                logger.warning("lane.taken_over", extra={"subscription": key, "worker": self.holder})
                self.close(key)
        for key, stored in ours.items():
            lane = self.held[key]
            if stored is not lane.saved:
                lane.saved = stored
                self.learn(key, stored)
        if renew:
            self._renewed = began
            self._extend(ours, began + self.length.total_seconds())
        return set(ours)

    def learn(self, key: str, health: Health) -> None:
        """Note how a receiver is doing; a lane that was probed gets its full terms again when that is over."""
        lane = self.held[key]
        was, lane.health = lane.health, health
        is_paced = (was.paced_at, was.paced_rate) != (health.paced_at, health.paced_rate)
        is_new = was.is_probed != health.is_probed or is_paced
        if is_new and not lane.is_closing:
            self.restore(key)

    def _extend(self, keys: t.Iterable[str], until: float) -> None:
        # Before the commit: should that fail, the lease in memory is too long by some seconds at most, in which
        # the run is paused anyway, and `adopt` looks again before it goes on.
        for key in keys:
            if not self.held[key].is_closing:
                self.scheduler.renew(key, until)

    def adopt(self, connection: sa.Connection) -> None:
        """After trouble: renew what is still ours, and give back what was taken without our learning of it."""
        self.doubt()
        self.fence(connection, ())
        outbox.give_back(connection, self._lease(self.clock()), self.held.keys(), but=True)
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
                self.close(key)
                continue
            was, lane.destination = lane.destination, destination
            if (destination.rate != was.rate or lane.health.paced_rate) and not lane.is_closing:
                self.restore(key)
            if was.patterns != destination.patterns:
                self._drop_deselected(key)
            lane.behind = None  # what was committed late may be due before what has been read
        self._withdraw(connection, now)

    # ---- deselected events -----------------------------------------------------------------------------

    def wants(self, key: str, event: str, trigger: str) -> bool:
        """Whether the subscription of a lane that is held still wants an event."""
        return self.held[key].destination.still_wants(self.state.catalog, event, trigger)

    def call_off(self, delivery: str, due_at: datetime | None, attempts: int) -> None:
        """Have `cancel_deselected` cancel a delivery, unless somebody moves it before."""
        off = {"next_state": "cancelled", "next_due": None, "why": DESELECTED, "sent": None}
        row = {"delivery": delivery, "was_due": due_at, "made": attempts, "ended": self.clock(), **off}
        self._unlistened.append(row)

    def _drop_deselected(self, key: str) -> None:
        """Take what has not begun out of the scheduler again where the event was deselected."""
        lane = self.held[key]
        unwanted = {
            task
            for task in lane.buffered.values()
            if task.message is not None and not self.wants(key, task.message.event, task.trigger)
        }
        for task in self.scheduler.drop(key, unwanted):
            lane.let_go(task)
            self.call_off(task.id, task.due_at, task.number - 1)

    def cancel_deselected(self) -> None:
        """Cancel what was found to be wanted no more."""
        if not self._unlistened:
            return
        with self.state.own_engine.begin() as connection:
            outbox.reschedule(connection, self._unlistened)
        logger.info("deliveries.deselected", extra={"deliveries": len(self._unlistened)})
        self._unlistened = []

    def _withdraw(self, connection: sa.Connection, now: float) -> None:
        """Take back what waits here for a while and was cancelled, held or finished in the database."""
        waiting = {
            task.id: task
            for lane in self.held.values()
            for task in lane.buffered.values()
            if now - task.read_at > self._refresh_after
        }
        if not waiting:
            return
        gone = waiting.keys() - outbox.still_due(connection, list(waiting))
        for key in {waiting[identifier].subscription_id for identifier in gone}:
            lane = self.held[key]
            dropped = {lane.buffered[identifier] for identifier in gone if identifier in lane.buffered}
            for task in self.scheduler.drop(key, dropped):
                lane.let_go(task)

    def restore(self, key: str) -> None:
        """Give a lane the terms that it should have: after a probe that succeeded, or for a new rate."""
        lane = self.held[key]
        rate = self._rate(lane.destination, lane.health, lane.burst.wait)
        is_learnt = rate is not None and rate != lane.destination.rate
        slots = pace.slots_at(rate, lane.burst) if rate is not None and is_learnt else None
        self.scheduler.set_terms(key, rate=rate, cap=1 if lane.health.is_probed else slots, even=is_learnt)

    def burst_of(self, key: str) -> Burst:
        """What a lane's receiver has taken lately, and whether there is more for it."""
        lane = self.held[key]
        lane.burst.has_others = len(lane.buffered) > 1 or not lane.is_dry
        return lane.burst

    def wait(self, results: t.Iterable[AttemptResult]) -> None:
        """Have lanes wait that must, also those that are given back in the same transaction: before `save`."""
        for result in results:
            key = result.task.subscription_id
            if result.wait is not None and key in self.held:
                since = (self.clock() - result.ended_at).total_seconds()
                until = time.monotonic() + result.wait - since
                self.scheduler.hold(key, until)
                self.held[key].next_start = max(self.held[key].next_start, until)

    def put_away(self, result: AttemptResult) -> None:
        """Let go of a task when its result is written, unless it is deferred."""
        lane = self.held.get(result.task.subscription_id)
        if lane is None:
            return
        if result.is_deferred:
            result.task.body = result.body
        else:
            lane.let_go(result.task)

    def put_back(self, task: DeliveryTask) -> None:
        """Have a task sent again, before all others of its lane; if that is closing, by whoever takes it next."""
        lane = self.held.get(task.subscription_id)
        if lane is not None and (lane.is_closing or not self.scheduler.put_back(lane.key, task)):
            lane.let_go(task)

    # ---- letting go ------------------------------------------------------------------------------------

    def close(self, key: str) -> None:
        """Take nothing more from a lane; what was read and not begun stays due in the database."""
        lane = self.held[key]
        lane.is_closing = True
        lane.next_start = max(lane.next_start, self.scheduler.next_start(key))
        for task in self.scheduler.remove(key):
            lane.let_go(task)

    def avoid(self, keys: t.Iterable[str]) -> None:
        """Shut lanes that are slow, and take them for suspect from now on."""
        for key in keys:
            self._avoided.add(key)
            if key in self.held:
                self.close(key)

    def take_turns(self, connection: sa.Connection) -> None:
        """Shut lanes that had their turn, as many as wait for one; and those that can send only later."""
        now = time.monotonic()
        if now < self._turn_at:
            return
        self._turn_at = now + TURN / 2
        for key, lane in self.held.items():
            is_slow = self.scheduler.next_start(key) > now + TURN
            can_wait = (is_slow and not self.scheduler.in_flight(key)) or lane.is_starving(now)
            if can_wait and not lane.is_closing:
                self.close(key)
        self._give_up_surplus()
        old = [
            key
            for key, lane in self.held.items()
            if not lane.is_closing and lane.buffered and now - lane.since > TURN
        ]
        if old and not self.room_is_left():
            others = outbox.waiting(connection, self.clock(), self.length, len(old), self.environments)
            for key in old[:others]:
                self.close(key)

    def _give_up_surplus(self) -> None:
        """Shut lanes that wait here while every sender is busy: another worker may have nothing to do."""
        concurrency, in_flight = self.state.settings.concurrency, self.scheduler.in_flight()
        surplus = in_flight + self.scheduler.startable()[0] - 2 * concurrency
        if in_flight < concurrency or surplus <= 0:
            return
        for key, lane in self.held.items():
            if surplus > 0 and lane.buffered and not lane.is_closing and not self.scheduler.in_flight(key):
                surplus -= min(len(lane.buffered), self.state.settings.subscription_concurrency)
                self.close(key)

    def room_is_left(self) -> bool:
        """Whether waiting lanes will be taken without another being given up."""
        return len(self.held) < MOST and self._is_hungry()

    def finished(self, written: t.Collection[str] = ()) -> list[str]:
        """Return the lanes to give back, supposing that these deliveries are written."""
        return [
            key
            for key, lane in self.held.items()
            if (lane.is_closing or lane.is_dry) and not (lane.buffered.keys() - written)
        ]

    def save(
        self, connection: sa.Connection, judged: t.Mapping[str, Health], closing: t.Collection[str]
    ) -> None:
        """Write how receivers are doing, where it is worth it, and give back the lanes that are done."""
        now = time.monotonic()
        rows = []
        for key in sorted({*judged, *closing}):
            lane = self.held[key]
            health = judged.get(key, lane.health)
            is_due = key in closing or now - lane.saved_at > SAVE or _is_news(lane.saved, health)
            sendable_at = self._sendable_at(key, now) if is_due else None
            if is_due and (health != lane.saved or lane.destination.rate or sendable_at is not None):
                told = {"sendable_at": sendable_at, "served_at": self.clock()}
                rows.append({"lane": key, **vars_of(health), **told})
                lane.saved, lane.saved_at = health, now
        lease = self._lease(self.clock())
        outbox.health(connection, lease, rows)
        if closing:
            outbox.give_back(connection, lease, closing)

    def _sendable_at(self, key: str, now: float) -> datetime | None:
        lane = self.held[key]
        start = max(lane.next_start, self.scheduler.next_start(key))
        if lane.destination.rate is None and start <= now:
            return None
        return self.clock() + timedelta(seconds=min(max(0.0, start - now), LONGEST_WAIT))

    def give_all_back(self, connection: sa.Connection) -> None:
        """End all leases, also those that we have not learned of."""
        ours = self.fence(connection, self.held.keys())
        self.save(connection, {}, ours)
        if self._is_in_doubt or self._unwanted:
            outbox.give_back(connection, self._lease(self.clock()), (), but=True)

    def forget(self, keys: t.Iterable[str]) -> None:
        """Drop lanes that have been given back."""
        for key in keys:
            self.scheduler.remove(key)
            del self.held[key]
