"""The learnt rate of receivers, by a clock that the test moves: without network, database and waiting."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from flask_webhooks import pace
from flask_webhooks.health import Breaker, Health, after
from flask_webhooks.pace import Burst, rate_at, refused, slots_at, wait_of
from tests.worker.scheduling import KeyedScheduler

START = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY = (0.002, 0.05)
"""Seconds that a request takes."""
ON_THE_WAY = 0.1
"""Of them, until the receiver has decided."""
Takes = t.Callable[[float], bool]
Waits = float | None | t.Callable[[float], float]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Sliding:
    """Takes so many in any second, or any other width."""

    most: int
    width: float = 1.0
    times: list[float] = field(default_factory=list)

    def __call__(self, now: float) -> bool:
        self.times = [each for each in self.times if each > now - self.width]
        if len(self.times) >= self.most:
            return False
        self.times.append(now)
        return True

    def left(self, now: float) -> float:
        """Return the whole seconds until it takes another."""
        return math.ceil(self.times[0] + self.width - now)


@dataclass
class Fixed:
    """Takes so many in each second of the clock, or any other width."""

    most: int
    width: float = 1.0
    window: int = -1
    taken: int = 0

    def __call__(self, now: float) -> bool:
        if int(now / self.width) != self.window:
            self.window, self.taken = int(now / self.width), 0
        self.taken += 1
        return self.taken <= self.most

    def left(self, now: float) -> float:
        """Return the whole seconds until the next window."""
        return math.ceil((self.window + 1) * self.width - now)


@dataclass
class Bucket:
    """Takes so many a second in the long run, and some at once."""

    rate: float
    most: float
    left: float = 0.0
    last: float = -100.0

    def __call__(self, now: float) -> bool:
        self.left = min(self.most, self.left + (now - self.last) * self.rate)
        self.last = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Sent:
    """A request that is under way."""

    item: int
    began: float
    ends: float
    is_taken: bool | None = None


@dataclass
class Told:
    """What came of sending."""

    seconds: float = 0.0
    order: list[int] = field(default_factory=list)
    refused: int = 0
    starts: list[float] = field(default_factory=list)
    health: Health = field(default_factory=Health)


def send(
    takes: Takes,
    count: int,
    *,
    asked: Waits = 1.0,
    rate: float | None = None,
    most: float = 1e6,
    seed: int = 1,
) -> Told:
    """Send through the real scheduler as a worker does, one event after the other on a clock of our own."""
    scheduler, burst, found, chance = (
        KeyedScheduler(cap=4),
        Burst(has_others=True),
        Told(),
        random.Random(seed),
    )
    scheduler.add("a", range(count), lease_until=1e9, rate=rate)
    events: list[tuple[float, int, Sent]] = []
    tie, now = itertools.count(), 0.0
    while len(found.order) < count and now < most:
        while (item := scheduler.take(now)) is not None:
            found.starts.append(now)
            seconds = chance.uniform(*LATENCY)
            sent = Sent(item, now, now + seconds)
            heapq.heappush(events, (now + seconds * ON_THE_WAY, next(tie), sent))
        start = scheduler.next_start("a") if scheduler.queued else 1e9
        if start > now and (not events or start < events[0][0]):
            now = start + chance.uniform(0, 0.002)
            continue
        moment, _, sent = heapq.heappop(events)
        now = max(now, moment)
        if sent.is_taken is None:
            sent.is_taken = takes(now)
            heapq.heappush(events, (max(now, sent.ends), next(tie), sent))
            continue
        _judge(scheduler, burst, found, sent, now, asked(now) if callable(asked) else asked)
        learnt = rate_at(found.health, at(now), burst.wait)
        terms = [each for each in (rate, learnt) if each is not None]
        slots = slots_at(learnt, burst) if learnt is not None else None
        scheduler.set_terms("a", rate=min(terms, default=None), cap=slots, even=learnt is not None)
    found.seconds = now
    return found


def _judge(
    scheduler: KeyedScheduler, burst: Burst, found: Told, sent: Sent, now: float, asked: float | None
) -> None:
    seconds, started = now - sent.began, at(sent.began)
    if sent.is_taken:
        before = found.health
        health, _ = after(before, ok=True, now=at(now), breaker=Breaker(), disable_after=None)
        found.health = pace.taken(before, health, burst, started=started, now=at(now))
        scheduler.done("a", ok=True, seconds=seconds, now=now)
        found.order.append(sent.item)
    else:
        found.refused += 1
        found.health, wait = refused(found.health, burst, started=started, now=at(now), asked=asked)
        scheduler.done("a", ok=False, seconds=seconds, now=now, wait=wait)
        assert scheduler.put_back("a", sent.item)


KINDS: dict[str, t.Callable[[int], Takes]] = {
    "in any second": lambda rate: Sliding(rate),
    "in each second of the clock": lambda rate: Fixed(rate),
    "one at a time": lambda rate: Bucket(rate, 1),
    "two at once": lambda rate: Bucket(rate, 2),
    "five at once": lambda rate: Bucket(rate, 5),
    "twenty at once": lambda rate: Bucket(rate, 20),
}


def date(now: float) -> float:
    """Return how long a date asks to wait that is a second ahead, and has no fractions."""
    return max(0.0, math.floor(now + 1) - now)


def how_many(rate: int, asked: Waits) -> tuple[int, float]:
    """Return how many events to send, and the wait that a refusal costs."""
    wait = asked if isinstance(asked, float) else 1.0
    return max(200, int(rate * max(20, 10 * wait))), wait


class TestAllKinds:
    """As many as take 200 events, 20 seconds and ten waits, by a receiver's rate, kind and `Retry-After`."""

    @pytest.mark.parametrize("asked", [1.0, 2.0, 5.0, None, date], ids=["1", "2", "5", "nothing", "a date"])
    @pytest.mark.parametrize("rate", [1, 2, 5, 10, 20, 50])
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_learning_costs_are_a_few_waits(self, kind, rate, asked):
        count, wait = how_many(rate, asked)
        found = send(KINDS[kind](rate), count, asked=asked)

        ideal = count / rate
        if "second" in kind:  # and each event of a window is known after one refusal, and sure after the next
            assert found.seconds <= 1.25 * ideal
        else:
            jitter = 0.25 if kind == "one at a time" and rate > 20 else 0.0
            assert found.seconds <= (1.12 + jitter) * ideal + 4 * wait + 2
        assert found.refused <= 0.12 * (count + found.refused)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("asked", [1.0, None, date], ids=["1", "nothing", "a date"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_200_at_five_a_second_take_a_quarter_more_than_they_must(self, kind, asked, seed):
        found = send(KINDS[kind](5), 200, asked=asked, seed=seed)

        assert found.seconds <= 1.25 * 40
        assert found.refused <= 0.1 * (200 + found.refused)

    @pytest.mark.parametrize("a_minute", [30, 60, 300, 1_200])
    @pytest.mark.parametrize("kind", [Sliding, Fixed])
    def test_what_counts_by_the_minute_gets_it_at_once_and_then_waits(self, kind, a_minute):
        receiver = kind(a_minute, 60.0)
        count = max(200, 3 * a_minute)
        found = send(receiver, count, asked=receiver.left)

        assert found.seconds <= 1.02 * 60 * count / a_minute
        assert found.refused <= 0.1 * (count + found.refused)


class TestFiveASecond:
    def test_with_a_wait_of_nothing_it_is_not_asked_without_end(self):
        found = send(Sliding(5), 200, asked=0.0)

        assert found.seconds <= 60
        assert found.refused <= 50

    def test_what_was_refused_is_sent_before_what_waits_behind_it(self):
        found = send(Sliding(5), 60)

        assert sorted(found.order) == list(range(60))
        assert all(abs(place - item) <= 4 for place, item in enumerate(found.order))


class TestOtherRates:
    @pytest.mark.parametrize("kind", ["in any second", "one at a time"])
    def test_a_limit_that_changes_is_followed(self, kind):
        five, two, twenty = (KINDS[kind](rate) for rate in (5, 2, 20))
        found = send(lambda now: (five if now < 10 else two if now < 50 else twenty)(now), 600)

        assert found.seconds < 125  # 73.5 with foreknowledge
        assert found.refused < 30

    def test_one_that_never_refuses_is_sent_to_without_any_rate(self):
        found = send(lambda now: True, 2_000)

        assert rate_at(found.health, at(found.seconds)) is None
        assert found.seconds < 2_000 * 0.05 / 4

    def test_no_more_are_under_way_at_once_than_the_rate_needs(self):
        burst = Burst(latency=0.05)

        assert [slots_at(rate, burst) for rate in (0.1, 5.0, 20.0, 21.0, 70.0)] == [1, 1, 2, 2, 6]
        assert slots_at(5.0, Burst()) is None


class TestLearning:
    def test_a_receiver_that_gets_faster_is_found_out(self):
        slow, fast = Sliding(5), Sliding(50)
        found = send(lambda now: slow(now) if now < 20 else fast(now), 2_000)

        assert found.seconds < 180

    def test_a_receiver_that_gets_slower_is_found_out(self):
        fast, slow = Sliding(20), Sliding(2)
        found = send(lambda now: fast(now) if now < 5 else slow(now), 150)

        assert found.seconds < 5 + (150 - 95) / 2 * 1.6
        assert found.refused < 40

    def test_it_is_never_faster_than_the_owner_allows(self):
        found = send(Sliding(5), 60, rate=3.0)

        assert found.refused == 0
        gaps = [later - first for first, later in zip(found.starts, found.starts[3:], strict=False)]
        assert min(gaps) >= 0.9

    def test_those_that_were_under_way_together_are_one_refusal(self):
        health, burst = Health(succeeded_at=START), Burst()
        for number in range(5):
            pace.taken(health, health, burst, started=at(0.01 * number), now=at(0.01 * number + 0.005))
        for number in range(4):
            health, wait = refused(health, burst, started=at(0.05), now=at(0.1 + number / 100), asked=1.0)

        assert health.refusals == 1
        assert wait == 1.0
        assert health.paced_rate == pytest.approx(pace.CAREFUL * 5)

    def test_it_is_forgotten_after_ten_quiet_minutes(self):
        health = Health(paced_rate=5.0, paced_at=START)

        assert rate_at(health, at(0)) == 5.0
        assert 5.0 < rate_at(health, at(20)) < 6.0
        assert rate_at(health, at(120)) > 20
        assert rate_at(health, at(601)) is None

    def test_a_clock_that_was_put_back_makes_it_no_slower(self):
        assert rate_at(Health(paced_rate=5.0, paced_at=START), at(-3600)) == 5.0


class TestWaiting:
    @pytest.mark.parametrize(
        ("asked", "refusals", "least", "most"),
        [
            (None, 1, 1, 1),
            (None, 3, 4, 4),
            (None, 50, 60, 60),
            (1.0, 1, 1, 1),
            (1.0, 4, 8, 8),
            (30.0, 2, 30, 30),
            (0.0, 1, 0.1, 0.1),
            (1e12, 1, 86_400, 86_400),
        ],
    )
    def test_as_asked_and_longer_while_nothing_is_accepted(self, asked, refusals, least, most):
        assert least <= wait_of(asked, refusals) <= most

    def test_a_receiver_that_takes_nothing_is_asked_less_and_less(self):
        found = send(lambda now: False, 1, most=600.0)

        assert found.refused <= 18
        assert not pace.is_patient(found.health, Burst(has_others=True))


def test_neither_breaker_nor_disabling_count_it() -> None:
    health, burst = Health(succeeded_at=START), Burst()
    for number in range(100):
        health, _ = refused(health, burst, started=at(number), now=at(number + 0.5), asked=1.0)

    assert (health.failures, health.failing_since, health.window_failed, health.paused_until) == (
        0,
        None,
        0,
        None,
    )
