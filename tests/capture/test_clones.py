"""Objects that stand for another row at the commit, or can no longer be read: events are about rows, not objects.

A clone is made of an object by `make_transient`; relationships that had loaded the object go on leading to it.
"""

from __future__ import annotations

import gc
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient

from flask_webhooks.state import AppState
from tests.capture import linked_models
from tests.capture.conftest import NOWHERE, capturing
from tests.capture.linked_models import Item, Order
from tests.host import Invoice, Line, db
from tests.stage import recorded, subscribe

S = db.session


def recorded_events(state: AppState) -> list[tuple[str, str, str | None]]:
    """Event, owner and key of all messages."""
    return sorted((each.event, each.owner, each.entity_id) for each in recorded(state))


def clone(invoice: Invoice, owner: str) -> None:
    """Make row 2 of the object of row 1."""
    S.expire(invoice)
    assert invoice.owner  # is loaded, and its lines are not: else SQLAlchemy would move them
    make_transient(invoice)
    invoice.id, invoice.owner = 2, owner
    S.add(invoice)
    S.flush()


@pytest.fixture
def invoice(state: AppState) -> Invoice:
    """Committed with a line before there are subscriptions; then two owners have one."""
    with Session(state.engine, info={"webhooks": False}) as session:
        session.add(Invoice(id=1, owner="1", lines=[Line(id=1, text="a")]))
        session.commit()
    subscribe(state, NOWHERE, "invoices.*")
    subscribe(state, NOWHERE, "invoices.*", owner="2")
    return S.get_one(Invoice, 1)


def line_is_added(invoice: Invoice) -> Line:
    S.add(line := Line(id=2, invoice=invoice))
    return line


def line_is_changed(invoice: Invoice) -> Line:
    line = S.get_one(Line, 1)
    assert line.invoice is invoice
    line.text = "b"
    return line


def line_is_deleted(invoice: Invoice) -> Line:
    S.delete(line := S.get_one(Line, 1))
    return line


changed_by = pytest.mark.parametrize("change", [line_is_added, line_is_changed, line_is_deleted])


@pytest.mark.parametrize("owner", ["1", "2"])
@changed_by
def test_a_line_touches_the_row_that_it_belongs_to_and_not_the_clone(
    state: AppState, invoice: Invoice, change: t.Callable[[Invoice], Line], owner: str
) -> None:
    line = change(invoice)
    S.flush()
    clone(invoice, owner)
    assert line is not None
    S.commit()
    assert recorded_events(state) == [("invoices.created", owner, "2"), ("invoices.updated", "1", "1")]


@changed_by
def test_it_does_so_though_the_clones_owner_has_no_subscription(
    state: AppState, invoice: Invoice, change: t.Callable[[Invoice], Line]
) -> None:
    line = change(invoice)
    S.flush()
    clone(invoice, "3")
    assert line is not None
    S.commit()
    assert recorded_events(state) == [("invoices.updated", "1", "1")]


@pytest.mark.parametrize("is_expired", [True, False])
@pytest.mark.parametrize("is_collected", [True, False])
@changed_by
def test_it_does_so_when_nothing_is_left_in_the_session(
    state: AppState,
    invoice: Invoice,
    change: t.Callable[[Invoice], Line],
    is_expired: bool,
    is_collected: bool,
) -> None:
    change(invoice)
    S.flush()
    clone(invoice, "1")
    del invoice
    if is_expired:
        S.expire_all()
    S.expunge_all()
    with S.begin_nested() as savepoint:
        S.add(Invoice(id=1, owner="1"))
        with pytest.raises(IntegrityError):
            S.flush()
        if is_collected:
            gc.collect()
        savepoint.rollback()
    S.commit()
    assert recorded_events(state) == [("invoices.created", "1", "2"), ("invoices.updated", "1", "1")]


@changed_by
def test_it_does_so_when_only_the_invoice_was_expired_and_expunged(
    state: AppState, invoice: Invoice, change: t.Callable[[Invoice], Line]
) -> None:
    line = change(invoice)
    S.flush()
    S.expire(invoice)
    S.expunge(invoice)
    assert line is not None
    S.commit()
    assert recorded_events(state) == [("invoices.updated", "1", "1")]


@pytest.fixture
def linked(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An order of owner 1 with an item, committed before there is a subscription."""
    with capturing(linked_models.db, linked_models.CATALOG, database_url, tmp_path) as state:
        with Session(state.engine, info={"webhooks": False}) as session:
            session.add(Order(tenant=1, number=1, items=[Item(id=1, name="a")]))
            session.commit()
        for owner in ("1", "2"):
            subscribe(state, NOWHERE, "*", owner=owner, includes=["order"])
        yield state


@pytest.mark.parametrize("event", ["items.created", "items.updated", "items.deleted"])
@pytest.mark.parametrize("is_expunged", [True, False])
@pytest.mark.parametrize("is_cloned", [True, False])
def test_a_row_belongs_to_whom_its_row_led_to_and_not_to_the_owner_of_the_clone(
    linked: AppState, event: str, is_expunged: bool, is_cloned: bool
) -> None:
    session = linked_models.db.session
    order = session.get_one(Order, (1, 1))
    item = session.get_one(Item, 1)
    assert item.order is order
    if event == "items.created":
        session.add(item := Item(id=2, order=order))
    elif event == "items.updated":
        item.name = "b"
    else:
        session.delete(item)
    session.flush()
    session.expire(order)
    assert order.owner == "1"
    if is_cloned:
        make_transient(order)
        order.number, order.owner = 2, "2"
        session.add(order)
        session.flush()
    if is_expunged:
        session.expire_all()
        session.expunge(order)
    key = str(sa.inspect(item).identity[0])
    session.commit()
    made = [("orders.created", "2", "1,2")] if is_cloned else []
    assert recorded_events(linked) == sorted([(event, "1", key), *made, ("orders.updated", "1", "1,1")])
    assert all(each.data != "null" for each in recorded(linked))
