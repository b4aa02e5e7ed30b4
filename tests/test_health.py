from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import signals, subscriptions
from flask_webhooks.health import Breaker, Health, after, why_paused
from flask_webhooks.models import Lane, Message, Subscription
from flask_webhooks.replay import manual
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.receivers import Receiver, Talk, ok, response
from tests.stage import attempts, clock_ahead, deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import background, one_after_another, run


@pytest.fixture
def state(make_app) -> AppState:
    return state_of(make_app(WEBHOOKS_RETRY=[3600.0], WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1))


def set_lane(state: AppState, subscription: Subscription, **columns: object) -> None:
    with state.engine.begin() as connection:
        connection.execute(sa.delete(Lane))
        connection.execute(sa.insert(Lane.__table__), {"subscription_id": subscription.id, **columns})


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
            run(state, clock=clock_ahead(seconds=31))

        lane = lane_of(state, subscription)
        assert len(receiver.requests) == 11
        assert lane.pauses == 2
        assert lane.paused_until - datetime.now(UTC) > timedelta(seconds=55)

    def test_a_probe_that_succeeds_opens_the_lane_again(self, state):
        with Receiver(one_after_another(*[500] * 10, 200)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            run(state)
            report = run(state, clock=clock_ahead(seconds=31))

        lane = lane_of(state, subscription)
        assert report.delivered == 40
        assert (lane.pauses, lane.failures, lane.paused_until) == (0, 0, None)
        assert lane.succeeded_at is not None

    def test_it_says_so_with_time_and_reason(self, state, caplog):
        with Receiver(one_after_another(200, 200, *[500] * 20)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            run(state)

        lane = lane_of(state, subscription)
        [told] = [record for record in caplog.records if record.message == "subscription.paused"]
        assert (told.subscription, told.until) == (subscription.id, lane.paused_until.isoformat())
        assert (told.failed, told.attempts) == (18, 20)
        assert told.reason == "18 of 20 attempts failed within 2 minutes."
        shown = state.app.test_client().get(
            f"/webhooks/api/subscriptions/{subscription.id}/stats", headers={"X-Owner": "1"}
        )
        assert shown.json["health"]["paused_reason"] == told.reason
        page = state.app.test_client().get(
            f"/webhooks/console/webhooks/{subscription.id}", headers={"X-Owner": "1"}
        )
        assert "18 of 20 recent requests failed." in page.text

    def test_a_probe_that_fails_is_logged_as_such(self, state, caplog):
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url())], 50)
            for seconds in (0, 31, 100, 300):
                run(state, clock=clock_ahead(seconds=seconds))

        told = [record.reason for record in caplog.records if record.message == "subscription.paused"]
        assert told == [
            "10 of 10 attempts failed within 2 minutes.",
            "The probe after the pause failed.",
            "2 probes in a row failed.",
            "3 probes in a row failed.",
        ]

    def test_after_a_probe_that_succeeded_what_was_before_does_not_count(self):
        now = datetime.now(UTC)
        paused = Health(failures=20, pauses=1, paused_until=now, window_at=now, window_failed=20)

        health, _ = after(paused, ok=True, now=now, breaker=Breaker(), disable_after=None)
        health, _ = after(health, ok=False, now=now, breaker=Breaker(), disable_after=None)

        assert (health.pauses, health.paused_until, health.failures) == (0, None, 1)

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


class TestReplays:
    """They say whether the receiver is there: the breaker counts them, disabling does not."""

    def test_a_dead_receiver_is_paused_although_only_replays_go_to_it(self, state):
        with Receiver(ok(status=503)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50, trigger="replay")
            run(state)

        lane = lane_of(state, subscription)
        assert len(receiver.requests) == 10
        assert lane.paused_until > datetime.now(UTC)
        assert (lane.failures, lane.failing_since) == (0, None)

    def test_one_that_succeeds_ends_the_pause(self, state):
        with Receiver(ok()) as receiver:
            subscription = subscribe(state, receiver.url())
            set_lane(state, subscription, failures=12, pauses=3, paused_until=datetime.now(UTC))
            fill(state, [subscription], 5, trigger="replay")
            run(state)

        lane = lane_of(state, subscription)
        assert (lane.pauses, lane.paused_until, lane.failures) == (0, None, 0)
        assert len(receiver.requests) == 5

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    def test_a_receiver_that_refuses_what_is_past_is_paused_too(self, state, status):
        with Receiver(ok(status=status)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 30, trigger="replay")
            run(state)

        lane = lane_of(state, subscription)
        assert len(receiver.requests) == 10
        assert lane.paused_until > datetime.now(UTC)
        assert (lane.failures, lane.failing_since) == (0, None)

    def test_they_disable_nothing(self, state):
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            since = datetime.now(UTC) - timedelta(days=4)
            set_lane(state, subscription, failures=50, failing_since=since)
            fill(state, [subscription], 1, trigger="replay")
            run(state)

        with state.engine.connect() as connection:
            assert connection.scalar(sa.select(Subscription.active))


