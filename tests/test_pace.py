"""The pace of receivers, by a clock that the test moves: no network, no database, no waiting."""

from __future__ import annotations

import heapq
import itertools
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from flask_webhooks import pace
from flask_webhooks.health import Breaker, Health, after
from flask_webhooks.pace import Burst, rate_at, refused, wait_of
from flask_webhooks.rotation import Rotation

START = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY = 0.01
Takes = t.Callable[[float], bool]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Sliding:
    """Takes so many in any second."""

    most: int
    times: list[float] = field(default_factory=list)

    def __call__(self, now: float) -> bool:
        self.times = [each for each in self.times if each > now - 1]
        if len(self.times) >= self.most:
            return False
        self.times.append(now)
        return True


@dataclass
class Fixed:
    """Takes so many in each second of the clock."""

    most: int
    second: int = -1
    taken: int = 0

    def __call__(self, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.taken = int(now), 0
        self.taken += 1
        return self.taken <= self.most


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
class Told:
    """What came of sending."""

    seconds: float = 0.0
    order: list[int] = field(default_factory=list)
    refused: int = 0
    starts: list[float] = field(default_factory=list)
    health: Health = field(default_factory=Health)


def send(
    takes: Takes, count: int, *, told: float | None = 1.0, rate: float | None = None, most: float = 1e6
) -> Told:
    """Send through the real rotation as a worker does, one event after the other on a clock of our own."""
    rotation, burst, found = Rotation[int](cap=4), Burst(), Told()
    rotation.add("a", range(count), lease_until=1e9, rate=rate)
    under_way: list[tuple[float, int, float, int]] = []
    tie, now = itertools.count(), 0.0
    while len(found.order) < count and now < most:
        while (item := rotation.take(now)) is not None:
            found.starts.append(now)
            heapq.heappush(under_way, (now + LATENCY, next(tie), now, item))
        if not under_way or (
            rotation.queued() and rotation.in_flight() < 2 and rotation.next_start("a") < under_way[0][0]
        ):
            now = max(now + 0.0005, rotation.next_start("a")) if rotation.queued() else under_way[0][0]
            continue
        now, _, began, item = heapq.heappop(under_way)
        _judge(rotation, burst, found, takes(now), item, began, now, told)
        rates = [each for each in (rate, rate_at(found.health, at(now))) if each is not None]
        rotation.set_terms("a", rate=min(rates, default=None))
    found.seconds = now
    return found


def _judge(
    rotation: Rotation[int],
    burst: Burst,
    found: Told,
    is_taken: bool,
    item: int,
    began: float,
    now: float,
    told: float | None,
) -> None:
    if is_taken:
        burst.take(at(began), at(now))
        found.health, _ = after(found.health, ok=True, now=at(now), breaker=Breaker(), disable_after=None)
        rotation.done("a", ok=True, seconds=LATENCY, now=now)
        found.order.append(item)
    else:
        found.refused += 1
        found.health, wait = refused(found.health, burst, started=at(began), now=at(now), told=told)
        rotation.done("a", ok=False, seconds=LATENCY, now=now, wait=wait)
        assert rotation.put_back("a", item)


FIVE: dict[str, t.Callable[[], Takes]] = {
    "in any second": lambda: Sliding(5),
    "in each second of the clock": lambda: Fixed(5),
    "five at once": lambda: Bucket(5, 5),
    "twenty at once": lambda: Bucket(5, 20),
}


class TestFiveASecond:
    @pytest.mark.parametrize("receiver", FIVE)
    def test_200_are_taken_within_a_quarter_more_than_it_must_take_and_few_are_refused(self, receiver):
        found = send(FIVE[receiver](), 200)

        assert found.seconds <= 1.25 * 40
        assert found.refused <= 0.2 * (200 + found.refused)
        assert found.refused <= 12

    def test_without_a_word_on_how_long_too(self):
        found = send(Sliding(5), 200, told=None)

        assert found.seconds <= 50
        assert found.refused <= 12

    def test_with_a_wait_of_nothing_it_is_not_asked_without_end(self):
        found = send(Sliding(5), 200, told=0.0)

        assert found.seconds <= 60
        assert found.refused <= 50

    def test_one_at_a_time_takes_longer_and_is_refused_no_more(self):
        found = send(Bucket(5, 1), 200)

        assert found.seconds <= 60
        assert found.refused <= 12

    def test_what_was_refused_is_sent_before_what_waits_behind_it(self):
        found = send(Sliding(5), 60)

        assert sorted(found.order) == list(range(60))
        assert all(abs(place - item) <= 4 for place, item in enumerate(found.order))


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
            burst.take(at(0.01 * number), at(0.01 * number + 0.005))
        for number in range(4):
            health, wait = refused(health, burst, started=at(0.05), now=at(0.1 + number / 100), told=1.0)

        assert health.refusals == 1
        assert wait == 1.0
        assert health.paced_rate == pytest.approx(0.9 * 5 / 1.05, rel=0.01)

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
        ("told", "refusals", "least", "most"),
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
    def test_as_told_and_longer_while_nothing_is_taken(self, told, refusals, least, most):
        assert least <= wait_of(told, refusals) <= most

    def test_a_receiver_that_takes_nothing_is_asked_less_and_less(self):
        found = send(lambda now: False, 1, most=600.0)

        assert found.refused <= 18
        assert not pace.is_patient(found.health, Burst(has_others=True))


def test_neither_breaker_nor_disabling_count_it() -> None:
    health, burst = Health(succeeded_at=START), Burst()
    for number in range(100):
        health, _ = refused(health, burst, started=at(number), now=at(number + 0.5), told=1.0)

    assert (health.failures, health.failing_since, health.window_failed, health.paused_until) == (
        0,
        None,
        0,
        None,
    )
