"""Bulk statements through the ORM: a message for each row, with old and new values."""

from __future__ import annotations

import logging
import typing as t
from decimal import Decimal

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks.errors import BulkStatementError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, RECORDING, changes, counting, events, kinds, recorded_data
from tests.capture.valued_models import Animal, Dog, Seat
from tests.capture.valued_models import db as valued_db
from tests.host import Client, Invoice, Line, Note, Status, db
from tests.stage import recorded, subscribe


@pytest.fixture
def rows(listening: None, app: Flask) -> None:
    """Three committed invoices, without events."""
    with Session(db.engine, info={"webhooks": False}) as session:
        session.add_all(Invoice(id=number, owner="1", number=f"N{number}") for number in (1, 2, 3))
        session.commit()


def recorded_changes(state: AppState, event: str = "invoices.updated") -> list[tuple[str | None, t.Any]]:
    return [
        (message.entity_id, changes(message).get("number"))
        for message in recorded(state)
        if message.event == event
    ]


def without_lock(sent: t.Sequence[str]) -> list[str]:
    """Verb and table of statements; SQLite is locked by one that deletes nothing."""
    return kinds(statement for statement in sent if "0 = 1" not in statement)


@pytest.mark.usefixtures("rows")
class TestUpdate:
    @pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
    def test_one_message_a_row(self, state: AppState, synchronize: t.Any) -> None:
        result = db.session.execute(
            sa.update(Invoice).where(Invoice.id < 3).values(number="new"),
            execution_options={"synchronize_session": synchronize},
        )
        db.session.commit()

        assert result.rowcount == 2  # type: ignore[attr-defined]
        assert recorded_changes(state) == [("1", ["N1", "new"]), ("2", ["N2", "new"])]
        assert [data["number"] for data in recorded_data(state, "invoices.updated")] == ["new", "new"]

    def test_that_is_rolled_back_with_its_savepoint(self, state: AppState) -> None:
        """What was loaded in between shows what no longer is; the random transactions found it."""
        db.session.add(Line(id=1, invoice_id=2, text="a"))
        db.session.commit()
        before = len(recorded(state))
        db.session.get_one(Line, 1).text = "b"
        db.session.flush()
        nested = db.session.begin_nested()
        db.session.execute(sa.update(Invoice).where(Invoice.id == 2).values(number="never"))
        found = db.session.get_one(Invoice, 2)
        nested.rollback()
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.updated")][before:] == ["N2"]
        assert found.number == "N2"

    def test_that_is_rolled_back_and_then_a_deletion(self, state: AppState) -> None:
        nested = db.session.begin_nested()
        db.session.execute(sa.update(Invoice).where(Invoice.id == 2).values(number="never"))
        db.session.delete(db.session.get_one(Invoice, 2))
        db.session.flush()
        nested.rollback()
        db.session.delete(db.session.get_one(Invoice, 2))
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.deleted")] == ["N2"]

    def test_rows_that_stay_as_they_are(self, state: AppState) -> None:
        db.session.execute(sa.update(Invoice).where(Invoice.id == 1).values(number="N1"))
        db.session.commit()

        assert events(state) == []

    def test_transitions(self, state: AppState) -> None:
        db.session.execute(sa.update(Invoice).where(Invoice.id == 1).values(status=Status.SENT))
        db.session.execute(sa.update(Invoice).where(Invoice.id == 1).values(status=Status.PAID))
        db.session.commit()

        assert events(state) == ["invoices.updated", "invoices.sent", "invoices.paid"]

    def test_with_expressions_and_returning(self, state: AppState) -> None:
        statement: t.Any = sa.update(Invoice).where(Invoice.id == 2).values(total=Invoice.total + 5)
        if db.engine.dialect.update_returning:  # MariaDB has it for INSERT and DELETE alone
            found = db.session.execute(statement.returning(Invoice.total)).all()
            assert [tuple(row) for row in found] == [(Decimal("5.00"),)]
        else:
            db.session.execute(statement)
        db.session.commit()

        assert changes(recorded(state)[0])["total"] == ["0.00", "5.00"]

    def test_the_legacy_form(self, state: AppState) -> None:
        count = db.session.query(Invoice).filter(Invoice.id == 1).update({"number": "new"})
        db.session.commit()

        assert count == 1
        assert recorded_changes(state) == [("1", ["N1", "new"])]

    def test_by_primary_key(self, state: AppState) -> None:
        db.session.execute(sa.update(Invoice), [{"id": 1, "number": "a"}, {"id": 3, "number": "b"}])
        db.session.commit()

        assert recorded_changes(state) == [("1", ["N1", "a"]), ("3", ["N3", "b"])]

    def test_it_sees_what_was_not_flushed_yet(self, state: AppState) -> None:
        db.session.add(Invoice(id=9, owner="1", number="N9"))
        db.session.execute(sa.update(Invoice).where(Invoice.id == 9).values(number="new"))
        db.session.commit()

        assert events(state) == ["invoices.created"]
        assert recorded_data(state, "invoices.created")[0]["number"] == "new"

    def test_it_mixes_with_objects(self, state: AppState) -> None:
        invoice = db.session.get_one(Invoice, 1)
        invoice.number = "a"
        db.session.flush()
        db.session.execute(
            sa.update(Invoice).where(Invoice.id == 1).values(note="b"),
            execution_options={"synchronize_session": False},
        )
        invoice.total = Decimal(1)
        db.session.commit()

        [message] = recorded(state)
        assert changes(message).keys() >= {"number", "note", "total"}
        assert recorded_data(state, "invoices.updated")[0]["note"] == "b"

    def test_rolled_back_with_its_savepoint(self, state: AppState) -> None:
        nested = db.session.begin_nested()
        db.session.execute(sa.update(Invoice).values(number="new"))
        nested.rollback()
        db.session.commit()

        assert events(state) == []


