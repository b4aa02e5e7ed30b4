"""How fast a receiver wants to be sent to, learnt from its answers. Pure functions.

A 429, and a 503 with `Retry-After`, is pace and not failure: the receiver is there, and asks for less. So it changes
the pace of the lane and nothing else: the lane waits as told, and starts fewer requests a second afterwards. Neither
breaker nor disabling count it, and no attempt of a schedule is used up while the receiver goes on taking others.

A limit is a number in a window, a bucket, or a distance, and nothing in an answer says which. Every refusal costs the
wait that it asks for, so there must be few of them, and each has to tell as much as it can. Requests are spaced evenly,
and no more are under way at once than the rate needs. What is done after a refusal depends on what is known:

1.  *Nothing.* What was taken within a second of the burst is what a window has, so the rate begins just below that and
    is held for as long. A receiver that took one or two may want distances: there it begins at a few a second.
2.  *Seeking.* Then the rate doubles in less than a second until it is refused. If no more were taken in the last second
    than in the first burst, that is the limit: the rate stays just below.
3.  *Between.* Else the limit is between what was taken in the last second, less what a bucket had saved, and the rate
    that was refused. It begins at the lower one, climbs to the upper one, and each refusal narrows it.
4.  *Without either*, such as when a limit has moved: the mean of what was refused and of what was taken meanwhile.
5.  *Growing.* Without a refusal the rate grows with the cube of the time, as in CUBIC (RFC 9438): flat near what was
    refused, steep when the receiver must have become faster; at last it is sought anew. The longer the wait that was
    asked for, the slower. It is a function of the time, so it needs no write.
"""

from __future__ import annotations

import math
import typing as t
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

if t.TYPE_CHECKING:
    from .health import Health

__all__ = [
    "DAY",
    "FIRST_WAIT",
    "PATIENCE",
    "Burst",
    "is_patient",
    "rate_at",
    "refused",
    "slots_at",
    "taken",
    "wait_of",
]

PATIENCE = 10
"""Refusals in a row, each after the wait that it asked for, from which on they count as attempts of the schedule: then
it does not ask for less, it takes nothing. With no longer waits than ours that is after about five minutes."""
FIRST_WAIT, LONGEST_WAIT, DAY = 1.0, 60.0, 86_400.0
"""Seconds: after a 429 that does not say how long, what our own waits grow to, and the longest that is asked for."""
FIRST_RATE = 4.0
"""Requests a second that seeking begins with where the first burst tells nothing."""
MANY = 3
"""Requests taken in the first burst from which on it was no distance that refused the next."""
SEEKS, DOUBLES_IN = 1.25, 0.7
"""What the rate is multiplied by at most with each request that is taken while it is sought, and the seconds in which
it doubles: a second must be able to tell what it takes in one."""
HOLDS = 1.2
"""Seconds for which what was taken in the first burst is kept to before more is sought: more than a window of one."""
CLIMBS, CLIMBS_OF_BUCKETS = 1.0, 4.0
"""Seconds in which most of what is missing to the target is climbed; times the wait that was asked for."""
CAREFUL, SURE = 0.95, 0.97
"""Of what was taken in a second: once, and twice the same."""
A_LITTLE = 0.93
"""Of a rate that was refused, where the last one before it was taken."""
NEAR = 1.3
"""Times the lower bound, within which the upper one is not worth another wait."""
MUCH_LESS = 0.5
"""Of a rate that was refused, at least."""
PAUSE = 10.0
"""Seconds from which on a wait is a pause, as for a deployment or a quota of a day, and tells nothing of the rate."""
DOUBLES = 60.0
"""Seconds without a refusal in which the rate doubles; times the wait that was asked for."""
QUIET = 45.0
"""Seconds without a refusal after which the limit must have moved; times the wait that was asked for."""
FASTEST = 1e4
"""Requests a second that are as good as no limit."""
FORGET = 600.0
"""Seconds without a refusal after which there is no limit any more."""
SECOND = timedelta(seconds=1)
REMEMBERED = 256
"""Requests whose start is kept."""


