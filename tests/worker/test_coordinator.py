from __future__ import annotations

import json
import time
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import standardwebhooks
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import signals
from flask_webhooks import subscriptions as subscribing
from flask_webhooks.models import Delivery, Lane, Message, Secret, Subscription
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, lane_of, secret_of, states, subscribe, wait_until
from tests.worker.answers import Gate, background, one_after_another, run

MakeApp = t.Callable[..., Flask]


def in_context(make_app: MakeApp, **settings: t.Any) -> AppState:
    return state_of(make_app(WEBHOOKS_TIMEOUT=(2, 5), **settings))


def update(app_state: AppState, model: t.Any, /, **columns: t.Any) -> None:
    with app_state.engine.begin() as connection:
        connection.execute(sa.update(model).values(**columns))


class TestDelivering:
    def test_a_delivery_arrives_signed_with_the_secret_of_its_subscription(self, state, inbox):
        subscription = subscribe(state, inbox.url(), "reports.ready")
        [message] = fill(state, [subscription], 1)

        report = run(state)

        [received] = inbox.requests
        verified = standardwebhooks.Webhook(secret_of(state, subscription)).verify(
            received.body, received.headers
        )
        assert report.delivered == 1
        assert report.next_due is None
        assert verified["idempotency_key"] == received.headers["webhook-id"] == message
        assert received.headers["content-type"] == "application/json"
        assert received.headers["user-agent"].startswith("Flask-Webhooks/")

    def test_a_retry_sends_the_same_bytes_and_says_so_in_the_log(self, make_app):
        state = in_context(make_app, WEBHOOKS_RETRY=[0.0])
        with Receiver(one_after_another(500, 200)) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            run(state)

            first, second = receiver.requests

        assert first.body == second.body
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert [(row.number, row.status, row.failure) for row in attempts(state)] == [
            (1, 500, "http_5xx"),
            (2, 200, None),
        ]
        assert states(state) == ["delivered"]
        assert len({row.body_sha256 for row in attempts(state)}) == 1

    def test_the_body_of_a_retry_is_the_one_that_was_sent_whatever_changed_since(self, make_app):
        state = in_context(make_app, WEBHOOKS_RETRY=[3600.0])
        with Receiver(one_after_another(500, 200)) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            run(state)
            update(state, Delivery, format="minimal", due_at=datetime.now(UTC))
            run(state)

            first, second = receiver.requests

        assert first.body == second.body

    def test_the_log_has_everything_about_an_attempt(self, state):
        with Receiver(ok(b"y" * 20_000, 500, {"X-Note": "é"})) as receiver:
            subscription = subscribe(
                state,
                receiver.url(),
                headers=state.vault.seal(json.dumps({"Authorization": "Bearer sesame"})),
            )
            fill(state, [subscription], 1)
            run(state, "host:1")

            sent = receiver.requests[0]

        [row] = attempts(state)
        logged = json.loads(row.request_headers)
        assert sent.headers["authorization"] == "Bearer sesame"
        assert "sesame" not in row.request_headers
        assert logged["webhook-signature"] == sent.headers["webhook-signature"]
        assert (row.status, row.failure, row.worker, row.trigger) == (500, "http_5xx", "host:1", "automatic")
        assert (len(row.response_body), row.response_truncated) == (16_384, True)
        assert json.loads(row.response_headers)["X-Note"] == "é"
        assert (row.address, row.body_size) == ("127.0.0.1", len(sent.body))
        assert row.connect_seconds is not None
        assert row.first_byte_seconds is not None
        assert 0 < row.first_byte_seconds <= row.total_seconds
        assert row.tls_seconds is None

    def test_no_connection_of_the_pool_is_held_while_a_request_is_under_way(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url()) for _ in range(8)], 16)
            with background(state):
                wait_until(lambda: gate.held >= 8)
                # The coordinator looks for more work from time to time; in between it must let go.
                wait_until(lambda: state.engine.pool.checkedout() == 0)
                gate.opened.set()
                wait_until(lambda: states(state) == ["delivered"] * 16)

    def test_a_large_backlog_of_one_subscription_is_delivered_in_order_due(self, make_app):
        state = in_context(make_app, WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1)
        with Receiver(ok()) as receiver:
            ids = fill(state, [subscribe(state, receiver.url())], 700)
            run(state)

            assert [request.headers["webhook-id"] for request in receiver.requests] == ids

    def test_large_messages_are_delivered_too_though_they_are_not_all_read_ahead(self, state, inbox):
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], 60, data=json.dumps({"text": "x" * 200_000}))
        update(state, Message, size=200_000)

        report = run(state)

        assert report.delivered == 60

    def test_nothing_is_sent_when_the_operator_has_switched_sending_off(self, make_app, inbox):
        state = in_context(make_app, WEBHOOKS_ENABLED=False)
        fill(state, [subscribe(state, inbox.url())], 1)

        report = run(state)

        assert report.delivered == 0
        assert inbox.requests == []
        assert states(state) == ["pending"]


