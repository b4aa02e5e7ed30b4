"""A schema that raises does not fail the commit: the message is stored as broken until it is repaired."""

from __future__ import annotations

import contextlib
import json
import logging
import typing as t
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import orm
from sqlalchemy.orm import Session, object_session

from flask_webhooks import Webhooks, outbox, replay, signals
from flask_webhooks.errors import EmitError
from flask_webhooks.models import BrokenMessage, State
from flask_webhooks.replay import filters, repair
from flask_webhooks.state import AppState, state_of
from flask_webhooks.testing import recorded as recording
from tests.capture.conftest import NOWHERE
from tests.host import Client, Invoice, InvoiceSchema, Line, db
from tests.stage import deliveries, recorded, subscribe


class Fault:
    """What is wrong with invoices, until it is mended."""

    def __init__(self) -> None:
        self.error: Exception | None = ValueError("the rate is missing")

    def look(self, _: Invoice) -> str:
        if self.error is not None:
            raise self.error
        return "well"


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Fault:
    """The field `number` of an invoice fails."""
    found = Fault()
    monkeypatch.setattr(InvoiceSchema._declared_fields["number"], "attribute", "rate")
    monkeypatch.setattr(Invoice, "rate", property(found.look), raising=False)
    return found


@pytest.fixture
def state(make_app: t.Callable[..., Flask], fault: Fault) -> t.Iterator[AppState]:
    """An app that records what is broken."""
    app = make_app(WEBHOOKS_ON_ERROR="record")
    with app.app_context():
        yield state_of(app)
        db.session.remove()


def broken(state: AppState) -> list[BrokenMessage]:
    with Session(state.engine, expire_on_commit=False) as session:
        return list(session.scalars(sa.select(BrokenMessage).order_by(BrokenMessage.message_id)))


