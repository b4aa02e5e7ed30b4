"""A worker sends only deliveries of its own environments; the others stay, and are counted in its log."""

from __future__ import annotations

import json
import time
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import outbox, queries, replay
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.delivery import Subject, send_test_request
from flask_webhooks.errors import OtherEnvironmentError
from flask_webhooks.models import Delivery, Lane, Replay, Subscription
from flask_webhooks.replay import Filter
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker.maintenance import Maintenance
from tests.receivers import Receiver
from tests.stage import deliveries, fill, subscribe
from tests.worker.answers import run

MakeApp = t.Callable[..., Flask]


def of(state: AppState, receiver: Receiver, environment: str, **columns: t.Any) -> Subscription:
    row = subscribe(state, receiver.url(), "reports.ready", **columns)
    with state.engine.begin() as connection:
        connection.execute(
            sa.update(Subscription).where(Subscription.id == row.id).values(environment=environment)
        )
    return row


def untouched(state: AppState) -> list[tuple[t.Any, ...]]:
    return [(row.state, row.due_at, row.attempts, row.reason) for row in deliveries(state)]


@pytest.fixture
def copy(app: Flask, inbox: Receiver) -> AppState:
    """Production's database, with an app that was started as staging."""
    state = state_of(app)
    fill(state, [of(state, inbox, "production")], 3)
    return state


class TestACopyOfProduction:
    def test_it_sends_nothing_by_any_door_and_changes_nothing(self, copy, inbox, app):
        before = untouched(copy)

        run(copy)
        app.test_cli_runner().invoke(webhooks_cli, ["deliver"])
        woken: list[int] = []
        sweep = Maintenance(copy, "test", wake=lambda: woken.append(1))
        for now in (0.0, 3_600.0, 7_200.0):
            sweep.cycle(now)

        assert (inbox.requests, woken) == ([], [])
        assert untouched(copy) == before
        with copy.engine.connect() as connection:
            assert connection.scalars(sa.select(Lane.leased_until)).all() in ([], [None])

    def test_deliveries_elsewhere_wake_no_worker(self, copy):
        woken: list[int] = []
        sweep = Maintenance(copy, "test", stop=ShutdownFlag(), wake=lambda: woken.append(1))

        sweep.cycle(time.monotonic())

        assert run(copy).next_due is None
        assert woken == []

    def test_the_number_of_deliveries_elsewhere_is_logged(self, copy, app):
        status = app.test_cli_runner().invoke(webhooks_cli, ["status", "--json"])
        words = app.test_cli_runner().invoke(webhooks_cli, ["status", "--fail-if-older", "0.0001"])
        facts = json.loads(status.output)
        with copy.engine.connect() as connection:
            now = datetime.now(UTC)
            found = queries.engine_status(connection, now, environments=copy.settings.sent_environments)

        assert (facts["sends_for"], facts["pending_elsewhere"]) == (["staging"], {"production": 3})
        assert (facts["subscriptions_due"], facts["oldest_due_seconds"]) == (0, None)
        assert words.exit_code == 0
        assert (facts["environment"], facts["subscribed_elsewhere"]) == ("staging", {"production": 1})
        assert "Active subscriptions for production: 1. They get nothing from this app" in words.output
        assert "3 deliveries stay pending: they are for subscriptions of production" in words.output
        assert [tuple(each) for each in found.elsewhere] == [("production", 1, 3)]
        assert (found.pending, found.lanes, found.oldest_due) == (0, 0, None)

    def test_a_test_or_replay_asked_for_there_is_refused_with_the_reason(self, copy, inbox):
        with Session(copy.engine) as session:
            [row] = session.scalars(sa.select(Subscription))
            now = datetime.now(UTC)
            with pytest.raises(OtherEnvironmentError, match="of production"):
                replay.start(copy, session, row, Filter(("failed",), (), now, now))
            key = row.id
        with pytest.raises(OtherEnvironmentError, match="WEBHOOKS_SEND_ENVIRONMENTS"):
            send_test_request(copy, key, Subject(), format=None)

        assert inbox.requests == []

    def test_a_replay_that_was_running_when_it_was_copied_waits(self, copy, inbox):
        [subscription] = {row.subscription_id for row in deliveries(copy)}
        now = datetime.now(UTC)
        terms = {"states": ["failed"], "events": [], "since": now, "until": now, "digest": "", "total": 1}
        with Session(copy.engine) as session:
            session.add(
                Replay(subscription_id=subscription, state="running", next_at=now, created_at=now, **terms)
            )
            session.commit()

        replay.enqueue_batches(copy)

        with copy.engine.connect() as connection:
            assert connection.scalar(sa.select(Replay.state)) == "running"


class TestTwoEnvironmentsInOneDatabase:
    @pytest.fixture
    def both(self, app: Flask, inbox: Receiver) -> AppState:
        state = state_of(app)
        for number, environment in enumerate(["staging", "production"]):
            fill(state, [of(state, inbox, environment)], 2 + number)
        return state

    @pytest.mark.parametrize(
        ("settings", "sent"),
        [
            ({}, 2),
            ({"WEBHOOKS_ENVIRONMENT": "production"}, 3),
            ({"WEBHOOKS_ENVIRONMENT": lambda event, data, owner: "staging"}, 5),
            (
                {
                    "WEBHOOKS_ENVIRONMENT": lambda event, data, owner: "staging",
                    "WEBHOOKS_SEND_ENVIRONMENTS": ["production"],
                },
                3,
            ),
            ({"WEBHOOKS_SEND_ENVIRONMENTS": ["production", "staging"]}, 5),
        ],
        ids=["its own", "the other", "a callable", "a callable with a choice", "both"],
    )
    def test_each_worker_sends_its_own(self, both, make_app: MakeApp, inbox, settings, sent):
        state = state_of(make_app(**settings))

        report = run(state)

        assert (report.delivered, report.next_due) == (sent, None)
        assert len(inbox.requests) == sent
        with state.engine.connect() as connection:
            others = outbox.elsewhere(connection, state.settings.sent_environments)
        assert sum(each.deliveries for each in others) == 5 - sent

    def test_what_is_left_of_a_row_that_is_gone_is_everybodys(self, both, make_app: MakeApp, inbox):
        with both.engine.begin() as connection:
            gone = sa.select(Subscription.id).where(Subscription.environment == "production")
            connection.execute(
                sa.update(Delivery)
                .where(Delivery.subscription_id.in_(gone))
                .values(subscription_id="00000000-0000-7000-8000-000000000009")
            )

        run(both)

        assert sorted({row.state for row in deliveries(both)}) == ["cancelled", "delivered"]


def test_check_reports_what_waits_and_a_callable(copy: AppState, make_app: MakeApp) -> None:
    told = []
    for settings in ({}, {"WEBHOOKS_ENVIRONMENT": lambda event, data, owner: "staging"}):
        app = make_app(**settings)
        with app.app_context():
            told.append(app.test_cli_runner().invoke(webhooks_cli, ["check", "--json"]).output)

    assert "3 pending for 1 subscriptions of production" in told[0]
    assert "sends for staging" in told[0]
    assert "Set WEBHOOKS_SEND_ENVIRONMENTS" in told[1]