class TestLease:
    def test_two_workers_deliver_everything_once(self, state):
        with Receiver(ok()) as receiver:
            subscriptions = [subscribe(state, receiver.url(f"/{n}")) for n in range(40)]
            ids = fill(state, subscriptions, 400)
            with background(state, "a") as one, background(state, "b") as two:
                reports = [one.wait(), two.wait()]

            received = [request.headers["webhook-id"] for request in receiver.requests]

        assert sorted(received) == sorted(ids)
        assert sum(report.delivered for report in reports) == 400
        assert states(state) == ["delivered"] * 400

    def test_at_most_so_many_requests_to_one_subscription_over_all_workers(self, make_app):
        state = in_context(make_app, WEBHOOKS_SUBSCRIPTION_CONCURRENCY=3)
        gate = Gate(seconds=0.01)
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 100)
            with background(state, "a") as one, background(state, "b") as two:
                one.wait()
                two.wait()
                run(state)

        assert states(state) == ["delivered"] * 100
        assert gate.most == 3

    def test_a_worker_that_lost_its_lane_writes_nothing(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            with background(state, "stalled") as stalled:
                wait_until(lambda: gate.held == 1)
                later = datetime.now(UTC) + timedelta(seconds=45)
                thief = "00000000-0000-7000-8000-000000000001"
                update(state, Lane, token=thief, holder="thief", leased_until=later)
                gate.opened.set()
                report = stalled.wait()

        assert (report.delivered, report.lost) == (0, 1)
        assert attempts(state) == []
        assert states(state) == ["pending"]
        assert lane_of(state, subscription).holder == "thief"

    def test_a_worker_that_lost_its_lane_does_not_touch_what_the_next_one_knows_of_the_receiver(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url(), rate_limit=50.0)
            fill(state, [subscription], 1)
            with background(state, "stalled") as stalled:
                wait_until(lambda: gate.held == 1)
                now = datetime.now(UTC)
                paused = {"pauses": 3, "failures": 12, "paused_until": now, "sendable_at": now}
                later = now + timedelta(seconds=45)
                thief = "00000000-0000-7000-8000-000000000001"
                update(state, Lane, token=thief, holder="thief", leased_until=later, **paused)
                gate.opened.set()
                stalled.wait()

        lane = lane_of(state, subscription)
        assert {name: getattr(lane, name) for name in paused} == paused

    def test_the_lanes_of_a_worker_that_dies_are_free_within_a_minute(self, make_app):
        state = state_of(make_app())  # with the timeouts that it comes with
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            with background(state, renew=0.01):
                wait_until(lambda: gate.held == 1)
                first = lane_of(state, subscription).leased_until
                wait_until(lambda: lane_of(state, subscription).leased_until > first)
                left = lane_of(state, subscription).leased_until - datetime.now(UTC)
                gate.opened.set()

        assert left <= timedelta(seconds=45)  # and the sweep of another looks every other second

    def test_a_lease_is_renewed_as_long_as_work_is_under_way(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            with background(state, renew=0.01):
                wait_until(lambda: gate.held == 1)
                first = lane_of(state, subscription).leased_until

                wait_until(lambda: lane_of(state, subscription).leased_until > first)
                gate.opened.set()

    def test_stopping_gives_back_what_was_not_begun_at_once(self, make_app):
        state = in_context(make_app, WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1)
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 10)
            with background(state) as other:
                wait_until(lambda: gate.held == 1)
                other.stop.set()
                wait_until(lambda: other.run.is_ending)
                gate.opened.set()
                report = other.wait()

        assert report.delivered == 1
        assert states(state).count("pending") == 9
        assert lane_of(state, subscription).leased_until is None
        assert report.next_due <= datetime.now(UTC)

    def test_nothing_is_begun_after_the_stop_by_threads_that_wait_for_their_turn(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 50)
            with background(state) as other:
                wait_until(lambda: gate.held == 2)
                other.stop.set()
                gate.opened.set()  # while the coordinator has not noticed yet
                report = other.wait()

        assert report.delivered == len(receiver.requests) == 2

    def test_the_lanes_of_a_dead_worker_are_taken_over_when_its_lease_has_ended(self, state, inbox):
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], 3)
        now = datetime.now(UTC)
        with state.engine.begin() as connection:
            connection.execute(
                sa.insert(Lane.__table__),
                {
                    "subscription_id": subscription.id,
                    "token": "00000000-0000-7000-8000-000000000001",
                    "holder": "dead",
                    "leased_until": now + timedelta(seconds=40),
                },
            )

        before = run(state)
        after = run(state, clock=lambda: datetime.now(UTC) + timedelta(seconds=41))

        assert before.delivered == 0
        assert before.next_due == now + timedelta(seconds=40)  # and not at once: no busy loop
        assert after.delivered == 3

    def test_a_lease_from_a_clock_that_was_put_back_since_does_not_lock_the_lane(self, state, inbox):
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], 1)
        with state.engine.begin() as connection:
            connection.execute(
                sa.insert(Lane.__table__),
                {
                    "subscription_id": subscription.id,
                    "token": "00000000-0000-7000-8000-000000000001",
                    "holder": "from the future",
                    "leased_until": datetime.now(UTC) + timedelta(days=1),
                },
            )

        assert run(state).delivered == 1

    @pytest.mark.parametrize("hours", [-1, 1], ids=["back", "forward"])
    def test_a_clock_that_jumps_in_the_middle_loses_and_repeats_nothing(self, state, hours):
        jump = timedelta(0)
        gate = Gate(seconds=0.02)
        with Receiver(gate) as receiver:
            ids = fill(state, [subscribe(state, receiver.url()) for _ in range(4)], 80)
            with background(state, clock=lambda: datetime.now(UTC) + jump, renew=0.05) as other:
                wait_until(lambda: len(receiver.requests) > 10)
                jump = timedelta(hours=hours)
                wait_until(lambda: len(receiver.requests) > 40 or other.is_over)
                jump = timedelta(0)
                other.wait()
            run(state)

            received = [request.headers["webhook-id"] for request in receiver.requests]

        assert sorted(received) == sorted(ids)
        assert states(state) == ["delivered"] * 80

    def test_more_than_one_lane_at_a_time_and_all_get_their_turn(self, make_app):
        state = in_context(make_app, WEBHOOKS_CONCURRENCY=4)
        with Receiver(ok()) as receiver:
            fill(state, [subscribe(state, receiver.url(f"/{n}")) for n in range(120)], 240)
            run(state)

            assert len({request.target for request in receiver.requests}) == 120


