"""An event that is deselected before it is sent is not sent: its delivery is cancelled, with that reason."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import replay, subscriptions
from flask_webhooks.models import Delivery, Listener, Message, Subscription
from flask_webhooks.replay import Filter
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, recorded, subscribe, wait_until
from tests.worker.answers import Gate, background, run

DESELECTED = ("cancelled", None, "deselected")


def ended(state: AppState) -> list[tuple[t.Any, ...]]:
    return [(row.state, row.due_at, row.reason) for row in deliveries(state)]


def listen(state: AppState, subscription: Subscription, *events: str) -> None:
    """Change what it listens to, as the API does."""
    with Session(state.engine) as session:
        subscriptions.change(
            state, session, subscription.id, SubscriptionInput(events=list(events)), owner="1"
        )
        session.commit()


def move(state: AppState, to: str) -> None:
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state=to, due_at=None))


@pytest.fixture
def state(make_app: t.Any) -> AppState:
    return state_of(make_app(WEBHOOKS_RETRY=[3600.0], WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1))


@pytest.mark.parametrize("before", ["reports.ready", "reports.*", "*"])
def test_what_was_due_is_cancelled_and_nothing_is_logged(state, inbox, before):
    subscription = subscribe(state, inbox.url(), before)
    fill(state, [subscription], 3)
    listen(state, subscription, "clients.created")

    report = run(state)

    assert inbox.requests == []
    assert ended(state) == [DESELECTED] * 3
    assert attempts(state) == []
    assert (report.delivered, report.failed, report.next_due) == (0, 0, None)
    assert all(row.finished_at is not None and row.attempts == 0 for row in deliveries(state))


@pytest.mark.parametrize("after", ["reports.ready", "reports.*", "*"])
def test_what_is_still_covered_by_another_pattern_is_sent(state, inbox, after):
    subscription = subscribe(state, inbox.url(), "reports.ready", "reports.*", "*")
    fill(state, [subscription], 1)
    listen(state, subscription, after)

    run(state)

    assert len(inbox.requests) == 1


def test_a_retry_is_cancelled_and_keeps_its_attempts(state):
    with Receiver(ok(status=500)) as receiver:
        subscription = subscribe(state, receiver.url(), "reports.ready")
        fill(state, [subscription], 1)
        run(state)
        listen(state, subscription, "clients.created")
        run(state, clock=lambda: datetime.now(UTC) + timedelta(hours=2))

    [row] = deliveries(state)
    assert len(receiver.requests) == 1
    assert (row.state, row.reason, row.attempts) == ("cancelled", "deselected", 1)


def test_what_was_read_ahead_is_cancelled_too(state):
    gate = Gate()
    with Receiver(gate) as receiver:
        subscription = subscribe(state, receiver.url(), "reports.ready")
        fill(state, [subscription], 5)
        with background(state, refresh=0.05):
            wait_until(lambda: gate.held == 1)
            listen(state, subscription, "clients.created")
            wait_until(lambda: ended(state).count(DESELECTED) == 4)
            gate.opened.set()
            wait_until(lambda: len(attempts(state)) == 1)

    assert len(receiver.requests) == 1
    assert [row[0] for row in ended(state)] == ["delivered", *["cancelled"] * 4]


def test_what_was_held_is_cancelled_when_it_would_be_sent(state, inbox):
    subscription = subscribe(state, inbox.url(), "reports.ready", active=False)
    fill(state, [subscription], 2)
    move(state, "held")
    with Session(state.engine) as session:
        told = {"events": ["clients.created"], "active": True, "held": "send"}
        subscriptions.change(state, session, subscription.id, SubscriptionInput(**told), owner="1")
        session.commit()

    run(state)

    assert inbox.requests == []
    assert ended(state) == [DESELECTED] * 2


def test_a_person_who_retries_one_delivery_gets_it(state, inbox):
    subscription = subscribe(state, inbox.url(), "clients.created")
    fill(state, [subscription], 1)
    move(state, "failed")
    with state.engine.begin() as connection:
        [row] = deliveries(state)
        assert replay.retry(connection, row.id, datetime.now(UTC))

    run(state)

    assert [row.state for row in deliveries(state)] == ["delivered"]


def test_a_replay_leaves_alone_what_is_not_listened_to(state, inbox):
    subscription = subscribe(state, inbox.url(), "clients.created")
    fill(state, [subscription], 3)
    move(state, "delivered")
    with state.engine.begin() as connection:
        one = recorded(state)[0].id
        connection.execute(sa.update(Message).where(Message.id == one).values(event="clients.created"))
    now = datetime.now(UTC)
    with Session(state.engine) as session:
        row = session.get_one(Subscription, subscription.id)
        wanted = Filter(("delivered",), (), now - timedelta(hours=1), now + timedelta(hours=1))
        replay.start(state, session, row, wanted)
        session.commit()
    replay.enqueue_batches(state)

    run(state, clock=lambda: datetime.now(UTC) + timedelta(minutes=1))

    assert len(inbox.requests) == 1
    assert [row.state for row in deliveries(state)] == ["delivered"] * 3


def test_a_channel_that_this_process_does_not_know_is_no_deselection(state, inbox):
    subscription = subscribe(state, inbox.url(), "novelties.*")
    fill(state, [subscription], 1)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Message).values(event="novelties.made", channel="novelties"))

    run(state)

    [row] = deliveries(state)
    assert (row.state, row.reason) == ("pending", "unknown_event")


def test_as_many_patterns_as_one_may_have_are_read_whole(state, inbox):
    subscription = subscribe(
        state, inbox.url(), *(f"{'x' * 200}{n}.made" for n in range(499)), "reports.ready"
    )
    fill(state, [subscription], 1)

    run(state)

    assert len(inbox.requests) == 1
    with state.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Listener)) == 500
