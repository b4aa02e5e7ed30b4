"""`flask webhooks check --rows` makes the events of existing rows, to find errors before customers do."""

from __future__ import annotations

import json
import logging
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_webhooks.cli import webhooks_cli
from flask_webhooks.models import Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import recorded, subscribe

mf = ma.fields


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Maker(db.Model):  # type: ignore[name-defined]
    """Of no channel."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="m")


class Part(db.Model):  # type: ignore[name-defined]
    """Hangs on an order."""

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("order.id"))
    maker_id: Mapped[int] = mapped_column(sa.ForeignKey("maker.id"))
    maker: Mapped[Maker] = relationship()


class Order(db.Model):  # type: ignore[name-defined]
    """Has an owner that may be None."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(sa.String(20), default="1")
    note: Mapped[str | None] = mapped_column(sa.String(20), default="n")
    parts: Mapped[list[Part]] = relationship(order_by="Part.id")


class Empty(db.Model):  # type: ignore[name-defined]
    """Has no rows."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")


deeds: list[t.Callable[[Order], t.Any]] = []


class OrderSchema(ma.Schema):
    """Does the deeds."""

    id = mf.Integer()
    note = mf.String()
    made = mf.Method("make")

    def make(self, order: Order) -> t.Any:
        for deed in deeds:
            deed(order)
        return 7


class PartSchema(ma.Schema):
    """Reads a relationship that no field names."""

    maker = mf.Function(lambda part: part.maker.name)


CATALOG = f"""
version: 1
defaults: {{owner: owner}}
channels:
  orders:
    model: {__name__}:Order
    schema: {__name__}:OrderSchema
    events: {{created: , updated: , noted: {{when: {{note: done}}}}}}
    includes: {{parts: {{path: parts, schema: "{__name__}:PartSchema"}}, notes: parts.maker.name}}
  plain: {{model: {__name__}:Order, events: [created]}}
  empties: {{model: {__name__}:Empty, events: [created]}}
  reports: {{events: {{ready: {{on: emit}}}}}}
"""


@pytest.fixture
def state(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with two orders; the newest has three parts of two makers."""
    with capturing(db, CATALOG, empty_database_url, tmp_path, WEBHOOKS_PAYLOAD_LIMIT=2000) as state:
        db.session.add_all([Maker(id=1), Maker(id=2), Order(id=1, note="old"), Order(id=2)])
        db.session.flush()
        db.session.add_all([Part(id=1, order_id=2, maker_id=1), Part(id=2, order_id=2, maker_id=2)])
        db.session.commit()
        db.session.remove()
        yield state
    deeds.clear()


