"""The tables of the example app: exact money, aware instants, ordered tags, real transactions on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import sqlalchemy as sa
from flask import Flask

from example_app.database import begin_to_write
from example_app.models import Client, Invoice, InvoiceStatus, TransitionRefused, db


def a_client(name: str = "New", **options: object) -> Client:
    return Client(business_id=1, name=name, currency="GHS", **options)


def test_money_is_exact_in_the_database(app: Flask) -> None:
    with app.app_context():
        db.session.add_all([a_client(credit_limit=Decimal("0.10")) for _ in range(3)])
        db.session.commit()

        total = db.session.scalar(sa.select(sa.func.sum(Client.credit_limit)).where(Client.name == "New"))

    assert str(total) == "0.30"


def test_instants_come_back_in_utc(app: Flask) -> None:
    accra_noon = datetime(2026, 1, 5, 12, tzinfo=timezone(timedelta(hours=2)))
    with app.app_context():
        invoice = db.session.get_one(Invoice, 1)
        invoice.sent_at = accra_noon
        db.session.commit()

        assert invoice.sent_at == accra_noon
        assert invoice.sent_at.tzinfo is UTC


def test_a_naive_instant_is_refused(app: Flask) -> None:
    with app.app_context():
        db.session.get_one(Invoice, 1).sent_at = datetime(2026, 1, 5)  # noqa: DTZ001

        with pytest.raises(sa.exc.StatementError, match="no time zone"):
            db.session.flush()


def test_tags_are_counted_in_each_business_and_never_reused(app: Flask) -> None:
    with app.app_context():
        first = a_client()
        db.session.add(first)
        db.session.commit()
        first_tag = first.tag
        db.session.delete(first)
        db.session.commit()
        second = a_client()
        other = Client(business_id=2, name="Other", currency="EUR")
        db.session.add_all([second, other])
        db.session.commit()

        assert (first_tag, second.tag, other.tag) == ("CLI-0004", "CLI-0005", "CLI-0003")


def test_a_status_given_as_text_is_the_status(app: Flask) -> None:
    with app.app_context():
        invoice = db.session.get_one(Invoice, 2)
        invoice.status = "sent"  # type: ignore[assignment]  # as a script might

        assert invoice.status is InvoiceStatus.SENT
        with pytest.raises(TransitionRefused, match="overdue, paid, void"):
            invoice.status = InvoiceStatus.DRAFT


def test_a_released_savepoint_goes_with_its_transaction(app: Flask) -> None:
    with app.app_context():
        with db.session.begin_nested():
            db.session.add(a_client())
        db.session.rollback()

        assert db.session.scalar(sa.select(sa.func.count()).where(Client.name == "New")) == 0


def test_sqlite_is_set_up_for_several_processes(app: Flask) -> None:
    with app.app_context():
        pragmas = {
            name: db.session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }

    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}


def test_a_deferred_reader_cannot_write_after_another(app: Flask) -> None:
    """Why `begin_to_write` exists; if this fails one day, it may go."""
    with app.app_context(), sa.orm.Session(db.engine) as worker:
        db.session.scalars(sa.select(Client)).all()
        worker.add(a_client())
        worker.commit()

        db.session.add(a_client())
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            db.session.commit()


def test_who_begins_to_write_keeps_others_out_until_the_end(app: Flask) -> None:
    with app.app_context(), sa.orm.Session(db.engine) as worker:
        begin_to_write()
        db.session.scalars(sa.select(Client)).all()
        worker.connection().exec_driver_sql("PRAGMA busy_timeout = 0")
        worker.add(a_client())
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            worker.commit()

        db.session.add(a_client())
        db.session.commit()

        assert db.session.scalar(sa.select(sa.func.count()).where(Client.name == "New")) == 1


@pytest.mark.parametrize("address", ["/api/clients", "/invoices"])
def test_requests_that_write_begin_to_write_before_they_read(app: Flask, address: str) -> None:
    begun: list[str] = []
    headers = {"Authorization": "Bearer demo-token-ada"}
    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", lambda *seen: begun.append(seen[2]))

    app.test_client().get("/api/clients", headers=headers)
    reading, writing = begun[0], len(begun)
    app.test_client().post(address, headers=headers)

    assert (reading, begun[writing]) == ("BEGIN DEFERRED", "BEGIN IMMEDIATE")
