from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.cli import webhooks_cli
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Replay, Subscription
from flask_webhooks.replay.backfill import Backfill
from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.host import Client, Invoice, db
from tests.receivers import Receiver
from tests.stage import deliveries, fill, recorded, states, subscribe

from .conftest import Command

NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> t.Iterator[Flask]:
    app = make_app(WEBHOOKS_REPLAY_RATE=10_000)
    with app.app_context():
        yield app


def make(model: t.Any, count: int, owner: str = "1") -> None:
    db.session.add_all(model(owner=owner, name=f"{n}") for n in range(count))
    db.session.commit()


class TestReplay:
    @pytest.fixture
    def failed(self, state: AppState) -> Subscription:
        row = subscribe(state, NOWHERE, "reports.ready")
        for count, becomes in ((3, "failed"), (2, "delivered")):
            ids = fill(state, [row], count)
            moved = sa.update(Delivery).where(Delivery.message_id.in_(ids))
            with state.engine.begin() as connection:
                connection.execute(moved.values(state=becomes, due_at=None))
        return row

    def test_failed_deliveries_are_queued_again(
        self, state: AppState, failed: Subscription, flask_webhooks: Command
    ) -> None:
        said = flask_webhooks("replay", failed.id).output

        assert "Queued 3 of 3; the replay is done" in said
        assert states(state) == ["pending"] * 3 + ["delivered"] * 2

    def test_a_dry_run_only_counts(
        self, state: AppState, failed: Subscription, flask_webhooks: Command
    ) -> None:
        said = flask_webhooks("replay", failed.id, "--states", "delivered,failed", "--dry-run", "--json")

        assert json.loads(said.stdout) == {"state": "dry_run", "total": 5, "queued": 0}
        assert "pending" not in states(state)

    @pytest.mark.parametrize(
        ("words", "count"),
        [
            (["--mode", "all"], 5),
            (["--since", "1h"], 3),
            (["--until", "1h"], 0),
            (["--since", "2020-01-01", "--until", "2020-01-02T00:00Z"], 0),
            (["--event", "reports.*"], 3),
            (["--event", "invoices.*"], 0),
        ],
    )
    def test_filters(
        self, failed: Subscription, flask_webhooks: Command, words: list[str], count: int
    ) -> None:
        found = flask_webhooks("replay", failed.id, *words, "--json")

        assert json.loads(found.stdout)["queued"] == count

    @pytest.mark.parametrize(
        "words",
        [
            ["--since", "yesterday"],
            ["--since", "d"],
            ["--states", "lost"],
            ["--mode", "all", "--states", "failed"],
            ["--event", "nothing.at_all"],
        ],
    )
    def test_what_makes_no_sense_is_a_usage_error(
        self, state: AppState, failed: Subscription, flask_webhooks: Command, words: list[str]
    ) -> None:
        flask_webhooks("replay", failed.id, *words, expect=2)

        assert "pending" not in states(state)

    def test_the_same_command_goes_on_with_the_same_replay(
        self, state: AppState, failed: Subscription, flask_webhooks: Command
    ) -> None:
        flask_webhooks("replay", failed.id, "--since", "1h")
        again = {"state": "running", "stage": 0, "finished_at": None, "next_at": datetime.now(UTC)}
        with state.engine.begin() as connection:
            connection.execute(sa.update(Replay).values(again))

        flask_webhooks("replay", failed.id, "--since", "1h")

        with state.engine.connect() as connection:
            assert connection.scalars(sa.select(Replay.state)).all() == ["done"]

    def test_one_that_is_cancelled_meanwhile_exits_1(
        self, state: AppState, failed: Subscription, flask_webhooks: Command
    ) -> None:
        off = sa.update(Subscription).values(active=False)

        @sa.event.listens_for(state.engine, "commit", once=True)
        def switch_off(connection: sa.Connection) -> None:
            connection.execute(off)

        assert "cancelled" in flask_webhooks("replay", failed.id, expect=1).output

    def test_the_stop_switch_is_named(
        self, make_app: t.Callable[..., Flask], failed: Subscription, state: AppState
    ) -> None:
        app = make_app(WEBHOOKS_ENABLED=False)
        with app.app_context():
            result = app.test_cli_runner().invoke(webhooks_cli, ["replay", failed.id])

        assert result.exit_code == 1
        assert "WEBHOOKS_ENABLED" in result.output