def test_the_commit_goes_through_and_the_message_waits(
    state: AppState, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(state, NOWHERE, "invoices.*", "clients.*")
    told: list[t.Any] = []

    def note(_: t.Any, messages: t.Any) -> None:
        told.extend(messages)

    with signals.message_broken.connected_to(note, state.app):
        db.session.add_all([Invoice(id=7, owner="1"), Client(id=1, owner="1", name="x")])
        db.session.commit()

    assert db.session.get(Invoice, 7) is not None
    [one] = broken(state)
    assert "invoices.created of Invoice 7" in one.error
    assert "'number' of InvoiceSchema" in one.error
    assert "the rate is missing" in one.error
    assert "WEBHOOKS_ON_ERROR" not in one.error
    assert [(each["id"], each["event"], each["error"]) for each in told] == [
        (one.message_id, "invoices.created", one.error)
    ]
    rows = {each.message_id: each for each in deliveries(state)}
    assert rows[one.message_id].state == "broken"
    assert rows[one.message_id].due_at is None
    assert [row.state for key, row in rows.items() if key != one.message_id] == ["pending"]
    assert "message.broken: invoices.created of Invoice 7" in caplog.text


def test_broken_messages_are_not_signalled_as_recorded(state: AppState) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    told: list[t.Any] = []

    def note(_: t.Any, messages: t.Any) -> None:
        told.extend(messages)

    with signals.message_recorded.connected_to(note, state.app):
        db.session.add(Invoice(id=7, owner="1"))
        db.session.commit()

    assert told == []


def test_repairing_makes_the_data_of_the_row_as_it_is_now(state: AppState, fault: Fault) -> None:
    subscribe(state, NOWHERE, "invoices.*", includes=["lines"])
    db.session.add(Invoice(id=7, owner="1", lines=[Line(text="good")]))
    db.session.commit()
    [one] = broken(state)
    still = repair.repair_message(state, one.message_id)
    fault.error = None
    tried = repair.repair_message(state, one.message_id, dry_run=True)
    unchanged = broken(state)
    done = repair.repair_message(state, one.message_id)
    again = repair.repair_message(state, one.message_id)

    assert still is not None
    assert "the rate is missing" in str(still.error)
    assert tried == done == repair.Repair(one.message_id, "invoices.created", None, 1)
    assert [each.message_id for each in unchanged] == [one.message_id]
    assert again is None
    assert broken(state) == []
    [message] = recorded(state)
    assert json.loads(message.data)["number"] == "well"
    assert [line["text"] for line in json.loads(message.extras or "")["lines"]] == ["good"]
    assert message.size > 20
    [delivery] = deliveries(state)
    assert (delivery.state, delivery.reason) == ("pending", None)
    assert delivery.due_at is not None


def test_what_waits_is_not_sent_by_switching_retrying_or_replaying(state: AppState) -> None:
    row = subscribe(state, NOWHERE, "invoices.*")
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    now = datetime.now(UTC)
    [delivery] = deliveries(state)
    newer = subscribe(state, NOWHERE, "*")
    with state.engine.begin() as connection:
        outbox.hold(connection, row.id, "off")
        outbox.send_held(connection, row.id, now)
        outbox.discard_held(connection, row.id, now)
        outbox.reconcile(connection, row.id, now)
        assert outbox.find_inconsistent(connection) == []
        assert not replay.retry(connection, delivery.id, now)
        assert replay.is_broken(connection, delivery.id)
        window = filters.Filter(filters.STATES, (), now - timedelta(days=1), now + timedelta(days=1))
        assert replay.count(connection, row, window, {"invoices.created"}) == 0
        assert replay.count(connection, newer, window, {"invoices.created"}) == 0

    assert [each.state for each in deliveries(state)] == ["broken"]


def test_a_subscription_that_is_off_by_then_gets_it_held_and_a_removed_one_nothing(
    state: AppState, fault: Fault
) -> None:
    off, gone, on = (subscribe(state, NOWHERE, "invoices.*") for _ in range(3))
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    fault.error = None
    with Session(state.engine) as session:
        session.get_one(type(off), off.id).active = False
        session.get_one(type(gone), gone.id).deleted_at = datetime.now(UTC)
        session.commit()
    done = repair.repair_message(state, broken(state)[0].message_id)

    assert done is not None
    assert done.deliveries == 2
    states = {each.subscription_id: (each.state, each.reason) for each in deliveries(state)}
    assert states == {off.id: ("held", "off"), gone.id: ("cancelled", "removed"), on.id: ("pending", None)}


def test_purging_leaves_what_may_be_repaired(state: AppState) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    [one] = broken(state)
    later = datetime.now(UTC) + timedelta(days=400)
    with state.engine.begin() as connection:
        assert outbox.purge_messages(connection, later) == 0
        assert outbox.broken(connection) == 1
    assert repair.give_up(state, one.message_id, "test data")
    assert not repair.give_up(state, one.message_id, "twice")
    assert repair.repair_message(state, one.message_id) is None
    [delivery] = deliveries(state)
    assert (delivery.state, delivery.reason) == ("cancelled", "test data")
    with state.engine.begin() as connection:
        assert outbox.broken(connection) == 0
        assert not replay.retry(connection, delivery.id, later)
        assert outbox.purge_messages(connection, later) == 1
    assert broken(state) == []


def test_a_deleted_row_can_no_longer_be_repaired(state: AppState, fault: Fault) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add(invoice := Invoice(id=7, owner="1"))
    db.session.commit()
    db.session.delete(invoice)
    db.session.commit()
    fault.error = None
    created, deleted = (repair.repair_message(state, each.message_id) for each in broken(state))

    assert created is not None
    assert "The row 7 of Invoice no longer exists" in str(created.error)
    assert deleted is not None
    assert "is about a row that has been deleted" in str(deleted.error)


def test_a_row_that_moved_to_another_owner_is_not_sent_to_the_first(state: AppState, fault: Fault) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add(invoice := Invoice(id=7, owner="1"))
    db.session.commit()
    [one] = broken(state)
    fault.error = None
    invoice.owner = "2"
    db.session.commit()
    tried = repair.repair_message(state, one.message_id)

    assert tried is not None
    assert "belongs to another owner now" in str(tried.error)
    assert [message.data for message in recorded(state) if message.id == one.message_id] == ["null"]


@pytest.mark.parametrize("way", ["captured", "emitted"])
def test_a_row_without_owner_by_now_is_shown_only_if_the_call_may_have_named_the_owner(
    state: AppState, fault: Fault, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    if way == "emitted":
        by_hand = {"invoices.paid": replace(state.catalog.events["invoices.paid"], on=frozenset())}
        known = replace(state.catalog, events={**state.catalog.events, **by_hand})
        monkeypatch.setitem(state.__dict__, "catalog", known)
    invoice = Invoice(id=7, owner="1")
    with contextlib.ExitStack() as muted:
        if way == "emitted":
            muted.enter_context(Webhooks().muted())
        db.session.add(invoice)
        db.session.commit()
    if way == "emitted":
        Webhooks().emit("invoices.paid", invoice, owner="1")
        db.session.commit()
    [one] = broken(state)
    fault.error = None
    invoice.owner = ""
    db.session.commit()
    tried = repair.repair_message(state, one.message_id)

    assert tried is not None
    [data] = [message.data for message in recorded(state) if message.id == one.message_id]
    if way == "captured":
        assert "has no owner any more. Give the message up." in str(tried.error)
        assert data == "null"
    else:
        assert (tried.error, data != "null") == (None, True)


def test_an_owner_that_a_filter_hides_is_still_its_owner(state: AppState, fault: Fault) -> None:
    bound = state.bound["invoices"]
    before = bound.channel.owner
    subscribe(state, NOWHERE, "invoices.*")

    def hide(each: orm.ORMExecuteState) -> None:
        each.statement = each.statement.options(orm.with_loader_criteria(Client, Client.name != "hidden"))

    sa.event.listen(Session, "do_orm_execute", hide)
    try:
        object.__setattr__(bound.channel, "owner", ("client", "owner"))
        object.__setattr__(bound.owner, "path", ("client", "owner"))
        db.session.add(Invoice(id=7, owner="9", client=(client := Client(owner="1", name="shown"))))
        db.session.commit()
        [one] = broken(state)
        client.name, fault.error = "hidden", None
        db.session.commit()
        done = repair.repair_message(state, one.message_id)
    finally:
        sa.event.remove(Session, "do_orm_execute", hide)
        object.__setattr__(bound.channel, "owner", before)
        object.__setattr__(bound.owner, "path", before)

    assert done == repair.Repair(one.message_id, "invoices.created", None, 1)


def test_an_owner_that_cannot_be_read(state: AppState, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.error = None
    bound = state.bound["invoices"]
    before = bound.channel.owner
    whose = Fault()
    monkeypatch.setattr(Invoice, "whose", property(lambda row: whose.look(row) and row.owner), raising=False)
    subscribe(state, NOWHERE, "invoices.*")
    try:
        object.__setattr__(bound.channel, "owner", ("whose",))
        object.__setattr__(bound.owner, "path", ("whose",))
        db.session.add(Invoice(id=7, owner="1"))
        db.session.commit()
        [one] = broken(state)
        assert deliveries(state) == []
        assert [message.owner for message in recorded(state)] == [""]
        assert "the rate is missing" in str(repair.repair_message(state, one.message_id))
        whose.error = None
        done = repair.repair_message(state, one.message_id)
    finally:
        object.__setattr__(bound.channel, "owner", before)
        object.__setattr__(bound.owner, "path", before)

    assert done == repair.Repair(one.message_id, "invoices.created", None, 1)
    assert [message.owner for message in recorded(state)] == ["1"]
    assert [each.state for each in deliveries(state)] == ["pending"]


def test_without_a_subscription_nothing_is_recorded(state: AppState) -> None:
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()

    assert recorded(state) == []
    assert broken(state) == []


def test_every_kind_of_fault(
    make_app: t.Callable[..., Flask], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, no JSON, a status that fails, an environment that fails, an emit of a row that is none."""
    fault.error = None
    config = {"WEBHOOKS_PAYLOAD_LIMIT": 400, "WEBHOOKS_ENVIRONMENT": lambda *_: 1 / 0}
    state = state_of(make_app(WEBHOOKS_ON_ERROR="record", **config))
    with state.app.app_context():
        subscribe(state, NOWHERE, "*")
        db.session.add(Invoice(id=7, owner="1", note="x" * 500))
        db.session.add(Client(id=1, owner="1", name="y"))
        db.session.commit()
        errors = " ".join(each.error for each in broken(state))
        assert "WEBHOOKS_PAYLOAD_LIMIT" in errors
        assert "ZeroDivisionError" in errors
        assert {message.environment for message in recorded(state)} == {"unknown"}
        assert {each.state for each in deliveries(state)} == {"broken"}
        db.session.remove()


@pytest.mark.parametrize("said", ["a\0b", "\ud800", "x" * 100_000], ids=["NUL", "half a pair", "long"])
def test_an_error_that_a_database_does_not_take(state: AppState, fault: Fault, said: str) -> None:
    """What an exception says is the host's own, or a receiver's, or a file's: it may be anything."""
    subscribe(state, NOWHERE, "invoices.*")
    fault.error = ValueError(said)
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    [one] = broken(state)
    again = repair.repair_message(state, one.message_id)

    shown = said.encode(errors="backslashreplace").decode().replace("\0", "\\x00")[:1000]
    assert shown in one.error
    assert len(one.error) <= 10_000
    assert again is not None
    assert again.error == broken(state)[0].error


@pytest.mark.parametrize("owner", ["a\0b", "\ud800", "x" * 300], ids=["NUL", "half a pair", "long"])
@pytest.mark.parametrize("record", ["listened", "all"])
def test_an_owner_that_no_principal_can_have(
    make_app: t.Callable[..., Flask], fault: Fault, monkeypatch: pytest.MonkeyPatch, owner: str, record: str
) -> None:
    """A property of the host may return any text. A part of it that is stored never counts as an owner."""
    fault.error = None
    state = state_of(make_app(WEBHOOKS_ON_ERROR="record", WEBHOOKS_RECORD=record))
    with state.app.app_context():
        bound = state.bound["invoices"]
        before = bound.channel.owner
        monkeypatch.setattr(Invoice, "whose", property(lambda _: owner), raising=False)
        subscribe(state, NOWHERE, "invoices.*")
        try:
            object.__setattr__(bound.channel, "owner", ("whose",))
            object.__setattr__(bound.owner, "path", ("whose",))
            db.session.add(invoice := Invoice(id=7, owner="1"))
            db.session.commit()
            invoice.note = "x"
            db.session.commit()
            db.session.delete(invoice)
            db.session.commit()
        finally:
            object.__setattr__(bound.channel, "owner", before)
            object.__setattr__(bound.owner, "path", before)

        assert {message.owner for message in recorded(state)} == ({""} if record == "all" else set())
        assert db.session.get(Invoice, 7) is None
        db.session.remove()


def test_a_statement_of_the_hosts_that_fails_while_it_is_repaired(
    state: AppState, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted as any other error, and the next message has its turn."""
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    [one] = broken(state)
    ask = sa.text("SELECT 1 FROM rates")
    monkeypatch.setattr(Invoice, "rate", property(lambda row: object_session(row).scalar(ask)))  # type: ignore[union-attr]
    found = repair.repair_message(state, one.message_id)

    assert found is not None
    assert "rates" in str(found.error)
    assert [each.error for each in broken(state)] == [found.error]


def test_what_was_emitted_once_and_is_broken_again(state: AppState, fault: Fault) -> None:
    """The second time nothing is recorded and nothing is logged; after the repair there is one event."""
    subscribe(state, NOWHERE, "invoices.paid")
    db.session.add(invoice := Invoice(id=7, owner="1"))
    for _ in range(2):
        Webhooks().emit("invoices.paid", invoice, dedupe_key="once")
        db.session.commit()
    [one] = broken(state)
    fault.error = None
    repair.repair_message(state, one.message_id)
    Webhooks().emit("invoices.paid", invoice, dedupe_key="once")
    db.session.commit()

    assert [message.id for message in recorded(state)] == [one.message_id]
    assert [each.state for each in deliveries(state)] == ["pending"]


def test_a_commit_that_is_tried_again_records_it_once(state: AppState) -> None:
    """What a first try has written is taken back, the note of what is broken too."""
    subscribe(state, NOWHERE, "invoices.*")

    def late(session: Session) -> None:
        if len(list(session.scalars(sa.select(Client)))) == 0:
            session.add(Client(id=1, owner="1", name="late"))

    sa.event.listen(db.session(), "before_commit", late)
    db.session.add(invoice := Invoice(id=7, owner="1"))
    db.session.flush()
    db.session.commit()
    invoice.note = "x"
    db.session.flush()
    db.session.commit()

    assert [message.event for message in recorded(state)] == ["invoices.created", "invoices.updated"]
    assert len(broken(state)) == 2
    assert [each.state for each in deliveries(state)] == ["broken", "broken"]


def test_tests_of_the_host_see_it_raise(state: AppState) -> None:
    with recording(Webhooks(), state.app):
        db.session.add(Invoice(id=7, owner="1"))
        with pytest.raises(Exception, match=r"'number' of InvoiceSchema.*the rate is missing"):
            db.session.commit()
    db.session.rollback()


@contextlib.contextmanager
def without(state: AppState, *tables: t.Any) -> t.Iterator[None]:
    """Some of our tables are not there: the host has not migrated yet."""
    for table in reversed(tables):
        table.drop(state.engine)
    try:
        yield
    finally:
        db.session.remove()
        for table in tables:
            table.create(state.engine)


def test_without_the_table_the_commit_goes_through(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be kept is said loudly."""
    subscribe(state, NOWHERE, "invoices.*", "clients.*")
    with (
        without(state, db.metadata.tables["webhook_broken_messages"]),
        caplog.at_level(logging.ERROR, "flask_webhooks.capture"),
    ):
        db.session.add_all([Invoice(id=7, owner="1"), Client(id=1, owner="1", name="x")])
        db.session.commit()
        assert db.session.get(Invoice, 7) is not None

    assert "message.lost" in caplog.text
    assert [message.event for message in recorded(state)] == ["clients.created"]
    assert [each.state for each in deliveries(state)] == [State.PENDING]


def test_a_strict_app_says_that_it_was_not_migrated(make_app: t.Callable[..., t.Any]) -> None:
    app = make_app(WEBHOOKS_ON_ERROR="raise")
    tables = [table for table in db.metadata.sorted_tables if table.name.startswith("webhook_")]
    with app.app_context(), without(state_of(app), *tables):
        db.session.add(Invoice(owner="1"))
        with pytest.raises(EmitError, match=r"no table webhook_listeners.*Migrate before you deploy"):
            db.session.commit()
        db.session.rollback()


@pytest.mark.parametrize("record", ["listened", "all"])
def test_before_the_tables_are_made_commits_go_through(
    make_app: t.Callable[..., t.Any], record: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can have subscribed: so nothing is lost, and it is said once a minute."""
    app = make_app(WEBHOOKS_ON_ERROR="record", WEBHOOKS_RECORD=record)
    with app.app_context():
        _commit_before_the_tables_are_made(state_of(app), caplog)


def _commit_before_the_tables_are_made(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    tables = [table for table in db.metadata.sorted_tables if table.name.startswith("webhook_")]
    with without(state, *tables), caplog.at_level(logging.ERROR, "flask_webhooks.capture"):
        for number in range(1, 4):
            db.session.add(Invoice(id=number, owner="1"))
            db.session.commit()
        db.session.execute(sa.update(Invoice).values(note="x"))
        db.session.delete(db.session.get_one(Invoice, 2))
        db.session.commit()
        assert [invoice.note for invoice in db.session.scalars(sa.select(Invoice))] == ["x", "x"]
    assert caplog.text.count("tables.missing") == 1
    assert state.unrecorded["tables"] == 4
    subscribe(state, NOWHERE, "clients.*")
    db.session.add(Client(id=1, owner="1", name="x"))
    db.session.commit()

    assert [message.event for message in recorded(state)] == ["clients.created"]


def test_removing_a_subscription_cancels_what_waits(state: AppState) -> None:
    row = subscribe(state, NOWHERE, "invoices.*")
    db.session.add(Invoice(id=7, owner="1"))
    db.session.commit()
    with state.engine.begin() as connection:
        outbox.cancel_all(connection, row.id, "removed", datetime.now(UTC))

    assert [(each.state, each.reason) for each in deliveries(state)] == [("cancelled", "removed")]