class Late:
    """Answers 410 at once to the first request, and 500 to the second when the test releases it."""

    def __init__(self) -> None:
        self.opened, self.held = threading.Event(), threading.Event()

    def __call__(self, talk: Talk) -> None:
        while True:
            talk.read_request()
            if len(talk.receiver.requests) > 1:
                self.held.set()
                self.opened.wait(60)
                talk.send(response(500, {}, b""))
            else:
                wait_until(self.held.is_set)
                talk.send(response(410, {}, b""))


def switch_on(state: AppState, subscription: Subscription) -> None:
    with Session(state.engine, info={"webhooks": False}) as session:
        subscriptions.change(
            state, session, subscription.id, SubscriptionInput(active=True, held="discard"), owner="1"
        )
        session.commit()


class TestSwitchingOnAgain:
    def test_an_attempt_that_ends_late_counts_from_nothing(self, make_app):
        state = state_of(
            make_app(
                WEBHOOKS_RETRY=[3600.0],
                WEBHOOKS_TIMEOUT=(2, 100),
                WEBHOOKS_DISABLE_AFTER=(2, timedelta(microseconds=1)),
            )
        )
        late = Late()
        with Receiver(late) as receiver:
            subscription = subscribe(state, receiver.url(), "*")
            fill(state, [subscription], 2)
            with background(state) as other:
                wait_until(lambda: len(attempts(state)) == 1)
                assert lane_of(state, subscription).failures == 1
                switch_on(state, subscription)
                before = datetime.now(UTC)
                late.opened.set()
                other.wait()

        lane = lane_of(state, subscription)
        with state.engine.connect() as connection:
            assert connection.scalar(sa.select(Subscription.active))
        assert (lane.failures, lane.window_failed) == (1, 1)
        assert lane.failing_since >= before - timedelta(milliseconds=10)  # the worker goes by another clock


@pytest.mark.parametrize(
    ("health", "text"),
    [
        (Health(pauses=1, window_ok=2, window_failed=12), "12 of 14 attempts failed within 5 minutes."),
        (Health(pauses=2, window_failed=12), "The probe after the pause failed."),
        (Health(pauses=4, window_failed=12), "3 probes in a row failed."),
    ],
)
def test_why_it_is_paused(health, text):
    assert why_paused(health, Breaker(window=300.0)) == text


class TestRetries:
    def test_the_schedule_of_the_event_comes_before_that_of_the_app(self, state):
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            with state.engine.begin() as connection:
                connection.execute(sa.update(Message).values(event="reports.failed"))  # `retry: none`
            run(state)

        assert [(row.state, row.attempts) for row in deliveries(state)] == [("failed", 1)]

    def test_the_schedule_of_the_subscription_comes_before_that_of_the_event(self, state):
        with Receiver(ok(status=500)) as receiver:
            fill(state, [subscribe(state, receiver.url(), retry=[100.0])], 1)
            with state.engine.begin() as connection:
                connection.execute(sa.update(Message).values(event="reports.failed"))
            run(state)

        assert [row.state for row in deliveries(state)] == ["pending"]

    def test_a_retry_by_hand_moves_the_one_that_is_due_later(self, state):
        with Receiver(one_after_another(500, 200)) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            run(state)
            [waiting] = deliveries(state)
            with state.engine.begin() as connection:
                assert manual.retry(connection, waiting.id, datetime.now(UTC))
            run(state)
            run(state, clock=clock_ahead(seconds=2 * 3600))  # when it would have been due

        [delivery] = deliveries(state)
        assert waiting.due_at - datetime.now(UTC) > timedelta(minutes=50)
        assert (delivery.id, delivery.state) == (waiting.id, "delivered")
        assert [row.trigger for row in attempts(state)] == ["automatic", "manual"]
        assert len(receiver.requests) == 2

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
