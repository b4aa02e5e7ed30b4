"""The life of a worker process beside its jobs: heartbeat, sweep, purge.

RQ's worker waits for the bell in the main thread. This room's thread does what must not depend on a bell: it tells that
the worker lives, finds deliveries that fell due (retries, or wake-ups that Redis lost) and rings for them, delivers by
itself while Redis cannot be reached, and purges what is past its retention.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from . import hours, outbox, replaying
from .delivering import Run

if t.TYPE_CHECKING:
    from .state import AppState

__all__ = ["Sweep"]

logger = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks at most: a wake-up that Redis lost is noticed after that."""
HEARTBEAT = 15.0
"""Seconds between two heartbeats."""
PURGE = 3600.0
"""Seconds between two purges."""
LONGEST_WAIT = 30.0
"""Seconds between two tries while the database cannot be reached."""


class Sweep:
    """A thread that looks after one worker. Use it as a context manager."""

    def __init__(self, state: AppState, worker: str, *, interval: float = INTERVAL) -> None:
        self.state, self.worker, self.interval = state, worker, interval
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks-sweep", daemon=True)
        self._beat_at = self._purge_at = 0.0
        self._wait = interval
        self._is_trouble = False

    def __enter__(self) -> Sweep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(timeout=30.0)
        try:
            with self.state.engine.begin() as connection:
                outbox.sign_off(connection, self.worker)
        except sa.exc.SQLAlchemyError as error:
            logger.warning("worker.sign_off_failed", extra={"worker": self.worker, "reason": str(error)})

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                self._turn(time.monotonic())
                self._wait = self.interval
                if self._is_trouble:
                    logger.info("database.back", extra={"worker": self.worker})
                self._is_trouble = False
            except sa.exc.SQLAlchemyError as error:
                if not self._is_trouble:  # said once, not at every try
                    logger.warning("database.trouble", extra={"worker": self.worker, "reason": str(error)})
                self._is_trouble = True
                self._wait = min(self._wait * 2, LONGEST_WAIT)
            self.stop.wait(self._wait)

    def _turn(self, now: float) -> None:
        if now - self._beat_at >= HEARTBEAT:
            with self.state.engine.begin() as connection:
                outbox.beat(connection, self.worker, datetime.now(UTC))
            self._beat_at = now
        if self.state.settings.enabled:
            replaying.turn(self.state)
            self._wake()
        if now - self._purge_at >= PURGE:
            self._purge()
            self._purge_at = now

    def _wake(self) -> None:
        with self.state.engine.connect() as connection:
            due = outbox.next_due(connection)
        if due is None:
            return
        ahead = (due - datetime.now(UTC)).total_seconds()
        if ahead > 0:
            self.stop.wait(min(ahead, self.interval) if ahead < self.interval else 0)
            if ahead >= self.interval:
                return
        if not self.state.bell.ring() and not self.stop.is_set():
            Run(self.state, holder=f"{self.worker}:sweep", stop=self.stop).run(seconds=10.0)

    def _purge(self) -> None:
        before = datetime.now(UTC) - self.state.settings.retention
        with self.state.engine.begin() as connection:
            hours.purge(connection, before)
            replaying.purge(connection, before)
        count = 0
        while not self.stop.is_set():
            with self.state.engine.begin() as connection:
                gone = outbox.purge(connection, before)
            count += gone
            if not gone:
                break
        if count:
            logger.info("log.purged", extra={"messages": count, "before": before.isoformat()})


def lapsed(seen_at: datetime, now: datetime) -> bool:
    """Whether a worker that was last seen then is taken for dead: eight missed heartbeats."""
    return now - seen_at > timedelta(seconds=8 * HEARTBEAT)
