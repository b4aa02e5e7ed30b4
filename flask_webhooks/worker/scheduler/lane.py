"""One destination in the scheduler: what it has waiting, what it has earned, and where it waits.

Only the scheduler changes these fields, with its lock held. Numbers may be read without it: one that is a moment old
decides nothing that the next look does not put right.
"""

from __future__ import annotations

import enum
import typing as t
from collections import deque
from dataclasses import dataclass, field

__all__ = ["NEW", "NOWHERE", "PARKED", "PROVEN", "READY", "SUSPECT", "TIMED", "Lane", "Probation", "Where"]

T = t.TypeVar("T")


class Probation(enum.Enum):
    """What is known of how long a lane holds a thread."""

    PROVEN = enum.auto()
    """It has answered quickly."""
    NEW = enum.auto()
    """Nothing; on probation."""
    SUSPECT = enum.auto()
    """Its last attempt was slow, did not reach it, or failed before this run; on probation."""


class Where(enum.Enum):
    """The one place where a lane waits."""

    NOWHERE = enum.auto()
    """It has nothing to start, or may start nothing."""
    READY = enum.auto()
    """It may start an item now."""
    PARKED = enum.auto()
    """It waits for a slot of the share of lanes on probation."""
    TIMED = enum.auto()
    """It waits for a moment, by its rate or because of `hold`."""


PROVEN, NEW, SUSPECT = Probation
NOWHERE, READY, PARKED, TIMED = Where
# Looking a member up in its class takes Python 3.11 ten times as long, and the scheduler asks at each step.


@dataclass(slots=True, eq=False)
class Lane(t.Generic[T]):
    """One destination in the scheduler. Who has more to say of a destination inherits from this."""

    key: str
    """The subscription's id."""
    owner: str
    """Whose it is: owners take turns."""
    lease_until: float
    """Monotonic seconds when another worker may take this destination over."""
    cap: int = 0
    """Most items in flight, ever."""
    limit: int = 0
    """Most items in flight now: what it has earned, from 1 to `cap`; 0 until it is added."""
    rate: float | None = None
    """Starts per second; `None` for no limit."""
    is_even: bool = False
    """Whether it makes up for no late turn."""
    probation: Probation = NEW
    """All but the proven count against the share of slow lanes."""
    is_closing: bool = False
    """Takes nothing more; only waits for what is in flight."""
    failed: int = 0
    """Failures in a row, in this run."""
    is_aged: bool = False
    """What it has in flight has been under way for long."""
    is_halted: bool = False
    """Starts nothing until `release`."""
    unrecorded: int = 0
    """Items that are done, and whose outcome has not been dealt with yet; see `release`."""
    in_flight: int = 0
    """Items taken and not done."""
    not_before: float = 0.0
    """Earliest next start, by its rate."""
    resume_at: float = 0.0
    """Earliest next start, because of `hold`."""
    queue: deque[T] = field(default_factory=deque)
    """Items not started, oldest first."""
    where: Where = NOWHERE

    @property
    def start_at(self) -> float:
        """Earliest next start, maybe in the past."""
        return max(self.not_before, self.resume_at)
