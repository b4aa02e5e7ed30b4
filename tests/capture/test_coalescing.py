"""All changes of one object in a transaction make one event."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, RECORDING, counting, events, kinds, last_changes, recorded_data
from tests.host import Client, Invoice, Line, Status, db
from tests.stage import recorded, subscribe


@pytest.fixture
def invoice(listening: None, app: Flask) -> Invoice:
    """A committed one."""
    invoice = Invoice(id=1, owner="1", number="old")
    db.session.add(invoice)
    db.session.commit()
    return invoice


class TestOneObject:
    def test_created_and_updated(self, listening: None, state: AppState) -> None:
        invoice = Invoice(owner="1", number="a")
        db.session.add(invoice)
        db.session.flush()
        invoice.number = "b"
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.created")] == ["b"]
        assert events(state) == ["invoices.created"]

    def test_created_and_deleted(self, listening: None, state: AppState) -> None:
        invoice = Invoice(owner="1")
        db.session.add(invoice)
        db.session.flush()
        db.session.delete(invoice)
        db.session.commit()

        assert events(state) == []

    def test_several_updates(self, state: AppState, invoice: Invoice) -> None:
        for number in "abc":
            invoice.number = number
            db.session.flush()
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.updated"]
        assert last_changes(state, "invoices.updated")["number"] == ["old", "c"]

    def test_there_and_back(self, state: AppState, invoice: Invoice) -> None:
        invoice.number = "new"
        db.session.flush()
        invoice.number = "old"
        db.session.commit()

        assert events(state) == ["invoices.created"]

    @pytest.mark.parametrize("flushes", [True, False], ids=["two flushes", "one flush"])
    def test_deleted_and_made_again(self, state: AppState, invoice: Invoice, flushes: bool) -> None:
        db.session.delete(invoice)
        if flushes:
            db.session.flush()
        db.session.add(Invoice(id=1, owner="1", number="new"))
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.updated"]
        assert last_changes(state, "invoices.updated")["number"] == ["old", "new"]

    def test_made_again_in_one_flush_it_keeps_what_was_not_given(
        self, listening: None, state: AppState
    ) -> None:
        """SQLAlchemy makes one UPDATE of it: what the new object leaves out stays as it was."""
        db.session.add(old := Invoice(id=1, owner="1", number="old", note="keep"))
        db.session.commit()
        db.session.delete(old)
        db.session.add(Invoice(id=1, owner="1", number="new"))
        db.session.commit()

        with state.engine.connect() as connection:
            row = connection.execute(sa.select(Invoice.number, Invoice.note)).one()
        data = recorded_data(state, "invoices.updated")[0]
        assert (data["number"], data["note"]) == tuple(row) == ("new", "keep")
        assert "note" not in last_changes(state, "invoices.updated")

    def test_deleted_and_made_again_the_same(self, state: AppState, invoice: Invoice) -> None:
        db.session.delete(invoice)
        db.session.flush()
        db.session.add(Invoice(id=1, owner="1", number="old"))
        db.session.commit()

        assert events(state) == ["invoices.created"]

    def test_updated_and_deleted(self, state: AppState, invoice: Invoice) -> None:
        invoice.number = "new"
        db.session.flush()
        db.session.delete(invoice)
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.deleted"]
        assert recorded_data(state, "invoices.deleted")[0]["number"] == "new"

    def test_what_a_deleted_one_was_assigned_is_no_old_value(
        self, listening: None, state: AppState, invoice: Invoice
    ) -> None:
        key = invoice.id
        db.session.delete(invoice)
        db.session.add(Invoice(id=key, owner="1", number="new"))
        invoice.number = "never"
        db.session.commit()

        assert last_changes(state, "invoices.updated")["number"] == ["old", "new"]


class TestTransitions:
    def test_all_transitions_on_the_way_have_events(self, state: AppState, invoice: Invoice) -> None:
        invoice.status = Status.SENT
        db.session.flush()
        invoice.status = Status.PAID
        db.session.commit()

        assert events(state)[1:] == ["invoices.updated", "invoices.sent", "invoices.paid"]

    def test_of_an_object_that_is_new(self, listening: None, state: AppState) -> None:
        invoice = Invoice(owner="1")
        db.session.add(invoice)
        db.session.flush()
        invoice.status = Status.SENT
        db.session.flush()
        invoice.status = Status.PAID
        db.session.commit()

        assert sorted(events(state)) == ["invoices.created", "invoices.paid", "invoices.sent"]

    def test_there_and_back_is_none(self, state: AppState, invoice: Invoice) -> None:
        invoice.status = Status.SENT
        db.session.flush()
        invoice.status = Status.DRAFT
        db.session.commit()

        assert events(state) == ["invoices.created"]

    def test_a_savepoint_that_is_rolled_back_has_none(self, state: AppState, invoice: Invoice) -> None:
        nested = db.session.begin_nested()
        invoice.status = Status.SENT
        nested.rollback()
        invoice.note = "x"
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.updated"]
        assert "status" not in last_changes(state, "invoices.updated")


class TestTouches:
    @pytest.fixture
    def lines(self, state: AppState, invoice: Invoice) -> list[Line]:
        """Five of them, which came later than their invoice."""
        subscribe(state, NOWHERE, "invoices.updated", includes=["lines"])
        invoice.lines = [Line(text=str(number)) for number in range(5)]
        db.session.commit()
        return invoice.lines

    def test_many_lines_are_one_update(self, state: AppState, invoice: Invoice, lines: list[Line]) -> None:
        for line in lines:
            line.text += "!"
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.updated", "invoices.updated"]
        extras = json.loads(recorded(state)[-1].extras or "")
        assert [line["text"] for line in extras["lines"]] == ["0!", "1!", "2!", "3!", "4!"]

    def test_a_line_that_goes(self, state: AppState, invoice: Invoice, lines: list[Line]) -> None:
        invoice.lines.remove(lines[0])
        db.session.commit()

        extras = json.loads(recorded(state)[-1].extras or "")
        assert [line["text"] for line in extras["lines"]] == ["1", "2", "3", "4"]

    def test_a_line_that_the_loaded_collection_does_not_know(
        self, state: AppState, invoice: Invoice, lines: list[Line]
    ) -> None:
        assert len(invoice.lines) == 5
        db.session.add(Line(invoice_id=invoice.id, text="new"))
        db.session.commit()

        extras = json.loads(recorded(state)[-1].extras or "")
        assert [line["text"] for line in extras["lines"]][-1] == "new"

    def test_a_line_that_moves_touches_both(
        self, state: AppState, invoice: Invoice, lines: list[Line]
    ) -> None:
        other = Invoice(id=2, owner="1", number="other")
        db.session.add(other)
        db.session.commit()
        before = len(recorded(state))
        lines[0].invoice = other
        db.session.commit()

        assert sorted(message.entity_id or "" for message in recorded(state)[before:]) == ["1", "2"]

    @pytest.mark.parametrize("is_deleted", [True, False])
    def test_what_it_touched_is_expired_and_expunged(
        self, state: AppState, invoice: Invoice, lines: list[Line], is_deleted: bool
    ) -> None:
        """The random transactions found this: nothing of the invoice can be loaded through it any more."""
        if is_deleted:
            db.session.delete(lines[0])
        else:
            lines[0].text = "x"
        db.session.flush()
        db.session.expire_all()
        db.session.expunge_all()
        before = len(recorded(state))
        db.session.commit()

        [message] = recorded(state)[before:]
        assert (message.event, message.entity_id) == ("invoices.updated", "1")

    def test_lines_of_a_new_invoice_are_no_update(self, listening: None, state: AppState) -> None:
        db.session.add(Invoice(owner="1", lines=[Line(), Line()]))
        db.session.commit()

        assert events(state) == ["invoices.created"]

    def test_lines_that_go_with_their_invoice_are_no_update(
        self, state: AppState, invoice: Invoice, lines: list[Line]
    ) -> None:
        db.session.delete(invoice)
        db.session.commit()

        assert events(state)[-2:] == ["invoices.updated", "invoices.deleted"]


class TestDeletes:
    @pytest.fixture
    def whole(self, state: AppState) -> Invoice:
        """With a client and two lines; a subscription includes both in its deletion."""
        subscribe(state, NOWHERE, "invoices.deleted", includes=["lines", "client"])
        client = Client(owner="1", name="Ann")
        db.session.add(Invoice(id=1000, owner="1", client=client, lines=[Line(text="a"), Line(text="b")]))
        db.session.commit()
        db.session.expunge_all()
        return db.session.get_one(Invoice, 1000)

    @pytest.mark.parametrize("flushes", [True, False], ids=["flushed before", "flushed by the commit"])
    def test_carry_what_was_asked_for(self, state: AppState, whole: Invoice, flushes: bool) -> None:
        db.session.delete(whole)
        if flushes:
            db.session.flush()
        db.session.commit()

        [message] = recorded(state)
        extras = json.loads(message.extras or "")
        assert [line["text"] for line in extras["lines"]] == ["a", "b"]
        assert extras["client"]["name"] == "Ann"

    def test_of_an_expired_object(self, state: AppState, whole: Invoice) -> None:
        db.session.expire_all()
        db.session.delete(whole)
        db.session.commit()

        [message] = recorded(state)
        assert len(json.loads(message.extras or "")["lines"]) == 2

    def test_of_orphans_are_captured(self, state: AppState, whole: Invoice) -> None:
        db.session.rollback()
        subscribe(state, NOWHERE, "invoices.updated")
        whole.lines.pop()
        db.session.commit()

        assert events(state) == ["invoices.updated"]

    def test_of_many_load_their_includes_together(self, state: AppState, whole: Invoice) -> None:
        db.session.add_all(Invoice(owner="1", lines=[Line(), Line()]) for _ in range(10))
        db.session.commit()
        invoices = db.session.query(Invoice).all()
        assert sum(len(invoice.lines) for invoice in invoices) == 22
        for invoice in invoices:
            db.session.delete(invoice)
        with counting(state.engine) as sent:
            db.session.commit()

        assert len(recorded_data(state, "invoices.deleted")) == 11
        assert len([kind for kind in kinds(sent) if kind not in RECORDING]) <= 7