@dataclass(slots=True)
class Burst:
    """What a receiver has taken since it last refused: in the memory of the worker that holds the lane."""

    starts: deque[datetime] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """When the last ones that were taken were started."""
    has_others: bool = False
    """Whether more is at hand, so that nobody can say yet that it takes nothing."""
    began: datetime | None = None
    """When it was first sent to at a learnt rate after a refusal."""
    taken: int = 0
    """How many since then."""
    at_once: float = 0.0
    """What it took within a second before anything was known."""
    depth: float = 0.0
    """What it may have saved up, if it is a bucket."""
    low: float = 0.0
    """A rate that it most likely takes; 0: unknown."""
    target: float = 0.0
    """What the rate climbs to with each that is taken; 0: nothing."""
    is_seeking: bool = False
    """Whether the rate doubles, after it was held."""
    wait: float = FIRST_WAIT
    """Seconds that it last asked to wait: what a refusal costs."""
    latency: float = 0.0
    """Seconds that a request takes, on an average of the last ones."""

    def last_second(self, now: datetime) -> float:
        """How many it has taken in the last second."""
        count = sum(1 for each in self.starts if each > now - SECOND)
        if count < REMEMBERED:
            return count
        return count / max((now - self.starts[0]).total_seconds(), 1 / FASTEST)

    def seconds(self, now: datetime) -> float:
        """How long it has been sent to since the last refusal."""
        return max(0.0, (now - self.began).total_seconds()) if self.began is not None else 0.0

    def note(self, started: datetime, ended: datetime) -> None:
        """Count a request that was taken at a rate that is learnt."""
        self.began = self.began or started
        self.taken += 1
        seconds = max(0.0, (ended - started).total_seconds())
        self.latency += (seconds - self.latency) / 8 if self.latency else seconds

    def seek(self, low: float, now: datetime) -> None:
        """Begin to look for a limit that has moved, above a rate that is taken."""
        self.is_seeking, self.began = True, now
        self.at_once = self.depth = self.target = 0.0
        self.low = low

    def end(self) -> None:
        """Begin anew: it was refused."""
        self.starts.clear()
        self.began, self.taken = None, 0


def rate_at(health: Health, now: datetime, wait: float = FIRST_WAIT) -> float | None:
    """Return how many requests a second may start by what was learnt; None: as many as there are.

    It grows slowly at first, near what was refused, and the faster the longer nothing is.

    :param wait: seconds that were asked for: what trying too much costs.
    """
    if health.paced_rate is None or health.paced_at is None:
        return None
    quiet = max(0.0, (now - health.paced_at).total_seconds())
    if quiet > FORGET:
        return None
    return health.paced_rate * (1 + (quiet / (DOUBLES * wait)) ** 3)


def slots_at(rate: float, burst: Burst) -> int | None:
    """Return how many requests need be under way at once for a rate: a receiver may mind two. None: nobody knows.

    Half as many again as the average needs, for some take longer.
    """
    return max(1, math.ceil(1.5 * rate * burst.latency)) if burst.latency else None


def is_patient(health: Health, burst: Burst) -> bool:
    """Whether the receiver goes on taking others, as far as is known, so that a refusal uses up no attempt.

    Not one that has never taken anything and has but this one to take, or that took nothing in so many tries in a row.
    """
    return (health.succeeded_at is not None or burst.has_others) and health.refusals < PATIENCE


def taken(before: Health, health: Health, burst: Burst, *, started: datetime, now: datetime) -> Health:
    """Return the health after a success: of those under way when the receiver asked to slow down only the first count.

    :param health: with everything else that the success means.
    """
    if before.paced_at is not None and started <= before.paced_at:
        rate = before.paced_rate
        if burst.is_seeking and burst.began is None:  # of the first burst
            burst.at_once += 1
            rate = CAREFUL * burst.at_once if burst.at_once >= MANY else rate
        return replace(health, refusals=before.refusals, waits_for=before.waits_for, paced_rate=rate)
    gap = (started - burst.starts[-1]).total_seconds() if burst.starts else math.inf
    burst.starts.append(started)
    if health.paced_rate is None or health.paced_at is None:
        return health
    burst.note(started, now)
    if not burst.is_seeking and (started - health.paced_at).total_seconds() > QUIET * burst.wait:
        burst.seek(health.paced_rate, started)
    is_busy = gap * health.paced_rate < SEEKS**2  # else there is little to send, which shows nothing
    rate = _raised(health.paced_rate, burst, max(gap, 0.0), started) if is_busy else health.paced_rate
    return health if rate == health.paced_rate else replace(health, paced_rate=rate)


