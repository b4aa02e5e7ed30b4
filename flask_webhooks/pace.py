"""How fast a receiver wants to be sent to, learnt from its answers. Pure functions.

A 429, and a 503 with `Retry-After`, is pace and not failure: the receiver is there, and asks for less. So it changes
the pace of the lane and nothing else: the lane waits as told, and starts fewer requests a second afterwards. Neither
breaker nor disabling count it, and no attempt of a schedule is used up while the receiver goes on taking others.

The rate goes down by a share and up a little at a time, as all who share a limit must (Chiu and Jain, 1989; for TCP
Jacobson, 1988). Requests are spaced evenly, and no more are under way at once than the rate needs:

1.  *Seeking.* After the first refusal the rate begins at what was taken in the time of the burst and of the wait after
    it, and grows with each request that is taken until one is refused again (slow start). The same after a long time
    without a refusal, for then the limit has moved.
2.  *Lowering.* A refusal takes a share off. If it comes almost at once, or ends the seeking, the rate falls to what was
    taken within the wait, which is right for a window or a bucket, and climbs to just below what was refused,
    which is right for a receiver that wants distances: a tenth of what is missing with each that is taken.
3.  *Growing.* Without a refusal it grows with the cube of the time, as in CUBIC (RFC 9438): flat near what was refused,
    steep when the receiver must have become faster. It is a function of the time, so it needs no write.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime

if t.TYPE_CHECKING:
    from .health import Health

__all__ = ["DAY", "PATIENCE", "Burst", "is_patient", "rate_at", "refused", "slots_at", "taken", "wait_of"]

PATIENCE = 10
"""Refusals in a row, each after the wait that it asked for, from which on they count as attempts of the schedule: then
it does not ask for less, it takes nothing. With no longer waits than ours that is after about five minutes."""
FIRST_WAIT, LONGEST_WAIT, DAY = 1.0, 60.0, 86_400.0
"""Seconds: after a 429 that does not say how long, what our own waits grow to, and the longest that is asked for."""
FIRST_RATE = 4.0
"""Requests a second that seeking begins with, if no more were taken."""
SEEKS = 1.25
"""What the rate is multiplied by with each request that is taken while it is sought."""
CLIMBS = 0.1
"""Of what is missing to the target, with each request that is taken."""
CAREFUL = 0.93
"""Of what was just too much."""
MUCH_LESS = 0.5
"""Of a rate that was refused almost at once, at least."""
AT_ONCE = 2.0
"""Seconds that are almost at once, and that end a burst when nothing is sent in them."""
PAUSE = 10.0
"""Seconds from which on a wait is a pause, as for a deployment or a quota of a day, and tells nothing of the rate."""
DOUBLES = 60.0
"""Seconds without a refusal in which the rate doubles."""
QUIET = 45.0
"""Seconds without a refusal after which the limit must have moved: it is sought anew."""
FASTEST = 1e4
"""Requests a second that are as good as no limit."""
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
    is_seeking: bool = False
    """Whether the rate grows with each that is taken."""
    target: float = 0.0
    """What the rate climbs to with each that is taken."""
    gap: float = 0.0
    """Seconds between the starts of the last two that were taken."""
    started: datetime | None = None
    """When the last that was taken was started."""
    latency: float = 0.0
    """Seconds that a request takes, on an average of the last ones."""

    def take(self, started: datetime, ended: datetime) -> None:
        """Note a request that was taken."""
        if self.last is None or (started - self.last).total_seconds() > AT_ONCE:
            self.began, self.taken = started, 0
        self.gap = (started - self.started).total_seconds() if self.started is not None else 0.0
        self.taken, self.last, self.started = self.taken + 1, ended, started
        seconds = max(0.0, (ended - started).total_seconds())
        self.latency += (seconds - self.latency) / min(self.taken, 8) if self.latency else seconds

    def seconds(self, now: datetime) -> float:
        """How long it has lasted."""
        return max(0.0, (now - self.began).total_seconds()) if self.began is not None else 0.0

    def end(self) -> None:
        """Begin anew: it was refused."""
        self.began = self.last = self.started = None
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
    return health.paced_rate * (1 + (quiet / DOUBLES) ** 3)


def slots_at(rate: float, burst: Burst) -> int | None:
    """Return how many requests need be under way at once for a rate: a receiver may mind two. None: nobody knows."""
    return max(1, math.ceil(rate * burst.latency)) if burst.latency else None


def is_patient(health: Health, burst: Burst) -> bool:
    """Whether the receiver goes on taking others, as far as is known, so that a refusal uses up no attempt.

    Not one that has never taken anything and has but this one to take, or that took nothing in so many tries in a row.
    """
    return (health.succeeded_at is not None or burst.has_others) and health.refusals < PATIENCE


def taken(before: Health, health: Health, burst: Burst, *, started: datetime, now: datetime) -> Health:
    """Return the health after a success: one that was under way when the receiver asked to slow down changes nothing.

    :param health: with everything else that the success means.
    """
    if before.paced_at is not None and started <= before.paced_at:
        return replace(health, refusals=before.refusals, waits_for=before.waits_for)
    burst.take(started, now)
    if health.paced_rate is None or health.paced_at is None:
        return health
    quiet = (now - health.paced_at).total_seconds()
    if not burst.is_seeking and quiet > QUIET:
        burst.is_seeking, burst.began, burst.taken = True, started, 1
    if burst.is_seeking and burst.gap * health.paced_rate < SEEKS**2:  # not while there is little to send
        return replace(health, paced_rate=min(health.paced_rate * SEEKS, FASTEST))
    missing = max(0.0, burst.target - health.paced_rate)
    return replace(health, paced_rate=health.paced_rate + CLIMBS * missing) if missing else health


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
    rate = _lower(rate_at(health, started), burst, started, wait)
    burst.end()
    learnt = {"refusals": refusals, "paced_rate": rate, "paced_at": now, "waits_for": "receiver"}
    return replace(health, **t.cast("dict[str, t.Any]", learnt)), wait


def _lower(rate: float | None, burst: Burst, started: datetime, wait: float) -> float:
    wait, seconds = max(min(wait, PAUSE), FIRST_WAIT), burst.seconds(started)
    least = 1 / (wait + 1)
    if rate is None:
        burst.is_seeking = True
        first = FIRST_RATE if burst.taken or wait <= FIRST_WAIT else least
        return max(CAREFUL * burst.taken / (seconds + wait), first)
    was_at_once = burst.is_seeking or seconds <= AT_ONCE
    if burst.started is None or not was_at_once:  # nothing was taken: the wait was too short
        burst.target = 0.0
        return max(CAREFUL * rate, least)
    rate = min(rate, 1 / max((started - burst.started).total_seconds(), 1 / FASTEST))
    burst.target, burst.is_seeking = CAREFUL * rate, False
    return max(min(max(burst.taken / max(seconds, wait), MUCH_LESS * rate), burst.target), least)
