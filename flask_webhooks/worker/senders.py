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

from ..delivery import AttemptResult, DeliveryTask, Destination, crashed, make_attempt
from ..frames import emptied
from .scheduler import FairScheduler

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


class Senders:
    """The threads of one run.

    :param destination_of: where a subscription's tasks go, as far as is known now.
    """

    def __init__(
        self,
        state: AppState,
        scheduler: FairScheduler[DeliveryTask],
        worker: str,
        clock: t.Callable[[], datetime],
        destination_of: t.Callable[[str], Destination],
    ) -> None:
        self._state, self._scheduler, self._worker, self._clock = state, scheduler, worker, clock
        self._destination_of = destination_of
        self._results: queue.SimpleQueue[AttemptResult] = queue.SimpleQueue()
        self._gathered = 0
        self._settled = threading.Event()
        self._threads: list[threading.Thread] = []
        self._under_way: dict[str, tuple[str, float]] = {}
        """By thread: which lane's task it has, and since when."""

    def start(self) -> None:
        """Start threads as there is work for them; they stay until the scheduler is stopped."""
        most = self._state.settings.concurrency
        wanted = min(most, self._scheduler.queued() + self._scheduler.in_flight())
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

    def _linger(self) -> None:
        """Wait for more results while more are under way.

        Nobody is woken for each that comes: that would be one more thread that wants the interpreter just then.
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

    def slow(self, after: float) -> set[str]:
        """Return the lanes of which something has been under way for so many seconds."""
        before = time.monotonic() - after
        return {key for key, began in list(self._under_way.values()) if began < before}

    def settle(self) -> None:
        """Note that all that was gathered is written."""
        self._gathered = 0
        self._settled.set()

    def _is_busy(self) -> bool:
        return bool(self._scheduler.queued() or self._scheduler.in_flight())

    def _work(self) -> None:
        name = threading.current_thread().name
        while not self._scheduler.is_stopped:
            if self._results.qsize() + self._gathered >= MOST:
                self._settled.clear()
                self._settled.wait(0.1)
                continue
            task = self._scheduler.wait_take(time.monotonic, 1.0)
            if task is not None:
                self._under_way[name] = task.subscription_id, time.monotonic()
                self._deliver(task)
                del self._under_way[name]

    def _deliver(self, task: DeliveryTask) -> None:
        destination = self._destination_of(task.subscription_id)
        try:
            result = make_attempt(self._state, destination, task, self._worker, clock=self._clock)
        except BaseException as error:  # a format of the host's may exit: a thread has nobody to tell
            logger.error("delivery.crashed", extra={"delivery_id": task.id}, exc_info=emptied(error))
            result = crashed(self._state, destination, task, self._worker, error, self._clock())
        if result.is_ours:
            self._state.transport.tell_outage()
        self._scheduler.done(
            task.subscription_id,
            ok=result.ok,
            seconds=result.seconds,
            now=time.monotonic(),
            suspect=result.is_unreachable,
            skipped=result.is_called_off,
            wait=result.wait,
            halt=result.verdict.gone,
        )
        # After `done`, so that nothing is judged before it has been counted.
        self._results.put(result)
