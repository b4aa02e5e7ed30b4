"""Customers cannot use us to flood a server: not by schedules, replays or many subscriptions."""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import replay
from flask_webhooks import subscriptions as subscribing
from flask_webhooks.errors import SubscriptionError
from flask_webhooks.models import Delivery, Replay, Subscription
from flask_webhooks.replay import Filter
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, subscribe
from tests.worker.answers import run

RATE = 10.0


@pytest.fixture
def state(make_app: t.Any) -> AppState:
    return state_of(make_app(WEBHOOKS_REPLAY_RATE=RATE))


def begin_replay(state: AppState, subscription: Subscription) -> Replay:
    now = datetime.now(UTC)
    with Session(state.engine, expire_on_commit=False) as session:
        row = session.get_one(Subscription, subscription.id)
        wanted = Filter(("failed",), (), now - timedelta(hours=1), now + timedelta(hours=1))
        made, _ = replay.start(state, session, row, wanted)
        session.commit()
    return made


def failed(state: AppState, *subscriptions: Subscription, each: int = 200) -> None:
    fill(state, subscriptions, each * len(subscriptions))
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="failed", due_at=None))


def refused(state: AppState, retry: t.Any) -> t.Any:
    """What is said of a schedule that is not taken."""
    with Session(state.engine) as session, pytest.raises(SubscriptionError) as caught:
        subscribing.create(
            state,
            session,
            SubscriptionInput(environment="staging", url="https://example.com/", events=["*"], retry=retry),
            owner="1",
        )
    return caught.value.fields["retry"]


class TestSchedules:
    @pytest.mark.parametrize("retry", [[0] * 50, [0.001], [1] * 50])
    def test_one_that_asks_for_many_at_once_is_refused(self, state, retry):
        assert "too short" in str(refused(state, retry))

    def test_one_that_was_saved_before_is_kept_to_within_the_bounds(self, state):
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url(), retry=[0.0] * 50)], 1)
            run(state)
            run(state)
            run(state)

        [delivery] = deliveries(state)
        assert len(receiver.requests) == 1
        assert delivery.due_at - datetime.now(UTC) > timedelta(seconds=0.5)

    @pytest.mark.parametrize(
        "retry", [[1.0] * 50, [59.9] * 11, [1e-9], [-1], [True], [10**400], [60] * 51, ["1"]]
    )
    def test_other_ways_to_ask_for_many_are_refused_too(self, state, retry):
        assert refused(state, retry)


def test_a_host_is_saved_in_one_way_however_it_is_written(state):
    ways = ["https://Bücher.example/", "https://BÜCHER.example./", "https://bücher。example:443/"]
    state.transport._names.resolver = lambda *_, **__: [(2, 1, 6, "", ("8.8.8.8", 443))]
    with Session(state.engine) as session:
        rows = [
            subscribing.create(
                state,
                session,
                SubscriptionInput(environment="staging", url=url, events=["*"]),
                owner=str(number),
            )[0]
            for number, url in enumerate(ways)
        ]
        assert {row.url for row in rows} == {"https://xn--bcher-kva.example/"}


class TestReplays:
    def test_one_that_is_answered_404_ends_after_ten_requests(self, make_app):
        state = state_of(make_app(WEBHOOKS_REPLAY_RATE=1_000.0, WEBHOOKS_RETRY="none"))
        with Receiver(ok(status=404)) as receiver:
            subscription = subscribe(state, receiver.url(), "reports.ready")
            failed(state, subscription)
            begin_replay(state, subscription)
            began = time.monotonic()
            while time.monotonic() - began < 2:
                replay.enqueue_batches(state)
                run(state)

        assert 10 <= len(receiver.requests) <= 14

    @pytest.mark.parametrize(
        ("owners", "urls", "share"),
        [
            (["A", "A"], ["https://one.example/", "https://two.example/"], 0.5),
            (["A", "B"], ["https://one.example/", "https://ONE.example.:8443/x"], 0.5),
            (["A", "B"], ["https://xn--bcher-kva.example/", "https://xn--bcher-kva.example:444/"], 0.5),
            (["A", "B"], ["https://203.0.113.9/", "https://[::ffff:203.0.113.9]:8443/"], 0.5),
            (["A", "B"], ["https://[2001:db8::1]/", "https://[2001:db8:0::0:1]/"], 0.5),
            (["A", "B"], ["https://203.0.113.7/", "https://named.example/"], 0.5),
            (["A", "B"], ["https://203.0.113.8/", "https://named.example/"], 1.0),
            (["A", "B"], ["https://one.example/", "https://two.example/"], 1.0),
        ],
        ids=["owner", "host", "IDN", "mapped", "long", "its address", "another address", "neither"],
    )
    def test_those_of_one_owner_or_to_one_host_share_a_rate(self, state, owners, urls, share):
        state.transport._names.resolver = lambda *_, **__: [(2, 1, 6, "", ("203.0.113.7", 443))]
        rows = [
            subscribe(state, url, "reports.ready", owner=owner)
            for owner, url in zip(owners, urls, strict=True)
        ]
        failed(state, *rows)
        for row in rows:
            begin_replay(state, row)

        replay.enqueue_batches(state)

        queued = sum(row.state == "pending" for row in deliveries(state))
        assert queued == 2 * RATE * 5 * share

    def test_one_that_is_made_when_another_has_ended_waits_for_what_that_has_queued(self, state):
        one, two = (
            subscribe(state, f"https://{name}.example/", "reports.ready", owner="A") for name in ("a", "b")
        )
        failed(state, one, two, each=40)
        begin_replay(state, one)
        replay.enqueue_batches(state)
        later = begin_replay(state, two)

        assert later.next_at - datetime.now(UTC) > timedelta(seconds=2)
        assert replay.enqueue_batches(state) == 0

    def test_many_are_slow_and_not_stopped(self, state):
        rows = [subscribe(state, f"https://{n}.example/", "reports.ready", owner="A") for n in range(60)]
        failed(state, *rows, each=2)
        for row in rows:
            begin_replay(state, row)

        began = datetime.now(UTC)
        assert replay.enqueue_batches(state) == 60
        with state.engine.connect() as connection:
            waits = connection.scalars(sa.select(Replay.next_at)).all()
        assert all(each - began > timedelta(seconds=4) for each in waits)
