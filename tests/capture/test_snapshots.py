"""Data of a deleted row: the values before the deletion, whatever the host does to the object until the commit."""

from __future__ import annotations

import json
import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, make_transient

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, Doorless, changes, counting, events, kinds
from tests.host import Client, Invoice, Line, Status, db
from tests.stage import recorded, subscribe

S = db.session


@pytest.fixture
def heard(state: AppState) -> AppState:
    """Both owners listen to everything, and ask for what hangs on it."""
    for owner in ("1", "2"):
        subscribe(state, NOWHERE, "*", owner=owner, includes=["changes", "lines", "client"])
    return state


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


def recorded_since(state: AppState, count: int) -> list[tuple[str, str, str | None]]:
    """Event, owner and key of what was recorded after the first `count`."""
    return sorted((each.event, each.owner, each.entity_id) for each in recorded(state)[count:])


def last(state: AppState, event: str) -> dict[str, t.Any]:
    """Data and extras of the newest message of an event."""
    found = [each for each in recorded(state) if each.event == event][-1]
    return {**json.loads(found.data), **json.loads(found.extras or "{}")}


def an_invoice() -> Invoice:
    """With two lines and a client."""
    return Invoice(
        id=1,
        owner="1",
        number="A",
        extra={"k": [1]},
        client=Client(id=1, owner="1", name="C"),
        lines=[Line(id=1, text="a"), Line(id=2, text="b")],
    )


class TestALineThatIsDeleted:
    """It touches its invoice, whatever happens to its object between the flush and the commit."""

    @pytest.fixture
    def line(self, heard: AppState) -> Line:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        line = invoice.lines[0]
        S.delete(line)
        S.flush()
        return line

    def touched(self, state: AppState) -> None:
        S.commit()
        assert events(state)[2:] == ["invoices.updated"]
        assert [each["id"] for each in last(state, "invoices.updated")["lines"]] == [2]

    def test_its_parent_is_refreshed(self, heard: AppState, line: Line) -> None:
        S.refresh(S.get_one(Invoice, 1))
        self.touched(heard)

    def test_its_parent_is_expired(self, heard: AppState, line: Line) -> None:
        S.expire(S.get_one(Invoice, 1))
        self.touched(heard)

    def test_it_is_taken_from_the_list(self, heard: AppState, line: Line) -> None:
        S.get_one(Invoice, 1).lines.remove(line)
        self.touched(heard)

    def test_the_list_is_replaced(self, heard: AppState, line: Line) -> None:
        S.get_one(Invoice, 1).lines = [S.get_one(Line, 2)]
        self.touched(heard)

    def test_its_key_is_cleared(self, heard: AppState, line: Line) -> None:
        line.invoice_id = None
        self.touched(heard)


