"""`replay.backfill`, called from code; the command that runs it is in `tests/cli/test_replay.py`."""

from __future__ import annotations

import json
import threading
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks import replay, signals
from flask_webhooks.delivery import make_attempt
from flask_webhooks.ids import is_backfilled
from flask_webhooks.models import Delivery, Subscription
from flask_webhooks.replay import repair
from flask_webhooks.replay.backfill import Backfill
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Report
from tests.api.conftest import URL, Customer
from tests.host import Client, Invoice, InvoiceSchema, Status, db
from tests.receivers import Receiver, Talk, response
from tests.stage import attempts, deliveries, subscribe, wait_until
from tests.worker.answers import run as deliver_due
from tests.worker.reader import Reader


def add(state: AppState, *names: str) -> None:
    """Put rows into the table as if they had been there before the extension."""
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Client), [{"owner": "1", "name": name} for name in names])


def run(state: AppState, subscription_id: str) -> list[str]:
    """Backfill the clients; return the names of those that were recorded, as the signal tells them."""
    told: list[str] = []

    def hear(_: t.Any, messages: t.Sequence[t.Mapping[str, t.Any]], **__: t.Any) -> None:
        told.extend(json.loads(message["data"])["name"] for message in messages)

    with signals.message_recorded.connected_to(hear, state.app):
        list(Backfill(state, "clients", subscription_id).batches())
    return told


def test_the_signal_has_what_is_recorded(state: AppState) -> None:
    row = subscribe(state, URL, "clients.*")
    add(state, "a", "b")

    assert run(state, row.id) == ["a", "b"]
    assert run(state, row.id) == []


def test_each_row_goes_to_the_environment_that_the_app_names(make_app: t.Callable[..., Flask]) -> None:
    def place(event: str, data: t.Any, owner: str) -> str:
        assert (event, owner) == ("clients.created", "1")
        return "production" if data["name"].startswith("real") else "staging"

    app = make_app(WEBHOOKS_ENVIRONMENT=place)
    state, call = state_of(app), Customer(app.test_client())
    made = {
        where: call.subscribe("clients.*", environment=where)["id"] for where in ("staging", "production")
    }
    add(state, "real 1", "trial", "real 2")

    assert run(state, made["production"]) == ["real 1", "real 2"]
    assert run(state, made["staging"]) == ["trial"]
    for where, count in (("production", 2), ("staging", 1)):
        items = call("GET", f"/deliveries?subscription={made[where]}", expect=200)["items"]
        assert len(items) == count
        for each in items:
            assert call("GET", f"/messages/{each['message_id']}")["environment"] == where


def test_others_have_not_missed_it(app: Flask, state: AppState) -> None:
    call = Customer(app.test_client())
    mine, second = call.subscribe("clients.*")["id"], call.subscribe("clients.*")["id"]
    add(state, "a")
    run(state, mine)
    path = f"/subscriptions/{second}/replay"

    [message] = call("GET", "/messages", expect=200)["items"]
    reasons = {
        each["subscription_id"]: each["reason"]
        for each in call("GET", f"/messages/{message['id']}")["subscriptions"]
    }
    assert reasons == {mine: None, second: "backfill"}
    assert call("POST", path, {"mode": "missed", "dry_run": True}, expect=200)["total"] == 0
    call("POST", path, {"mode": "missed"}, expect=202)
    assert replay.enqueue_batches(state) == 0


def test_a_key_of_the_hosts_own_is_none_of_a_backfill() -> None:
    key = f"backfill:{'x' * 36}:{'y' * 64}"

    assert is_backfilled(key)
    for other in (None, "backfill:1", f"{key}0", key.upper(), "backfill"):
        assert not is_backfilled(other)


