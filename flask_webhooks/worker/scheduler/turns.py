"""Lanes that wait in a row: owners take turns, and the lanes of one owner among themselves."""

from __future__ import annotations

import typing as t
from collections import OrderedDict

from .lane import Lane

__all__ = ["Turns"]

L = t.TypeVar("L", bound=Lane[t.Any])


class Turns(t.Generic[L]):
    """A row of lanes, by their keys. Whatever is done with one lane takes the same time however many there are."""

    def __init__(self) -> None:
        self.lanes: dict[str, L] = {}
        """All of them, in no order."""
        self._owners: OrderedDict[str, OrderedDict[str, L]] = OrderedDict()

    def has(self, owner: str) -> bool:
        """Whether a lane of this owner waits."""
        return owner in self._owners

    def add(self, lane: L) -> None:
        """Put a lane behind those of its owner, and an owner who had none behind all others."""
        self.lanes[lane.key] = lane
        lanes = self._owners.get(lane.owner)
        if lanes is None:
            lanes = self._owners[lane.owner] = OrderedDict()
        lanes[lane.key] = lane

    def remove(self, lane: L) -> None:
        """Take a lane out; its owner has had a turn."""
        lanes = self._owners[lane.owner]
        del self.lanes[lane.key], lanes[lane.key]
        # The lanes of an owner that has more keep their order; the owner goes behind all others.
        if lanes:
            self._owners.move_to_end(lane.owner)
        else:
            del self._owners[lane.owner]

    def first(self) -> L:
        """Return the lane whose turn it is."""
        return next(iter(next(iter(self._owners.values())).values()))

    def first_of(self, is_next: t.Callable[[str], bool], most: int) -> L | None:
        """Return the first lane of the first of `most` owners who are next, if there is one."""
        for owner, lanes in self._owners.items():
            if is_next(owner):
                return next(iter(lanes.values()))
            most -= 1
            if most <= 0:
                break
        return None