def _raised(rate: float, burst: Burst, gap: float, started: datetime) -> float:
    """Return the rate after another request was taken, so many seconds after the one before."""
    if burst.target:
        climbs = (CLIMBS_OF_BUCKETS if burst.depth else CLIMBS) * burst.wait
        return rate + max(0.0, burst.target - rate) * min(gap / climbs, 0.5)
    if burst.is_seeking and burst.seconds(started) >= (HOLDS if burst.at_once >= MANY else 0.0):
        return min(rate * min(SEEKS, 2 ** (gap / DOUBLES_IN)), FASTEST)
    return rate


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
    rate = max(_lower(rate_at(health, started, burst.wait), burst, started, wait), 1 / (min(wait, PAUSE) + 1))
    burst.wait = max(min(wait, PAUSE), FIRST_WAIT)
    burst.end()
    learnt = {"refusals": refusals, "paced_rate": rate, "paced_at": now, "waits_for": "receiver"}
    return replace(health, **t.cast("dict[str, t.Any]", learnt)), wait


def _lower(rate: float | None, burst: Burst, started: datetime, wait: float) -> float:
    last = burst.last_second(started)
    if rate is None:
        burst.is_seeking, burst.at_once = True, last
        if last >= MANY:
            return CAREFUL * last
        return FIRST_RATE if last or wait <= FIRST_WAIT else 0.0
    was_seeking, burst.is_seeking = burst.is_seeking, False
    burst.target = 0.0
    if not burst.starts:  # nothing was taken: the wait was too short
        burst.low = 0.0
        return CAREFUL * rate
    gap = (started - burst.starts[-1]).total_seconds()
    rate = 1 / gap if gap > 2 / rate + 3 * burst.latency else rate
    if was_seeking and (found := _found(rate, burst, burst.seconds(started), last)):
        return found
    return _narrowed(rate, burst, burst.seconds(started), last)


def _found(rate: float, burst: Burst, seconds: float, last: float) -> float:
    """Return the rate after seeking was refused; 0: it was before the rate had grown."""
    if burst.low and last <= NEAR * burst.low:
        return burst.low
    if burst.at_once < MANY:
        low, burst.depth = last + 0.5 if last >= MANY else last, 0.0  # a distance has no whole numbers
        high = rate / min(SEEKS, 2 ** (1 / (rate * DOUBLES_IN)))
    elif seconds < HOLDS:
        return 0.0
    elif last <= 1.5 * burst.at_once:
        burst.low = SURE * min(last, burst.at_once)
        return burst.low
    else:
        burst.depth = burst.at_once
        low = max(burst.depth, last - burst.depth, (burst.taken - burst.depth) / seconds)
        high = math.sqrt(CAREFUL * low * rate)
    burst.low = CAREFUL * low
    burst.target = max(high, burst.low)
    return burst.low


def _narrowed(rate: float, burst: Burst, seconds: float, last: float) -> float:
    """Return the rate after another one was refused."""
    if burst.low and burst.low < SURE * rate:
        is_bucket = burst.depth > 0 and seconds > 1
        proven = min(last, (burst.taken - burst.depth) / seconds) if is_bucket else last
        low = burst.low = min(max(burst.low, CAREFUL * proven), CAREFUL * rate)
        if burst.at_once < MANY < rate:  # a distance: the last one before was taken
            return max(low, (low + A_LITTLE * rate) / 2)
        if low * NEAR > rate:
            return low
        burst.target = CAREFUL * rate
        return CAREFUL * math.sqrt(low * rate)
    burst.low = 0.0
    least = (burst.taken - max(burst.at_once, 1.0)) / max(seconds, 0.5)
    return CAREFUL * math.sqrt(min(max(least, MUCH_LESS * rate), rate) * rate)
