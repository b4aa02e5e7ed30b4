"""The lanes of one worker process, and whose turn it is."""

from __future__ import annotations

import threading
import typing as t
from collections import deque
from collections.abc import Callable, Iterable

from .lane import PROVEN, SUSPECT, Lane, Probation
from .places import Places

__all__ = ["FairScheduler"]

L = t.TypeVar("L", bound=Lane[t.Any])
T = t.TypeVar("T")

FIRST_LIMIT = 2
"""Slots of a lane that has not answered yet in this run."""

CATCH_UP = 0.05
"""Seconds of a rate that may be made up for after a late turn; else 500/s would lose to every late wake-up. In
any window of w seconds a lane starts at most rate * (w + 0.05) + 1 items."""

EVEN = 0.04
"""The same for an even lane, as a share of its interval: its rate is below what is taken by more than that."""


class FairScheduler(t.Generic[L, T]):
    """The scheduler of one worker process. Every method may be called from any thread.

    It holds the lanes themselves, `L`, each with its items, `T`.

    :param cap: most items in flight per lane (`WEBHOOKS_SUBSCRIPTION_CONCURRENCY`).
    :param concurrency: sender threads of this process (`WEBHOOKS_CONCURRENCY`).
    :param slow_share: share of `concurrency` for lanes on probation; at least one slot.
    :param slow_after: seconds from which an attempt was slow.
    :param attempt: seconds that one attempt can take at most, with everything around it.
    :param streak: failures in a row from which on a lane starts nothing after one until `release`; None: never.
    :param is_stopping: asked before each start; its answer holds before any thread has had the time to call `stop`.
    """

    def __init__(
        self,
        *,
        cap: int,
        concurrency: int = 32,
        slow_share: float = 0.5,
        slow_after: float = 1.0,
        attempt: float = 20.0,
        streak: int | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cap, self._slow_after, self._attempt, self._streak = cap, slow_after, attempt, streak
        self._is_stopping = is_stopping
        self._places: Places[L] = Places(concurrency, slow_share)
        self._queued = self._in_flight = 0
        self._now = 0.0  # latest time seen
        self._stopped = self._paused = False
        self._lock = threading.Lock()  # taken by itself: the `with` of a condition is two calls more
        self._changed = threading.Condition(self._lock)
        self._asleep = 0  # threads that wait for a change

    # ---- lanes -----------------------------------------------------------------------------------------

    def add(
        self,
        lane: L,
        items: Iterable[T] = (),
        *,
        rate: float | None = None,
        suspect: bool = False,
        trusted: bool = False,
        cap: int | None = None,
        even: bool = False,
        not_before: float = 0.0,
    ) -> None:
        """Add a lane; one that was added before gets these terms and, behind its own, these items.

        What a lane has earned stays, also when it was removed and comes back.

        :param suspect: its last attempt, by whichever worker, failed.
        :param trusted: it has answered lately: a new lane begins without probation.
        :param not_before: with a rate, when the next item may start: another worker may have sent the last one.
        :param cap: fewer slots than usual for this lane: 1 while it is probed.
        :param even: whether a late turn is not made up for: who is near a limit keeps all distances.
        """
        with self._lock:
            if not lane.limit:
                lane.limit = 1 if suspect else FIRST_LIMIT
                lane.rate, lane.not_before = rate, not_before
                if trusted:
                    lane.probation = PROVEN
            lane.is_closing = lane.is_halted = False
            self._set_terms(lane, rate, cap, even)
            if suspect:
                lane.limit = 1
                self._places.set_probation(lane, SUSPECT, self._now)
            self._extend(lane, items)
            self._places.admit()
            self._notify()

    def set_terms(self, lane: L, *, rate: float | None, cap: int | None = None, even: bool = False) -> None:
        """Change the rate and the slots of a lane."""
        with self._lock:
            self._set_terms(lane, rate, cap, even)
            self._places.place(lane, self._now)
            self._places.admit()
            self._notify()

    def renew(self, lane: L, lease_until: float) -> None:
        """Note a longer lease.

        :raises KeyError: the lane has been removed.
        """
        with self._lock:
            self._refuse_closing(lane)
            lane.lease_until = lease_until
            self._places.place(lane, self._now)
            self._notify()

    def remove(self, lane: L) -> list[T]:
        """Take a lane out and give back what was not started, in order.

        Items in flight are still to be reported with `done`.
        """
        with self._lock:
            self._places.leave(lane)
            rest = list(lane.queue)
            lane.queue.clear()
            lane.is_closing = True
            self._queued -= len(rest)
            self._places.admit()
            self._notify()
            return rest

    def hold(self, lane: L, until: float) -> None:
        """Start nothing of a lane before a time. A lane that was removed keeps it for the next worker."""
        with self._lock:
            self._hold(lane, until)
            self._places.admit()
            self._notify()

    def release(self, lane: L, recorded: int | None = None) -> None:
        """Let a lane that has been halted go on, if the meaning of its outcomes has been decided.

        :param recorded: of how many items since the last time; None: of all.
        """
        with self._lock:
            lane.unrecorded = 0 if recorded is None else max(0, lane.unrecorded - recorded)
            if lane.is_halted and not lane.unrecorded:
                lane.is_halted = False
                self._places.place(lane, self._now)
                self._notify()

    def suspect(self, lanes: Iterable[L]) -> None:
        """Take lanes for slow of which something has been in flight for long: they need not end for that."""
        with self._lock:
            for lane in lanes:
                if lane.in_flight and not lane.is_aged:
                    lane.is_aged, lane.limit = True, 1
                    self._places.aged += lane.in_flight
                    self._places.leave(lane)
                    self._places.set_probation(lane, SUSPECT, self._now)
                    self._places.place(lane, self._now)
            self._places.admit()
            self._notify()

    # ---- items -----------------------------------------------------------------------------------------

    def extend(self, lane: L, items: Iterable[T]) -> None:
        """Queue more items on a lane.

        :raises KeyError: the lane has been removed; the items are still the caller's.
        """
        with self._lock:
            self._refuse_closing(lane)
            self._extend(lane, items)
            self._notify()

    def drop(self, lane: L, items: t.Container[T]) -> list[T]:
        """Take out those of these items that were not started, and return them."""
        with self._lock:
            gone = [item for item in lane.queue if item in items]
            if gone:
                self._places.leave(lane)
                lane.queue = deque(item for item in lane.queue if item not in items)
                self._queued -= len(gone)
                self._places.place(lane, self._now)
                self._places.admit()
                self._notify()
            return gone

    def put_back(self, lane: L, item: T) -> bool:
        """Queue an item that was taken and is done, before all others of its lane; False if the lane takes nothing."""
        with self._lock:
            if lane.is_closing:
                return False
            lane.queue.appendleft(item)
            self._queued += 1
            self._places.place(lane, self._now)
            self._notify()
            return True

    def take(self, now: float) -> tuple[L, T] | None:
        """Return the lane whose turn it is and its next item, which counts as in flight; None when none may send."""
        with self._lock:
            return self._take(now)

    def wait_take(self, clock: Callable[[], float], timeout: float) -> tuple[L, T] | None:
        """Do as `take`, but wait for a lane that may send; None after `timeout` seconds or `stop`.

        :param clock: the monotonic seconds that the other methods get as `now`.
        """
        with self._lock:
            now = clock()
            until = now + timeout
            while (taken := self._take(now)) is None and now < until and not self._stopped:
                moment = self._places.next_moment()
                due = until if moment is None else min(moment, until)
                # Counted, so that `_notify` costs nothing while all threads are busy.
                self._asleep += 1
                self._changed.wait(max(due - now, 0.0005))
                self._asleep -= 1
                now = clock()
            self._notify()
            return taken

    def done(
        self,
        lane: L,
        *,
        ok: bool,
        seconds: float,
        now: float,
        suspect: bool = False,
        halt: bool = False,
        skipped: bool = False,
        wait: float | None = None,
    ) -> None:
        """Free the slot of an item of this lane, whatever became of it, and learn from it.

        No thread is woken: who calls this takes the next item, and a thread that sleeps would come too late.

        :param ok: the destination accepted it.
        :param seconds: how long the attempt took.
        :param suspect: it did not reach the destination. A slow attempt puts the lane on probation without this.
        :param halt: start nothing more on this lane until `release`.
        :param skipped: the destination was not asked, so there is nothing to learn.
        :param wait: start nothing more for so many seconds: it was neither a success nor a failure.
        :raises KeyError: when nothing of this lane is in flight.
        """
        with self._lock:
            if not lane.in_flight:
                raise KeyError(lane.key)
            self._now = max(self._now, now)
            self._free_slot(lane)
            lane.unrecorded += 1
            if wait is not None:
                self._hold(lane, self._now + wait)
            elif not skipped:
                lane.failed = 0 if ok else lane.failed + 1
            if halt or (self._streak is not None and lane.failed >= self._streak):
                self._places.leave(lane)
                lane.is_halted = True
            slow = seconds >= self._slow_after
            if wait is not None and slow:
                self._places.set_probation(lane, SUSPECT, self._now)
            elif wait is None and not skipped:
                self._learn(lane, ok=ok, slow=slow, suspect=suspect)
            self._places.place(lane, self._now)
            self._places.admit()

    # ---- all of them -----------------------------------------------------------------------------------

    def block(self, probation: Probation) -> None:
        """Start nothing more on lanes of this standing, for good; they keep what they have queued."""
        with self._lock:
            self._places.block(probation, self._now)

    def pause(self) -> None:
        """Start nothing until `resume`."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._lock:
            self._paused = False
            self._changed.notify_all()

    def stop(self) -> None:
        """Start nothing more: `take` and `wait_take` return `None` at once. `remove` gives back the rest."""
        with self._lock:
            self._stopped = True
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopped

    @property
    def queued(self) -> int:
        """How many items wait in all lanes."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """How many items are taken and not done in all lanes."""
        return self._in_flight

    def startable(self) -> tuple[int, int]:
        """Return how many items could start at once, and how many wait in the lanes that may send now."""
        with self._lock:
            slots = items = 0
            for lane in self._places.ready.lanes.values():
                slots += min(lane.limit - lane.in_flight, len(lane.queue))
                items += len(lane.queue)
            return slots, items

    # All below is called with the lock held.

    def _notify(self) -> None:
        """Wake one thread if there is something to start, now or in time. It wakes the next, and so on."""
        if not self._asleep:
            return
        if (self._places.ready.lanes and not self._paused) or self._places.next_moment() is not None:
            self._changed.notify()

    @staticmethod
    def _refuse_closing(lane: L) -> None:
        if lane.is_closing:
            raise KeyError(lane.key)

    def _extend(self, lane: L, items: Iterable[T]) -> None:
        before = len(lane.queue)
        lane.queue.extend(items)
        self._queued += len(lane.queue) - before
        self._places.place(lane, self._now)

    def _set_terms(self, lane: L, rate: float | None, cap: int | None, even: bool) -> None:
        """Take a new rate from the last start on, so that a slow one set by mistake can be undone."""
        lane.cap, lane.is_even = min(self._cap, cap or self._cap), even
        lane.limit = min(lane.limit, lane.cap)
        # Its place in the heap is by the old rate.
        if rate != lane.rate:
            self._places.leave(lane)
            lane.rate = rate
            lane.not_before = min(lane.not_before, self._now + 1 / rate) if rate else 0.0

    def _hold(self, lane: L, until: float) -> None:
        if until > lane.resume_at:
            self._places.leave(lane)
            lane.resume_at = until
            self._places.place(lane, self._now)

    def _take(self, now: float) -> tuple[L, T] | None:
        self._now = max(self._now, now)
        places = self._places
        places.place_due(self._now)
        # Out of its place first: a lane that may not start after all must not be found again at once.
        while places.ready.lanes and not (self._stopped or self._paused or self._is_stopping()):
            lane = places.ready.first()
            places.leave(lane)
            if lane.in_flight < lane.limit and self._now + self._attempt <= lane.lease_until:
                return lane, self._start(lane)
            places.admit()
        return None

    def _start(self, lane: L) -> T:
        item: T = lane.queue.popleft()
        lane.in_flight += 1
        self._queued -= 1
        self._in_flight += 1
        self._places.count(lane, 1)
        if lane.rate:
            late = EVEN / lane.rate if lane.is_even else CATCH_UP
            lane.not_before = max(lane.not_before, self._now - late) + 1 / lane.rate
        self._places.place(lane, self._now)
        return item

    def _free_slot(self, lane: L) -> None:
        lane.in_flight -= 1
        self._in_flight -= 1
        self._places.count(lane, -1)
        if lane.is_aged:
            self._places.aged -= 1
            lane.is_aged = lane.in_flight > 0

    def _learn(self, lane: L, *, ok: bool, slow: bool, suspect: bool) -> None:
        if suspect:
            lane.limit = 1
        elif ok:
            lane.limit = min(lane.cap, lane.limit * 2)
        else:
            lane.limit = max(1, lane.limit // 2)
        # A quick refusal says nothing new about how long this destination holds a thread.
        if slow or suspect:
            self._places.set_probation(lane, SUSPECT, self._now)
        elif ok:
            self._places.set_probation(lane, PROVEN, self._now)