class TestBackfill:
    def test_every_row_of_the_owner_is_sent_as_created(
        self, state: AppState, inbox: Receiver, flask_webhooks: Command
    ) -> None:
        make(Client, 3)
        make(Client, 2, owner="2")
        row = subscribe(state, inbox.url(), "clients.*")
        other = subscribe(state, inbox.url("/other"), "clients.*")

        said = flask_webhooks("backfill", "clients", "--subscription", row.id).output

        assert "Queued 3 of 3 rows." in said
        Coordinator(state, holder="test").run()
        requests = inbox.wait_for(3)
        assert sorted(json.loads(each.body)["data"]["name"] for each in requests) == ["0", "1", "2"]
        assert {json.loads(each.body)["event"] for each in requests} == {"clients.created"}
        assert other.id not in {each.subscription_id for each in deliveries(state)}

    def test_a_second_run_doubles_nothing_and_sends_what_is_new(
        self, state: AppState, flask_webhooks: Command
    ) -> None:
        make(Client, 3)
        row = subscribe(state, NOWHERE, "clients.created")
        flask_webhooks("backfill", "clients", "--subscription", row.id)
        with state.engine.begin() as connection:  # added without an event
            connection.execute(sa.insert(Client).values(owner="1", name="new"))

        found = flask_webhooks("backfill", "clients", "--subscription", row.id, "--json")

        assert json.loads(found.stdout) == {"rows": 4, "queued": 1}
        assert len(deliveries(state)) == 4

    def test_one_that_was_broken_off_goes_on(
        self, state: AppState, flask_webhooks: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_webhooks.replay.backfill.MOST", 2)
        make(Client, 5)
        row = subscribe(state, NOWHERE, "clients.created")
        broken = Backfill(state, "clients", row.id).batches()
        assert next(broken).queued == 2
        broken.close()

        found = flask_webhooks("backfill", "clients", "--subscription", row.id, "--json")

        assert json.loads(found.stdout) == {"rows": 5, "queued": 3}
        names = [json.loads(message.data)["name"] for message in recorded(state)]
        assert sorted(names) == ["0", "1", "2", "3", "4"]

    def test_deliveries_fall_due_at_the_rate(self, state: AppState) -> None:
        make(Client, 4)
        row = subscribe(state, NOWHERE, "clients.created")
        began = datetime.now(UTC)

        [turn] = Backfill(state, "clients", row.id, rate=2.0).batches()

        assert turn.queued == 4
        dues = sorted(t.cast("datetime", each.due_at) for each in deliveries(state))
        gaps = [round((due - dues[0]).total_seconds(), 3) for due in dues]
        assert gaps == [0.0, 0.5, 1.0, 1.5]
        assert timedelta(0) <= dues[0] - began < timedelta(seconds=10)

    def test_includes_and_format_are_those_of_the_subscription(
        self, state: AppState, inbox: Receiver, flask_webhooks: Command
    ) -> None:
        client = Client(owner="1", name="Ada")
        db.session.add(Invoice(owner="1", number="A", client=client))
        db.session.commit()
        row = subscribe(state, inbox.url(), "invoices.*", includes=["client"])

        flask_webhooks("backfill", "invoices", "--subscription", row.id)

        Coordinator(state, holder="test").run()
        [request] = inbox.wait_for(1)
        assert json.loads(request.body)["data"]["client"]["name"] == "Ada"

    def test_a_change_after_the_backfill_is_the_newer_one(self, state: AppState) -> None:
        make(Client, 1)
        row = subscribe(state, NOWHERE, "clients.*")
        list(Backfill(state, "clients", row.id).batches())
        db.session.query(Client).one().name = "changed"
        db.session.commit()

        first, second = recorded(state)

        assert (first.event, second.event) == ("clients.created", "clients.updated")
        assert first.sequence < second.sequence

    @pytest.mark.parametrize(
        ("channel", "columns", "said"),
        [
            ("clints", {}, "There is no channel"),
            ("reports", {}, "has no model"),
            ("lines", {}, "no event for a new row"),
            ("invoices", {}, "does not listen to invoices.created"),
            ("clients", {"active": False}, "switched off"),
        ],
    )
    def test_what_cannot_be_sent_is_refused(
        self, state: AppState, flask_webhooks: Command, channel: str, columns: dict[str, t.Any], said: str
    ) -> None:
        row = subscribe(state, NOWHERE, "clients.*", **columns)

        assert said in flask_webhooks("backfill", channel, "--subscription", row.id, expect=1).output

    def test_another_environment_is_refused(self, state: AppState, flask_webhooks: Command) -> None:
        row = subscribe(state, NOWHERE, "clients.*")
        with state.engine.begin() as connection:
            connection.execute(sa.update(Subscription).values(environment="production"))

        said = flask_webhooks("backfill", "clients", "--subscription", row.id, expect=1).output

        assert "WEBHOOKS_ENVIRONMENT" in said

    def test_an_unknown_subscription_is_said(self, state: AppState, flask_webhooks: Command) -> None:
        said = flask_webhooks("backfill", "clients", "--subscription", uuid7(), expect=1).output

        assert "There is no such subscription." in said

    def test_it_stops_when_the_subscription_is_switched_off(
        self, state: AppState, flask_webhooks: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_webhooks.replay.backfill.MOST", 2)
        make(Client, 5)
        row = subscribe(state, NOWHERE, "clients.created")
        turns = Backfill(state, "clients", row.id).batches()
        next(turns)
        with state.engine.begin() as connection:
            connection.execute(sa.update(Subscription).values(active=False))

        with pytest.raises(Exception, match="switched off"):
            next(turns)
        with state.engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(Delivery)) == 2
