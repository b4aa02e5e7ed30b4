"""Includes are loaded inside the transaction, and not by one query for each row."""

from __future__ import annotations

import contextlib
import json
import typing as t
from decimal import Decimal

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import selectinload

from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.host import Client, Invoice, Line, Status, db
from tests.receivers import Receiver
from tests.stage import recorded, subscribe


@contextlib.contextmanager
def counted(engine: sa.Engine) -> t.Iterator[list[str]]:
    """Collect the statements that are sent meanwhile; an executemany is one."""
    seen: list[str] = []

    def note(*args: t.Any) -> None:
        seen.append(args[2])

    sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", note)


def make(count: int) -> None:
    """Add invoices with two lines each, all of other clients."""
    db.session.add_all(
        Invoice(
            owner="1",
            number=f"N-{number}",
            client=Client(owner="1", name=f"Client {number}"),
            lines=[Line(text=text, amount=Decimal(1)) for text in ("a", "b")],
        )
        for number in range(count)
    )
    db.session.commit()


def change_all() -> None:
    """Set another number on every invoice, with nothing of them loaded but themselves."""
    db.session.expunge_all()
    for invoice in db.session.scalars(sa.select(Invoice)):
        invoice.number += "x"
    db.session.commit()


def delete_all() -> None:
    """In one flush: what the host itself flushes row by row is looked at row by row."""
    db.session.expunge_all()
    with db.session.no_autoflush:
        for invoice in db.session.scalars(sa.select(Invoice).options(selectinload(Invoice.lines))):
            db.session.delete(invoice)
    db.session.commit()


def count_of(state: AppState, rows: int, act: t.Callable[[], None]) -> int:
    """How many statements it takes to do something to so many rows."""
    make(rows)
    before = len(recorded(state))
    with counted(state.engine) as seen:
        act()
    assert len(recorded(state)) - before == rows
    return len(seen)


@pytest.mark.parametrize(
    ("act", "event"), [(change_all, "updated"), (delete_all, "deleted")], ids=["update", "delete"]
)
def test_many_rows_take_as_many_statements_as_few(
    app: Flask, state: AppState, act: t.Callable[[], None], event: str
) -> None:
    subscribe(state, "http://127.0.0.1:9/", f"invoices.{event}", includes=["client", "lines", "changes"])
    few = count_of(state, 10, act)
    db.session.execute(sa.delete(Line))
    db.session.execute(sa.delete(Invoice))
    db.session.commit()
    before = len(recorded(state))

    many = count_of(state, 200, act)

    assert many <= few, f"{few} statements for 10 rows, {many} for 200"
    data = [json.loads(row.extras or "{}") for row in recorded(state)[before:]]
    assert [len(extras["lines"]) for extras in data] == [2] * 200
    assert all(extras["client"]["name"] for extras in data)


def test_includes_without_a_listener_are_not_loaded(app: Flask, state: AppState) -> None:
    subscribe(state, "http://127.0.0.1:9/", "invoices.updated")
    make(3)

    with counted(state.engine) as seen:
        change_all()

    assert not [text for text in seen if "FROM line" in text or "FROM client" in text]


def test_changes_tell_old_and_new(app: Flask, state: AppState, inbox: Receiver) -> None:
    subscribe(state, inbox.url(), "invoices.*", includes=["changes"])
    make(1)
    invoice = db.session.scalars(sa.select(Invoice)).one()
    invoice.status = Status.SENT
    invoice.total = Decimal("10.00")
    db.session.commit()

    Coordinator(state, holder="test").run()

    bodies = {body["event"]: body["data"] for body in (json.loads(each.body) for each in inbox.requests)}
    moved = bodies["invoices.updated"]["changes"]
    moved.pop("updated_at", None)
    assert moved == {
        "status": {"from": "draft", "to": "sent"},
        "total": {"from": "0.00", "to": "10.00"},
    }
    # A new row has not changed from anything.
    assert "changes" not in bodies["invoices.created"]
