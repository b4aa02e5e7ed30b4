from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_webhooks import signals
from flask_webhooks.models import Lane, Subscription
from flask_webhooks.state import AppState, state_of
from tests.delivering.answers import one_after_another, run
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, lane_of, subscribe


@pytest.fixture
def state(make_app) -> AppState:
    return state_of(make_app(WEBHOOKS_RETRY=[3600.0], WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1))


def set_lane(state: AppState, subscription: Subscription, **columns: object) -> None:
    with state.engine.begin() as connection:
        connection.execute(sa.delete(Lane))
        connection.execute(sa.insert(Lane.__table__), {"subscription_id": subscription.id, **columns})


def later(**terms: float):
    return lambda: datetime.now(UTC) + timedelta(**terms)


class TestBreaker:
    def test_a_mostly_failing_subscription_is_paused_and_says_until_when(self, state):
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            before = datetime.now(UTC)
            report = run(state)

        lane = lane_of(state, subscription)
        assert len(receiver.requests) == 10  # the breaker's minimum
        assert timedelta(seconds=30) <= lane.paused_until - before <= timedelta(seconds=40)
        assert report.next_due == lane.paused_until
        assert {row.state for row in deliveries(state)} == {"pending"}
        with state.engine.connect() as connection:
            assert connection.scalar(sa.select(Subscription.active))

    def test_after_the_pause_one_request_probes_and_a_failure_doubles_the_pause(self, state):
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            run(state)
            run(state, clock=later(seconds=31))

        lane = lane_of(state, subscription)
        assert len(receiver.requests) == 11
        assert lane.pauses == 2
        assert lane.paused_until - datetime.now(UTC) > timedelta(seconds=55)

    def test_a_probe_that_succeeds_opens_the_lane_again(self, state):
        with Receiver(one_after_another(*[500] * 10, 200)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            run(state)
            report = run(state, clock=later(seconds=31))

        lane = lane_of(state, subscription)
        assert report.delivered == 40
        assert (lane.pauses, lane.failures, lane.paused_until) == (0, 0, None)
        assert lane.succeeded_at is not None

    def test_it_can_be_switched_off(self, make_app):
        state = state_of(make_app(WEBHOOKS_RETRY="none", WEBHOOKS_BREAKER=False))
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url())], 30)
            run(state)

            assert len(receiver.requests) == 30


class TestDisabling:
    def test_410_disables_at_once_and_holds_the_rest(self, state):
        told = []
        signals.subscription_disabled.connect(lambda _, **values: told.append(values), state.app, weak=False)
        with Receiver(ok(status=410)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 3)
            run(state)

        with state.engine.connect() as connection:
            row = connection.execute(sa.select(Subscription.__table__)).one()
        assert len(receiver.requests) == 1
        assert (row.active, row.disabled_reason) == (False, "gone")
        assert row.disabled_at is not None
        assert [(row.state, row.reason) for row in deliveries(state)] == [
            ("failed", "gone"),
            ("held", "gone"),
            ("held", "gone"),
        ]
        assert told == [{"subscription_id": subscription.id, "owner": "1", "reason": "gone"}]

    @pytest.mark.parametrize(
        ("failures", "days", "is_disabled"),
        [(19, 4, True), (18, 4, False), (50, 2, False)],
        ids=["both", "too-few", "too-short"],
    )
    def test_it_takes_failures_in_a_row_and_time(self, state, failures, days, is_disabled):
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            since = datetime.now(UTC) - timedelta(days=days)
            set_lane(state, subscription, failures=failures, failing_since=since)
            fill(state, [subscription], 1)
            run(state)

        with state.engine.connect() as connection:
            row = connection.execute(sa.select(Subscription.__table__)).one()
        assert row.active is not is_disabled
        assert row.disabled_reason == ("failing" if is_disabled else None)
        assert deliveries(state)[0].state == ("held" if is_disabled else "pending")

    def test_a_bad_minute_after_idle_days_disables_nothing(self, make_app):
        state = state_of(make_app(WEBHOOKS_RETRY="none", WEBHOOKS_BREAKER=False))
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            set_lane(state, subscription, succeeded_at=datetime.now(UTC) - timedelta(days=10))
            fill(state, [subscription], 30)
            run(state)

        assert lane_of(state, subscription).failures == 30
        with state.engine.connect() as connection:
            assert connection.scalar(sa.select(Subscription.active))


class TestRetries:
    @pytest.mark.parametrize(
        ("status", "hint", "least", "most"),
        [(503, "7200", 7200, 7300), (429, "60", 3600, 4400), (500, "7200", 3600, 4400)],
        ids=["longer", "shorter", "not-for-500"],
    )
    def test_retry_after_makes_the_wait_longer_and_never_shorter(self, state, status, hint, least, most):
        with Receiver(ok(status=status, headers={"Retry-After": hint})) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            run(state)

        [delivery] = deliveries(state)
        wait = (delivery.due_at - datetime.now(UTC)).total_seconds()
        assert least - 5 <= wait <= most

    def test_the_schedule_of_the_subscription_comes_before_that_of_the_app(self, state):
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url(), retry=[100.0])], 1)
            run(state)

        wait = (deliveries(state)[0].due_at - datetime.now(UTC)).total_seconds()
        assert 95 <= wait <= 120  # only ever added to, by a fifth at most

    def test_with_none_there_is_one_attempt(self, state):
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url(), retry="none")], 1)
            run(state)

        [delivery] = deliveries(state)
        assert (delivery.state, delivery.reason, delivery.due_at) == ("failed", "http_5xx", None)
        assert delivery.finished_at is not None


def test_failures_of_our_own_do_not_count_against_the_receiver(state):
    with Receiver(ok()) as receiver:
        subscription = subscribe(state, receiver.url())
        fill(state, [subscription], 15, format="gone")
        run(state)

    assert lane_of(state, subscription).failures == 0
    assert {(row.state, row.reason) for row in deliveries(state)} == {("pending", "unknown_format")}
