"""The run: lease lanes, read what is due, let threads send it, write the results in batches, repeat.

One thread, the *coordinator*, talks to the database; up to `CONCURRENCY` *senders* talk to receivers. They meet in
the `Rotation`, which decides whose turn it is, and in a queue of results. No connection of the pool is held and no
transaction is open while a request is under way.

A result that could not be written stays in memory and is written when the database is back, if the lane is still ours;
meanwhile nothing new is sent.
"""

from __future__ import annotations

import logging
import time
import typing as t
from dataclasses import dataclass
from datetime import datetime

from .. import dispatch
from ..rotation import Rotation
from ..stop import Stop
from . import recording
from .attempting import Result
from .lanes import REFRESH, RENEW, Lanes
from .parcels import Parcel, utcnow
from .reading import read
from .sending import Senders
from .trouble import TROUBLE, Patience

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Report", "Run"]

logger = logging.getLogger("flask_webhooks.delivering")

GRACE = 2.0
"""Seconds beyond the longest attempt that the end of a run waits for results."""
FAREWELL = 120.0
"""Seconds that the end of a run waits for a database in trouble, unless it was told to stop."""


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


class Run:
    """One worker's run. Use it once.

    :param holder: the worker's name, in the log and on its leases.
    :param stop: set by another thread or a signal handler: finish what is under way, give back the rest, return.
    :param clock: the time that is compared with the database's.
    :param renew: seconds between two renewals of the leases.
    :param refresh: seconds after which changes made elsewhere have effect at the latest.
    """

    def __init__(
        self,
        state: AppState,
        *,
        holder: str,
        stop: Stop | None = None,
        clock: t.Callable[[], datetime] = utcnow,
        renew: float = RENEW,
        refresh: float = REFRESH,
    ) -> None:
        self.state = state
        self.holder = holder
        self.stop = stop or Stop()
        self.report = Report()
        settings = state.settings
        self._clock = clock
        self._rotation: Rotation[Parcel] = Rotation(
            cap=settings.subscription_concurrency,
            concurrency=settings.concurrency,
            attempt=settings.timeout[1] + 1,
            # Results are judged in batches: a receiver that fails fast must not get hundreds of requests meanwhile.
            streak=int(settings.breaker.minimum) if settings.breaker else None,
            is_stopping=self.stop.is_set,
        )
        self._lanes = Lanes(state, holder, self._rotation, clock, renew=renew, refresh=refresh)
        self._senders = Senders(
            state, self._rotation, holder, clock, lambda key: self._lanes.held[key].destination
        )
        self._patience = Patience(holder, self.stop, state.engine)
        self._unwritten: list[Result] = []

    def run(self, *, seconds: float | None = None) -> Report:
        """Work until nothing is due, `stop` is set, or the time is up; return what was done.

        :param seconds: after which nothing new is begun; None: no limit.
        :raises SQLAlchemyError: the database has been in trouble for minutes, or is not as it should be.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while not self.stop.is_set() and (deadline is None or time.monotonic() < deadline):
                if not self._turn():
                    break
        except Exception:
            self._finish()
            raise
        # Not in a `finally`: what is no Exception, such as the second SIGTERM's SystemExit, means at once.
        self._finish()
        return self.report

    @property
    def is_ending(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._rotation.is_stopped

    @property
    def at_hand(self) -> int:
        """How many deliveries have been read and not yet written back."""
        return sum(len(lane.hands) for lane in list(self._lanes.held.values()))

    def _turn(self) -> bool:
        """One round of reading and writing; False when nothing is due."""
        try:
            if self._patience.is_tried:
                self._recover()
            self._read()
            if not self._lanes.held and not self._look_again():
                return False
            self._write()
        except TROUBLE as error:
            self._rotation.pause()
            self._patience.bear(error)
        return True

    def _recover(self) -> None:
        """The database may be back: write what waits, learn which lanes are still ours, go on."""
        self._unwritten += self._senders.gather()
        with self.state.engine.begin() as connection:
            self._lanes.adopt(connection)
            written = dispatch.logged(connection, [result.row["id"] for result in self._unwritten])
        self._record([result for result in self._unwritten if result.row["id"] not in written])
        # The connection may have broken after the COMMIT had reached the server: these are done.
        self._recorded([result for result in self._unwritten if result.row["id"] in written])
        self._settle()
        for key in self._lanes.held:
            self._rotation.release(key)
        self._patience.relax()
        self._rotation.resume()

    # ---- reading ---------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Lease lanes and read ahead, where there is room."""
        if not self.state.settings.enabled:
            return
        room = self._lanes.room()
        if not room and not self._lanes.held:
            return
        with self.state.engine.connect() as connection:
            if room:
                self._lanes.take(connection, room)
            self._lanes.take_turns(connection)
            self._lanes.refresh(connection)
            read(self._lanes, connection)
        self._patience.relax()  # also for a run before this one, which has ended meanwhile
        self._senders.hire()

    def _look_again(self) -> bool:
        """Take the bell's flag down and look a last time; what commits after that rings again."""
        self.state.bell.clear()
        self._lanes.look_at_once()
        self._read()
        return bool(self._lanes.held)

    # ---- writing ---------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Wait for results, write what has come, renew the leases, close lanes that have nothing more."""
        self._unwritten += self._senders.gather()
        if self._unwritten or self._lanes.is_renewal_due or self._lanes.finished():
            self._record(self._unwritten)
            self._settle()

    def _settle(self) -> None:
        self._unwritten.clear()
        self._senders.settle()

    def _record(self, results: t.Sequence[Result]) -> None:
        """Write results, lanes' health, and what leases end: one transaction behind the fence."""
        try:
            outcome = self._transact(results)
        except TROUBLE:
            raise
        except recording.REFUSED as error:
            self._lanes.doubt()
            if not results:
                raise
            self._record_singly(results, error)
            return
        self._recorded(results, outcome)

    def _transact(self, results: t.Sequence[Result]) -> recording.Outcome:
        closing = self._lanes.finished({result.parcel.id for result in results})
        with self.state.engine.begin() as connection:
            ours = self._lanes.fence(connection, {result.parcel.subscription_id for result in results})
            health = {key: self._lanes.held[key].health for key in ours}
            outcome = recording.write(self.state, connection, results, health)
            self._lanes.save(connection, outcome.health, closing)
        outcome.closed = closing
        return outcome

    def _record_singly(self, results: t.Sequence[Result], error: Exception) -> None:
        """Something in the batch cannot be written: it must not stop the others."""
        if len(results) > 1:
            for result in results:
                self._record([result])
        elif recording.strip(results[0], error):
            self._record(results)
        else:
            raise error

    def _recorded(self, results: t.Sequence[Result], outcome: recording.Outcome | None = None) -> None:
        """After the commit: let go of the parcels, and do what follows for their lanes."""
        for result in results:
            self._lanes.held[result.parcel.subscription_id].let_go(result.parcel)
        if outcome is None:
            return
        self.report.delivered += sum(result.ok for result in outcome.kept)
        self.report.failed += sum(not result.ok for result in outcome.kept)
        self.report.lost += len(results) - len(outcome.kept)
        for key, known in outcome.health.items():
            lane = self._lanes.held[key]
            was_probed, lane.health = lane.health.is_probed, known
            is_paused = known.paused_until is not None and known.paused_until > self._clock()
            if key in outcome.disabled or is_paused:
                self._lanes.shut(key)
            elif was_probed != known.is_probed and not lane.is_closing:
                self._lanes.restore(key, lane.destination.rate)
            self._rotation.release(key, outcome.counts[key])
        owners = {key: self._lanes.held[key].destination.recipient.owner for key in outcome.disabled}
        self._lanes.forget(outcome.closed)
        recording.announce(self.state, outcome, owners)

    # ---- the end ---------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Let what is under way end, write it, give everything back."""
        self._rotation.stop()
        for key in list(self._lanes.held):
            self._lanes.shut(key)
        now = time.monotonic()
        last = now + self.state.settings.timeout[1] + GRACE
        while not self._is_over() and time.monotonic() < last:
            try:
                self._recover() if self._patience.is_tried else self._write()
            except TROUBLE as error:
                if not self.stop.is_set():
                    last = now + FAREWELL
                self._patience.bear(error)
        self._senders.dismiss()
        self._say_goodbye()
        self._patience.leave()

    def _is_over(self) -> bool:
        return not self._unwritten and not self.at_hand

    def _say_goodbye(self) -> None:
        """Give back every lane, also those of results that were not written: they are due again at once."""
        if left := self.at_hand:
            logger.error("results.unwritten", extra={"worker": self.holder, "deliveries": left})
        try:
            with self.state.engine.begin() as connection:
                ours = self._lanes.fence(connection, self._lanes.held.keys())
                self._lanes.save(connection, {}, ours)
                dispatch.count(connection, self.holder, self.report.delivered, self.report.failed)
            with self.state.engine.connect() as connection:
                self.report.next_due = dispatch.next_due(connection, self._clock(), self._lanes.length)
        except TROUBLE as error:
            logger.warning("leases.left", extra={"worker": self.holder, "reason": str(error)})
            self.report.next_due = self._clock() + self._lanes.length
