"""A run whose time is up while a receiver hangs: it ends, and no other delivery is delayed."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.models import Lane
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import Gate, background

pytestmark = pytest.mark.long


@pytest.fixture
def state(make_app: t.Callable[..., Flask]) -> AppState:
    """Attempts take longer than the test waits."""
    return state_of(make_app(WEBHOOKS_TIMEOUT=(2, 100)))


def test_others_are_delivered_to_while_one_hangs(state):
    gate = Gate()
    with Receiver(gate) as dead, Receiver(ok()) as alive:
        fill(state, [subscribe(state, dead.url())], 10)
        healthy = [subscribe(state, alive.url(f"/{n}")) for n in range(5)]
        with background(state, seconds=0.1) as other:
            wait_until(lambda: gate.held == 2 and other.run.is_draining)
            for count in range(5, 26, 5):
                fill(state, healthy, 5)
                alive.wait_for(count, 30)
            assert gate.held == 2
            gate.opened.set()

            assert other.wait(30).delivered == 27

    assert [row.state for row in deliveries(state)].count("pending") == 8  # for the next run


def test_it_ends_when_nothing_hangs_although_there_is_more(state):
    gate = Gate()
    with Receiver(gate) as dead, Receiver(ok()) as alive:
        fill(state, [subscribe(state, dead.url())], 1)
        steady = subscribe(state, alive.url(), rate_limit=20.0)
        fill(state, [steady], 1_000)
        with background(state, seconds=0.1) as other:
            wait_until(lambda: gate.held and other.run.is_draining and len(alive.requests) > 10)
            gate.opened.set()

            report = other.wait(30)

    assert 10 < report.delivered < 1_000
    assert lane_of(state, steady).leased_until is None


def test_one_that_begins_to_hang_meanwhile_is_not_noticed_either(state):
    first, second = Gate(), Gate()
    with Receiver(first) as dead, Receiver(second) as dying, Receiver(ok()) as alive:
        fill(state, [subscribe(state, dead.url())], 1)
        with background(state, seconds=0.1) as other:
            wait_until(lambda: first.held and other.run.is_draining)
            fill(state, [subscribe(state, dying.url())], 1)
            wait_until(lambda: second.held)
            first.opened.set()
            healthy = subscribe(state, alive.url())
            for count in range(1, 11):
                fill(state, [healthy], 1)
                alive.wait_for(count, 30)
            assert second.held
            second.opened.set()

            assert other.wait(30).delivered == 12


def test_one_that_is_known_to_fail_waits_for_the_next_run(state):
    gate, other_gate = Gate(), Gate()
    with Receiver(gate) as dead, Receiver(other_gate) as failing, Receiver(ok()) as alive:
        fill(state, [subscribe(state, dead.url())], 1)
        with background(state, seconds=0.1) as other:
            wait_until(lambda: gate.held and other.run.is_draining)
            known = subscribe(state, failing.url())
            with state.engine.begin() as connection:
                row = {"subscription_id": known.id, "failures": 3}
                connection.execute(sa.insert(t.cast("sa.Table", Lane.__table__)), row)
            fill(state, [known], 1)
            wait_until(lambda: lane_of(state, known).holder == "other")
            fill(state, [subscribe(state, alive.url())], 50)
            alive.wait_for(50, 30)
            gate.opened.set()
            other.wait(30)

        assert failing.requests == []


def test_a_run_without_time_begins_nothing(state, inbox):
    fill(state, [subscribe(state, inbox.url())], 1)

    report = Coordinator(state, holder="test").run(seconds=0.0)

    assert inbox.requests == []
    assert report.next_due is not None