class TestFairness:
    """Hanging receivers hang for longer than the test waits, so deliveries that arrive have not waited for them."""

    @pytest.fixture
    def state(self, make_app: MakeApp) -> AppState:
        return state_of(make_app(WEBHOOKS_TIMEOUT=(2, 100)))

    def test_a_hanging_receiver_with_a_long_backlog_delays_no_other(self, state):
        gate = Gate()
        with Receiver(gate) as dead, Receiver(ok()) as alive:
            fill(state, [subscribe(state, dead.url())], 1_000)
            healthy = [subscribe(state, alive.url(f"/{n}")) for n in range(20)]
            fill(state, healthy, 100)
            with background(state) as other:
                alive.wait_for(100, 40)
                # What is recorded while the dead one's backlog is at hand is found as well.
                fill(state, healthy, 20)
                alive.wait_for(120, 40)
                other.stop.set()
                gate.opened.set()

    def test_a_hundred_dead_receivers_do_not_hold_a_known_good_one_up(self, state):
        gate = Gate()
        with Receiver(gate) as dead, Receiver(ok()) as alive:
            good = subscribe(state, alive.url())
            fill(state, [good], 1)
            run(state)
            fill(state, [subscribe(state, dead.url(f"/{n}")) for n in range(100)], 1_000)
            with background(state) as other:
                wait_until(lambda: len(dead.requests) >= 10)
                fill(state, [good], 20)

                alive.wait_for(21, 40)
                other.stop.set()
                gate.opened.set()

    def test_a_hundred_receivers_known_to_be_dead_do_not_hold_a_new_one_up(self, state):
        gate = Gate()
        with Receiver(gate) as dead, Receiver(ok()) as alive:
            failing = [subscribe(state, dead.url(f"/{n}")) for n in range(100)]
            fill(state, failing, 1_000)
            with state.engine.begin() as connection:
                rows = [{"subscription_id": each.id, "failures": 3} for each in failing]
                connection.execute(sa.insert(Lane.__table__), rows)
            with background(state) as other:
                wait_until(lambda: len(dead.requests) >= 12)  # all that they may have
                fill(state, [subscribe(state, alive.url())], 20)

                alive.wait_for(20, 40)
                assert len(dead.requests) == 12
                other.stop.set()
                gate.opened.set()

    def test_a_slow_rate_delays_no_other(self, state):
        with Receiver(ok()) as slow, Receiver(ok()) as quick:
            began = time.monotonic()
            fill(state, [subscribe(state, slow.url(), rate_limit=1.0)], 100)
            fill(state, [subscribe(state, quick.url())], 50)
            with background(state):
                quick.wait_for(50, 40)

        assert len(slow.requests) <= (time.monotonic() - began) + 2


