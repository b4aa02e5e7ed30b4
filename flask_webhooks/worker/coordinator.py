"""The run: lease lanes, read what is due, let threads send it, write the results in batches, repeat.

One thread, the *coordinator*, talks to the database; up to `CONCURRENCY` *senders* talk to receivers. They meet in
the `FairScheduler`, which decides whose turn it is, and in a queue of results. No connection of the pool is held and no
transaction is open while a request is under way.

A result that could not be written stays in memory and is written when the database is back, if the lane is still ours;
meanwhile nothing new is sent.
"""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from .. import outbox, signals
from ..delivery import AttemptResult, DeliveryTask
from ..shutdown import ShutdownFlag
from . import completer
from .lanes import REFRESH, RENEW, Lanes
from .outage import TRANSIENT_ERRORS, OutageBackoff, first_line, is_cut_short
from .prefetch import read
from .scheduler import FairScheduler, Probation
from .senders import Senders

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Coordinator", "Report"]

logger = logging.getLogger("flask_webhooks.delivering")

GRACE = 2.0
"""Seconds beyond the longest attempt that the end of a run waits for results."""
FAREWELL = 120.0
"""Seconds that the end of a run waits for a database in trouble, unless it was told to stop."""
SLOW = 1.0
"""Seconds from which on an attempt under way is slow: a run whose time is up does not make the others wait for it."""
AGED = 2.0
"""Seconds from which on an attempt under way makes its lane a slow one."""


@dataclass(slots=True)
class Report:
    """What a run has done."""

    delivered: int = 0
    failed: int = 0
    """Attempts that failed, whether or not they are retried."""
    lost: int = 0
    """Results dropped because another worker had taken the lane over."""
    next_due: datetime | None = None
    """When there is something to do again, by the database's clock."""
    next_in: float | None = None
    """Seconds until then when the run ended; below zero: it is overdue."""


def _due(task: DeliveryTask) -> tuple[datetime, str]:
    return task.due_at or datetime.min.replace(tzinfo=UTC), task.id


