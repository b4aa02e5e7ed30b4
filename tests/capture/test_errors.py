"""Data that cannot be serialised fails the commit and names its field, or is logged, as configured."""

from __future__ import annotations

import json
import logging
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, raiseload

from flask_webhooks import Webhooks
from flask_webhooks.errors import EmitError, OwnerMissingError, PayloadError, PayloadTooLargeError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, events, recorded_data
from tests.host import Client, Invoice, InvoiceSchema, Line, LineSchema, db
from tests.stage import recorded, subscribe

webhooks = Webhooks()


class Unsayable:
    """Cannot be made into text."""

    def __str__(self) -> str:
        raise ValueError("nobody can say it")


@pytest.fixture
def unsayable() -> t.Iterator[None]:
    """The number of an invoice cannot be serialised by the schema."""
    field = InvoiceSchema._declared_fields["number"]
    before = field.attribute
    field.attribute = "unsayable"
    Invoice.unsayable = property(lambda self: Unsayable() if self.note == "bad" else self.number)
    yield
    field.attribute = before
    del Invoice.unsayable


@pytest.mark.usefixtures("unsayable")
class TestSerialisation:
    def test_it_fails_the_commit_and_says_where(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app()
        with app.app_context():
            subscribe(state_of(app), NOWHERE, "invoices.*")
            db.session.add(Invoice(id=7, owner="1", note="bad"))
            with pytest.raises(
                PayloadError, match=r"invoices\.created of Invoice 7.*'number'.*nobody can say"
            ):
                db.session.commit()
            db.session.rollback()

            assert db.session.query(Invoice).count() == 0
            assert events(state_of(app)) == []
            db.session.remove()

    def test_it_is_logged(self, make_app: t.Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
        app = make_app(WEBHOOKS_ON_ERROR="log")
        with app.app_context(), caplog.at_level(logging.ERROR, "flask_webhooks.capture"):
            subscribe(state_of(app), NOWHERE, "invoices.*")
            db.session.add_all(
                [Invoice(id=7, owner="1", note="bad"), Invoice(id=8, owner="1", number="good")]
            )
            db.session.commit()

            assert db.session.query(Invoice).count() == 2
            assert [data["id"] for data in recorded_data(state_of(app), "invoices.created")] == [8]
            db.session.remove()

        assert "invoices.created of Invoice 7" in caplog.text

    def test_nothing_is_serialised_without_a_subscription(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app()
        with app.app_context():
            db.session.add(Invoice(owner="1", note="bad"))
            db.session.commit()
            db.session.remove()


@pytest.fixture
def unsayable_lines() -> t.Iterator[None]:
    """The text of a line cannot be serialised by the schema of the include."""
    field = LineSchema._declared_fields["text"]
    before = field.attribute
    field.attribute = "unsayable"
    Line.unsayable = property(lambda self: Unsayable() if self.text == "bad" else self.text)
    yield
    field.attribute = before
    del Line.unsayable


class TestIncludes:
    def test_the_include_and_its_field_are_named(
        self, unsayable_lines: None, make_app: t.Callable[..., Flask]
    ) -> None:
        app = make_app()
        with app.app_context():
            subscribe(state_of(app), NOWHERE, "invoices.*", includes=["client", "lines"])
            db.session.add(Invoice(id=7, owner="1", lines=[Line(text="good"), Line(text="bad")]))
            words = (
                r"invoices\.created of Invoice 7.*include 'lines'.*field 'text' of LineSchema.*nobody can say"
            )
            with pytest.raises(PayloadError, match=words):
                db.session.commit()
            db.session.remove()

    def test_one_that_the_row_does_not_lead_to_is_read_back(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "clients.*", "invoices.*", includes=["client"])
        db.session.add(invoice := Invoice(id=7, owner="1"))
        db.session.flush()
        invoice.__dict__["client"] = Unsayable()

        db.session.commit()

        assert [data["id"] for data in recorded_data(state, "invoices.created")] == [7]

    def test_json_that_fails_in_one(self, state: AppState) -> None:
        include = state.bound["invoices"].includes["lines"]
        object.__setattr__(include.dump, "render", lambda line: {"photo": object()})
        subscribe(state, NOWHERE, "invoices.*", includes=["lines", "changes"])
        db.session.add(Invoice(id=7, owner="1", lines=[Line()]))
        with pytest.raises(
            PayloadError, match=r"invoices\.created of Invoice 7.*includes\.lines\[0\]\.photo is object"
        ):
            db.session.commit()


@pytest.mark.filterwarnings("ignore:Datatype ENUM")  # on MariaDB there is no such cast, and need not be
def test_a_row_that_was_deleted_unseen(state: AppState) -> None:
    """The value of an expression is in the row alone: there is nothing to tell any more."""
    subscribe(state, NOWHERE, "invoices.*", includes=["changes"])
    db.session.add(invoice := Invoice(owner="1"))
    db.session.commit()
    invoice.status = sa.cast(sa.literal("SENT"), Invoice.__table__.c.status.type)
    db.session.flush()
    db.session.execute(sa.text("DELETE FROM invoice"))
    db.session.add(Client(owner="1", name="x"))
    db.session.commit()

    assert events(state) == ["invoices.created"]


@pytest.fixture
def status() -> t.Iterator[t.Callable[[str], None]]:
    """Gives all clients a status."""

    def say(text: str) -> None:
        Client.status = property(lambda self: text)  # type: ignore[attr-defined]

    yield say
    del Client.status  # type: ignore[attr-defined]


def test_an_owner_that_the_host_does_not_let_itself_load(
    make_app: t.Callable[..., Flask], tmp_path: Path
) -> None:
    (tmp_path / "dotted.yaml").write_text(json.dumps(DOTTED))
    app = make_app(WEBHOOKS_CATALOG=str(tmp_path / "dotted.yaml"))
    with app.app_context():
        subscribe(state_of(app), NOWHERE, "invoices.*")
        db.session.add(Invoice(owner="1", client=Client(owner="1", name="x")))
        db.session.commit()
        webhooks.emit("invoices.paid", db.session.scalars(sa.select(Invoice).options(raiseload("*"))).one())
        db.session.expire_all()
        db.session.commit()

        assert events(state_of(app)) == ["invoices.created", "invoices.paid"]
        db.session.remove()


class TestWhatDoesNotFit:
    """Only some databases mind, and only at the end, without a name."""

    def test_a_status_is_cut(self, state: AppState, status: t.Callable[[str], None]) -> None:
        subscribe(state, NOWHERE, "clients.*")
        status("s" * 300)
        db.session.add(Client(owner="1", name="x"))
        db.session.commit()

        assert [message.status for message in recorded(state)] == ["s" * 255]

    @pytest.mark.parametrize("text", ["a\0", "\ud800"])
    def test_a_status_that_is_no_text(
        self, state: AppState, status: t.Callable[[str], None], text: str
    ) -> None:
        subscribe(state, NOWHERE, "clients.*")
        status(text)
        db.session.add(Client(id=7, owner="1", name="x"))
        with pytest.raises(EmitError, match=r"clients\.created of Client 7.*status"):
            db.session.commit()

    def test_an_owner_of_an_emitted_object(self, state: AppState) -> None:
        db.session.add(client := Client(id=7, owner="o" * 256, name="x"))
        webhooks.emit("clients.updated", client)
        with pytest.raises(EmitError, match=r"clients\.updated of Client 7.*owner.*256.*255"):
            db.session.commit()

    def test_an_owner_when_everything_is_recorded(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(WEBHOOKS_RECORD="all")
        with app.app_context():
            db.session.add(Client(id=7, owner="o" * 256, name="x"))
            with pytest.raises(EmitError, match=r"clients\.created of Client 7.*owner"):
                db.session.commit()
            db.session.remove()


class TestTriedAgain:
    """A commit that fails for what it cannot say leaves the transaction open: it can be mended and tried again."""

    def test_an_object_that_cannot_be_serialised(
        self, unsayable: None, make_app: t.Callable[..., Flask]
    ) -> None:
        app = make_app()
        with app.app_context():
            subscribe(state_of(app), NOWHERE, "invoices.*")
            db.session.add(Client(owner="1", name="x"))
            db.session.add(invoice := Invoice(owner="1", number="n", note="bad"))
            with pytest.raises(PayloadError):
                db.session.commit()
            invoice.note = "good"
            db.session.commit()

            assert db.session.query(Client).count() == 1
            assert [data["note"] for data in recorded_data(state_of(app), "invoices.created")] == ["good"]
            assert events(state_of(app)) == ["invoices.created"]
            db.session.remove()

    def test_one_that_is_too_large(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.*")
        db.session.add(invoice := Invoice(owner="1", note="x" * 300_000))
        with pytest.raises(PayloadTooLargeError):
            db.session.commit()
        invoice.note = "short"
        db.session.commit()

        assert [data["note"] for data in recorded_data(state, "invoices.created")] == ["short"]

    def test_an_emitted_one_that_is_not_in_the_database(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.*")
        webhooks.emit("invoices.paid", invoice := Invoice(owner="1"))
        with pytest.raises(EmitError):
            db.session.commit()
        db.session.add(invoice)
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.paid"]

    def test_an_emitted_one_without_an_owner(self, make_app: t.Callable[..., Flask], tmp_path: Path) -> None:
        (tmp_path / "dotted.yaml").write_text(json.dumps(DOTTED))
        app = make_app(WEBHOOKS_CATALOG=str(tmp_path / "dotted.yaml"))
        with app.app_context():
            subscribe(state_of(app), NOWHERE, "invoices.*")
            db.session.add(invoice := Invoice(owner="1"))
            webhooks.emit("invoices.paid", invoice)
            with pytest.raises(OwnerMissingError, match=r"invoices\.paid.*Invoice 1.*no owner"):
                db.session.commit()
            invoice.client = Client(owner="1", name="x")
            db.session.commit()

            assert events(state_of(app)) == ["invoices.created", "invoices.paid"]
            db.session.remove()

    def test_not_in_a_block_that_begins(self, state: AppState) -> None:
        """It rolls back by itself, as at any error."""
        subscribe(state, NOWHERE, "invoices.*")
        with Session(state.engine) as session, pytest.raises(PayloadTooLargeError), session.begin():
            session.add(Invoice(owner="1", note="x" * 300_000))

        assert db.session.query(Invoice).count() == 0
        assert events(state) == []

    def test_not_when_a_listener_changed_it_after_us(self, state: AppState) -> None:
        """Then it is a flush that fails, and SQLAlchemy rolls back."""
        subscribe(state, NOWHERE, "invoices.*")
        session = db.session()

        def add_late(session: Session) -> None:
            session.add(Invoice(owner="1", note="x" * 300_000))

        session.add(Invoice(owner="1"))
        sa.event.listen(session, "before_commit", add_late)
        with pytest.raises(PayloadTooLargeError):
            session.commit()
        sa.event.remove(session, "before_commit", add_late)
        with pytest.raises(sa.exc.PendingRollbackError):
            session.commit()
        session.rollback()

        assert session.query(Invoice).count() == 0
        assert events(state) == []


DOTTED = {
    "version": 1,
    "channels": {
        "invoices": {
            "title": "Invoices",
            "model": "tests.host:Invoice",
            "schema": "tests.host:InvoiceSchema",
            "owner": "client.owner",
            "events": {"created": None, "paid": {"on": "emit"}},
        },
        "clients": {
            "title": "Clients",
            "model": "tests.host:Client",
            "owner": "owner",
            "events": ["created"],
        },
    },
}
"""An invoice has an owner when it has a client."""


def test_one_that_is_too_large_says_which(state: AppState) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add(Invoice(id=7, owner="1", note="x" * 300_000))
    with pytest.raises(EmitError, match=r"invoices\.created of Invoice 7.*WEBHOOKS_PAYLOAD_LIMIT"):
        db.session.commit()


def test_a_property_of_the_host_that_fails(state: AppState) -> None:
    subscribe(state, NOWHERE, "clients.*")
    before = Client.owner
    db.session.add(Client(owner="1", name="x"))
    db.session.flush()
    Client.owner = property(lambda self: 1 / 0)  # type: ignore[assignment]
    try:
        with pytest.raises(PayloadError, match=r"clients\.created of Client 1.*ZeroDivisionError"):
            db.session.commit()
    finally:
        Client.owner = before
