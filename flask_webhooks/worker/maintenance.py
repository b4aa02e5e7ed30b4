"""What a worker process does apart from its jobs: heartbeat, sweep, purge.

RQ's worker waits for the bell in the main thread. The thread of this module does what must not depend on a bell: it
writes that the worker lives, finds deliveries that fell due (retries, or wake-ups that Redis lost) and rings for them,
delivers by itself while Redis cannot be reached, reconciles deliveries with the switch of their subscription, and
purges what is past its retention.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from datetime import UTC, datetime, timedelta

from .. import outbox, replay
from ..shutdown import ShutdownFlag
from .coordinator import Coordinator
from .lanes import lease_length
from .outage import TRANSIENT_ERRORS, OutageBackoff, first_line

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Maintenance", "is_stalled", "reconcile_all"]

logger = logging.getLogger("flask_webhooks.working")

INTERVAL = 2.0
"""Seconds between two looks at most: a wake-up that Redis lost is noticed after that."""
HEARTBEAT = 15.0
"""Seconds between two heartbeats."""
RECONCILE = 30.0
"""Seconds between two looks for deliveries that do not fit how their subscription is switched."""
RECONCILING = 1.0
"""Seconds that this may hold up a cycle, and a portion more; what is left then waits for the next cycle."""
PURGE = 3600.0
"""Seconds between two purges."""
PURGING = 1.0
"""Seconds that a purge may hold up a cycle, and a batch more; what is left then waits for the next cycle."""


class Maintenance:
    """A thread that looks after one worker. Use it as a context manager.

    :param stop: the worker's own, so that a signal also ends what is delivered from here; set at the latest by leaving.
    :param wakes: also look for what is due, and wake a worker for it.
    :param wake: how: the engine of this process; None: by the bell, or by delivering here while Redis is away.
    :param purging: seconds that a cycle purges.
    """

    def __init__(
        self,
        state: AppState,
        worker: str,
        *,
        stop: ShutdownFlag | None = None,
        interval: float = INTERVAL,
        wakes: bool = True,
        wake: t.Callable[[], None] | None = None,
        purging: float = PURGING,
    ) -> None:
        self.state, self.worker, self.interval, self.wakes = state, worker, interval, wakes
        self.stop, self.wake = stop or ShutdownFlag(), wake
        self._thread = threading.Thread(target=self._run, name="webhooks-sweep", daemon=True)
        self._heartbeat_at = self._reconcile_at = self._purge_at = float("-inf")
        self._lease = lease_length(state.settings.timeout[1])
        self._backoff = OutageBackoff(worker, self.stop, state.engine)
        self._leads, self._purging, self._purged = False, purging, 0

    def __enter__(self) -> Maintenance:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop.set()
        if kind is not None and not issubclass(kind, Exception):
            return  # a second signal means at once; the heartbeat lapses
        self._thread.join(timeout=30.0)
        try:
            with self.state.own_engine.begin() as connection:
                outbox.unregister(connection, self.worker)
        except TRANSIENT_ERRORS as error:
            logger.warning(
                "worker.sign_off_failed", extra={"worker": self.worker, "reason": first_line(error)}
            )

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                self.cycle(time.monotonic())
                self._backoff.reset()
                self.stop.wait(self.interval)
            except TRANSIENT_ERRORS as error:
                self._backoff.wait(error, forever=True)
            except Exception:
                # The thread must not end: without it nothing that fell due, or was lost by Redis, would be found.
                logger.exception("sweep.failed", extra={"worker": self.worker})
                self.stop.wait(self.interval * 5)

    def cycle(self, now: float) -> None:
        """Do what is to be done at this moment of the monotonic clock."""
        if now - self._heartbeat_at >= HEARTBEAT:
            self._write_heartbeat()
            self._heartbeat_at = now
        is_due = now - self._reconcile_at >= RECONCILE
        if is_due and reconcile_all(self.state, self.stop, seconds=RECONCILING):
            self._reconcile_at = now
        if self.state.settings.enabled and self.wakes:
            replay.enqueue_batches(self.state)
            self._wake()
        if self._leads and now - self._purge_at >= PURGE and self._purge():
            self._purge_at = now

    def _write_heartbeat(self) -> None:
        """Write that the worker lives, and see which others do."""
        with self.state.own_engine.begin() as connection:
            # The database's clock: those of the machines may differ by more than a heartbeat.
            now = outbox.now(connection)
            outbox.heartbeat(connection, self.worker, now)
            alive = [row.name for row in outbox.workers(connection) if not is_stalled(row.seen_at, now)]
        # One purges for all, the first by name: several would wait for each other's locks.
        self._leads = self.worker == min(alive)

    def _wake(self) -> None:
        with self.state.own_engine.connect() as connection:
            now = outbox.now(connection)
            due = outbox.next_due(connection, now, self._lease, self.state.settings.sent_environments)
        if due is None:
            return
        # What falls due before the next look is waited for here: a first retry would come up to an interval too late.
        ahead = (due - now).total_seconds()
        if ahead >= self.interval or self.stop.wait(max(0.0, ahead)):
            return
        if self.wake is not None:  # the senders run in this process: no detour over Redis
            self.wake()
        elif not self.state.bell.ring() and not self.stop.is_set():
            # Redis is away, so that no worker can be woken.
            Coordinator(self.state, holder=f"{self.worker}:sweep", stop=self.stop).run(seconds=10.0)

    def _purge(self) -> bool:
        """Delete what is past its retention, as much as there is time for; return whether that was all."""
        now, until = datetime.now(UTC), time.monotonic() + self._purging
        before = now - self.state.settings.retention
        for gone in outbox.purge(self.state.own_engine, before, now):
            self._purged += gone
            if self.stop.is_set() or time.monotonic() >= until:
                return False
        if self._purged:
            logger.info("log.purged", extra={"messages": self._purged, "before": before.isoformat()})
        self._purged = 0
        return True


def reconcile_all(state: AppState, stop: ShutdownFlag, *, seconds: float = float("inf")) -> bool:
    """Move deliveries that do not fit how their subscription is switched; return whether that was all.

    A switch moves only a portion of them, and a commit may straddle it.
    """
    until = time.monotonic() + seconds
    with state.own_engine.connect() as connection:
        keys = outbox.find_inconsistent(connection)
    for key in keys:
        found = outbox.PORTION
        while found == outbox.PORTION:
            if stop.is_set() or time.monotonic() >= until:
                return False
            with state.own_engine.begin() as connection:
                found = outbox.reconcile(connection, key, outbox.now(connection))
            logger.info("deliveries.settled", extra={"subscription": key, "deliveries": found})
    return True


def is_stalled(seen_at: datetime, now: datetime) -> bool:
    """Whether a worker that was last seen then is taken for dead: eight missed heartbeats."""
    return now - seen_at > timedelta(seconds=8 * HEARTBEAT)