class Coordinator:
    """One worker's run. Use it once.

    :param holder: the worker's name, in the log and on its leases.
    :param stop: set by another thread or a signal handler: finish what is under way, give back the rest, return.
    :param clock: the time that is compared with the database's; None: the database's own.
    :param renew: seconds between two renewals of the leases.
    :param refresh: seconds after which changes made elsewhere have effect at the latest.
    """

    def __init__(
        self,
        state: AppState,
        *,
        holder: str,
        stop: ShutdownFlag | None = None,
        clock: t.Callable[[], datetime] | None = None,
        renew: float = RENEW,
        refresh: float = REFRESH,
    ) -> None:
        self.state = state
        self.holder = holder
        self.stop = stop or ShutdownFlag()
        self.report = Report()
        settings = state.settings
        self._clock = clock = clock or outbox.Clock()
        self._scheduler: FairScheduler[DeliveryTask] = FairScheduler(
            cap=settings.subscription_concurrency,
            concurrency=settings.concurrency,
            attempt=settings.timeout[1] + 1,
            # Results are judged in batches: a receiver that fails fast must not get hundreds of requests meanwhile.
            streak=int(settings.breaker.minimum) if settings.breaker else None,
            is_stopping=self.stop.is_set,
        )
        self._lanes = Lanes(state, holder, self._scheduler, clock, renew=renew, refresh=refresh)
        self._senders = Senders(
            state, self._scheduler, holder, clock, lambda key: self._lanes.held[key].destination
        )
        self._backoff = OutageBackoff(holder, self.stop, state.engine)
        self._unwritten: list[AttemptResult] = []
        self._doubted: tuple[t.Sequence[AttemptResult], completer.BatchResult] | None = None
        """What a transaction has written whose COMMIT has not been acknowledged."""
        self._told = 0, 0
        """What the worker's row has been told to be delivered and failed."""
        self._is_draining = False
        self._aged_at = 0.0

    def run(self, *, seconds: float | None = None) -> Report:
        """Work until nothing is due, `stop` is set, or the time is up; return what was done.

        :param seconds: after which the run ends as soon as nobody notices it; None: no limit.
        :raises SQLAlchemyError: the database has been in trouble for minutes, or is not as it should be.
        """
        try:
            if not self._work(seconds):
                self._drain()
        except Exception:
            self._finish()
            raise
        # Not in a `finally`: what is no Exception, such as the second SIGTERM's SystemExit, means at once.
        self._finish()
        return self.report

    @property
    def is_draining(self) -> bool:
        """Whether the time is up, and only what is slow is waited for."""
        return self._is_draining

    @property
    def is_ending(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._scheduler.is_stopped

    @property
    def at_hand(self) -> int:
        """How many deliveries have been read and not yet written back."""
        return sum(len(lane.buffered) for lane in list(self._lanes.held.values()))

    def _work(self, seconds: float | None) -> bool:
        """Work until nothing is due; False when the time was up before."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.stop.is_set():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not self._turn():
                break
        return True

    def _turn(self) -> bool:
        """One round of reading and writing; False when nothing is due."""
        try:
            if self._backoff.is_outage:
                self._recover()
            self._note_slow()
            self._read()
            if not self._has_work and not self._look_again():
                return False
            if self._lanes.held:
                self._write()
        except TRANSIENT_ERRORS as error:
            self._scheduler.pause()
            self._backoff.wait(error)
        return True

    def _note_slow(self) -> None:
        """Take lanes for slow whose attempt has not ended yet, but has taken as long."""
        now = time.monotonic()
        if now >= self._aged_at:
            self._aged_at = now + AGED / 8
            if slow := self._senders.slow(AGED):
                self._scheduler.suspect(slow)

    @property
    def _has_work(self) -> bool:
        return bool(self._lanes.held) or self._lanes.is_turning_away

    def _recover(self) -> None:
        """The database may be back: write what waits, learn which lanes are still ours, go on."""
        self._unwritten += self._senders.gather()
        with self.state.own_engine.begin() as connection:
            self._set_clock(connection)
            committed = self._committed(connection)
            self._lanes.adopt(connection)
        self._doubted = None
        if committed is not None:
            self._recorded(*committed)
        self._record(self._unwritten)
        self._senders.settle()
        for key in self._lanes.held:
            self._scheduler.release(key)
        self._backoff.reset()
        self._scheduler.resume()

    def _committed(
        self, connection: sa.Connection
    ) -> tuple[t.Sequence[AttemptResult], completer.BatchResult] | None:
        """Return what was written if the connection broke only after the COMMIT had reached the server."""
        if self._doubted is None:
            return None
        outcome = self._doubted[1]
        written = [result.row["id"] for result in outcome.kept if result.is_logged]
        if not outbox.logged(connection, written):
            return None
        for key in outcome.closed:
            self._lanes.held[key].is_closing = True
        # The health that was judged then is in the database, or what somebody else has written over it since.
        outcome.health.clear()
        return self._doubted

    # ---- reading ---------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Lease lanes and read ahead, where there is room."""
        if not self.state.settings.enabled:
            return
        room = self._lanes.room()
        if not room and not self._has_work:
            return
        with outbox.autocommit(self.state.own_engine) as connection:
            self._set_clock(connection)
            if room:
                self._lanes.take(connection, room)
            self._lanes.take_turns(connection)
            self._lanes.refresh(connection)
            read(self._lanes, connection)
        self._lanes.cancel_deselected()
        self._lanes.turn_away()
        self._backoff.reset()  # also for a run before this one, which has ended meanwhile
        self._senders.start()

    def _set_clock(self, connection: sa.Connection) -> None:
        if isinstance(self._clock, outbox.Clock):
            self._clock.set(connection)

    def _look_again(self) -> bool:
        """Take the bell's flag down and look a last time; what commits after that rings again."""
        self.state.bell.clear()
        self._lanes.look_at_once()
        self._read()
        return self._has_work

    # ---- writing ---------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Wait for results, write what has come, renew the leases, close lanes that have nothing more."""
        self._unwritten += self._senders.gather()
        if self._unwritten or self._lanes.is_renewal_due or self._lanes.finished():
            self._record(self._unwritten)
            self._senders.settle()

    def _record(self, results: t.Sequence[AttemptResult]) -> None:
        """Write results, lanes' health, and what leases end: one transaction behind the fence."""
        try:
            outcome = self._transact(results)
        except TRANSIENT_ERRORS as error:
            if len(results) < 2 or not is_cut_short(error):
                raise
            self._record_halves(results)
            return
        except completer.VALUE_ERRORS as error:
            self._lanes.doubt()
            if not results:
                raise
            self._record_singly(results, error)
            return
        self._recorded(results, outcome)

    def _transact(self, results: t.Sequence[AttemptResult]) -> completer.BatchResult:
        closing = self._lanes.finished({result.task.id for result in results})
        lanes = {result.task.subscription_id for result in results}
        told, is_renewal_due = self._told, self._lanes.is_renewal_due
        with self.state.own_engine.begin() as connection:
            ours = self._lanes.fence(connection, lanes.union(closing))
            health = {key: self._lanes.held[key].health for key in ours}
            bursts = {key: self._lanes.burst_of(key) for key in ours}
            outcome = completer.write(self.state, connection, results, health, bursts)
            self._lanes.wait(results)
            self._lanes.save(connection, outcome.health, closing)
            if is_renewal_due:
                told = self._count(connection)
            outcome.closed = closing
            self._doubted = tuple(results), outcome
        self._doubted, self._told = None, told
        return outcome

    def _record_halves(self, results: t.Sequence[AttemptResult]) -> None:
        """The database had no time for so many at once: whole, they would be tried for ever."""
        self._lanes.doubt()
        self._doubted = None  # cut short by the server, which has undone it
        middle = len(results) // 2
        self._record(results[:middle])
        self._record(results[middle:])

    def _record_singly(self, results: t.Sequence[AttemptResult], error: Exception) -> None:
        """Something in the batch cannot be written: it must not stop the others."""
        self._doubted = None
        if len(results) > 1:
            for result in results:
                self._record([result])
        elif completer.drop_unstorable(results[0], error):
            self._record(results)
        else:
            raise error

    def _recorded(self, results: t.Sequence[AttemptResult], outcome: completer.BatchResult) -> None:
        """After the commit: let go of the tasks, and do what follows for their lanes."""
        done = {result.task.id for result in results}
        self._unwritten = [result for result in self._unwritten if result.task.id not in done]
        for result in results:
            self._lanes.put_away(result)
        # Backwards, so that what was due first is the first again.
        for task in sorted((each.task for each in results if each.is_deferred), key=_due, reverse=True):
            self._lanes.put_back(task)
        self.report.delivered += sum(result.ok for result in outcome.kept)
        self.report.failed += sum(
            not (result.ok or result.is_called_off or result.is_deferred) for result in outcome.kept
        )
        self.report.lost += len(results) - sum(outcome.counts.values())
        for key, known in outcome.health.items():
            self._lanes.learn(key, known)
        for key, count in outcome.counts.items():
            if key in outcome.disabled:
                self._lanes.switched_off(key)
            elif self._lanes.held[key].health.is_paused(self._clock()):
                self._lanes.close(key)
            self._scheduler.release(key, count)
        owners = {key: self._lanes.held[key].destination.recipient.owner for key in outcome.disabled}
        self._lanes.forget(outcome.closed)
        # In a context of its own: what receivers do with `db.session` ends with it.
        with self.state.app.app_context() if signals.is_anybody() else contextlib.nullcontext():
            completer.send_signals(self.state, outcome, owners)

    def _count(self, connection: sa.Connection) -> tuple[int, int]:
        """Add what has been done since the last time to the worker's row; return what it has been told."""
        delivered, failed = self.report.delivered, self.report.failed
        outbox.count(connection, self.holder, delivered - self._told[0], failed - self._told[1])
        return delivered, failed

    # ---- the end ---------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Go on for those that answer quickly, until nobody has to wait for an attempt under way.

        Meanwhile receivers that were slow are left for the next run. Those it knows nothing of may begin at first; if
        one of them hangs, not even those, so that this ends whoever comes.
        """
        self._is_draining = True
        longest = self.state.settings.timeout[1] + GRACE
        for standing in (Probation.SUSPECT, Probation.NEW):
            self._scheduler.block(standing)
            until = time.monotonic() + longest
            while not self.stop.is_set() and time.monotonic() < until:
                if self._is_quiet() or not self._turn():
                    return

    def _is_quiet(self) -> bool:
        """Whether nothing is under way; tried where that is likely, and given up before anybody notices."""
        slow = self._senders.slow(SLOW)
        self._lanes.avoid(slow)
        if slow or self._backoff.is_outage:
            return False
        self._scheduler.pause()
        until = time.monotonic() + SLOW
        while self._scheduler.in_flight() and time.monotonic() < until:
            self._unwritten += self._senders.gather()
        if self._scheduler.in_flight():
            self._scheduler.resume()
            return False
        return True

    def _finish(self) -> None:
        """Let what is under way end, write it, give everything back."""
        try:
            self._write_rest()
        except Exception:  # of ours: the lanes must not be kept from others for it
            self._say_goodbye()
            raise
        self._senders.join()
        self._say_goodbye()
        self._backoff.leave()

    def _write_rest(self) -> None:
        self._scheduler.stop()
        for key in list(self._lanes.held):
            self._lanes.close(key)
        now = time.monotonic()
        last = now + self.state.settings.timeout[1] + GRACE
        while not self._is_over() and time.monotonic() < last:
            try:
                self._recover() if self._backoff.is_outage else self._write()
            except TRANSIENT_ERRORS as error:
                if not self.stop.is_set():
                    last = now + FAREWELL
                self._backoff.wait(error)

    def _is_over(self) -> bool:
        return not self._unwritten and not self.at_hand

    def _say_goodbye(self) -> None:
        """Give back every lane, also those of results that were not written: they are due again at once."""
        if left := self.at_hand:
            logger.error("results.unwritten", extra={"worker": self.holder, "deliveries": left})
        try:
            with self.state.own_engine.begin() as connection:
                self._lanes.give_all_back(connection)
                self._count(connection)
            with self.state.own_engine.connect() as connection:
                self._set_clock(connection)
                self.report.next_due = outbox.next_due(
                    connection, self._clock(), self._lanes.length, self._lanes.environments
                )
        except TRANSIENT_ERRORS as error:
            logger.warning("leases.left", extra={"worker": self.holder, "reason": first_line(error)})
            self.report.next_due = self._clock() + self._lanes.length
        if self.report.next_due is not None:
            self.report.next_in = (self.report.next_due - self._clock()).total_seconds()
