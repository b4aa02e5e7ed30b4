"""Receivers that ask to slow down: no event is lost, no failure is counted, and the rate is the one they accept."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import sqlalchemy as sa

from flask_webhooks import signals
from flask_webhooks.models import Hour
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.faults.conftest import IS_DEEP
from tests.receivers import Receiver, Talk, ok, response
from tests.stage import attempts, clock_ahead, deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import background, run

pytestmark = pytest.mark.long


class FiveASecond:
    """Takes five requests in any second, and answers all others with `status` and `headers`."""

    most, within = 5, 1.0

    def __init__(self, status: int = 429, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.taken: list[str] = []
        self.refused = 0
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def __call__(self, talk: Talk) -> None:
        while True:
            request = talk.read_request()
            with self._lock:
                now = time.monotonic()
                while self._times and self._times[0] <= now - self.within:
                    self._times.popleft()
                is_taken = len(self._times) < self.most
                if is_taken:
                    self._times.append(now)
                    self.taken.append(request.headers["webhook-id"])
                else:
                    self.refused += 1
            talk.send(response(200 if is_taken else self.status, {} if is_taken else self.headers, b""))


class Spaced(FiveASecond):
    """Takes one request in each 200 ms, and answers all others with `status` and `headers`."""

    most, within = 1, 0.2


class First:
    """Takes so many requests, and answers all others with `status` and `headers`."""

    def __init__(self, most: int, status: int, headers: dict[str, str]) -> None:
        self.most, self.status, self.headers = most, status, headers
        self.seen = 0
        self._lock = threading.Lock()

    def __call__(self, talk: Talk) -> None:
        while True:
            talk.read_request()
            with self._lock:
                self.seen += 1
                is_taken = self.seen <= self.most
            talk.send(response(200 if is_taken else self.status, {} if is_taken else self.headers, b""))


@pytest.fixture
def state(make_app: t.Any) -> AppState:
    return state_of(make_app(WEBHOOKS_RETRY="none", WEBHOOKS_DISABLE_AFTER=(1, 0.001)))


def deliver_all(state: AppState, seconds: float) -> float:
    """Deliver until nothing is pending, as a worker does; return how long that took."""
    began = time.monotonic()
    with background(state):
        pass

    def is_done() -> bool:
        run(state)
        return all(row.state != "pending" for row in deliveries(state))

    wait_until(is_done, seconds)
    return time.monotonic() - began


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "status", "headers"),
    [
        (FiveASecond, 429, {"Retry_After": "1"}),
        (FiveASecond, 503, {"Retry_After": "1"}),
        (FiveASecond, 429, {}),
        (Spaced, 429, {"Retry_After": "1"}),
    ],
    ids=str,
)
def test_a_receiver_that_takes_five_a_second_gets_five_a_second(state, kind, status, headers):
    count = 200 if IS_DEEP else 30
    receiver = kind(status, **headers)
    with Receiver(receiver) as served:
        subscription = subscribe(state, served.url())
        ids = fill(state, [subscription], count)
        took = deliver_all(state, 2 * count / 5)

    assert took <= 1.25 * count / 5 + (0 if IS_DEEP else 5)  # each wait weighs more in a short run
    assert receiver.refused <= 0.2 * (count + receiver.refused) + (0 if IS_DEEP else 4)
    assert sorted(receiver.taken) == sorted(ids)
    assert {(row.state, row.attempts) for row in deliveries(state)} == {("delivered", 1)}
    lane = lane_of(state, subscription)
    assert (lane.failures, lane.pauses, lane.window_failed, lane.waits_for) == (0, 0, 0, None)
    assert 2 < lane.paced_rate < 10


def test_the_log_shows_refusals_as_what_they_are_and_no_attempt_is_used_up(state):
    receiver = First(3, 429, {"Retry-After": "100"})
    with Receiver(receiver) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 10)
        report = run(state)
        seen = receiver.seen
        run(state, "another")

        lane = lane_of(state, subscription)
        assert receiver.seen == seen  # the lane's wait holds for every worker
        receiver.most = 1_000
        for seconds in range(101, 161, 5):  # at the rate that it was learnt to take
            run(state, clock=clock_ahead(seconds=seconds))

    assert [row.state for row in deliveries(state)] == ["delivered"] * 10
    assert lane.waits_for == "receiver"
    assert report.next_due == lane.sendable_at
    assert timedelta(seconds=90) < lane.sendable_at - datetime.now(UTC) < timedelta(seconds=101)
    log = [(row.number, row.status, row.failure) for row in attempts(state)]
    assert log.count((1, 200, None)) == 10
    assert log.count((1, 429, "http_4xx")) == len(log) - 10 >= 1
    assert {row.attempts for row in deliveries(state)} == {1}


def test_no_signal_says_that_it_was_given_up(state):
    told: list[str] = []

    def failed(_: object, **__: object) -> None:
        told.append("failed")

    signals.delivery_failed.connect(failed, state.app)
    with Receiver(First(3, 429, {"Retry-After": "100"})) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 10)
        report = run(state)

    with state.engine.connect() as connection:
        sums = connection.execute(sa.select(Hour.delivered, Hour.failed, Hour.ok, Hour.refused)).one()
    assert told == []
    assert (sums.delivered, sums.failed, sums.ok) == (3, 0, 3)
    assert sums.refused >= 1
    assert (report.delivered, report.failed, report.lost) == (3, 0, 0)


def test_what_was_refused_keeps_its_bytes_and_its_place(make_app):
    state = state_of(make_app(WEBHOOKS_RETRY="none", WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1))
    receiver = First(2, 429, {"Retry-After": "0"})
    with Receiver(receiver) as served:
        ids = fill(state, [subscribe(state, served.url())], 5)
        with background(state) as other:
            wait_until(lambda: receiver.seen > 3)
            receiver.most = 1_000
            wait_until(lambda: [row.state for row in deliveries(state)] == ["delivered"] * 5)
            other.stop.set()
        requests = served.requests

    assert list(dict.fromkeys(each.headers["webhook-id"] for each in requests)) == ids
    assert len({each.body for each in requests if each.headers["webhook-id"] == ids[2]}) == 1


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "30"}, 29, 31),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)}, 3600, 7201),
        ({"Retry-After": "99999999999999999999"}, 86_390, 86_401),
        ({"Retry-After": "-5"}, 0, 2),
        ({"Retry-After": "soon"}, 0, 2),
        ({"Retry-After": "Fri, 01 Jan 1999 00:00:00 GMT"}, -1, 2),
        ({"Retry-After": ""}, 0, 2),
        ({}, 0, 2),
    ],
    ids=["seconds", "date", "huge", "negative", "nonsense", "past", "empty", "none"],
)
def test_the_lane_waits_as_asked(state, headers, least, most):
    receiver = First(1, 429, headers)
    with Receiver(receiver) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 2)
        with background(state) as other:
            wait_until(lambda: len(attempts(state)) >= 2)
            other.stop.set()

    lane = lane_of(state, subscription)
    assert lane.paced_at is not None
    until = lane.sendable_at or datetime.now(UTC)
    asked = max(row.started_at for row in attempts(state))
    assert least <= (until - asked).total_seconds()  # not from now: the run took its time to end
    assert (until - datetime.now(UTC)).total_seconds() <= most
    assert "failed" not in [row.state for row in deliveries(state)]


def test_one_that_takes_nothing_at_all_uses_up_the_schedule(make_app):
    state = state_of(make_app(WEBHOOKS_RETRY=[3600.0]))
    with Receiver(ok(status=429)) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 1)
        run(state)

    [delivery] = deliveries(state)
    assert delivery.attempts == 1
    assert delivery.due_at - datetime.now(UTC) > timedelta(minutes=50)
    lane = lane_of(state, subscription)
    assert (lane.failures, lane.window_failed, lane.paused_until) == (0, 0, None)


def test_one_that_stopped_taking_anything_uses_it_up_after_ten_refusals_in_a_row(make_app):
    state = state_of(make_app(WEBHOOKS_RETRY=[3600.0]))
    receiver = First(1, 429, {})
    used = []
    with Receiver(receiver) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 2)
        ahead = 0.0
        for _ in range(30):
            run(state, clock=clock_ahead(seconds=ahead))
            used.append(max(row.attempts for row in deliveries(state) if row.state == "pending"))
            ahead += 90
            if used[-1]:
                break

    assert lane_of(state, subscription).refusals >= 10
    assert used[-1] == 1
    assert used[:5] == [0] * 5


@pytest.mark.parametrize("slots", [4, 1], ids=["more under way", "the last one under way"])
def test_a_wait_that_is_asked_for_while_the_worker_stops_is_not_forgotten(make_app, slots):
    state = state_of(make_app(WEBHOOKS_RETRY="none", WEBHOOKS_SUBSCRIPTION_CONCURRENCY=slots))
    asked, answer = threading.Event(), threading.Event()

    def slow(talk: Talk) -> None:
        talk.read_request()
        asked.set()
        answer.wait(30)
        talk.send(response(429, {"Retry-After": "100"}, b""))

    with Receiver(slow) as served:
        subscription = subscribe(state, served.url())
        fill(state, [subscription], 5)
        with background(state) as other:
            asked.wait(30)
            other.stop.set()
            wait_until(lambda: other.run.is_ending)
            answer.set()

    lane = lane_of(state, subscription)
    assert lane.sendable_at - datetime.now(UTC) > timedelta(seconds=90)
    assert {row.state for row in deliveries(state)} == {"pending"}


def test_others_are_delivered_to_meanwhile(state, inbox):
    receiver = First(1, 429, {"Retry-After": "60"})
    with Receiver(receiver) as served:
        fill(state, [subscribe(state, served.url())], 50)
        fill(state, [subscribe(state, inbox.url())], 50)
        began = time.monotonic()
        run(state)

    assert len(inbox.requests) == 50
    assert time.monotonic() - began < 20
    assert receiver.seen < 10


def test_switching_on_again_forgets_what_was_learnt(state):
    from sqlalchemy.orm import Session

    from flask_webhooks import subscriptions

    with Receiver(First(3, 429, {"Retry-After": "100"})) as served:
        subscription = subscribe(state, served.url(), "reports.ready")
        fill(state, [subscription], 5)
        run(state)
    assert lane_of(state, subscription).paced_rate
    for active in (False, True):
        with Session(state.engine) as session:
            subscriptions.change(
                state,
                session,
                subscription.id,
                SubscriptionInput(active=active, held="send" if active else None),
                owner="1",
            )
            session.commit()

    lane = lane_of(state, subscription)
    assert (lane.paced_rate, lane.refusals, lane.sendable_at, lane.waits_for) == (None, 0, None, None)
