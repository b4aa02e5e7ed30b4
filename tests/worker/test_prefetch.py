"""How much is read ahead: bounded in bytes over all lanes, and shared fairly."""

from __future__ import annotations

import time
import typing as t

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Lane, Message, Subscription
from flask_webhooks.state import AppState
from flask_webhooks.worker.prefetch import BUDGET
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, subscribe
from tests.worker.answers import background
from tests.worker.reader import Reader

pytestmark = pytest.mark.long

LARGE = 200_000
"""Bytes of a message; a hundred of them, with their bodies, are more than the budget."""
NOWHERE = "http://127.0.0.1:9/"


def fill_large(state: AppState, subscriptions: t.Sequence[Subscription], count: int) -> None:
    """Put messages into the database that say that they are large."""
    fill(state, subscriptions, count)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Message).values(size=LARGE))


def fail(state: AppState, subscriptions: t.Sequence[Subscription]) -> None:
    """Let the last attempt of these have failed."""
    with state.engine.begin() as connection:
        rows = [{"subscription_id": each.id, "failures": 1} for each in subscriptions]
        connection.execute(sa.insert(t.cast("sa.Table", Lane.__table__)), rows)


@pytest.fixture
def reader(state: AppState) -> Reader:
    return Reader(state)


def test_all_lanes_together_stay_within_the_budget(state: AppState, reader: Reader) -> None:
    fill_large(state, [subscribe(state, NOWHERE) for _ in range(100)], 200)

    reader.read(100)

    assert len(reader.lanes.held) == 100
    assert BUDGET * 0.9 < reader.bytes <= BUDGET
    tasks = sum(len(lane.buffered) for lane in reader.lanes.held.values())
    assert tasks * 2 * LARGE <= reader.bytes  # a message and its body


def test_lanes_that_had_to_wait_come_first_the_next_time(state: AppState, reader: Reader) -> None:
    subscriptions = [subscribe(state, NOWHERE) for _ in range(150)]
    fill_large(state, subscriptions, 150)
    reader.read(150)
    first = reader.fed

    reader.take_back()
    reader.read(150)

    assert first | reader.fed == {each.id for each in subscriptions}


def test_lanes_that_failed_leave_half_of_it_to_others(state: AppState, reader: Reader) -> None:
    dead = [subscribe(state, NOWHERE) for _ in range(100)]
    fail(state, dead)
    fill_large(state, dead, 200)
    reader.read(100)
    assert reader.bytes <= BUDGET / 2

    sound = [subscribe(state, NOWHERE) for _ in range(10)]
    fill_large(state, sound, 10)
    reader.read(10)

    assert {each.id for each in sound} <= reader.fed


def test_a_message_that_weighs_more_than_the_budget_is_delivered_all_the_same(state: AppState) -> None:
    with Receiver(ok()) as receiver:
        fill(state, [subscribe(state, receiver.url()) for _ in range(3)], 6)
        with state.engine.begin() as connection:
            connection.execute(sa.update(Message).values(size=BUDGET))

        with background(state) as other:
            assert other.wait().delivered == 6

    assert {row.state for row in deliveries(state)} == {"delivered"}


def test_a_lane_is_read_on_while_something_is_under_way_and_not_when_all_of_it_is_done(
    state: AppState, reader: Reader
) -> None:
    subscription = subscribe(state, NOWHERE)
    fill(state, [subscription], 2)
    reader.read(1)
    lane = reader.lanes.held[subscription.id]

    def begin() -> None:
        assert reader.scheduler.take(time.monotonic()) is not None

    def end() -> None:
        reader.scheduler.done(lane, ok=True, seconds=0.0, now=time.monotonic())

    def one_more() -> int:
        fill(state, [subscription], 1)
        lane.read_at = 0.0
        reader.read(1)
        return len(lane.buffered)

    begin(), begin()
    assert one_more() == 3
    end(), end(), begin(), end()
    assert one_more() == 3, "it is given back when they are written, and read when it is taken again"