@pytest.mark.usefixtures("rows")
class TestDelete:
    def test_the_last_state_stays_when_another_row_of_that_key_never_was(self, state: AppState) -> None:
        db.session.execute(sa.delete(Invoice).where(Invoice.id == 2))
        nested = db.session.begin_nested()
        db.session.execute(sa.insert(Invoice), [{"id": 2, "owner": "1", "number": "never"}])
        nested.rollback()
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.deleted")] == ["N2"]

    def test_one_message_a_row_with_includes(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.deleted", includes=["client"])
        client = Client(owner="1", name="Ann")
        db.session.add(client)
        db.session.get_one(Invoice, 1).client = client
        db.session.commit()
        result = db.session.execute(sa.delete(Invoice).where(Invoice.id != 2))
        db.session.commit()

        assert result.rowcount == 2  # type: ignore[attr-defined]
        deleted = [message for message in recorded(state) if message.event == "invoices.deleted"]
        assert [message.entity_id for message in deleted] == ["1", "3"]
        assert '"Ann"' in (deleted[0].extras or "")

    def test_the_legacy_form(self, state: AppState) -> None:
        assert db.session.query(Invoice).filter(Invoice.id == 1).delete() == 1
        db.session.commit()

        assert events(state) == ["invoices.deleted"]

    def test_and_made_again(self, state: AppState) -> None:
        db.session.execute(sa.delete(Invoice).where(Invoice.id == 1))
        db.session.add(Invoice(id=1, owner="1", number="again"))
        db.session.commit()

        assert recorded_changes(state) == [("1", ["N1", "again"])]

    def test_of_lines_touches_their_invoice(self, state: AppState) -> None:
        db.session.add_all(Line(invoice_id=1) for _ in range(3))
        db.session.commit()
        db.session.execute(sa.delete(Line).where(Line.invoice_id == 1))
        db.session.commit()

        assert events(state) == ["invoices.updated"] * 2


class TestInsert:
    @pytest.mark.usefixtures("listening")
    def test_a_list(self, state: AppState) -> None:
        db.session.execute(sa.insert(Invoice), [{"owner": "1", "number": "a"}, {"owner": "1", "number": "b"}])
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.created")] == ["a", "b"]

    @pytest.mark.usefixtures("listening")
    def test_values(self, state: AppState) -> None:
        db.session.execute(sa.insert(Invoice).values(owner="1", number="a"))
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.created")] == ["a"]

    @pytest.mark.usefixtures("listening")
    def test_returning_objects_gives_the_host_what_it_asked_for(self, state: AppState) -> None:
        statement = sa.insert(Invoice).returning(Invoice)
        found = db.session.scalars(
            statement, [{"owner": "1", "number": "a"}, {"owner": "1", "number": "b"}]
        ).all()
        db.session.commit()

        assert [invoice.number for invoice in found] == ["a", "b"]
        assert len(recorded_data(state, "invoices.created")) == 2

    @pytest.mark.usefixtures("listening")
    def test_returning_columns_gives_the_host_what_it_asked_for(self, state: AppState) -> None:
        rows = db.session.execute(
            sa.insert(Invoice).returning(Invoice.number, Invoice.owner), [{"owner": "1", "number": "a"}]
        ).all()
        db.session.commit()

        assert [tuple(row) for row in rows] == [("a", "1")]
        assert len(recorded_data(state, "invoices.created")) == 1

    @pytest.mark.usefixtures("rows")
    def test_from_select(self, state: AppState) -> None:
        source = sa.select(
            Invoice.id + 100, Invoice.owner, Invoice.number + "x", Invoice.total, Invoice.status
        )
        db.session.execute(
            sa.insert(Invoice).from_select(
                ["id", "owner", "number", "total", "status"], source, include_defaults=False
            )
        )
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.created")] == ["N1x", "N2x", "N3x"]


class TestInheritance:
    def test_rows_of_subclasses_are_seen_by_their_channels(self, valued: AppState) -> None:
        valued_db.session.add_all([Dog(id=1, name="a", breed="pug"), Animal(id=2, name="b")])
        valued_db.session.commit()
        before = len(recorded(valued))
        valued_db.session.execute(sa.update(Animal).values(name="c"))
        valued_db.session.commit()

        found = [(message.event, message.entity_id) for message in recorded(valued)[before:]]
        assert {pair for pair in found if "updated" in pair[0]} == {
            ("animals.updated", "1"),
            ("animals.updated", "2"),
            ("dogs.updated", "1"),
        }

    def test_a_statement_that_changes_keys_is_refused(self, valued: AppState) -> None:
        valued_db.session.add(Seat(row="A", number=1))
        valued_db.session.commit()

        with pytest.raises(BulkStatementError, match="primary keys"):
            valued_db.session.execute(sa.update(Seat).values(number=2))

    @pytest.mark.parametrize("is_held", [True, False])
    def test_a_statement_that_changes_classes_is_refused(self, valued: AppState, is_held: bool) -> None:
        valued_db.session.add(dog := Dog(id=1, name="a"))
        valued_db.session.commit()
        assert dog.id == 1
        if not is_held:
            valued_db.session.expunge_all()

        with pytest.raises(BulkStatementError, match="classes"):
            valued_db.session.execute(sa.update(Animal).values(kind="animal"))


class TestLimits:
    @pytest.mark.usefixtures("rows")
    @pytest.mark.parametrize("words", ["update", "delete", "insert"])
    def test_more_rows_than_the_limit_raise_before_they_change(
        self, make_app: t.Callable[..., Flask], words: str
    ) -> None:
        app = make_app(WEBHOOKS_BULK_LIMIT=2)
        statements: dict[str, tuple[t.Any, ...]] = {
            "update": (sa.update(Invoice).values(number="x"),),
            "delete": (sa.delete(Invoice),),
            "insert": (sa.insert(Invoice), [{"owner": "1", "number": "x"}] * 3),
        }
        with app.app_context():
            with pytest.raises(BulkStatementError, match="WEBHOOKS_BULK_LIMIT"):
                db.session.execute(*statements[words])
            db.session.rollback()
            numbers = db.session.scalars(sa.select(Invoice.number)).all()
            db.session.remove()

        assert sorted(numbers) == ["N1", "N2", "N3"]

    @pytest.mark.usefixtures("rows")
    def test_raise(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(WEBHOOKS_BULK="raise")
        with app.app_context(), pytest.raises(BulkStatementError, match="WEBHOOKS_BULK"):
            db.session.execute(sa.update(Invoice).values(number="x"))

    @pytest.mark.usefixtures("rows")
    @pytest.mark.parametrize("mode", ["warn", "ignore"])
    def test_let_through(
        self, make_app: t.Callable[..., Flask], mode: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(WEBHOOKS_BULK=mode)
        with app.app_context(), caplog.at_level(logging.WARNING, "flask_webhooks.capture"):
            db.session.execute(sa.update(Invoice).values(number="x"))
            db.session.commit()
            found = events(state_of(app))
            db.session.remove()

        assert found == []
        assert ("update of Invoice" in caplog.text) == (mode == "warn")

    def test_without_a_subscription(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "clients.*")
        with Session(db.engine, info={"webhooks": False}) as session:
            session.add(Invoice(id=1, owner="1"))
            session.commit()
        with counting(state.engine) as sent:
            db.session.execute(sa.update(Invoice).values(number="x"))
            db.session.commit()

        assert without_lock(sent) == [
            "SELECT invoice",
            "UPDATE invoice",
            "SELECT invoice",
            "SELECT webhook_listeners",
        ]

    @pytest.mark.usefixtures("rows")
    def test_a_few_statements_for_all_rows(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            db.session.execute(sa.update(Invoice).values(number="x"))
            db.session.commit()

        found = without_lock(sent)
        assert [kind for kind in found if kind in RECORDING] == ["SELECT webhook_listeners", *RECORDING]
        assert [kind for kind in found if kind not in RECORDING] == [
            "SELECT invoice",
            "UPDATE invoice",
            "SELECT invoice",
            "SELECT invoice",
        ]

    @pytest.mark.usefixtures("rows")
    def test_models_of_no_catalogue_and_muted_sessions(self, state: AppState) -> None:
        db.session.execute(sa.update(Note).values(text="x"))
        db.session.commit()
        with Session(db.engine, info={"webhooks": False}) as session:
            session.execute(sa.update(Invoice).values(number="x"))
            session.commit()
        db.session.commit()

        assert events(state) == []
