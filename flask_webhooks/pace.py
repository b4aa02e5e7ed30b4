"""Learns from a receiver's answers how many requests per second it accepts. Pure functions.

A *refusal* is a 429, or a 503 with `Retry-After`. It is no failure: the receiver works, and asks to slow down. So it
changes only the rate of the lane: the lane waits as long as the answer says, and afterwards starts fewer requests per
second. Breaker and disabling ignore it, and it uses up no attempt of a schedule while the receiver accepts others.

A limit may be a count per window, a token bucket, or a minimal interval, and no answer says which. Every refusal costs
the wait that it asks for, so there must be few of them, and each must yield as much information as possible. Requests
are spaced evenly, and no more are in flight at once than the rate needs. After a refusal, the new rate depends on what
is known:

1.  *Nothing is known.* The number accepted within the first second (the burst) is taken for the count of a window: the
    rate starts just below it, and is held for one window. If only one or two were accepted, the limit may be an
    interval: the rate starts at `FIRST_RATE`.
2.  *Seeking.* Then the rate doubles in less than a second until a request is refused. If no more were accepted in the
    last second than in the burst, that number is the limit: the rate stays just below it.
3.  *Between.* Otherwise the limit lies between the number accepted in the last second, without what a bucket had saved,
    and the refused rate. The rate starts at the lower bound and climbs to the upper one; each refusal narrows them.
4.  *Without either bound*, such as after the limit has changed: the mean of the refused rate and the accepted one.
5.  *Growing.* Without refusals the rate grows with the cube of the time, as in CUBIC (RFC 9438): slowly near the
    refused rate, then steeply; in the end seeking starts again. The longer the wait that was asked for, the slower it
    grows. It is a function of time, so it needs no write.
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
"""Refusals in a row, each after the wait that the one before asked for, from which on a refusal uses up an attempt of
the schedule: such a receiver accepts nothing. With our own waits that is after about five minutes."""
FIRST_WAIT, LONGEST_WAIT, DAY = 1.0, 60.0, 86_400.0
"""Seconds to wait: after a 429 without `Retry-After`, the most that our own waits grow to, and the most that we wait
for a `Retry-After`."""
FIRST_RATE = 4.0
"""Requests per second at which seeking starts if the burst says nothing."""
MANY = 3
"""Requests accepted in the burst from which on the limit cannot be a minimal interval."""
SEEKS, DOUBLES_IN = 1.25, 0.7
"""While seeking: the largest factor by which one accepted request raises the rate, and the seconds in which the rate
doubles. It must not double faster, or the last second would not show how many requests a second accepts."""
HOLDS = 1.2
"""Seconds for which the rate of the burst is held before seeking: more than a window of one second."""
CLIMBS, CLIMBS_OF_BUCKETS = 1.0, 4.0
"""Seconds, times the wait that was asked for, in which the rate covers most of the distance to its target."""
CAREFUL, SURE = 0.95, 0.97
"""Share of the number accepted in a second at which the rate starts: measured once, or twice with the same result."""
A_LITTLE = 0.93
"""Share of a refused rate that is tried next where the limit is an interval: the request before it was accepted."""
NEAR = 1.3
"""If the upper bound is less than this times the lower one, a search between them is not worth another wait."""
MUCH_LESS = 0.5
"""Least share of a refused rate that is tried next."""
PAUSE = 10.0
"""Seconds from which on a wait is a pause, as for a deployment or a daily quota, and says nothing about the rate."""
DOUBLES = 60.0
"""Seconds without a refusal, times the wait that was asked for, in which the rate doubles."""
QUIET = 45.0
"""Seconds without a refusal, times the wait that was asked for, after which the limit must have changed."""
FASTEST = 1e4
"""Requests per second that count as no limit."""
FORGET = 600.0
"""Seconds without a refusal after which the learnt rate is dropped."""
SECOND = timedelta(seconds=1)
REMEMBERED = 256
"""Requests whose start is remembered."""


@dataclass(slots=True)
class Burst:
    """The requests that a receiver accepted since its last refusal; kept in the memory of the worker with its lane."""

    starts: deque[datetime] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Start times of the last accepted requests."""
    has_others: bool = False
    """Whether the lane has further deliveries, so it is not yet known that the receiver accepts nothing."""
    began: datetime | None = None
    """Start of the first request at a learnt rate since the last refusal."""
    taken: int = 0
    """Accepted requests since `began`."""
    at_once: float = 0.0
    """Requests accepted within one second before anything was known: the size of the burst."""
    depth: float = 0.0
    """Requests that a token bucket may have saved up."""
    low: float = 0.0
    """A rate that the receiver most likely accepts; 0: unknown."""
    target: float = 0.0
    """The rate to which accepted requests raise the current one; 0: none."""
    is_seeking: bool = False
    """Whether the rate doubles until a refusal, once it has been held for `HOLDS`."""
    wait: float = FIRST_WAIT
    """Seconds that the last refusal asked to wait: the cost of a refusal."""
    latency: float = 0.0
    """Moving average of the seconds that a request takes."""

    def last_second(self, now: datetime) -> float:
        """Return the number of requests accepted in the last second."""
        count = sum(1 for each in self.starts if each > now - SECOND)
        if count < REMEMBERED:
            return count
        return count / max((now - self.starts[0]).total_seconds(), 1 / FASTEST)

    def seconds(self, now: datetime) -> float:
        """Return the seconds since `began`; 0 if nothing was accepted since the last refusal."""
        return max(0.0, (now - self.began).total_seconds()) if self.began is not None else 0.0

    def note(self, started: datetime, ended: datetime) -> None:
        """Count a request that was accepted at a learnt rate."""
        self.began = self.began or started
        self.taken += 1
        seconds = max(0.0, (ended - started).total_seconds())
        self.latency += (seconds - self.latency) / 8 if self.latency else seconds

    def seek(self, low: float, now: datetime) -> None:
        """Start seeking again, because the limit has changed.

        :param low: requests per second that the receiver accepts.
        """
        self.is_seeking, self.began = True, now
        self.at_once = self.depth = self.target = 0.0
        self.low = low

    def end(self) -> None:
        """Forget the accepted requests, after a refusal."""
        self.starts.clear()
        self.began, self.taken = None, 0