class TestRate:
    def test_the_rate_holds_over_a_handover(self, state):
        rate = 8.0
        began = datetime.now(UTC)
        with Receiver(ok()) as receiver:
            subscription = subscribe(state, receiver.url(), rate_limit=rate)
            fill(state, [subscription], 6)
            with background(state, "a") as first:
                receiver.wait_for(2)
                first.stop.set()
                first.wait()
            sent = len(receiver.requests)
            # To the moment, and no machine is too slow for this: whatever is late is late in the allowed direction.
            assert lane_of(state, subscription).sendable_at >= began + timedelta(seconds=sent / rate - 0.05)
            # A run ends where the next request may start only later; the sweep begins another one then.
            wait_until(lambda: run(state, "b") and len(receiver.requests) == 6)

        starts = [row.started_at for row in sorted(attempts(state), key=lambda row: row.started_at)]
        for number, start in enumerate(starts):
            assert start >= began + timedelta(seconds=number / rate - 0.05), number

    def test_a_lane_that_may_send_only_much_later_is_given_back_meanwhile(self, state, inbox):
        subscription = subscribe(state, inbox.url(), rate_limit=0.01)
        fill(state, [subscription], 2)

        report = run(state)

        lane = lane_of(state, subscription)
        assert len(inbox.requests) == 1
        assert lane.leased_until is None
        assert timedelta(seconds=90) < report.next_due - datetime.now(UTC) <= timedelta(seconds=100)
        assert report.next_due == lane.sendable_at

    def test_what_was_held_is_sent_at_the_rate_of_its_subscription(self, state, inbox):
        rate = 8.0
        subscription = subscribe(state, inbox.url(), "*", active=False, rate_limit=rate)
        fill(state, [subscription], 6)
        update(state, Delivery, state="held", due_at=None, reason="off")
        began = datetime.now(UTC)
        with Session(state.engine, info={"webhooks": False}) as session:
            subscribing.change(
                state, session, subscription.id, SubscriptionInput(active=True, held="send"), owner="1"
            )
            session.commit()
        wait_until(lambda: run(state) and len(inbox.requests) == 6)

        starts = sorted(row.started_at for row in attempts(state))
        for number, start in enumerate(starts):
            assert start >= began + timedelta(seconds=number / rate - 0.05), number


