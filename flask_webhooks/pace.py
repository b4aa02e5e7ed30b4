"""How fast a receiver wants to be sent to, learnt from its answers. Pure functions.

A 429, and a 503 with `Retry-After`, is pace and not failure: the receiver is there, and asks for less. So it changes
the pace of the lane and nothing else: the lane waits as told, and starts fewer requests a second afterwards (less by a
share at each refusal, more by the second while there is none). Neither breaker nor disabling count it, and no attempt
of a schedule is used up while the receiver goes on taking others.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace
from datetime import datetime

if t.TYPE_CHECKING:
    from .health import Health

__all__ = ["DAY", "PATIENCE", "Burst", "is_patient", "rate_at", "refused", "taken", "wait_of"]

PATIENCE = 10
"""Refusals in a row, each after the wait that it asked for, from which on they count as attempts of the schedule: then
it does not ask for less, it takes nothing. With no longer waits than ours that is after about five minutes."""
FIRST_WAIT, LONGEST_WAIT, DAY = 1.0, 60.0, 86_400.0
"""Seconds: after a 429 that does not say how long, what our own waits grow to, and the longest that is asked for."""
FIRST_RATE = 5.0
"""Requests a second after a first refusal that says nothing about how many are taken."""
CAREFUL = 0.9
"""Of what was just too much, or of what was taken within the time of a burst and of the wait after it."""
MUCH_LESS = 0.7
"""Of a rate that was refused almost at once, and so was far too high."""
AT_ONCE = 2.0
"""Seconds that are almost at once, and that end a burst when nothing is sent in them."""
ENOUGH = 3
"""Requests taken in a burst that tell how many are taken in general."""
PAUSE = 10.0
"""Seconds from which on a wait is a pause, as for a deployment or a quota of a day, and tells nothing of the rate."""
FORGET = 600.0
"""Seconds without a refusal after which there is no limit any more."""


@dataclass(slots=True)
class Burst:
    """What a receiver has taken since it was last silent: in the memory of the worker that holds the lane."""

    began: datetime | None = None
    last: datetime | None = None
    taken: int = 0
    has_others: bool = False
    """Whether more is at hand, so that nobody can say yet that it takes nothing."""

    def take(self, started: datetime, ended: datetime) -> None:
        """Note a request that was taken."""
        if self.last is None or (started - self.last).total_seconds() > AT_ONCE:
            self.began, self.taken = started, 0
        self.taken, self.last = self.taken + 1, ended

    def seconds(self, now: datetime) -> float:
        """How long it has lasted."""
        return max(0.0, (now - self.began).total_seconds()) if self.began is not None else 0.0

    def end(self) -> None:
        """Begin anew: it was refused."""
        self.began = self.last = None
        self.taken = 0


def rate_at(health: Health, now: datetime) -> float | None:
    """Return how many requests a second may start by what was learnt; None: as many as there are.

    It grows slowly at first, near what was refused, and the faster the longer nothing is.
    """
    if health.paced_rate is None or health.paced_at is None:
        return None
    quiet = max(0.0, (now - health.paced_at).total_seconds())
    if quiet > FORGET:
        return None
    return health.paced_rate * (1 + 0.002 * quiet + 0.0003 * quiet**2)


def is_patient(health: Health, burst: Burst) -> bool:
    """Whether the receiver goes on taking others, as far as is known, so that a refusal uses up no attempt.

    Not one that has never taken anything and has but this one to take, or that took nothing in so many tries in a row.
    """
    return (health.succeeded_at is not None or burst.has_others) and health.refusals < PATIENCE


def taken(before: Health, health: Health, burst: Burst, *, started: datetime, now: datetime) -> Health:
    """Return the health after a success: one that was under way when the receiver asked to slow down changes nothing.

    :param health: with everything else that the success means.
    """
    burst.take(started, now)
    if before.paced_at is None or started > before.paced_at:
        return health
    return replace(health, refusals=before.refusals, waits_for=before.waits_for)


def wait_of(told: float | None, refusals: int) -> float:
    """Return the seconds to wait: as told, and longer each time that nothing was taken in between.

    :param told: by `Retry-After`; None: it said nothing that can be read.
    :param refusals: in a row, this one included.
    """
    own = min(FIRST_WAIT * 2 ** min(max(refusals - 1, 0), 10), LONGEST_WAIT)
    return min(max(told if told is not None else FIRST_WAIT, own if refusals > 1 else 0.1), DAY)


def refused(
    health: Health, burst: Burst, *, started: datetime, now: datetime, told: float | None
) -> tuple[Health, float]:
    """Return the health after a refusal, and the seconds to wait.

    Requests that were under way when the first was refused are one refusal with it.

    :param started: when the request was; `now` it was refused.
    """
    if health.paced_at is not None and started <= health.paced_at:
        return replace(health, waits_for="receiver"), wait_of(told, health.refusals)
    refusals = health.refusals + 1
    wait = wait_of(told, refusals)
    rate = _lower(rate_at(health, started), burst, burst.seconds(started), wait)
    burst.end()
    learnt = {"refusals": refusals, "paced_rate": rate, "paced_at": now, "waits_for": "receiver"}
    return replace(health, **t.cast("dict[str, t.Any]", learnt)), wait


def _lower(rate: float | None, burst: Burst, seconds: float, wait: float) -> float:
    wait = min(wait, PAUSE)
    least = 1 / (wait + 1)
    if rate is None:
        if burst.taken < ENOUGH:
            return max(FIRST_RATE, least) if burst.taken or wait <= FIRST_WAIT else least
        return max(CAREFUL * burst.taken / (seconds + wait), least)
    return max(rate * (CAREFUL if seconds > AT_ONCE else MUCH_LESS), least)