def rate_at(health: Health, now: datetime, wait: float = FIRST_WAIT) -> float | None:
    """Return how many requests may start per second; None: no limit is known.

    The longer there was no refusal, the faster the rate grows; near the refused rate it grows slowly.

    :param wait: seconds that the last refusal asked to wait: the larger, the slower the rate grows.
    """
    if health.paced_rate is None or health.paced_at is None:
        return None
    quiet = max(0.0, (now - health.paced_at).total_seconds())
    if quiet > FORGET:
        return None
    return health.paced_rate * (1 + (quiet / (DOUBLES * wait)) ** 3)


def slots_at(rate: float, burst: Burst) -> int | None:
    """Return how many requests must be in flight at once to keep a rate; None: the latency is not known yet.

    No more are allowed, because a receiver may also limit concurrent requests. The number is 1.5 times what the average
    latency needs, because some requests take longer.
    """
    return max(1, math.ceil(1.5 * rate * burst.latency)) if burst.latency else None


def is_patient(health: Health, burst: Burst) -> bool:
    """Whether a refusal uses up no attempt of the schedule, because the receiver accepts other requests.

    False for a receiver that never accepted a request and has only this one, or that refused `PATIENCE` times in a row.
    """
    return (health.succeeded_at is not None or burst.has_others) and health.refusals < PATIENCE


def taken(before: Health, health: Health, burst: Burst, *, started: datetime, now: datetime) -> Health:
    """Return the health after a success.

    A request that was in flight when the receiver refused another does not raise the rate; of those after the very
    first refusal, it enlarges the burst.

    :param before: the health before this success.
    :param health: the health after it, without the rate.
    """
    if before.paced_at is not None and started <= before.paced_at:
        rate = before.paced_rate
        if burst.is_seeking and burst.began is None:  # part of the burst
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
    # If the gap is longer, there was little to send: success at a lower rate proves nothing about this one.
    is_busy = gap * health.paced_rate < SEEKS**2
    rate = _raised(health.paced_rate, burst, max(gap, 0.0), started) if is_busy else health.paced_rate
    return health if rate == health.paced_rate else replace(health, paced_rate=rate)


