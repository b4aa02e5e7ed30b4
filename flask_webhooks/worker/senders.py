"""The senders: threads that take tasks from the scheduler, talk to receivers, and put results in a queue.

They never touch the database, and nothing that happens to a task stops them.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import typing as t
from datetime import datetime

from ..delivery import AttemptResult, DeliveryTask, crashed_result, make_attempt
from ..frames import emptied
from .held_lane import HeldLane, Scheduler

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Senders"]

logger = logging.getLogger("flask_webhooks.delivering")

BATCH = 100
"""Results that are written at once when they come fast."""
LINGER, LULL, DOZE = 0.02, 0.005, 0.002
"""Seconds that results wait for others while more are under way: at most, after the last that came, and between two
looks at how many there are."""
MOST = 4 * BATCH
"""Results that are not written, waiting or just being written: at so many the senders wait too. Where receivers are
faster than the database, memory would grow without end, and so would what a killed worker has sent and not written."""
WAIT = 0.02
"""Seconds to wait for the first result."""
AGED = 2.0
"""Seconds from which on an attempt under way makes its lane a slow one."""


class Senders:
    """The threads of one run."""

    def __init__(
        self, state: AppState, scheduler: Scheduler, worker: str, clock: t.Callable[[], datetime]
    ) -> None:
        self._state, self._scheduler, self._worker, self._clock = state, scheduler, worker, clock
        self._results: queue.SimpleQueue[AttemptResult] = queue.SimpleQueue()
        self._gathered = 0
        self._written = threading.Event()
        self._threads: list[threading.Thread] = []
        self._under_way: dict[str, tuple[HeldLane, float]] = {}
        """By thread: of which lane it has a task, and since when."""
        self._aged_at = 0.0

    def send(self) -> None:
        """Let threads work on what is queued, as many as there is work for; they stay until the scheduler stops."""
        self._note_slow()
        most = self._state.settings.concurrency
        wanted = min(most, self._scheduler.queued + self._scheduler.in_flight)
        # Started as they are needed: a run that delivers one thing needs one thread, and most runs are such.
        while len(self._threads) < wanted:
            thread = threading.Thread(target=self._work, name=f"webhooks-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Wait a moment for the threads to end; the scheduler has been stopped."""
        for thread in self._threads:
            thread.join(timeout=2.0)

    def gather(self) -> list[AttemptResult]:
        """Return results: after a short wait for the first, as many as come soon; maybe none."""
        results: list[AttemptResult] = []
        try:
            results.append(self._results.get(timeout=WAIT))
            self._linger()
        except queue.Empty:
            pass
        while len(results) < MOST:
            try:
                results.append(self._results.get_nowait())
            except queue.Empty:
                break
        self._gathered += len(results)
        return results

    def mark_written(self) -> None:
        """Note that all that was gathered is written: senders that waited for that go on."""
        self._gathered = 0
        self._written.set()

    def slow(self, after: float) -> set[HeldLane]:
        """Return the lanes of which something has been under way for so many seconds."""
        before = time.monotonic() - after
        return {lane for lane, began in list(self._under_way.values()) if began < before}

    def _note_slow(self) -> None:
        """Take lanes for slow whose attempt has not ended yet, but has taken as long."""
        now = time.monotonic()
        if now >= self._aged_at:
            self._aged_at = now + AGED / 8
            if slow := self.slow(AGED):
                self._scheduler.suspect(slow)

    def _linger(self) -> None:
        """Wait for more results while more are under way.

        It polls, because waking this thread for each result would make one more thread want the interpreter just then.
        """
        began = last = time.monotonic()
        seen = 0
        while (came := self._results.qsize()) < BATCH and self._is_busy():
            now = time.monotonic()
            if came > seen:
                seen, last = came, now
            if now - began >= LINGER or now - last >= LULL:
                return
            time.sleep(DOZE)

    def _is_busy(self) -> bool:
        return bool(self._scheduler.queued or self._scheduler.in_flight)

    def _work(self) -> None:
        name = threading.current_thread().name
        while not self._scheduler.is_stopped:
            if self._results.qsize() + self._gathered >= MOST:
                # The set comes from another thread and may come before the clear, so the wait is a short one.
                self._written.clear()
                self._written.wait(0.1)
                continue
            taken = self._scheduler.wait_take(time.monotonic, 1.0)
            if taken is not None:
                self._under_way[name] = taken[0], time.monotonic()
                self._deliver(*taken)
                del self._under_way[name]

    def _deliver(self, lane: HeldLane, task: DeliveryTask) -> None:
        # Read once: the coordinator may replace it meanwhile, and the log says where this request went.
        destination = lane.destination
        try:
            result = make_attempt(self._state, destination, task, self._worker, clock=self._clock)
        except (
            BaseException
        ) as error:  # a format of the host's may exit, and nothing above this would hear of it
            logger.error("delivery.crashed", extra={"delivery_id": task.id}, exc_info=emptied(error))
            result = crashed_result(self._state, destination, task, self._worker, error, self._clock())
        if result.is_ours:
            self._state.transport.tell_outage()
        self._scheduler.done(
            lane,
            ok=result.ok,
            seconds=result.seconds,
            now=time.monotonic(),
            suspect=result.is_unreachable,
            skipped=result.is_cancelled,
            wait=result.wait,
            halt=result.verdict.gone,
        )
        # After `done`, so that nothing is recorded before it has been counted.
        self._results.put(result)
