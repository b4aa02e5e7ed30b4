"""If an object in memory fails its schema, its row is read again before the message counts as broken."""

from __future__ import annotations

import enum
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, reconstructor, relationship

from flask_webhooks.capture import emit_many
from flask_webhooks.models import BrokenMessage
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting, last_changes, recorded_data
from tests.stage import subscribe

mf = ma.fields


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Status(enum.Enum):
    """Of an order."""

    SENT = "sent"
    PAID = "paid"


STATUS = sa.Enum(Status, values_callable=lambda kind: [each.value for each in kind])


class Plan(db.Model):  # type: ignore[name-defined]
    """Of no channel, so it is not known in advance what is read of it."""

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[t.Any] = mapped_column(STATUS, default=Status.SENT)


class Order(db.Model):  # type: ignore[name-defined]
    """Knows things about itself only when it was loaded."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    status: Mapped[t.Any] = mapped_column(STATUS, default=Status.SENT)
    note: Mapped[str | None] = mapped_column(sa.String(20), default=None)
    plan_id: Mapped[int | None] = mapped_column(sa.ForeignKey("plan.id"), default=None)
    plan: Mapped[Plan | None] = relationship()

    @reconstructor
    def load(self) -> None:
        self.rate = 7

    @property
    def whose(self) -> str:
        """An owner that goes by another row."""
        if self.plan_id is None:
            return self.owner
        return f"{self.owner}{db.session.get_one(Plan, self.plan_id).status.name[:0]}"


class Loose(db.Model):  # type: ignore[name-defined]
    """Takes values in many forms."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    status: Mapped[t.Any] = mapped_column(STATUS)
    day: Mapped[t.Any] = mapped_column(sa.Date)
    moment: Mapped[t.Any] = mapped_column(sa.DateTime)
    clock: Mapped[t.Any] = mapped_column(sa.Time)
    amount: Mapped[t.Any] = mapped_column(sa.Numeric(12, 2))
    key: Mapped[t.Any] = mapped_column(sa.Uuid)


class LooseSchema(ma.Schema):
    """Wants them in one."""

    id = mf.Integer()
    status = mf.Enum(Status, by_value=True)
    day = mf.Date()
    moment = mf.DateTime()
    clock = mf.Time()
    amount = mf.Decimal(as_string=True, places=2)
    key = mf.UUID()


reads: list[t.Callable[[Order], t.Any]] = []


class OrderSchema(ma.Schema):
    """Reads what its `Method` says."""

    id = mf.Integer()
    status = mf.Enum(Status, by_value=True)
    note = mf.String()
    read = mf.Method("make")

    def make(self, order: Order) -> t.Any:
        return [read(order) for read in reads]


class RateSchema(ma.Schema):
    """Of an include."""

    rate = mf.Function(lambda plan: plan.status.value)


CATALOG = f"""
version: 1
defaults: {{owner: owner}}
channels:
  orders:
    model: {__name__}:Order
    schema: {__name__}:OrderSchema
    events: {{created: , updated: , deleted: , paid: {{when: {{status: paid}}}}, seen: {{on: emit}}}}
    includes: {{plan: {{path: plan, schema: "{__name__}:RateSchema"}}}}
  loose: {{model: {__name__}:Loose, schema: {__name__}:LooseSchema, events: [created, updated]}}
  owned: {{model: {__name__}:Order, owner: whose, schema: {__name__}:OrderSchema, events: [created]}}
"""
READS: dict[str, t.Callable[[Order], t.Any]] = {
    "a row that was read by itself": lambda order: db.session.get_one(Plan, 1).status.value,
    "a query": lambda order: db.session.scalars(sa.select(Plan)).one().status.value,
    "what its class makes when it is loaded": lambda order: f"{'paid' if order.rate == 7 else ''}",
    "a relationship that led nowhere": lambda order: order.plan.status.value,  # type: ignore[union-attr]
}


