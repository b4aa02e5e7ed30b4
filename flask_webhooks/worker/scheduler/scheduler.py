"""The lanes of one worker process, and whose turn it is."""

from __future__ import annotations

import heapq
import threading
import typing as t
from collections import deque
from collections.abc import Callable, Iterable

from .lane import NEW, NOWHERE, PARKED, PROVEN, READY, SUSPECT, TIMED, Lane, Probation
from .turns import Turns

__all__ = ["FairScheduler"]

T = t.TypeVar("T")

FIRST_LIMIT = 2
"""Slots of a lane that has not answered yet in this run."""

LOOKED_AT = 8
"""Owners that are looked at for one without a slot, so that a thousand of them cost no time."""

CATCH_UP = 0.05
"""Seconds of a rate that may be made up for after a late turn; else 500/s would lose to every late wake-up. In
any window of w seconds a lane starts at most rate * (w + 0.05) + 1 items."""

EVEN = 0.04
"""The same for an even lane, as a share of its interval: its rate is below what is taken by more than that."""


class FairScheduler(t.Generic[T]):
    """The lanes of one worker process. Every method may be called from any thread.

    :param cap: most items in flight per lane (`WEBHOOKS_SUBSCRIPTION_CONCURRENCY`).
    :param concurrency: sender threads of this process (`WEBHOOKS_CONCURRENCY`).
    :param slow_share: share of `concurrency` for lanes on probation; at least one slot.
    :param slow_after: seconds from which an attempt was slow.
    :param attempt: seconds that one attempt can take at most, with everything around it.
    :param streak: failures in a row from which on a lane starts nothing after one until `release`; None: never.
    :param is_stopping: asked before each start; what it says holds before anybody has had the time to call `stop`.
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
        slow = max(1, int(concurrency * slow_share))
        # By standing, the slots that lanes in it and in worse ones hold: in flight, or standing in `ready`.
        self._most = {NEW: slow, SUSPECT: max(1, slow * 3 // 4)}
        self._slots = dict.fromkeys(self._most, 0)
        # One that has turned out slow leaves its place in the share to a new one, up to a quarter more.
        self._spare, self._aged = slow // 4, 0
        # An owner that has no slot on probation gets one beyond the share while threads are left.
        self._guests = {
            NEW: max(slow, concurrency - max(1, concurrency // 8)),
            SUSPECT: slow,
        }
        self._owned: dict[str, int] = {}
        self._lanes: dict[str, Lane[T]] = {}
        self._ready: Turns[T] = Turns()
        self._parked: dict[Probation, Turns[T]] = {each: Turns() for each in self._most}
        self._timed: list[tuple[float, int, Lane[T]]] = []
        self._tie = 0
        self._queued = self._in_flight = 0
        self._now = 0.0  # latest time seen
        self._stopped = self._paused = False
        self._lock = threading.Lock()  # taken by itself: the `with` of a condition is two calls more
        self._changed = threading.Condition(self._lock)
        self._asleep = 0  # threads that wait for a change

    def add(
        self,
        key: str,
        items: Iterable[T],
        *,
        lease_until: float,
        owner: str = "",
        rate: float | None = None,
        suspect: bool = False,
        trusted: bool = False,
        cap: int | None = None,
        even: bool = False,
        not_before: float = 0.0,
    ) -> None:
        """Add a lane; a known one gets these terms and, behind its own, these items.

        What a lane has earned stays, also while one that was removed still has items in flight.

        :param owner: whose it is; a lane that is known stays whose it was.
        :param suspect: its last attempt, by whichever worker, failed.
        :param trusted: it has answered lately: a new lane begins without probation.
        :param not_before: with a rate, when the next item may start: another worker may have sent the last one.
        :param cap: fewer slots than usual for this lane: 1 while it is probed.
        :param even: whether a late turn is not made up for: who is near a limit keeps all distances.
        """
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(key, 1, 1 if suspect else FIRST_LIMIT, lease_until, owner)
                lane.standing = PROVEN if trusted else NEW
                lane.rate, lane.not_before = rate, not_before
            lane.lease_until, lane.stopped, lane.halted = lease_until, False, False
            self._set_terms(lane, rate, cap, even)
            if suspect:
                lane.limit = 1
                self._set_standing(lane, SUSPECT)
            self._extend(lane, items)
            self._admit()
            self._notify()

    def set_terms(self, key: str, *, rate: float | None, cap: int | None = None, even: bool = False) -> None:
        """Change the rate and the slots of a lane; nothing when there is no such lane (any more)."""
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                return
            self._set_terms(lane, rate, cap, even)
            self._place(lane)
            self._admit()
            self._notify()

    def extend(self, key: str, items: Iterable[T]) -> None:
        """Queue more items on a lane.

        :raises KeyError: when there is no such lane (any more); the items are still the caller's.
        """
        with self._lock:
            self._extend(self._active(key), items)
            self._notify()

    def renew(self, key: str, lease_until: float) -> None:
        """Note a longer lease.

        :raises KeyError: when there is no such lane (any more).
        """
        with self._lock:
            lane = self._active(key)
            lane.lease_until = lease_until
            self._place(lane)
            self._notify()

    def remove(self, key: str) -> list[T]:
        """Take a lane out and give back what was not started, in order; nothing when there is no such lane.

        Items in flight are still to be reported with `done`.
        """
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                return []
            self._leave(lane)
            rest = list(lane.queue)
            lane.queue.clear()
            lane.stopped = True
            self._queued -= len(rest)
            if not lane.in_flight:
                del self._lanes[key]
            self._admit()
            self._notify()
            return rest

    def take(self, now: float) -> T | None:
        """Return the next item to send and count it as in flight; `None` when nobody may send now."""
        with self._lock:
            return self._take(now)

    def wait_take(self, clock: Callable[[], float], timeout: float) -> T | None:
        """Return the next item to send, waiting for one; `None` after `timeout` seconds or `stop`.

        :param clock: the monotonic seconds that the other methods get as `now`.
        """
        with self._lock:
            now = clock()
            until = now + timeout
            while (item := self._take(now)) is None and now < until and not self._stopped:
                due = self._timed[0][0] if self._timed else until
                self._asleep += 1
                self._changed.wait(max(min(due, until) - now, 0.0005))
                self._asleep -= 1
                now = clock()
            self._notify()
            return item

    def done(
        self,
        key: str,
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

        Nobody is woken: who calls this takes the next item, and a thread that sleeps would come too late.

        :param ok: the destination accepted it.
        :param seconds: how long the attempt took.
        :param suspect: it did not reach the destination. A slow attempt puts the lane on probation without this.
        :param halt: start nothing more on this lane until `release`.
        :param skipped: the destination was not asked, so there is nothing to learn.
        :param wait: start nothing more for so many seconds: it was neither a success nor a failure.
        :raises KeyError: when nothing of this lane is in flight.
        """
        with self._lock:
            lane = self._lanes[key]
            if not lane.in_flight:
                raise KeyError(key)
            self._now = max(self._now, now)
            lane.in_flight -= 1
            self._in_flight -= 1
            self._count(lane, -1)
            if lane.is_aged:
                self._aged -= 1
                lane.is_aged = lane.in_flight > 0
            lane.unjudged += 1
            if wait is not None:
                self._hold(lane, self._now + wait)
            elif not skipped:
                lane.failed = 0 if ok else lane.failed + 1
            if halt or (self._streak is not None and lane.failed >= self._streak):
                self._leave(lane)
                lane.halted = True
            slow = seconds >= self._slow_after
            if wait is not None and slow:
                self._set_standing(lane, SUSPECT)
            elif wait is None and not skipped:
                self._learn(lane, ok=ok, slow=slow, suspect=suspect)
            if lane.stopped and not lane.in_flight:
                del self._lanes[key]
            self._place(lane)
            self._admit()

    def release(self, key: str, judged: int | None = None) -> None:
        """Let a lane go on that has been halted, if what its outcomes mean has been decided.

        :param judged: of how many items since the last time; None: of all.
        """
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                return
            lane.unjudged = 0 if judged is None else max(0, lane.unjudged - judged)
            if lane.halted and not lane.unjudged:
                lane.halted = False
                self._place(lane)
                self._notify()

    def drop(self, key: str, items: t.Container[T]) -> list[T]:
        """Take out those of these items that were not started, and return them."""
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                return []
            gone = [item for item in lane.queue if item in items]
            if gone:
                self._leave(lane)
                lane.queue = deque(item for item in lane.queue if item not in items)
                self._queued -= len(gone)
                self._place(lane)
                self._admit()
                self._notify()
            return gone

    def suspect(self, keys: Iterable[str]) -> None:
        """Take lanes for slow of which something has been in flight for long: they need not end for that."""
        with self._lock:
            found = [self._lanes[key] for key in keys if key in self._lanes]
            for lane in found:
                if lane.in_flight and not lane.is_aged:
                    lane.is_aged, lane.limit = True, 1
                    self._aged += lane.in_flight
                    self._leave(lane)
                    self._set_standing(lane, SUSPECT)
                    self._place(lane)
            if found:
                self._admit()
                self._notify()

    def block(self, standing: Probation) -> None:
        """Start nothing more on lanes of this standing, for good; they keep what they have queued."""
        with self._lock:
            self._most[standing] = self._guests[standing] = self._spare = 0
            for lane in [each for each in self._ready.lanes.values() if each.standing is standing]:
                self._leave(lane)
                self._place(lane)

    def pause(self) -> None:
        """Start nothing until `resume`."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._lock:
            self._paused = False
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopped

    def next_start(self, key: str) -> float:
        """Return when the lane may start its next item, by its rate and what it was told; maybe in the past."""
        with self._lock:
            return self._lanes[key].start_at if key in self._lanes else 0.0

    def put_back(self, key: str, item: T) -> bool:
        """Queue an item that was taken and is done, before all others of its lane; False if the lane takes nothing."""
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None or lane.stopped:
                return False
            lane.queue.appendleft(item)
            self._queued += 1
            self._place(lane)
            self._notify()
            return True

    def hold(self, key: str, until: float) -> None:
        """Start nothing of a lane before a time; nothing when there is no such lane (any more)."""
        with self._lock:
            lane = self._lanes.get(key)
            if lane is not None:
                self._hold(lane, until)
                self._admit()
                self._notify()

    def stop(self) -> None:
        """Start nothing more: `take` and `wait_take` return `None` at once. `remove` gives back the rest."""
        with self._lock:
            self._stopped = True
            self._changed.notify_all()

    def queued(self, key: str | None = None) -> int:
        """Return how many items wait, in one lane or in all."""
        with self._lock:
            if key is None:
                return self._queued
            return len(self._lanes[key].queue) if key in self._lanes else 0

    def startable(self) -> tuple[int, int]:
        """Return how many items could start at once, and how many wait in the lanes that may send now."""
        with self._lock:
            slots = items = 0
            for lane in self._ready.lanes.values():
                slots += min(lane.limit - lane.in_flight, len(lane.queue))
                items += len(lane.queue)
            return slots, items

    def in_flight(self, key: str | None = None) -> int:
        """Return how many items are taken and not done, in one lane or in all."""
        with self._lock:
            if key is None:
                return self._in_flight
            return self._lanes[key].in_flight if key in self._lanes else 0

    # All below is called with the lock held.

    def _notify(self) -> None:
        """Wake one thread if there is something to start, now or in time. It wakes the next, and so on."""
        if self._asleep and ((self._ready.lanes and not self._paused) or self._timed):
            self._changed.notify()

    def _active(self, key: str) -> Lane[T]:
        if self._lanes[key].stopped:
            raise KeyError(key)
        return self._lanes[key]

    def _extend(self, lane: Lane[T], items: Iterable[T]) -> None:
        before = len(lane.queue)
        lane.queue.extend(items)
        self._queued += len(lane.queue) - before
        self._place(lane)

    def _set_terms(self, lane: Lane[T], rate: float | None, cap: int | None, even: bool) -> None:
        """Take a new rate from the last start on, so that a slow one set by mistake can be undone."""
        lane.cap, lane.is_even = min(self._cap, cap or self._cap), even
        lane.limit = min(lane.limit, lane.cap)
        if rate != lane.rate:
            self._leave(lane)
            lane.rate = rate
            lane.not_before = min(lane.not_before, self._now + 1 / rate) if rate else 0.0

    def _take(self, now: float) -> T | None:
        self._now = max(self._now, now)
        while self._timed and self._timed[0][0] <= self._now:
            lane = heapq.heappop(self._timed)[2]
            # Entries of lanes that went elsewhere meanwhile stay in the heap until their time.
            if lane.where is TIMED and lane.start_at <= self._now:
                lane.where = NOWHERE
                self._place(lane)
        while self._ready.lanes and not (self._stopped or self._paused or self._is_stopping()):
            lane = self._ready.first()
            self._leave(lane)
            if lane.in_flight < lane.limit and self._now + self._attempt <= lane.lease_until:
                return self._start(lane)
            self._admit()
        return None

    def _start(self, lane: Lane[T]) -> T:
        item = lane.queue.popleft()
        lane.in_flight += 1
        self._queued -= 1
        self._in_flight += 1
        self._count(lane, 1)
        if lane.rate:
            late = EVEN / lane.rate if lane.is_even else CATCH_UP
            lane.not_before = max(lane.not_before, self._now - late) + 1 / lane.rate
        self._place(lane)
        return item

    def _place(self, lane: Lane[T]) -> None:
        """Put a lane that stands nowhere where it belongs, at the end."""
        if lane.where is not NOWHERE or not lane.queue or lane.in_flight >= lane.limit or lane.halted:
            return
        if lane.not_before > self._now or lane.resume_at > self._now:
            lane.where = TIMED
            self._tie += 1
            heapq.heappush(self._timed, (lane.start_at, self._tie, lane))
        elif lane.standing is not PROVEN and not self._may_pass(lane, self._parked[lane.standing]):
            # Behind those that wait already, even if a slot has just come free: `_admit` hands it out.
            lane.where = PARKED
            self._parked[lane.standing].add(lane)
        else:
            self._let_in(lane)

    def _let_in(self, lane: Lane[T]) -> None:
        lane.where = READY
        self._ready.add(lane)
        self._count(lane, 1)

    def _hold(self, lane: Lane[T], until: float) -> None:
        if until > lane.resume_at:
            self._leave(lane)
            lane.resume_at = until
            self._place(lane)

    def _leave(self, lane: Lane[T]) -> None:
        """Take a lane out of where it stands, and give its slot of the share back."""
        if lane.where is READY:
            self._ready.remove(lane)
            self._count(lane, -1)
        elif lane.where is PARKED:
            self._parked[lane.standing].remove(lane)
        lane.where = NOWHERE

    def _count(self, lane: Lane[T], slots: int) -> None:
        if lane.standing is PROVEN:
            return
        self._slots[NEW] += slots
        held = self._owned[lane.owner] = self._owned.get(lane.owner, 0) + slots
        if not held:
            del self._owned[lane.owner]
        if lane.standing is SUSPECT:
            self._slots[SUSPECT] += slots

    def _has_room(self, standing: Probation) -> bool:
        spare = min(self._spare, self._aged) if standing is NEW else 0
        is_full = self._slots[NEW] >= self._most[NEW] + spare
        return not is_full and self._slots[standing] < self._most[standing] + spare

    def _may_pass(self, lane: Lane[T], parked: Turns[T]) -> bool:
        """Whether a lane on probation need not wait: nobody waits who would come before it."""
        if parked.has(lane.owner):
            return False
        # A slot that its own attempt has just given back is a new lane's first, as in `_admit`.
        is_next = not parked.lanes and (lane.standing is NEW or not self._parked[NEW].lanes)
        return (is_next and self._has_room(lane.standing)) or self._is_guest(lane.owner, lane.standing)

    def _is_guest(self, owner: str, standing: Probation) -> bool:
        """Whether an owner gets a slot beyond the share: it has none, and others hold so many."""
        is_left = self._slots[NEW] < self._guests[NEW]
        return owner not in self._owned and is_left and self._slots[standing] < self._guests[standing]

    def _admit(self) -> None:
        """Let parked lanes in for the slots of the share that are free: new ones first."""
        for standing, parked in self._parked.items():
            while parked.lanes and (lane := self._next_of(parked, standing)) is not None:
                self._leave(lane)
                self._let_in(lane)

    def _next_of(self, parked: Turns[T], standing: Probation) -> Lane[T] | None:
        if self._has_room(standing):
            return parked.first()
        if self._slots[standing] >= self._guests[standing]:
            return None
        return parked.first_of(lambda owner: self._is_guest(owner, standing), LOOKED_AT)

    def _learn(self, lane: Lane[T], *, ok: bool, slow: bool, suspect: bool) -> None:
        if suspect:
            lane.limit = 1
        elif ok:
            lane.limit = min(lane.cap, lane.limit * 2)
        else:
            lane.limit = max(1, lane.limit // 2)
        # A quick refusal says nothing new about how long this destination holds a thread.
        if slow or suspect:
            self._set_standing(lane, SUSPECT)
        elif ok:
            self._set_standing(lane, PROVEN)

    def _set_standing(self, lane: Lane[T], standing: Probation) -> None:
        """Change on which side the lane's slots count."""
        if lane.standing is standing:
            return
        self._leave(lane)
        self._count(lane, -lane.in_flight)
        lane.standing = standing
        self._count(lane, lane.in_flight)
        self._place(lane)
