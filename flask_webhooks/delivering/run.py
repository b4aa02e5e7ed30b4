"""The run: lease lanes, read what is due, let threads send it, write the results in batches, repeat.

One thread, the *coordinator*, talks to the database; up to `CONCURRENCY` *senders* talk to receivers. They meet in
the `Rotation`, which decides whose turn it is, and in a queue of results. No connection of the pool is held and no
transaction is open while a request is under way.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import outbox, signals
from ..health import Health, Reason
from ..ids import uuid7
from ..models import Trigger
from ..outbox import Lease, Window
from ..rotation import Rotation
from . import recording
from .attempting import Result, attempt
from .parcels import Destination, Parcel, destinations, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Report", "Run"]

logger = logging.getLogger("flask_webhooks.delivering")

LANES = 64
"""Lanes that one worker holds at most; the rest is free for other workers, and for the next turn."""
AHEAD = 1_000
"""Parcels that are read ahead, over all lanes."""
LEAST, MOST = 20, 500
"""Parcels that are read ahead for one lane."""
BYTES = 16 * 2**20
"""Bytes of messages that are read ahead: memory stays bounded whatever the messages weigh."""
BATCH = 100
"""Results that are written at once when they come fast."""
LINGER = 0.02
"""Seconds that results wait for others while more are under way."""
AGAIN = 0.25
"""Seconds between two looks for more lanes, and into a lane that was found empty while it is held."""
AUTOMATIC = Trigger.AUTOMATIC.value
TURN = 5.0
"""Seconds after which a lane is given up although it has more, if other lanes wait."""


@dataclass(slots=True)
class Report:
    """What a run has done."""

    delivered: int = 0
    failed: int = 0
    """Attempts that failed, whether or not they are retried."""
    lost: int = 0
    """Results dropped because another worker had taken the lane over."""
    next_due: datetime | None = None
    """When there is something to do again."""


@dataclass(slots=True)
class _Lane:
    """A lane that this worker holds."""

    destination: Destination
    health: Health
    since: float
    """Monotonic seconds when it was leased."""
    behind: tuple[datetime, str] | None = None
    """How far it has been read."""
    hands: set[str] = field(default_factory=set)
    """Deliveries read and not yet written back."""
    read_at: float = 0.0
    """Monotonic seconds before which it is not read again."""
    is_dry: bool = False
    """The last look found nothing more."""
    is_closing: bool = False
    """Takes nothing more; given back when nothing is under way."""


class Run:
    """One worker's run. Use it once.

    :param holder: the worker's name, in the log and on its leases.
    :param stop: set by another thread or a signal handler: finish what is under way, give back the rest, return.
    """

    def __init__(self, state: AppState, *, holder: str, stop: threading.Event | None = None) -> None:
        self.state = state
        self.holder = holder
        self.stop = stop or threading.Event()
        settings = state.settings
        # Long enough for one whole attempt and the time between two renewals; a dead worker's lanes are
        # free again within a minute unless the timeout itself is longer than that.
        self._length = timedelta(seconds=max(45.0, settings.timeout[1] * 2 + 15))
        self._renew_after = 10.0
        self._lease = Lease(holder, uuid7(), utcnow() + self._length)
        self._renewed = time.monotonic()
        self._rotation: Rotation[Parcel] = Rotation(
            cap=settings.subscription_concurrency,
            concurrency=settings.concurrency,
            attempt=settings.timeout[1] + 1,
        )
        self._lanes: dict[str, _Lane] = {}
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._bytes = 0
        self._look_at = 0.0
        self.report = Report()

    def run(self, *, seconds: float | None = None) -> Report:
        """Work until nothing is due, `stop` is set, or the time is up; return what was done.

        :param seconds: after which nothing new is begun; None: no limit.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while not self.stop.is_set() and (deadline is None or time.monotonic() < deadline):
                self._fill()
                if not self._lanes and not self._look_again():
                    break
                self._collect()
        finally:
            self._finish()
        return self.report

    # ---- reading ---------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Lease lanes and read ahead, where there is room."""
        if not self.state.settings.enabled or self._rotation.queued() >= AHEAD // 2:
            return
        room = self._room()
        if not room and not self._windows():
            return
        with self.state.engine.connect() as connection:
            if room:
                self._take_lanes(connection, room)
            self._refill(connection)
        self._hire()

    def _room(self) -> int:
        """How many more lanes to lease now; while some are held that is looked at four times a second."""
        now = time.monotonic()
        if self._lanes and now < self._look_at:
            return 0
        self._look_at = now + AGAIN
        return LANES - len(self._lanes)

    def _take_lanes(self, connection: sa.Connection, room: int) -> None:
        now = utcnow()
        lease = Lease(self.holder, self._lease.token, now + self._length)
        rows = outbox.lease(connection, lease, now, room)
        connection.commit()
        if not rows:
            return
        opened = destinations(self.state, connection, [row.subscription_id for row in rows], now)
        until = time.monotonic() + self._length.total_seconds()
        for row in rows:
            destination = opened.get(row.subscription_id)
            if destination is None or not destination.active:
                self._turn_away(connection, row.subscription_id, destination)
                continue
            self._open(row, destination, until)

    def _open(self, row: sa.Row[t.Any], destination: Destination, until: float) -> None:
        health = Health(**{name: getattr(row, name) for name in Health.__dataclass_fields__})
        self._lanes[row.subscription_id] = _Lane(destination, health, time.monotonic())
        self._rotation.add(
            row.subscription_id,
            (),
            lease_until=until,
            rate=destination.rate,
            suspect=health.is_suspect,
            cap=1 if health.is_probed else None,
        )

    def _turn_away(self, connection: sa.Connection, key: str, destination: Destination | None) -> None:
        """Deal with work that was recorded while its subscription was being switched off or removed."""
        connection.rollback()
        if destination is None or destination.removed:
            outbox.cancel_all(connection, key, "removed", utcnow())
        else:
            outbox.hold(connection, key, "off")
        outbox.give_back(connection, self._lease, [key])
        connection.commit()

    def _refill(self, connection: sa.Connection) -> None:
        """Read ahead for the lanes that are about to run out of parcels."""
        windows = self._windows()
        if not windows:
            return
        found = outbox.heads(connection, windows, utcnow())
        again = time.monotonic() + AGAIN
        for key, rows in found.items():
            lane = self._lanes[key]
            lane.is_dry = len(rows) < windows[key].most
            lane.read_at = again if lane.is_dry else 0.0
            if rows:
                lane.behind = (rows[-1].due_at, rows[-1].id)
            if lane.is_dry:
                lane.behind = None  # what commits late can be due earlier than what was read: begin anew
        fresh = [
            row
            for rows in found.values()
            for row in rows
            if row.id not in self._lanes[row.subscription_id].hands
        ]
        self._take_parcels(connection, fresh)

    def _windows(self) -> dict[str, Window]:
        """Which lanes to read on, and how far. A lane that is being probed gets one parcel at a time."""
        share = min(MOST, max(LEAST, AHEAD // max(1, len(self._lanes))))
        now = time.monotonic()
        windows = {}
        for key, lane in self._lanes.items():
            if lane.is_closing or now < lane.read_at or self._rotation.queued(key) > share // 4:
                continue
            if not lane.health.is_probed:
                windows[key] = Window(share + (0 if lane.behind else len(lane.hands)), lane.behind)
            elif not lane.hands:
                windows[key] = Window(1)
        return windows

    def _take_parcels(self, connection: sa.Connection, rows: t.Sequence[sa.Row[t.Any]]) -> None:
        chosen: list[sa.Row[t.Any]] = []
        room = BYTES - self._bytes
        for row in rows:
            room -= row.size or 0
            if room < 0 and chosen:
                self._cut(rows[len(chosen) :])
                break
            chosen.append(row)
        messages = outbox.messages(connection, {row.message_id for row in chosen})
        bodies = outbox.bodies(connection, [row.id for row in chosen if row.attempts or row.trigger != AUTOMATIC])
        by_lane: dict[str, list[Parcel]] = {}
        for row in chosen:
            parcel = Parcel(
                id=row.id,
                subscription_id=row.subscription_id,
                number=row.attempts + 1,
                trigger=row.trigger,
                format=row.format,
                includes=frozenset(row.includes.split(",")) if row.includes else frozenset(),
                message=messages.get(row.message_id),
                body=bodies.get(row.id),
            )
            by_lane.setdefault(row.subscription_id, []).append(parcel)
            self._bytes += row.size or 0
        for key, parcels in by_lane.items():
            self._lanes[key].hands.update(parcel.id for parcel in parcels)
            self._rotation.extend(key, parcels)

    def _cut(self, rows: t.Sequence[sa.Row[t.Any]]) -> None:
        """Forget that these were read: they will be read again when there is room."""
        for row in rows:
            lane = self._lanes[row.subscription_id]
            lane.behind, lane.is_dry = None, False

    def _look_again(self) -> bool:
        """Take the bell's flag down and look a last time; what commits after that rings again."""
        self.state.bell.clear()
        self._look_at = 0.0
        self._fill()
        return bool(self._lanes)

    # ---- sending ---------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Start senders as there is work for them; they stay until the run ends."""
        wanted = min(self.state.settings.concurrency, self._rotation.queued() + self._rotation.in_flight())
        while len(self._threads) < wanted:
            thread = threading.Thread(target=self._send, name=f"webhooks-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _send(self) -> None:
        while not self._closing:
            parcel = self._rotation.wait_take(time.monotonic, 1.0)
            if parcel is None:
                continue
            lane = self._lanes[parcel.subscription_id]
            try:
                result = attempt(self.state, lane.destination, parcel, self.holder)
            except Exception:
                # Nothing is written: the delivery stays due and is taken again after the lease.
                logger.exception("delivery.crashed", extra={"delivery_id": parcel.id})
                self._rotation.done(parcel.subscription_id, ok=False, seconds=0.0, now=time.monotonic())
                continue
            self._rotation.done(
                parcel.subscription_id,
                ok=result.ok,
                seconds=result.seconds,
                now=time.monotonic(),
                suspect=result.is_unreachable,
            )
            self._results.put(result)

    # ---- writing ---------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Wait for results, write what has come, renew the leases, close lanes that have nothing more."""
        results = self._gather()
        if results:
            self._record(results)
        elif time.monotonic() - self._renewed > self._renew_after:
            with self.state.engine.begin() as connection:
                self._fence(connection, self._lanes)
        self._close_lanes()

    def _gather(self) -> list[Result]:
        results: list[Result] = []
        try:
            results.append(self._results.get(timeout=0.05))
            until = time.monotonic() + LINGER
            while len(results) < BATCH and self._rotation.queued() + self._rotation.in_flight():
                results.append(self._results.get(timeout=max(0.0, until - time.monotonic())))
        except queue.Empty:
            pass
        while len(results) < 5 * BATCH:
            try:
                results.append(self._results.get_nowait())
            except queue.Empty:
                break
        return results

    def _record(self, results: t.Sequence[Result]) -> None:
        by_lane: dict[str, list[Result]] = {}
        for result in results:
            by_lane.setdefault(result.parcel.subscription_id, []).append(result)
        disabled: dict[str, Reason] = {}
        with self.state.engine.begin() as connection:
            ours = self._fence(connection, by_lane)
            kept = [result for result in results if result.parcel.subscription_id in ours]
            recording.write(connection, kept)
            rows = []
            for key in ours & by_lane.keys():
                lane = self._lanes[key]
                lane.health, reason = recording.judge(self.state, lane.health, by_lane[key])
                rows.append(recording.health_row(key, lane.health))
                if reason is not None:
                    disabled[key] = reason
            outbox.health(connection, rows)
            for key, reason in disabled.items():
                recording.disable(connection, key, reason)
        self._recorded(results, kept, by_lane, disabled)

    def _fence(self, connection: sa.Connection, keys: t.Collection[str]) -> set[str]:
        """Renew the leases; lanes that were taken over are dropped."""
        self._lease = Lease(self.holder, self._lease.token, utcnow() + self._length)
        until = time.monotonic() + self._length.total_seconds()
        if time.monotonic() - self._renewed > self._renew_after:
            keys = self._lanes
            self._renewed = time.monotonic()
        ours = outbox.held_by(connection, self._lease, keys)
        for key in keys:
            if key in ours:
                self._rotation.renew(key, until) if not self._lanes[key].is_closing else None
            elif key in self._lanes:
                logger.warning("lane.taken_over", extra={"subscription": key, "worker": self.holder})
                self._shut(key)
        return ours

    def _recorded(
        self,
        results: t.Sequence[Result],
        kept: t.Sequence[Result],
        by_lane: t.Mapping[str, t.Sequence[Result]],
        disabled: t.Mapping[str, Reason],
    ) -> None:
        for result in results:
            lane = self._lanes[result.parcel.subscription_id]
            lane.hands.discard(result.parcel.id)
            self._bytes -= result.parcel.message.size if result.parcel.message is not None else 0
        self.report.delivered += sum(result.ok for result in kept)
        self.report.failed += sum(not result.ok for result in kept)
        self.report.lost += len(results) - len(kept)
        for key in by_lane:
            lane = self._lanes[key]
            is_paused = lane.health.paused_until is not None and lane.health.paused_until > utcnow()
            if key in disabled or is_paused:
                self._shut(key)
            elif not lane.is_closing and by_lane[key][-1].ok:
                self._rotation.add(
                    key,
                    (),
                    lease_until=time.monotonic() + self._length.total_seconds(),
                    rate=lane.destination.rate,
                )
        recording.announce(self.state, kept)
        for key, reason in disabled.items():
            owner = self._lanes[key].destination.recipient.owner
            signals.send(
                signals.subscription_disabled,
                self.state.app,
                subscription_id=key,
                owner=owner,
                reason=reason.value,
            )

    def _shut(self, key: str) -> None:
        """Take nothing more from a lane; what was read and not begun stays due in the database."""
        lane = self._lanes[key]
        lane.is_closing = True
        for parcel in self._rotation.remove(key):
            lane.hands.discard(parcel.id)
            self._bytes -= parcel.message.size if parcel.message is not None else 0

    def _close_lanes(self) -> None:
        """Give back the lanes that have nothing more, and those that had their turn while others wait."""
        now = time.monotonic()
        if len(self._lanes) >= LANES:
            for key, lane in self._lanes.items():
                if not lane.is_closing and now - lane.since > TURN:
                    self._shut(key)
        done = [
            key
            for key, lane in self._lanes.items()
            if not lane.hands and (lane.is_closing or (lane.is_dry and not self._rotation.queued(key)))
        ]
        if not done:
            return
        with self.state.engine.begin() as connection:
            outbox.give_back(connection, self._lease, done)
        for key in done:
            self._rotation.remove(key)
            del self._lanes[key]

    def _finish(self) -> None:
        """Let what is under way end, write it, give everything back."""
        self._rotation.stop()
        for key in list(self._lanes):
            self._shut(key)
        deadline = time.monotonic() + self.state.settings.timeout[1] + 2
        while any(lane.hands for lane in self._lanes.values()) and time.monotonic() < deadline:
            results = self._gather()
            if results:
                self._record(results)
        self._closing = True
        with self.state.engine.begin() as connection:
            outbox.give_back(connection, self._lease)
        with self.state.engine.connect() as connection:
            self.report.next_due = outbox.next_due(connection)
        for thread in self._threads:
            thread.join(timeout=2.0)