@pytest.fixture(params=["record", "raise", "log"])
def state(request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with a plan, and a subscription to everything."""
    with capturing(db, CATALOG, empty_database_url, tmp_path, WEBHOOKS_ON_ERROR=request.param) as state:
        db.session.add(Plan(id=1))
        db.session.commit()
        subscribe(state, NOWHERE, "*", includes=["changes", "plan"])
        yield state
    reads.clear()


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_values_that_the_database_converts_are_shown_as_stored(state: AppState) -> None:
    """Texts of an import, or of a fixture: SQLite's driver refuses most of them."""
    olds = ["sent", "2026-01-01", "2026-01-01 09:30", "09:30", "5", "7B0A2C1E4F3D4C8A9A512F4F1A6D9C03"]
    news = [
        "paid",
        "2026-02-01",
        "2026-02-01T10:00:00",
        "10:00",
        "7.1",
        "00000000-0000-0000-0000-000000000001",
    ]
    names = ["status", "day", "moment", "clock", "amount", "key"]
    db.session().expire_on_commit = False
    db.session.add(row := Loose(id=1, **dict(zip(names, olds, strict=True))))
    db.session.commit()
    for name, value in zip(names, news, strict=True):
        setattr(row, name, value)
    db.session.commit()

    before = {
        "status": "sent",
        "day": "2026-01-01",
        "moment": "2026-01-01T09:30:00",
        "clock": "09:30:00",
        "amount": "5.00",
        "key": "7b0a2c1e-4f3d-4c8a-9a51-2f4f1a6d9c03",
    }
    after = {
        "status": "paid",
        "day": "2026-02-01",
        "moment": "2026-02-01T10:00:00",
        "clock": "10:00:00",
        "amount": "7.10",
        "key": "00000000-0000-0000-0000-000000000001",
    }
    assert broken() == []
    assert recorded_data(state, "loose.created") == [{"id": 1, **before}]
    assert recorded_data(state, "loose.updated") == [{"id": 1, **after}]
    assert last_changes(state, "loose.updated") == {name: [before[name], after[name]] for name in names}
    assert row.day == "2026-02-01"


def broken() -> list[str]:
    """What is wrong with messages."""
    return list(db.session.scalars(sa.select(BrokenMessage.error)))


@pytest.mark.parametrize("name", READS)
def test_the_row_is_read_once_more(state: AppState, name: str) -> None:
    reads.append(READS[name])
    plan = db.session.get_one(Plan, 1)
    plan.status = "paid"
    order = Order(id=1, status="sent")
    assert order.plan is None
    db.session.add(order)
    db.session.flush()
    order.plan_id = 1
    db.session.commit()
    held = order.rate if hasattr(order, "rate") else None
    order.note, order.status, plan.status = "new", "paid", "paid"
    db.session.commit()

    assert broken() == []
    assert [data["read"] for data in recorded_data(state, "orders.created")] == [["paid"]]
    assert [(data["read"], data["status"]) for data in recorded_data(state, "orders.paid")] == [
        (["paid"], "paid")
    ]
    assert last_changes(state, "orders.updated") == {"note": [None, "new"], "status": ["sent", "paid"]}
    assert held == (order.rate if hasattr(order, "rate") else None)
    assert db.session.get_one(Order, 1) is order


def test_what_was_assigned_stays_in_the_hosts_objects(state: AppState) -> None:
    db.session().expire_on_commit = False
    reads.append(READS["a row that was read by itself"])
    plan = db.session.get_one(Plan, 1)
    plan.status = "paid"
    db.session.add(order := Order(id=1, status="sent"))
    db.session.commit()

    assert (plan.status, order.status) == ("paid", "sent")
    assert [data["read"] for data in recorded_data(state, "orders.created")] == [["paid"]]


def test_an_owner_is_read_once_more(state: AppState) -> None:
    plan = db.session.get_one(Plan, 1)
    plan.status = "paid"
    db.session.add(Order(id=1, plan_id=1))
    db.session.commit()

    assert broken() == []
    assert [data["id"] for data in recorded_data(state, "owned.created")] == [1]


def test_an_object_that_is_emitted_is_read_once_more(state: AppState) -> None:
    reads.append(READS["what its class makes when it is loaded"])
    db.session.add(order := Order(id=1))
    db.session.flush()
    emit_many(state, db.session(), "orders.seen", [order])
    db.session.commit()

    assert [data["read"] for data in recorded_data(state, "orders.seen")] == [["paid"]]


def test_rows_of_a_class_are_read_together(state: AppState) -> None:
    reads.append(READS["what its class makes when it is loaded"])
    db.session.add_all([Order(id=number) for number in range(1, 21)])
    db.session.flush()
    with counting(state.engine) as sent:
        db.session.commit()

    assert len(recorded_data(state, "orders.created")) == 20
    # One is made in any case: to load what an include leads to.
    assert len([text for text in sent if "SELECT" in text and ' "order"' in text.replace("`", '"')]) == 2


def test_what_fails_again_has_the_first_error_and_its_own_field(state: AppState) -> None:
    reads.append(lambda order: order.note.upper())  # type: ignore[union-attr]
    db.session.add(Order(id=1))
    if state.settings.on_error == "raise":
        with pytest.raises(Exception, match=r"created of Order 1.*'read' of OrderSchema: AttributeError"):
            db.session.commit()
        return
    db.session.commit()

    expected = ["'read' of OrderSchema: AttributeError"] * (2 if state.settings.on_error == "record" else 0)
    assert all(text in error for text, error in zip(expected, broken(), strict=True))
    assert db.session.get_one(Order, 1).note is None
