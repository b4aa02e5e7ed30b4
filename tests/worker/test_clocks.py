"""Clocks that differ or jump: all workers use the database's time."""

from __future__ import annotations

import contextlib
import typing as t
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks import outbox
from flask_webhooks.models import Lane, Worker
from flask_webhooks.outbox import Clock, Lease
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from flask_webhooks.worker.maintenance import Maintenance
from tests.conftest import on_servers
from tests.receivers import Receiver, ok
from tests.stage import clock_ahead, deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import Gate, background, run

NOWHERE = "http://127.0.0.1:1/"


@on_servers
class TestWorkersWithOtherClocks:
    """The machines' clocks are six minutes apart, which is more than any lease."""

    @pytest.fixture
    def state(self, make_app: t.Callable[..., Flask]) -> AppState:
        return state_of(make_app(WEBHOOKS_TIMEOUT=(2, 5), WEBHOOKS_SUBSCRIPTION_CONCURRENCY=3))

    @pytest.mark.parametrize("rate", [None, 50.0])
    def test_they_do_not_take_each_others_lanes(self, state: AppState, rate: float | None) -> None:
        gates = [Gate(seconds=0.01) for _ in range(6)]
        with contextlib.ExitStack() as stack:
            receivers = [stack.enter_context(Receiver(gate)) for gate in gates]
            ids = fill(state, [subscribe(state, each.url(), rate_limit=rate) for each in receivers], 300)
            with (
                background(state, "fast", clock=Clock(clock_ahead(seconds=180)), renew=0.05) as fast,
                background(state, "slow", clock=Clock(clock_ahead(seconds=-180)), renew=0.05) as slow,
            ):
                reports = [fast.wait(), slow.wait()]
                while {row.state for row in deliveries(state)} != {"delivered"}:
                    reports.append(run(state, "third"))  # a run ends where only a rate holds it up

            received = Counter(
                request.headers["webhook-id"] for each in receivers for request in each.requests
            )

        assert sum(received.values()) == len(ids), f"{sum(received.values()) - len(ids)} duplicates"
        assert set(received) == set(ids)
        assert max(gate.most for gate in gates) <= 3
        assert sum(report.lost for report in reports) == 0

    def test_what_falls_due_soon_is_waited_for_and_not_longer(self, state: AppState) -> None:
        fill(state, [subscribe(state, NOWHERE)], 1, due_at=datetime.now(UTC) + timedelta(seconds=30))
        report = Coordinator(state, holder="fast", clock=Clock(clock_ahead(seconds=180))).run()

        assert report.failed == 0
        assert report.next_in is not None
        assert 20 < report.next_in < 31

    def test_a_heartbeat_is_in_the_databases_time(self, state: AppState) -> None:
        def seen() -> datetime | None:
            with state.engine.connect() as connection:
                return connection.scalar(sa.select(Worker.seen_at))

        with Maintenance(state, "test", interval=0.01, wakes=False):
            beat = wait_until(seen)
        with state.engine.connect() as connection:
            assert abs(outbox.now(connection) - beat) < timedelta(seconds=10)


def put_back(state: AppState, key: str, **columns: t.Any) -> None:
    """Write a lane as a worker did whose clock was an hour ahead."""
    hour = datetime.now(UTC) + timedelta(hours=1)
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Lane), {"subscription_id": key, "served_at": hour, **columns})


class TestClockPutBack:
    """What was written before must not be waited for as long as the jump is."""

    def test_a_pause_ends_and_a_failed_probe_begins_a_new_one(self, state: AppState) -> None:
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url(), retry=[3600.0])
            fill(state, [subscription], 50)
            run(state, clock=clock_ahead(hours=1))
            sent = len(receiver.requests)
            assert (sent >= 10, lane_of(state, subscription).pauses) == (True, 1)
            report = run(state)

            assert len(receiver.requests) == sent + 1
        lane = lane_of(state, subscription)
        assert lane.pauses == 2
        assert lane.paused_until is not None
        assert timedelta(seconds=30) < lane.paused_until - datetime.now(UTC) < timedelta(seconds=61)
        assert report.next_due == lane.paused_until

    def test_a_rate_does_not_wait_either(self, state: AppState, inbox: Receiver) -> None:
        subscription = subscribe(state, inbox.url(), rate_limit=0.5)
        fill(state, [subscription], 1)
        put_back(state, subscription.id, sendable_at=datetime.now(UTC) + timedelta(hours=1))

        assert run(state).delivered == 1

    def test_a_lane_that_cannot_be_sent_now_is_found_due_once(self, state: AppState) -> None:
        subscription = subscribe(state, NOWHERE)
        fill(state, [subscription], 1)
        hour = datetime.now(UTC) + timedelta(hours=1)
        put_back(state, subscription.id, paused_until=hour, sendable_at=hour, pauses=1)
        now = datetime.now(UTC)
        with state.engine.connect() as connection:
            due = outbox.next_due(connection, now, timedelta(seconds=45))
            assert due is not None
            assert due <= now
            lease = Lease("test", "00000000-0000-7000-8000-000000000001", now + timedelta(seconds=45))
            outbox.lease(connection, lease, now, 1)
            connection.commit()

        row = lane_of(state, subscription)
        assert (row.paused_until, row.sendable_at, row.served_at, row.pauses) == (None, None, now, 1)
        assert row.leased_until == lease.until

    def test_a_pause_of_a_clock_that_is_hardly_ahead_holds(self, state: AppState, inbox: Receiver) -> None:
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], 1)
        soon = datetime.now(UTC) + timedelta(seconds=20)
        put_back(state, subscription.id, served_at=soon, paused_until=soon, pauses=1)

        report = run(state)

        assert (report.delivered, report.next_due) == (0, soon)

    def test_lanes_that_were_served_before_do_not_come_last(self, state: AppState) -> None:
        before, since = (subscribe(state, NOWHERE) for _ in range(2))
        fill(state, [before, since], 2)
        put_back(state, before.id)
        now = datetime.now(UTC)
        put_back(state, since.id, served_at=now - timedelta(seconds=1))
        with state.engine.connect() as connection:
            lease = Lease("test", "00000000-0000-7000-8000-000000000001", now + timedelta(seconds=45))
            [row] = outbox.lease(connection, lease, now, 1)
            connection.commit()

        assert row.subscription_id == before.id
