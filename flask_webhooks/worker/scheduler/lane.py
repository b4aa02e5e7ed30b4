"""One destination in the scheduler: what it has waiting, what it has earned, and where it waits."""

from __future__ import annotations

import enum
import typing as t
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Lane", "Probation", "Where"]

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
    NOWHERE = enum.auto()
    READY = enum.auto()
    PARKED = enum.auto()
    TIMED = enum.auto()


PROVEN, NEW, SUSPECT = Probation
NOWHERE, READY, PARKED, TIMED = Where
# Looking a member up in its class takes Python 3.11 ten times as long, and the scheduler asks at each step.


@dataclass(slots=True, eq=False)
class Lane(t.Generic[T]):
    """One destination in the scheduler."""

    key: str
    """The subscription's id."""
    cap: int
    """Most items in flight, ever."""
    limit: int
    """Most items in flight now: what it has earned, from 1 to `cap`."""
    lease_until: float
    """When another worker may take this destination over."""
    owner: str = ""
    """Whose it is: owners take turns."""
    rate: float | None = None
    """Starts per second; `None` for no limit."""
    is_even: bool = False
    """Whether it makes up for no late turn."""
    standing: Probation = NEW
    """All but the proven count against the slow share."""
    stopped: bool = False
    """Removed; only waits for what is in flight."""
    failed: int = 0
    """Failures in a row, in this run."""
    is_aged: bool = False
    """What it has in flight has been under way for long."""
    halted: bool = False
    """Starts nothing until `release`."""
    unjudged: int = 0
    """Items that are done, and whose outcome nobody has told yet to have dealt with."""
    in_flight: int = 0
    """Items taken and not done."""
    not_before: float = 0.0
    """Earliest next start, by its rate."""
    resume_at: float = 0.0
    """Earliest next start, because it was told to wait."""
    queue: deque[T] = field(default_factory=deque)
    """Items not started, oldest first."""
    where: Where = NOWHERE
    """The one place where it waits."""

    @property
    def start_at(self) -> float:
        """Earliest next start."""
        return max(self.not_before, self.resume_at)
