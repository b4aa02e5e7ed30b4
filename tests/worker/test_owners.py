"""No owner waits for another owner's receivers, however many of them hang."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from flask_webhooks import outbox
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Lane, Subscription
from flask_webhooks.outbox import Lease
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker.lanes import Lanes
from flask_webhooks.worker.prefetch import read
from flask_webhooks.worker.scheduler import FairScheduler
from tests.receivers import Receiver
from tests.stage import fill, subscribe, wait_until
from tests.worker.answers import Gate, background


@pytest.fixture
def state(make_app) -> AppState:
    return state_of(make_app())  # with the timeout of 15 s that the others would wait for


def test_a_new_subscription_does_not_wait_for_a_hundred_of_another_owner_that_hang(state, inbox):
    gate = Gate()
    waits = []
    with Receiver(gate) as dead:
        hanging = [subscribe(state, dead.url(f"/{number}"), owner="A") for number in range(100)]
        fill(state, hanging, 300)
        with background(state) as other:
            wait_until(lambda: gate.held >= 16)
            for number in range(5):
                fill(state, [subscribe(state, inbox.url(f"/{number}"), owner="B")], 1)
                began = time.monotonic()
                wait_until(lambda count=number: len(inbox.requests) > count, 10)
                waits.append(time.monotonic() - began)
            other.stop.set()
            gate.opened.set()

    assert statistics.median(waits) < 1
    assert max(waits) < 3


def test_of_each_owner_one_lane_is_leased_before_a_second_of_any(state):
    many = [subscribe(state, "http://127.0.0.1:1/", owner="A") for _ in range(20)]
    fill(state, many, 20)
    fill(state, [late := subscribe(state, "http://127.0.0.1:1/", owner="B")], 1)
    with state.engine.connect() as connection:
        now = outbox.now(connection)
        lease = Lease("test", uuid7(), now + (now - now))
        rows = outbox.lease(connection, lease, now, 2)
        connection.commit()
        owners = set(
            connection.scalars(
                sa.select(Subscription.owner).where(
                    Subscription.id.in_([row.subscription_id for row in rows])
                )
            )
        )

    assert owners == {"A", "B"}
    assert late.id in [row.subscription_id for row in rows]


def test_a_worker_with_enough_to_do_takes_a_new_subscription_of_another_owner(state):
    lanes = Lanes(state, "test", FairScheduler(cap=4), lambda: datetime.now(UTC))
    many = [subscribe(state, "http://127.0.0.1:1/", owner="A") for _ in range(60)]
    fill(state, many, 600)
    healthy = {"failures": 0, "pauses": 0, "succeeded_at": datetime.now(UTC)}
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Lane), [{"subscription_id": each.id, **healthy} for each in many])
    with state.engine.connect() as connection:
        lanes.take(connection, 60)
        read(lanes, connection)
        connection.rollback()
        new = [subscribe(state, "http://127.0.0.1:1/", owner=owner) for owner in "AB"]
        fill(state, new, 2)
        lanes.search.look_at_once()
        lanes.take(connection, lanes.search.room(len(lanes.held)))

        assert set(lanes.held) == {each.id for each in many} | {new[1].id}
        lanes.search.look_at_once()
        assert (
            lanes.search.room(len(lanes.held)) == 0
        )  # there is enough to do: the next look for others is a moment later
