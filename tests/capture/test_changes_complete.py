"""For every column type, with a schema and without: a changed value of `data` is in `changes` and in OpenAPI."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import typing as t
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Session

from flask_webhooks.catalog import same
from flask_webhooks.models import BrokenMessage, Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.capture.test_column_types import Place, PlaceType, is_published
from tests.stage import recorded, subscribe

utils = pytest.importorskip("sqlalchemy_utils")
mf = ma.fields


class Base(DeclarativeBase):
    """Root of the models."""


class BaseOnPostgreSQL(DeclarativeBase):
    """Root of those with its own types."""


db = SQLAlchemy(model_class=Base)
postgresql = SQLAlchemy(model_class=BaseOnPostgreSQL)


class Status(enum.Enum):
    """By its values in the database."""

    SENT = "sent"
    PAID = "paid"


NOON = dt.datetime(2026, 3, 1, 12)  # noqa: DTZ001 - as naive columns want it
COMMON: dict[str, tuple[t.Any, list[t.Any]]] = {
    "text": (sa.String(20), ["a", "b", None]),
    "letters": (sa.Text, ["a", "ü"]),
    "whole": (sa.Integer, [0, 1, True]),
    "big": (sa.BigInteger, [2**60, 1]),
    "flag": (sa.Boolean, [True, False, 1]),
    "money": (sa.Numeric(12, 2), [Decimal("1.00"), 7, "7.10", None]),
    "ratio": (sa.Float, [1.5, 2]),
    "moment": (sa.DateTime, [NOON, NOON.replace(hour=13)]),
    "day": (sa.Date, [dt.date(2026, 1, 1), dt.date(2026, 1, 2)]),
    "clock": (sa.Time, [dt.time(9, 30), dt.time(9)]),
    "lasts": (sa.Interval, [dt.timedelta(hours=1), dt.timedelta(minutes=1), None]),
    "status": (
        sa.Enum(Status, name="status", values_callable=lambda kind: [each.value for each in kind]),
        [Status.SENT, Status.PAID, "sent", "paid"],
    ),
    "key": (sa.Uuid, [uuid.UUID(int=1), uuid.UUID(int=2)]),
    "facts": (sa.JSON, [{"a": 1}, [1], {"a": {"b": None}}]),
    "tracked": (MutableDict.as_mutable(sa.JSON()), [{"a": 1}, {"a": 2}]),
    "choice": (utils.ChoiceType([("a", "A"), ("b", "B")]), ["a", "b", None]),
    "words": (utils.ScalarListType(), [["x"], ["x", "y"]]),
    "place": (PlaceType, [Place("here"), Place("there"), None]),
    "photo": (sa.LargeBinary, [b"x", b"y"]),
    "secret_hash": (sa.String(20), ["s", "t"]),
}
SPECIAL: dict[str, tuple[t.Any, list[t.Any]]] = {
    "host": (pg.INET, ["10.0.0.1", ipaddress.ip_address("10.0.0.2")]),
    "numbers": (pg.INT4RANGE, [Range(1, 5), Range(1, 6), Range(empty=True), None]),
    "stay": (pg.TSTZRANGE, [Range(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None), None]),
    "holidays": (
        pg.DATEMULTIRANGE,
        [
            [Range(dt.date(2026, 1, 1), dt.date(2026, 1, 2))],
            [Range(dt.date(2026, 1, 1), dt.date(2026, 1, 3))],
        ],
    ),
    "waits": (pg.ARRAY(sa.Interval), [[dt.timedelta(hours=1)], [dt.timedelta(hours=2), None]]),
    "keys": (pg.ARRAY(sa.Uuid), [[uuid.UUID(int=1)], []]),
    "tags": (pg.ARRAY(sa.String), [["a"], ["a", "b"]]),
    "jsonb": (pg.JSONB, [{"a": 1}, {"a": 1.5}]),
    "labels": (pg.HSTORE, [{"a": "b"}, {"a": None}]),
    "zoned": (
        sa.DateTime(timezone=True),
        [
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        ],
    ),
}
HIDDEN = "secret_hash"


def _model(name: str, on: SQLAlchemy, columns: t.Mapping[str, tuple[t.Any, list[t.Any]]]) -> t.Any:
    made = {each: sa.Column(kind, nullable=True) for each, (kind, _) in columns.items()}
    key = {"id": sa.Column(sa.Integer, primary_key=True), "owner": sa.Column(sa.String(20), default="1")}
    return type(name, (on.Model,), {**key, **made, "__module__": __name__})


Wide = _model("Wide", db, COMMON)
Special = _model("Special", postgresql, {**COMMON, **SPECIAL})


def shown(row: t.Any, name: str) -> t.Any:
    """What a method shows, by way of a function."""
    found = getattr(row, name)
    return getattr(found, "text", found)


def _fields(names: t.Iterable[str]) -> dict[str, t.Any]:
    left = [name for name in names if name not in (HIDDEN, "place")]
    return {"id": mf.Integer(), **{f"{name}Shown": mf.Raw(attribute=name) for name in left}}


def _reading(name: str) -> t.Any:
    return mf.Function(lambda row: shown(row, name))


class Reading(ma.Schema):
    """Its methods call others, which read."""

    id = mf.Integer()
    text = mf.Method("make")
    choice = mf.Function(lambda row: str(row.choice))
    lasts = mf.Function(lambda row: shown(row, "lasts"))

    def make(self, row: t.Any) -> t.Any:
        return self.inner(row)

    def inner(self, row: t.Any) -> t.Any:
        return row.text


class Renaming(ma.Schema):
    """A hook decides what the keys are, and hides."""

    id = mf.Integer()

    @ma.post_dump
    def rename(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        data.pop(HIDDEN, None)
        return {key.upper(): value for key, value in data.items()}


WideShown = ma.Schema.from_dict(_fields(COMMON), name="WideShown")
SpecialShown = ma.Schema.from_dict(_fields({**COMMON, **SPECIAL}), name="SpecialShown")
WideRenamed = type(
    "WideRenamed", (Renaming,), {name: mf.Raw() for name in COMMON if name not in ("place", "photo")}
)


def catalog(model: str, renamed: str) -> str:
    """Channels that show the same rows in several ways."""
    return f"""
