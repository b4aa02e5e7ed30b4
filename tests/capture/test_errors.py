"""What cannot be serialised fails the commit with its name, or is logged, as the app wishes."""

from __future__ import annotations

import logging
import typing as t

import pytest
from flask import Flask

from flask_webhooks.errors import EmitError, PayloadError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, events, told
from tests.host import Client, Invoice, InvoiceSchema, db
from tests.stage import subscribe


class Unsayable:
    """Cannot be made into text."""

    def __str__(self) -> str:
        raise ValueError("nobody can say it")


@pytest.fixture
def unsayable() -> t.Iterator[None]:
    """The number of an invoice is what nobody can say, for the schema only."""
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
            assert [data["id"] for data in told(state_of(app), "invoices.created")] == [8]
            db.session.remove()

        assert "invoices.created of Invoice 7" in caplog.text

    def test_nothing_is_serialised_when_nobody_listens(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app()
        with app.app_context():
            db.session.add(Invoice(owner="1", note="bad"))
            db.session.commit()
            db.session.remove()


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