class TestChangesMeanwhile:
    def test_what_is_switched_off_is_not_sent_any_more(self, state, inbox):
        fill(state, [subscribe(state, inbox.url(), rate_limit=4.0)], 100)
        with background(state, refresh=0.05) as other:
            inbox.wait_for(2)
            update(state, Subscription, active=False)
            update(state, Delivery, state="held", due_at=None)
            other.wait()

        assert len(inbox.requests) < 50  # which would take twelve seconds

    def test_a_new_url_and_a_new_secret_take_effect_while_a_backlog_is_sent(self, state, inbox):
        subscription = subscribe(state, "http://127.0.0.1:9/", rate_limit=4.0)
        fill(state, [subscription], 40)
        with background(state, refresh=0.05):
            wait_until(lambda: attempts(state))
            sealed = state.vault.seal("whsec_" + "QUFB" * 10)
            update(state, Secret, sealed=sealed)
            update(state, Subscription, url=inbox.url())
            [received] = inbox.wait_for(1)[:1]

        standardwebhooks.Webhook("whsec_" + "QUFB" * 10).verify(received.body, received.headers)

    def test_what_is_cancelled_while_it_waits_here_is_not_sent(self, make_app):
        state = in_context(make_app, WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1)
        gate = Gate()
        with Receiver(gate) as receiver:
            [*_, last] = fill(state, [subscribe(state, receiver.url())], 10)
            with background(state, refresh=0.05) as other:
                wait_until(lambda: gate.held == 1)
                assert other.run.at_hand == 10
                with state.engine.begin() as connection:
                    connection.execute(
                        sa.update(Delivery)
                        .where(Delivery.message_id == last)
                        .values(state="cancelled", due_at=None)
                    )
                wait_until(lambda: other.run.at_hand == 9)
                gate.opened.set()
                other.wait()

        assert last not in {request.headers["webhook-id"] for request in receiver.requests}
        assert len(receiver.requests) == 9

    def test_what_is_cancelled_while_it_is_under_way_stays_cancelled(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            with background(state) as other:
                wait_until(lambda: gate.held == 1)
                update(state, Delivery, state="cancelled", due_at=None)
                gate.opened.set()
                other.wait()

        assert states(state) == ["cancelled"]
        assert len(attempts(state)) == 1

    def test_what_is_held_while_it_is_under_way_is_delivered_all_the_same(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            with background(state) as other:
                wait_until(lambda: gate.held == 1)
                update(state, Delivery, state="held", due_at=None)
                gate.opened.set()
                other.wait()

        assert states(state) == ["delivered"]

    def test_a_retry_by_hand_during_an_attempt_is_not_overruled_by_its_failure(self, state):
        gate = Gate(status=500)
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            with background(state) as other:
                wait_until(lambda: gate.held == 1)
                asked = datetime.now(UTC) + timedelta(seconds=60)
                update(state, Delivery, due_at=asked, trigger="manual")
                gate.opened.set()
                other.wait()

        [delivery] = deliveries(state)
        assert (delivery.state, delivery.trigger, delivery.due_at) == ("pending", "manual", asked)
        assert (delivery.attempts, delivery.reason) == (1, "http_5xx")

    def test_what_was_recorded_while_its_subscription_was_switched_off_is_held(self, state, inbox):
        fill(state, [subscribe(state, inbox.url(), active=False)], 2)

        run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [("held", "off")] * 2
        assert inbox.requests == []

    def test_what_was_recorded_while_its_subscription_was_removed_is_cancelled(self, state, inbox):
        fill(state, [subscribe(state, inbox.url(), deleted_at=datetime.now(UTC))], 1)

        run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [("cancelled", "removed")]


def test_signals_tell_of_each_attempt_after_it_is_written(app, state):
    told: list[tuple[str, t.Any]] = []

    def note(name: str) -> t.Callable[..., None]:
        def receive(sender: t.Any, **values: t.Any) -> None:
            told.append((name, values.get("number") or values.get("attempts") or values["reason"]))
            assert attempts(state), "the signal came before the commit"

        return receive

    receivers = {name: note(name) for name in ("delivery_attempted", "delivery_delivered", "delivery_failed")}
    for name, receive in receivers.items():
        getattr(signals, name).connect(receive, app)
    with Receiver(one_after_another(410, 200)) as receiver:
        fill(state, [subscribe(state, receiver.url("/a"))], 1)
        run(state)
        fill(state, [subscribe(state, receiver.url("/b"))], 1)
        run(state)

    assert told == [
        ("delivery_attempted", 1),
        ("delivery_failed", "http_4xx"),
        ("delivery_attempted", 1),
        ("delivery_delivered", 1),
    ]