def _raised(rate: float, burst: Burst, gap: float, started: datetime) -> float:
    """Return the rate after another request was accepted.

    :param gap: seconds between its start and that of the one before.
    """
    if burst.target:
        climbs = (CLIMBS_OF_BUCKETS if burst.depth else CLIMBS) * burst.wait
        return rate + max(0.0, burst.target - rate) * min(gap / climbs, 0.5)
    if burst.is_seeking and burst.seconds(started) >= (HOLDS if burst.at_once >= MANY else 0.0):
        return min(rate * min(SEEKS, 2 ** (gap / DOUBLES_IN)), FASTEST)
    return rate


def wait_of(asked: float | None, refusals: int) -> float:
    """Return the seconds to wait after a refusal: as `Retry-After` says, but longer with each refusal in a row.

    :param asked: seconds from `Retry-After`; None: it is missing or malformed.
    :param refusals: in a row, this one included.
    """
    own = min(FIRST_WAIT * 2 ** min(max(refusals - 1, 0), 10), LONGEST_WAIT)
    return min(max(asked if asked is not None else FIRST_WAIT, own if refusals > 1 else 0.1), DAY)


def refused(
    health: Health, burst: Burst, *, started: datetime, now: datetime, asked: float | None
) -> tuple[Health, float]:
    """Return the health after a refusal, and the seconds to wait.

    Refusals of requests that were in flight at the first refusal count as one with it.

    :param started: the start of the request; it was refused at `now`.
    :param asked: see `wait_of`.
    """
    if health.paced_at is not None and started <= health.paced_at:
        return replace(health, waits_for="receiver"), wait_of(asked, health.refusals)
    refusals = health.refusals + 1
    wait = wait_of(asked, refusals)
    rate = max(_lower(rate_at(health, started, burst.wait), burst, started, wait), 1 / (min(wait, PAUSE) + 1))
    burst.wait = max(min(wait, PAUSE), FIRST_WAIT)
    burst.end()
    learnt = {"refusals": refusals, "paced_rate": rate, "paced_at": now, "waits_for": "receiver"}
    return replace(health, **t.cast("dict[str, t.Any]", learnt)), wait


def _lower(rate: float | None, burst: Burst, started: datetime, wait: float) -> float:
    """Return the rate after a refusal, by the cases in the text of this module; None: no rate was known."""
    last = burst.last_second(started)
    if rate is None:
        burst.is_seeking, burst.at_once = True, last
        if last >= MANY:
            return CAREFUL * last
        return FIRST_RATE if last or wait <= FIRST_WAIT else 0.0
    was_seeking, burst.is_seeking = burst.is_seeking, False
    burst.target = 0.0
    if not burst.starts:  # no request was accepted since the last refusal: the wait was too short
        burst.low = 0.0
        return CAREFUL * rate
    gap = (started - burst.starts[-1]).total_seconds()
    rate = 1 / gap if gap > 2 / rate + 3 * burst.latency else rate
    if was_seeking and (found := _found(rate, burst, burst.seconds(started), last)):
        return found
    return _narrowed(rate, burst, burst.seconds(started), last)


def _found(rate: float, burst: Burst, seconds: float, last: float) -> float:
    """Return the rate after a refusal that ends seeking; 0: the rate had not grown yet."""
    if burst.low and last <= NEAR * burst.low:
        return burst.low
    if burst.at_once < MANY:
        # An interval need not divide a second: between `last` and `last + 1` requests fit into one.
        low, burst.depth = last + 0.5 if last >= MANY else last, 0.0
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
    """Return the rate after a further refusal: between the bounds, or below the refused rate if there are none."""
    if burst.low and burst.low < SURE * rate:
        is_bucket = burst.depth > 0 and seconds > 1
        proven = min(last, (burst.taken - burst.depth) / seconds) if is_bucket else last
        low = burst.low = min(max(burst.low, CAREFUL * proven), CAREFUL * rate)
        if burst.at_once < MANY < rate:  # an interval: the request before this one was accepted
            return max(low, (low + A_LITTLE * rate) / 2)
        if low * NEAR > rate:
            return low
        burst.target = CAREFUL * rate
        return CAREFUL * math.sqrt(low * rate)
    burst.low = 0.0
    least = (burst.taken - max(burst.at_once, 1.0)) / max(seconds, 0.5)
    return CAREFUL * math.sqrt(min(max(least, MUCH_LESS * rate), rate) * rate)
