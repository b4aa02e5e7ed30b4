"""The run: lease lanes, read what is due, let threads send it, write the results in batches, repeat.

One thread, the *coordinator*, talks to the database; up to `CONCURRENCY` *senders* talk to receivers. They meet in
the `FairScheduler`, which decides whose turn it is, and in a queue of results. No connection of the pool is held and no
transaction is open while a request is under way.
"""

from __future__ import annotations

import logging
import time
import typing as t
from datetime import datetime

from .. import outbox
from ..shutdown import ShutdownFlag
from .completer import Completer, Report
from .held_lane import Scheduler
from .lanes import REFRESH, RENEW, Lanes
from .outage import TRANSIENT_ERRORS, OutageBackoff, first_line
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
"""Seconds that the end of a run waits for a database that cannot be reached, unless `stop` is set."""
SLOW = 1.0
"""Seconds from which on an attempt under way is slow: a run whose time is up does not make the others wait for it."""


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
        self._scheduler: Scheduler = FairScheduler(
            cap=settings.subscription_concurrency,
            concurrency=settings.concurrency,
            attempt=settings.timeout[1] + 1,
            # Results are recorded in batches: a receiver that fails fast must not get hundreds of requests meanwhile.
            streak=int(settings.breaker.minimum) if settings.breaker else None,
            is_stopping=self.stop.is_set,
        )
        self._lanes = Lanes(state, holder, self._scheduler, clock, renew=renew, refresh=refresh)
        self._senders = Senders(state, self._scheduler, holder, clock)
        self._completer = Completer(state, self._lanes, self._senders, self.report)
        self._backoff = OutageBackoff(holder, self.stop, state.engine)
        self._is_draining = False

    def run(self, *, seconds: float | None = None) -> Report:
        """Work until nothing is due, `stop` is set, or the time is up; return what was done.

        :param seconds: after which the run ends as soon as no attempt under way is cut short by that; None: no limit.
        :raises SQLAlchemyError: the database could not be reached for minutes, or is not as it should be.
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
        return self._lanes.buffered

    def _work(self, seconds: float | None) -> bool:
        """Work until nothing is due; False when the time was up before."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.stop.is_set():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not self._cycle():
                break
        return True

    def _cycle(self) -> bool:
        """Read, send, complete, once; False when nothing is due."""
        try:
            if self._backoff.is_outage:
                self._recover()
            if not self._read():
                return False
            self._senders.send()
            if self._lanes.held:
                self._completer.complete()
        except TRANSIENT_ERRORS as error:
            # Nothing new is sent whose result could not be written.
            self._scheduler.pause()
            self._backoff.wait(error)
        return True

    def _recover(self) -> None:
        """The database may be back: write what waits, learn which lanes are still ours, go on."""
        self._completer.recover()
        self._backoff.reset()
        self._scheduler.resume()

    def _read(self) -> bool:
        """Lease lanes and read ahead; return whether there is anything to do."""
        self._read_ahead()
        if not self._lanes.has_work:
            # The bell's flag goes down before the last look: what commits after that look rings again.
            self.state.bell.clear()
            self._lanes.search.look_at_once()
            self._read_ahead()
        return self._lanes.has_work

    def _read_ahead(self) -> None:
        """Lease lanes and read on in those that are held, where there is room."""
        if not self.state.settings.enabled:
            return
        lanes = self._lanes
        room = lanes.search.room(len(lanes.held))
        if not room and not lanes.has_work:
            return
        with outbox.autocommit(self.state.own_engine) as connection:
            lanes.set_clock(connection)
            if room:
                lanes.take(connection, room)
            lanes.take_turns(connection)
            lanes.refresh(connection)
            read(lanes, connection)
        lanes.withdrawals.write()
        self._backoff.reset()  # also for a run before this one, which has ended meanwhile

    # ---- the end ---------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Go on for those that answer quickly, until no attempt is under way that the end would have to wait for.

        Meanwhile receivers that were slow are left for the next run. Those it knows nothing of may begin at first; if
        one of them hangs, not even those, so that this ends however many new ones there are.
        """
        self._is_draining = True
        longest = self.state.settings.timeout[1] + GRACE
        for probation in (Probation.SUSPECT, Probation.NEW):
            self._scheduler.block(probation)
            until = time.monotonic() + longest
            while not self.stop.is_set() and time.monotonic() < until:
                if self._is_quiet() or not self._cycle():
                    return

    def _is_quiet(self) -> bool:
        """Whether nothing is under way; tried where that is likely, and given up before a receiver has to wait."""
        slow = self._senders.slow(SLOW)
        self._lanes.avoid(slow)
        if slow or self._backoff.is_outage:
            return False
        self._scheduler.pause()
        until = time.monotonic() + SLOW
        while self._scheduler.in_flight and time.monotonic() < until:
            self._completer.gather()
        if self._scheduler.in_flight:
            self._scheduler.resume()
            return False
        return True

    def _finish(self) -> None:
        """Let what is under way end, write it, give everything back."""
        try:
            self._write_rest()
        except Exception:  # of ours: the lanes must not be kept from others for it
            self._give_back()
            raise
        self._senders.join()
        self._give_back()
        self._backoff.leave()

    def _write_rest(self) -> None:
        self._scheduler.stop()
        self._lanes.close_all()
        now = time.monotonic()
        last = now + self.state.settings.timeout[1] + GRACE
        while (self._completer.unwritten or self.at_hand) and time.monotonic() < last:
            try:
                self._recover() if self._backoff.is_outage else self._completer.complete()
            except TRANSIENT_ERRORS as error:
                if not self.stop.is_set():
                    last = now + FAREWELL
                self._backoff.wait(error)

    def _give_back(self) -> None:
        """Give back every lane, also those of results that were not written: they are due again at once."""
        if left := self.at_hand:
            logger.error("results.unwritten", extra={"worker": self.holder, "deliveries": left})
        lanes, report = self._lanes, self.report
        try:
            with self.state.own_engine.begin() as connection:
                lanes.give_all_back(connection)
                self._completer.count(connection)
            with self.state.own_engine.connect() as connection:
                lanes.set_clock(connection)
                report.next_due = outbox.next_due(connection, self._clock(), lanes.length, lanes.environments)
        except TRANSIENT_ERRORS as error:
            logger.warning("leases.left", extra={"worker": self.holder, "reason": first_line(error)})
            report.next_due = self._clock() + lanes.length
        if report.next_due is not None:
            report.next_in = (report.next_due - self._clock()).total_seconds()