version: 1
defaults: {{owner: owner}}
channels:
  plain: {{model: "{__name__}:{model}", exclude: [{HIDDEN}], events: [updated]}}
  shown: {{model: "{__name__}:{model}", schema: "{__name__}:{model}Shown", events: [updated]}}
  reading: {{model: "{__name__}:{model}", schema: "{__name__}:Reading", events: [updated]}}
  renamed: {{model: "{__name__}:{model}", schema: "{__name__}:{renamed}", events: [updated]}}
"""


KEYS: dict[str, t.Callable[[str], str]] = {
    "plain.updated": str,
    "shown.updated": "{}Shown".format,
    "reading.updated": str,
    "renamed.updated": str.upper,
}


@pytest.fixture
def wide(empty_database_url: str, tmp_path: Path) -> Iterator[AppState]:
    """An app on any database."""
    with capturing(db, catalog("Wide", "WideRenamed"), empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        yield state


@pytest.fixture
def special(empty_database_url: str, tmp_path: Path) -> Iterator[AppState]:
    """An app on PostgreSQL."""
    with sa.create_engine(empty_database_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS hstore"))
    text = catalog("Special", "WideRenamed")
    with capturing(postgresql, text, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        yield state


def write(session: t.Any, model: t.Any, values: dict[str, t.Any], way: str) -> None:
    """Change the row in one of the ways that hosts have."""
    if way == "merge":
        session.merge(model(id=1, **values))
    elif way == "bulk":
        session.execute(sa.update(model).where(model.id == 1).values(values))
    else:
        row = session.get_one(model, 1)
        if way == "expired":
            session.expire(row)
        for name, value in values.items():
            setattr(row, name, value)
            if way == "flushes":
                session.flush()
    session.commit()


def rows(state: AppState, model: t.Any) -> dict[str, t.Any]:
    """The row as the database has it."""
    with Session(state.engine) as session:
        return dict(session.execute(sa.select(*model.__table__.c)).one()._mapping)


def check(state: AppState, on: SQLAlchemy, model: t.Any, steps: list[tuple[str, dict[str, t.Any]]]) -> None:
    """Write, and compare the event's data with the row in the database."""
    with state.engine.begin() as connection:
        for table in (BrokenMessage, Message):
            connection.execute(sa.delete(table.__table__))
        connection.execute(sa.delete(model.__table__))
    on.session.remove()
    on.session.add(model(id=1))
    on.session.commit()
    seen = 0
    lasts: dict[str, t.Any] = {}
    for way, values in steps:
        before = rows(state, model)
        write(on.session, model, values, way)
        after = rows(state, model)
        changed = {name for name in before if not same(before[name], after[name])}
        messages = recorded(state)[seen:]
        seen += len(messages)
        assert {message.event for message in messages} == (set(KEYS) if changed else set())
        for message in messages:
            data, told = json.loads(message.data), json.loads(message.extras or "{}")["changes"]
            key_of = KEYS[message.event]
            assert {key_of(name) for name in changed} & data.keys() <= told.keys(), message.event
            assert told.keys() <= {key_of(name) for name in changed}, message.event
            assert key_of(HIDDEN) not in told
            for key, pair in told.items():
                assert pair in ({}, {"from": pair.get("from"), "to": data.get(key)})
                if pair and message.event in lasts:
                    assert pair["from"] == lasts[message.event].get(key), (message.event, key)
            is_published(state, message)
            lasts[message.event] = data
    with Session(state.engine) as session:
        assert session.scalars(sa.select(BrokenMessage.error)).all() == []


def steps_of(columns: t.Mapping[str, tuple[t.Any, list[t.Any]]]) -> st.SearchStrategy[t.Any]:
    """Several commits, each by one way with values for some columns."""
    chosen = st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, (_, values) in columns.items()}
    )
    return st.lists(
        st.tuples(st.sampled_from(["attribute", "expired", "flushes", "merge", "bulk"]), chosen.filter(bool)),
        min_size=1,
        max_size=4,
    )


def case(columns: t.Mapping[str, tuple[t.Any, list[t.Any]]]) -> list[tuple[str, dict[str, t.Any]]]:
    """Every column set and set again."""
    return [
        ("attribute", {name: values[at % len(values)] for name, (_, values) in columns.items()})
        for at in range(4)
    ]


def test_every_type(wide: AppState) -> None:
    check(wide, db, Wide, case(COMMON))


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_every_type_of_postgresql(special: AppState) -> None:
    check(special, postgresql, Special, case({**COMMON, **SPECIAL}))


@given(steps=steps_of(COMMON))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_column_is_missing(wide: AppState, steps: list[tuple[str, dict[str, t.Any]]]) -> None:
    check(wide, db, Wide, steps)