def run(state: AppState, *words: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it prints."""
    result = state.app.test_cli_runner().invoke(webhooks_cli, ["check", "--rows", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def found(state: AppState, channel: str, *, code: int = 0) -> dict[str, t.Any]:
    """What is found of one channel."""
    exit_code, text = run(state, "--json", "--channel", channel)
    data = json.loads(text)
    assert (exit_code, data["ok"]) == (code, not code)
    [row] = data["rows"]
    assert row["ok"] == (not code)
    return t.cast("dict[str, t.Any]", row)


def test_the_newest_row_of_each_channel_is_shown(state: AppState) -> None:
    code, text = run(state)

    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    [orders] = [line for line in lines if line[1:2] == ["orders"]]
    assert orders[:4] == ["ok", "orders", "Order", "2"]
    assert ["empties", "none", "yet", "-", "-", "-"] in lines
    assert not any("reports" in line for line in lines)
    assert "2 of 3 channels have a row; 0 of them would fail. Nothing was written." in text


def test_what_is_loaded_row_by_row_is_named(state: AppState) -> None:
    row = found(state, "orders")

    assert row["loads"] == {"Part.maker": 2}
    assert row["statements"] >= 3
    assert row["size"] > len('{"id":2,"note":"n","made":7}')
    assert row["seconds"] > 0
    assert "Part.maker is loaded row by row, 2 times for this row" in run(state)[1]


def test_a_plain_row_takes_no_statement_more(state: AppState) -> None:
    row = found(state, "plain")

    assert (row["row"], row["statements"], row["loads"], row["warnings"]) == ("Order 2", 0, {}, [])


def test_what_fails_is_named_with_schema_and_field(state: AppState) -> None:
    deeds.append(lambda order: order.missing)
    row = found(state, "orders", code=1)

    [fault] = row["faults"]
    assert fault == {
        "part": "data of orders.created",
        "schema": "OrderSchema",
        "field": "made",
        "error": "AttributeError: 'Order' object has no attribute 'missing'",
    }
    code, text = run(state)
    assert code == 1
    assert "error: data of orders.created at the field 'made' of OrderSchema: AttributeError" in text
    assert "1 of them would fail" in text


def test_an_include_that_fails_is_named(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartSchema._declared_fields["maker"], "serialize_func", lambda part: part.nothing)
    monkeypatch.setattr(
        state.bound["orders"].includes["parts"].schema.fields["maker"],  # type: ignore[union-attr]
        "serialize_func",
        lambda part: part.nothing,
    )
    [fault] = found(state, "orders", code=1)["faults"]

    assert (fault["part"], fault["schema"], fault["field"]) == ("include parts", "PartSchema", "maker")


def test_a_dump_that_writes_fails_and_one_that_commits_is_warned_of(
    state: AppState, caplog: pytest.LogCaptureFixture
) -> None:
    deeds.append(lambda order: db.session.execute(sa.update(Order).values(note="x")))
    [fault] = found(state, "orders", code=1)["faults"]
    assert (fault["field"], "may only read" in fault["error"]) == ("made", True)

    deeds[:] = [lambda order: db.session.commit()]
    [warning] = found(state, "orders")["warnings"]
    assert "OrderSchema at the field 'made' calls commit()" in warning

    deeds[:] = [lambda order: setattr(order, "note", "masked")]
    [warning] = found(state, "orders")["warnings"]
    assert "OrderSchema at the field 'made' changes what it dumps" in warning
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nothing_is_written(state: AppState) -> None:
    subscribe(state, NOWHERE, "*")
    deeds.append(lambda order: db.session.add(Order(id=9)))
    run(state)

    with state.engine.connect() as connection:
        assert connection.scalars(sa.select(Order.id).order_by(Order.id)).all() == [1, 2]
        assert connection.scalar(sa.select(sa.func.count()).select_from(Message)) == 0
    assert recorded(state) == []


def test_a_row_without_owner_one_that_is_too_large_and_a_missing_table(state: AppState) -> None:
    db.session.get_one(Order, 2).owner = None
    db.session.commit()
    db.session.remove()
    assert (
        "this row has no owner, so no subscription would get its events" in found(state, "plain")["warnings"]
    )

    object.__setattr__(state.settings, "payload_limit", 5)
    assert "WEBHOOKS_PAYLOAD_LIMIT is 5" in found(state, "plain", code=1)["faults"][0]["error"]

    with state.engine.begin() as connection:
        Empty.__table__.drop(connection)
    [fault] = found(state, "empties", code=1)["faults"]
    assert fault["part"] == "reading the row"
    code, text = run(state)
    assert (code, "3 channels" in text) == (
        1,
        True,
    )  # one that cannot be read keeps no other from being looked at


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "--offline"), "--rows needs the database"),
        (("--channel", "orders"), "--channel needs --rows"),
        (("--rows", "--channel", "nothing"), "The channel 'nothing' does not exist"),
        (("--rows", "--channel", "reports"), "The channel 'reports' has no model"),
    ],
)
def test_what_cannot_be_looked_at_is_said(state: AppState, words: tuple[str, ...], said: str) -> None:
    result = state.app.test_cli_runner().invoke(webhooks_cli, ["check", *words])

    assert result.exit_code
    assert said in result.output