class TestNothingOlder:
    """What a backfill has recorded waits to be sent, and the same row may change meanwhile."""

    @pytest.fixture
    def row(self, state: AppState, inbox: Receiver) -> Subscription:
        return subscribe(state, inbox.url(), "clients.*")

    def test_a_row_that_changes_before_it_is_sent_arrives_once_as_it_is(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a", "b")
        run(state, row.id)
        change(state, "a", name="a2")

        report = deliver(state)

        assert sorted(heard(inbox)) == [("clients.created", "b"), ("clients.updated", "a2")]
        assert states(state) == [("cancelled", "outdated", 0), ("delivered", None, 1), ("delivered", None, 1)]
        assert (report.delivered, report.failed) == (2, 0)
        assert len(attempts(state)) == 2

    def test_a_row_that_goes_before_it_is_sent_is_not_sent(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a")
        run(state, row.id)
        change(state, "a")

        deliver(state)

        assert heard(inbox) == [("clients.deleted", "a")]

    def test_a_retry_looks_again(self, make_app: t.Callable[..., Flask]) -> None:
        state = state_of(make_app(WEBHOOKS_RETRY=[0.0, 0.0]))
        add(state, "a")

        def answer(talk: Talk) -> None:
            while True:
                received = talk.read_request()
                if received.headers["webhook-trigger"] == "backfill":
                    change(state, "a", name="a2")
                talk.send(response(500 if len(talk.receiver.requests) == 1 else 200, {}, b""))

        with Receiver(answer) as receiver:
            run(state, subscribe(state, receiver.url(), "clients.*").id)
            deliver(state)

            assert heard(receiver) == [("clients.created", "a"), ("clients.updated", "a2")]
        assert states(state)[0] == ("cancelled", "outdated", 1)

    def test_one_that_waits_in_a_workers_hands_is_looked_at_too(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a", "b", "c")
        run(state, row.id)
        make_due(state)
        reader = Reader(state)
        reader.read(1)
        [lane] = reader.lanes.held.values()
        assert len(lane.backfilled) == 3
        change(state, "b", name="b2")
        lane.is_dry, lane.read_at = False, 0.0  # as if there were more than is read at once
        reader.read(1)

        assert [each.is_outdated for each in lane.buffered.values()] == [False, True, False, False]
        made = [make_attempt(state, lane.destination, each, "test") for each in list(lane.buffered.values())]
        assert heard(inbox) == [
            ("clients.created", "a"),
            ("clients.created", "c"),
            ("clients.updated", "b2"),
        ]
        assert [each.verdict.state for each in made] == ["delivered", "cancelled", "delivered", "delivered"]
        for each in made:
            lane.release_body(each.task)
        assert not lane.backfilled

    def test_who_does_not_hear_of_changes_has_heard_nothing_newer(
        self, state: AppState, inbox: Receiver
    ) -> None:
        some = subscribe(state, inbox.url("/some"), "clients.created")
        subscribe(state, inbox.url("/all"), "clients.*")
        add(state, "a")
        run(state, some.id)
        change(state, "a", name="a2")

        deliver(state)

        assert {(each.target, each.headers["webhook-event"]) for each in inbox.requests} == {
            ("/some", "clients.created"),
            ("/all", "clients.updated"),
        }

    def test_what_was_called_off_was_not_sent(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a")
        run(state, row.id)
        change(state, "a", name="a2")
        with state.engine.begin() as connection:
            replay.cancel(connection, deliveries(state)[1].id, datetime.now(UTC))

        deliver(state)

        assert heard(inbox) == [("clients.created", "a")]

    def test_older_events_and_other_rows_call_nothing_off(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a", "b")
        change(state, "a", name="a2")
        change(state, "b", name="b2")
        run(state, row.id)

        deliver(state)

        assert sorted(heard(inbox)) == [
            ("clients.created", "a2"),
            ("clients.created", "b2"),
            ("clients.updated", "a2"),
            ("clients.updated", "b2"),
        ]
        by_name: dict[str, list[int]] = {}
        for each in sorted(inbox.requests, key=lambda each: each.headers["webhook-event"]):
            name = json.loads(each.body)["data"]["name"]
            by_name.setdefault(name, []).append(int(each.headers["webhook-sequence"]))
        assert all(created > updated for created, updated in by_name.values())

    def test_who_has_it_sent_again_gets_it(self, state: AppState, inbox: Receiver, row: Subscription) -> None:
        add(state, "a")
        run(state, row.id)
        change(state, "a", name="a2")
        deliver(state)
        with state.engine.begin() as connection:
            replay.retry(connection, deliveries(state)[0].id, datetime.now(UTC))
        deliver(state)

        assert heard(inbox) == [("clients.updated", "a2"), ("clients.created", "a")]

    def test_a_second_run_sends_nothing_of_it(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a", "b")
        turns = Backfill(state, "clients", row.id, rate=0.2).batches()
        next(turns)
        change(state, "a", name="a2")
        deliver(state)
        assert run(state, row.id) == ["b"]
        assert run(state, row.id) == []
        deliver(state)

        assert heard(inbox) == [("clients.updated", "a2"), ("clients.created", "b")]

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # shows who waits for a lock
    def test_what_is_being_committed_is_waited_for(
        self, state: AppState, inbox: Receiver, row: Subscription
    ) -> None:
        add(state, "a")
        with state.app.app_context():
            client = db.session.scalars(sa.select(Client)).one()
            client.name = "a2"
            db.session.flush()
            thread = threading.Thread(target=run, args=(state, row.id))
            thread.start()
            wait_until(lambda: waiting_for_locks(state), about="the backfill to wait")
            db.session.commit()
            thread.join(60)
        deliver(state)

        assert sorted(heard(inbox)) == [("clients.created", "a2"), ("clients.updated", "a2")]
        created, updated = sorted(inbox.requests, key=lambda each: each.headers["webhook-event"])
        assert int(created.headers["webhook-sequence"]) > int(updated.headers["webhook-sequence"])

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # shows who waits for a lock
    def test_no_commit_is_ended_by_it(self, state: AppState, inbox: Receiver, row: Subscription) -> None:
        """Two transactions that wait for each other's rows: the database ends one, and it must not be the host's."""
        add(state, "a", "b", "c")
        with state.app.app_context():
            rows = {each.name: each for each in db.session.scalars(sa.select(Client))}
            rows["b"].name = "b2"
            db.session.flush()
            thread = threading.Thread(target=run, args=(state, row.id))
            thread.start()
            # Who has waited for a second looks for a deadlock, and is not the one that is ended afterwards.
            wait_until(lambda: waiting_for_locks(state, 1.1), about="the backfill to wait")
            rows["c"].name = "c2"
            db.session.flush()
            rows["a"].name = "a2"
            db.session.flush()  # waits for no lock
            db.session.commit()
            thread.join(60)
        deliver(state)

        told = heard(inbox)
        assert {("clients.updated", "a2"), ("clients.updated", "b2"), ("clients.updated", "c2")} <= set(told)
        assert ("clients.created", "b2") in told
        assert not {("clients.created", "a"), ("clients.created", "c")} & set(told)

    def test_the_api_shows_why(self, state: AppState, app: Flask, inbox: Receiver) -> None:
        call = Customer(app.test_client())
        key = call.subscribe("clients.*", url=inbox.url())["id"]
        add(state, "a")
        run(state, key)
        change(state, "a", name="a2")
        deliver(state)

        [message] = call("GET", "/messages?event=clients.created", expect=200)["items"]
        [told] = call("GET", f"/messages/{message['id']}")["subscriptions"]
        assert (told["state"], told["reason"]) == ("cancelled", "outdated")
        assert "a newer event of the same object was sent instead" in told["explanation"]


def test_a_row_whose_schema_fails_waits_for_its_repair(
    make_app: t.Callable[..., Flask], inbox: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {1, 2}
    monkeypatch.setattr(InvoiceSchema._declared_fields["number"], "attribute", "rate")
    monkeypatch.setattr(Invoice, "rate", property(lambda row: str(1 / (row.id not in faults))), raising=False)
    state = state_of(make_app(WEBHOOKS_ON_ERROR="record"))
    row = subscribe(state, inbox.url(), "invoices.*")
    with state.engine.begin() as connection:
        rows = [{"id": number, "owner": "1", "status": Status.DRAFT} for number in (1, 2, 3)]
        connection.execute(sa.insert(Invoice), rows)
    told: dict[str, int] = {}

    def hear(name: str) -> t.Callable[..., None]:
        return lambda _, messages, **__: told.update({name: len(messages)})

    whole, broken = hear("recorded"), hear("broken")
    with signals.message_recorded.connected_to(whole), signals.message_broken.connected_to(broken):
        [turn] = Backfill(state, "invoices", row.id).batches()
    assert (turn.seen, turn.queued, told) == (3, 1, {"recorded": 1, "broken": 2})
    deliver(state)
    assert [each.state for each in deliveries(state)] == ["broken", "broken", "delivered"]
    assert [json.loads(each.body)["data"]["id"] for each in inbox.requests] == [3]

    # One is repaired after its row has changed, and the change had an event.
    faults.clear()
    with state.app.app_context():
        invoice = db.session.get_one(Invoice, 1)
        invoice.status = Status.SENT
        db.session.commit()
    for each in deliveries(state)[:2]:
        repair.repair_message(state, each.message_id)
    deliver(state)
    assert [(each.state, each.reason) for each in deliveries(state)[:2]] == [
        ("cancelled", "outdated"),
        ("delivered", None),
    ]


def change(state: AppState, client: str, **values: str) -> None:
    """Change a client, or delete it if nothing is given."""
    with state.app.app_context():
        row = db.session.scalars(sa.select(Client).where(Client.name == client)).one()
        if not values:
            db.session.delete(row)
        for key, value in values.items():
            setattr(row, key, value)
        db.session.commit()


def make_due(state: AppState) -> None:
    """Let what falls due in the next moments be due."""
    with state.engine.begin() as connection:
        pending = sa.update(Delivery).where(Delivery.due_at.is_not(None))
        connection.execute(pending.values(due_at=datetime.now(UTC) - timedelta(seconds=1)))


def deliver(state: AppState) -> Report:
    """Send what is pending."""
    make_due(state)
    return deliver_due(state)


def heard(receiver: Receiver) -> list[tuple[str, str]]:
    """What arrived: event and name, in this order."""
    return [
        (each.headers["webhook-event"], json.loads(each.body)["data"]["name"]) for each in receiver.requests
    ]


def waiting_for_locks(state: AppState, seconds: float = 0.0) -> int:
    """How many sessions of PostgreSQL have waited for a lock for so long."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND clock_timestamp() - query_start > make_interval(secs => :seconds)"
    )
    with state.engine.connect() as connection:
        return int(connection.execute(waiting, {"seconds": seconds}).scalar_one())


def states(state: AppState) -> list[tuple[str, str | None, int]]:
    return [(each.state, each.reason, each.attempts) for each in deliveries(state)]
