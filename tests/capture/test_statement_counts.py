"""Statements per commit: one to find subscriptions, and one executemany for each table."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, RECORDING, counting, kinds
from tests.host import CATALOG, Client, Invoice, Line, Note, Status, db
from tests.stage import deliveries, recorded, subscribe


def ours(state: AppState, *objects: object) -> list[str]:
    """The statements on our tables in the commit of some objects."""
    db.session.add_all(objects)
    with counting(state.engine) as sent:
        db.session.commit()
    return [kind for kind in kinds(sent) if " webhook_" in kind]


def read_back(state: AppState) -> list[str]:
    """MariaDB cuts the microseconds of `updated_at` off, so that only the row knows what it has."""
    return ["SELECT invoice"] if state.engine.dialect.name in ("mysql", "mariadb") else []


class TestNobodyListens:
    @pytest.mark.parametrize("count", [1, 50])
    def test_one_cheap_statement(self, state: AppState, count: int) -> None:
        objects = [Invoice(owner=str(number % 5), lines=[Line(), Line()]) for number in range(count)]

        assert ours(state, *objects, *(Client(owner="1", name="x") for _ in range(count))) == RECORDING[:1]

    def test_none_for_models_of_no_catalogue(self, state: AppState) -> None:
        assert ours(state, *(Note(text="x") for _ in range(10))) == []

    def test_none_when_nothing_changed(self, state: AppState) -> None:
        db.session.query(Invoice).all()

        assert ours(state) == []

    def test_one_without_an_owner(self, make_app: t.Callable[..., Flask], tmp_path: Path) -> None:
        catalogue = CATALOG.read_text().replace("owner: owner", "owner: client.owner", 1)
        (tmp_path / "dotted.yaml").write_text(catalogue)
        app = make_app(WEBHOOKS_CATALOG=str(tmp_path / "dotted.yaml"))
        with app.app_context():
            # It is a warning only if a subscription matches such events.
            assert ours(state_of(app), Invoice(owner="1"), Invoice(owner="1")) == RECORDING[:1]
            assert (
                ours(state_of(app), Invoice(owner="1", client=Client(owner="1", name="x"))) == RECORDING[:1]
            )
            db.session.remove()

    def test_one_statement_when_something_is_deleted_and_something_made(self, state: AppState) -> None:
        db.session.add(invoice := Invoice(owner="1", lines=[Line()]))
        db.session.commit()
        db.session.delete(invoice)

        assert ours(state, Client(owner="2", name="x"), Invoice(owner="1")) == RECORDING[:1]

    def test_deletes_load_nothing_without_a_subscription(self, state: AppState) -> None:
        invoices = [Invoice(owner="1", lines=[Line()], client=Client(owner="1", name="x")) for _ in range(5)]
        db.session.add_all(invoices)
        db.session.commit()
        for invoice in db.session.query(Invoice).all():
            db.session.delete(invoice)
        with counting(state.engine) as with_us:
            db.session.commit()

        assert kinds(with_us).count("SELECT webhook_listeners") == 1
        assert "SELECT client" not in kinds(with_us)

    def test_deletes_flushed_early_load_what_a_later_subscription_may_need_and_nothing_twice(
        self, state: AppState
    ) -> None:
        invoices = [Invoice(owner="1", lines=[Line()], client=Client(owner="1", name="x")) for _ in range(5)]
        db.session.add_all(invoices)
        db.session.commit()
        for invoice in db.session.query(Invoice).all():
            db.session.delete(invoice)  # loads the lines, which go with it
        with counting(state.engine) as sent:
            db.session.flush()
            db.session.commit()

        assert kinds(sent) == [
            "SELECT invoice",
            "SELECT client",
            "DELETE line",
            "DELETE invoice",
            "SELECT webhook_listeners",
        ]


class TestSomebodyListens:
    @pytest.mark.parametrize("count", [1, 50])
    @pytest.mark.parametrize("subscriptions", [1, 30])
    def test_one_lookup_and_two_inserts(self, state: AppState, count: int, subscriptions: int) -> None:
        for _ in range(subscriptions):
            subscribe(state, NOWHERE, "*")
        objects = [Invoice(owner="1", lines=[Line(), Line()]) for _ in range(count)]

        assert ours(state, *objects, Client(owner="1", name="x")) == RECORDING
        assert len(recorded(state)) == count + 1
        assert len(deliveries(state)) == (count + 1) * subscriptions

    def test_updates_of_loaded_objects(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        with Session(state.engine, info={"webhooks": False}) as session:
            session.add_all(Invoice(owner="1") for _ in range(20))
            session.commit()
        for invoice in db.session.query(Invoice).all():
            invoice.status = Status.SENT
        with counting(state.engine) as sent:
            db.session.commit()

        assert kinds(sent) == ["UPDATE invoice", *RECORDING[:1], *read_back(state), *RECORDING[1:]]
        assert len(recorded(state)) == 40

    def test_includes_cost_one_statement_each(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.*", includes=["lines", "client"])
        with Session(state.engine, info={"webhooks": False}) as session:
            client = Client(owner="1", name="x")
            session.add_all(Invoice(owner="1", client=client, lines=[Line()]) for _ in range(20))
            session.commit()
        for invoice in db.session.query(Invoice).all():
            invoice.note = "x"
        with counting(state.engine) as sent:
            db.session.commit()

        extra = [kind for kind in kinds(sent) if kind not in (*RECORDING, "UPDATE invoice")]
        assert sorted(extra) == sorted(["SELECT client", "SELECT invoice", "SELECT line", *read_back(state)])