class TestAnInvoiceThatIsDeleted:
    def gone(self, state: AppState, count: int = 2) -> dict[str, t.Any]:
        S.commit()
        assert [each for each in recorded_since(state, count) if "deleted" in each[0]] == [
            ("invoices.deleted", "1", "1")
        ]
        return last(state, "invoices.deleted")

    @pytest.mark.parametrize("is_expired", [True, False])
    def test_what_is_assigned_before_it_goes(self, heard: AppState, is_expired: bool) -> None:
        """Plain columns count (`row.deleted_by = ...`), whether anything flushes them or not; whose it was does not."""
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        if is_expired:
            S.expire(invoice)
        with S.no_autoflush:
            invoice.owner, invoice.number, invoice.status = "2", "B", Status.PAID
            invoice.client = None
            S.delete(invoice)

        gone = self.gone(heard)
        assert (gone["number"], gone["status"]) == ("B", "paid")
        assert gone["client"]["name"] == "C"

    def test_it_is_given_to_another_owner_before_it_goes(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        invoice.owner = "2"
        S.flush()
        S.delete(invoice)

        self.gone(heard)

    def test_it_is_moved_to_another_client_before_it_goes(self, heard: AppState) -> None:
        save(an_invoice(), Client(id=2, owner="2", name="D"))
        invoice = S.get_one(Invoice, 1)
        invoice.client_id = 2
        S.flush()
        S.delete(invoice)

        gone = self.gone(heard, 3)
        assert gone["client"]["name"] == "C"
        assert gone["client_id"] == 1

    def test_what_is_assigned_afterwards(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        S.delete(invoice)
        S.flush()
        invoice.owner, invoice.number, invoice.status = "2", "B", Status.PAID
        invoice.client = None
        t.cast("t.Any", invoice.extra)["k"].append(2)
        invoice.lines.clear()

        gone = self.gone(heard)
        assert (gone["number"], gone["status"]) == ("A", "draft")
        assert gone["client"]["name"] == "C"
        assert [each["text"] for each in gone["lines"]] == ["a", "b"]

    def test_what_is_assigned_to_a_line_that_goes_along(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        first = invoice.lines[0]
        S.delete(invoice)
        S.flush()
        first.text = "z"

        assert [each["text"] for each in self.gone(heard)["lines"]] == ["a", "b"]

    def test_its_key_is_assigned(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        with S.no_autoflush:
            invoice.id = 9
            S.delete(invoice)

        assert self.gone(heard)["id"] == 1

    def test_it_is_expired_with_its_client(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        client = invoice.client
        assert client is not None
        S.delete(invoice)
        S.flush()
        S.expire(client)
        S.refresh(client)
        sa.inspect(invoice)._expire_attributes(invoice.__dict__, ["number", "owner"])

        assert self.gone(heard)["number"] == "A"

    def test_the_hosts_object_is_left_alone(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        S.delete(invoice)
        S.flush()
        before = dict(invoice.__dict__)
        invoice.number = "B"
        S.commit()

        assert invoice.number == "B"
        assert invoice.__dict__.keys() == before.keys()
        assert sa.inspect(invoice).detached

    def test_it_was_emitted_before(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        webhooks = heard.app.extensions["webhooks_of_tests"] = Doorless()
        webhooks.emit("invoices.sent", invoice)
        S.delete(invoice)
        S.flush()
        invoice.number = "B"
        S.commit()

        assert last(heard, "invoices.sent")["number"] == "A"


class TestAClone:
    """`make_transient`, and a key of its own: the object stands for another row now."""

    @pytest.mark.parametrize("is_heard", [True, False])
    @pytest.mark.parametrize("is_flushed", [True, False])
    def test_of_one_that_was_created(self, state: AppState, is_heard: bool, is_flushed: bool) -> None:
        if is_heard:
            subscribe(state, NOWHERE, "*", includes=["changes"])
        S.add(invoice := Invoice(id=1, owner="1", number="A"))
        S.flush()
        make_transient(invoice)
        invoice.id, invoice.number = 2, "B"
        S.add(invoice)
        if is_flushed:
            S.flush()
        S.commit()

        told = sorted((json.loads(each.data)["number"], each.entity_id) for each in recorded(state))
        assert told == ([("A", "1"), ("B", "2")] if is_heard else [])

    def test_of_one_that_was_changed(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        invoice.number = "B"
        S.flush()
        make_transient(invoice)
        invoice.id, invoice.owner, invoice.lines, invoice.client = 2, "2", [], None
        S.add(invoice)
        S.commit()

        assert recorded_since(heard, 2) == [("invoices.created", "2", "2"), ("invoices.updated", "1", "1")]
        updated = [each for each in recorded(heard) if each.event == "invoices.updated"][-1]
        assert changes(updated)["number"] == ["A", "B"]

    def test_that_is_undone_after_a_line_was_deleted(self, heard: AppState) -> None:
        save(an_invoice())
        invoice = S.get_one(Invoice, 1)
        S.delete(invoice.lines[0])
        S.flush()
        S.expire(invoice, ["lines"])
        savepoint = S.begin_nested()
        make_transient(invoice)
        invoice.id = 2
        S.add(invoice)
        S.flush()
        S.expire_all()
        savepoint.rollback()
        S.commit()

        assert recorded_since(heard, 2) == [("invoices.updated", "1", "1")]

    def test_that_is_never_added(self, heard: AppState) -> None:
        S.add(invoice := Invoice(id=1, owner="1", number="A"))
        S.flush()
        make_transient(invoice)
        invoice.owner = "2"
        S.commit()

        assert recorded_since(heard, 0) == [("invoices.created", "1", "1")]


class TestACommitThatIsTriedAgain:
    def test_what_was_touched_at_first_is_not_touched_any_more(self, heard: AppState) -> None:
        """A refused commit has written that the line touches the first invoice; then the line moves."""

        def refuse(_: Session) -> None:
            raise ValueError("not yet")

        save(an_invoice(), Invoice(id=2, owner="1"))
        invoice = S.get_one(Invoice, 1)
        invoice.status = Status.SENT
        S.flush()
        S.add(line := Line(id=3, invoice_id=1))
        S.flush()
        sa.event.listen(S(), "before_commit", refuse)
        with pytest.raises(ValueError, match="not yet"):
            S.commit()
        sa.event.remove(S(), "before_commit", refuse)
        invoice.status, line.invoice_id = Status.DRAFT, 2
        S.commit()

        assert ("invoices.updated", "1", "1") not in recorded_since(heard, 3)
        assert ("invoices.updated", "1", "2") in recorded_since(heard, 3)


def test_emit_alone_takes_no_connection_before_the_commit(heard: AppState) -> None:
    webhooks = heard.app.extensions["webhooks_of_tests"] = Doorless()
    with counting(heard.engine) as sent:
        webhooks.emit("reports.ready", {"id": 1}, owner="1")
        assert heard.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert sent == []
        S.commit()

    assert "INSERT webhook_messages" in kinds(sent)
    assert events(heard) == ["reports.ready"]
