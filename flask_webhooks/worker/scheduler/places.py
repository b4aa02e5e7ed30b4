"""Where the lanes wait, and the share of the threads that lanes on probation may hold.

Each waiting lane stands in exactly one place: `ready` (may send now), `parked` (waits for a slot of the share), the
`timed` heap (waits for its rate), or nowhere. Whoever stands in `ready` on probation holds its slot of the share
already, so the first of them can always go. All of this is called with the scheduler's lock held.
"""

from __future__ import annotations

import heapq
import typing as t

from .lane import NEW, NOWHERE, PARKED, PROVEN, READY, SUSPECT, TIMED, Lane, Probation
from .turns import Turns

__all__ = ["Places"]

L = t.TypeVar("L", bound=Lane[t.Any])

LOOKED_AT = 8
"""Owners that are looked at for one without a slot, so that a thousand of them cost no time."""


class Places(t.Generic[L]):
    """The places of one scheduler.

    :param concurrency: threads of this process.
    :param slow_share: share of them for lanes on probation; at least one.
    """

    def __init__(self, concurrency: int, slow_share: float) -> None:
        slow = max(1, int(concurrency * slow_share))
        # Suspect lanes have three quarters of the share, so that new ones do not wait behind them.
        self._most = {NEW: slow, SUSPECT: max(1, slow * 3 // 4)}
        self.slots = dict.fromkeys(self._most, 0)
        """By standing, the slots that lanes in it and in worse ones hold: in flight, or standing in `ready`."""
        # One that has turned out slow leaves its place in the share to a new one, up to a quarter more.
        self._spare = slow // 4
        self.aged = 0
        """Items of aged lanes in flight."""
        # An owner that has no slot on probation gets one beyond the share while threads are left.
        self._guests = {NEW: max(slow, concurrency - max(1, concurrency // 8)), SUSPECT: slow}
        self._owned: dict[str, int] = {}
        self.ready: Turns[L] = Turns()
        self.parked: dict[Probation, Turns[L]] = {each: Turns() for each in self._most}
        self._timed: list[tuple[float, int, L]] = []
        self._tie = 0

    def place(self, lane: L, now: float) -> None:
        """Put a lane that stands nowhere where it belongs, at the end."""
        if lane.where is not NOWHERE or not lane.queue or lane.in_flight >= lane.limit or lane.is_halted:
            return
        if lane.not_before > now or lane.resume_at > now:
            lane.where = TIMED
            self._tie += 1  # lanes cannot be compared: of two with one moment the first comes first
            heapq.heappush(self._timed, (lane.start_at, self._tie, lane))
        elif lane.probation is not PROVEN and not self._may_pass(lane, self.parked[lane.probation]):
            # Behind those that wait already, even if a slot has just come free: `admit` hands it out.
            lane.where = PARKED
            self.parked[lane.probation].add(lane)
        else:
            self._let_in(lane)

    def leave(self, lane: L) -> None:
        """Take a lane out of where it stands, and give its slot of the share back."""
        if lane.where is READY:
            self.ready.remove(lane)
            self.count(lane, -1)
        elif lane.where is PARKED:
            self.parked[lane.probation].remove(lane)
        lane.where = NOWHERE

    def admit(self) -> None:
        """Let parked lanes in for the slots of the share that are free: new ones first."""
        for probation, parked in self.parked.items():
            while parked.lanes and (lane := self._next_of(parked, probation)) is not None:
                self.leave(lane)
                self._let_in(lane)

    def place_due(self, now: float) -> None:
        """Place the lanes whose moment has come."""
        while self._timed and self._timed[0][0] <= now:
            lane = heapq.heappop(self._timed)[2]
            # Entries of lanes that went elsewhere meanwhile stay in the heap until their time.
            if lane.where is TIMED and lane.start_at <= now:
                lane.where = NOWHERE
                self.place(lane, now)

    def next_moment(self) -> float | None:
        """Return when a lane that waits for its moment may be placed, at the earliest; None if there is none."""
        return self._timed[0][0] if self._timed else None

    def set_probation(self, lane: L, probation: Probation, now: float) -> None:
        """Change against which part of the share the lane's slots count."""
        if lane.probation is probation:
            return
        self.leave(lane)
        self.count(lane, -lane.in_flight)
        lane.probation = probation
        self.count(lane, lane.in_flight)
        self.place(lane, now)

    def block(self, probation: Probation, now: float) -> None:
        """Let no lane of this standing in any more."""
        self._most[probation] = self._guests[probation] = self._spare = 0
        for lane in [each for each in self.ready.lanes.values() if each.probation is probation]:
            self.leave(lane)
            self.place(lane, now)

    def count(self, lane: L, slots: int) -> None:
        """Count slots that a lane takes or, below zero, gives back."""
        if lane.probation is PROVEN:
            return
        self.slots[NEW] += slots
        held = self._owned[lane.owner] = self._owned.get(lane.owner, 0) + slots
        if not held:
            del self._owned[lane.owner]
        if lane.probation is SUSPECT:
            self.slots[SUSPECT] += slots

    def has_room(self, probation: Probation) -> bool:
        """Whether the share has a slot left for lanes of this standing."""
        spare = min(self._spare, self.aged) if probation is NEW else 0
        is_full = self.slots[NEW] >= self._most[NEW] + spare
        return not is_full and self.slots[probation] < self._most[probation] + spare

    def _let_in(self, lane: L) -> None:
        lane.where = READY
        self.ready.add(lane)
        self.count(lane, 1)

    def _may_pass(self, lane: L, parked: Turns[L]) -> bool:
        """Whether a lane on probation need not wait, because none waits that would come before it."""
        if parked.has(lane.owner):
            return False
        # A slot that its own attempt has just given back is a new lane's first, as in `admit`.
        is_next = not parked.lanes and (lane.probation is NEW or not self.parked[NEW].lanes)
        return (is_next and self.has_room(lane.probation)) or self._is_guest(lane.owner, lane.probation)

    def _is_guest(self, owner: str, probation: Probation) -> bool:
        """Whether an owner gets a slot beyond the share: it has none, and others hold so many."""
        is_left = self.slots[NEW] < self._guests[NEW]
        return owner not in self._owned and is_left and self.slots[probation] < self._guests[probation]

    def _next_of(self, parked: Turns[L], probation: Probation) -> L | None:
        if self.has_room(probation):
            return parked.first()
        if self.slots[probation] >= self._guests[probation]:
            return None
        return parked.first_of(lambda owner: self._is_guest(owner, probation), LOOKED_AT)
