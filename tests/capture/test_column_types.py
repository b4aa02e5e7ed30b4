"""Rows without a schema: no type of column makes a subscription fail the host's commits."""

from __future__ import annotations

import enum
import ipaddress
import json
import typing as t
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks import reference
from flask_webhooks.bindings import open_catalog
from flask_webhooks.checks import check_catalog
from flask_webhooks.cli import scaffold
from flask_webhooks.errors import CatalogError
from flask_webhooks.models import Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, recorded_data
from tests.stage import recorded, subscribe

HERE = __name__


class Base(DeclarativeBase):
    """Root of the models."""


class BaseOnPostgreSQL(DeclarativeBase):
    """Root of those that other databases have no tables for."""


db = SQLAlchemy(model_class=Base)
postgresql = SQLAlchemy(model_class=BaseOnPostgreSQL)


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Place:
    """JSON has no form for it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class PlaceType(sa.TypeDecorator[Place]):
    """Makes places of text."""

    impl = sa.String(30)
    cache_ok = True

    def process_bind_param(self, value: Place | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.text

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Place | None:
        return None if value is None else Place(value)


class Shape(sa.types.UserDefinedType[t.Any]):
    """Says nothing of its values."""

    cache_ok = True

    def get_col_spec(self, **_: t.Any) -> str:
        return "TEXT"


class Shout(sa.TypeDecorator[str]):
    """Its values are plain."""

    impl = sa.String(30)
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.upper()


class SealedTextEncryptedType(sa.TypeDecorator[str]):
    """Keeps its values from being read."""

    impl = sa.String(30)
    cache_ok = True


class Spread(postgresql.Model):  # type: ignore[name-defined]
    """One column of each type of PostgreSQL."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    inet: Mapped[t.Any] = mapped_column(pg.INET, nullable=True)
    cidr: Mapped[t.Any] = mapped_column(pg.CIDR, nullable=True)
    macaddr: Mapped[t.Any] = mapped_column(pg.MACADDR, nullable=True)
    numbers: Mapped[t.Any] = mapped_column(pg.INT4RANGE, nullable=True)
    amounts: Mapped[t.Any] = mapped_column(pg.NUMRANGE, nullable=True)
    days: Mapped[t.Any] = mapped_column(pg.DATERANGE, nullable=True)
    stay: Mapped[t.Any] = mapped_column(pg.TSTZRANGE, nullable=True)
    holidays: Mapped[t.Any] = mapped_column(pg.DATEMULTIRANGE, nullable=True)
    lasts: Mapped[t.Any] = mapped_column(sa.Interval, nullable=True)
    waits: Mapped[t.Any] = mapped_column(pg.ARRAY(sa.Interval), nullable=True)
    parts: Mapped[t.Any] = mapped_column(pg.ARRAY(sa.LargeBinary), nullable=True)
    keys: Mapped[t.Any] = mapped_column(pg.ARRAY(sa.Uuid), nullable=True)
    hosts: Mapped[t.Any] = mapped_column(pg.ARRAY(pg.INET), nullable=True)
    grid: Mapped[t.Any] = mapped_column(pg.ARRAY(sa.Numeric, dimensions=2), nullable=True)
    facts: Mapped[t.Any] = mapped_column(pg.JSONB, nullable=True)
    labels: Mapped[t.Any] = mapped_column(pg.HSTORE, nullable=True)
    bits: Mapped[t.Any] = mapped_column(pg.BIT(3), nullable=True)
    words: Mapped[t.Any] = mapped_column(pg.TSVECTOR, nullable=True)
    price: Mapped[t.Any] = mapped_column(pg.MONEY, nullable=True)
    level: Mapped[Level | None] = mapped_column(sa.Enum(Level), default=None)
    moment: Mapped[t.Any] = mapped_column(sa.DateTime(timezone=True), nullable=True)
    clock: Mapped[t.Any] = mapped_column(sa.Time, nullable=True)
    ratio: Mapped[t.Any] = mapped_column(sa.Float, nullable=True)
    share: Mapped[t.Any] = mapped_column(sa.Numeric, nullable=True)
    real: Mapped[t.Any] = mapped_column(sa.Float(asdecimal=True), nullable=True)


VALUES: dict[str, tuple[t.Any, t.Any]] = {
    "inet": (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
    "cidr": (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:03"),
    "numbers": (Range(1, 5), {"lower": 1, "upper": 5, "bounds": "[)"}),
    "amounts": (Range(Decimal("1.5"), None), {"lower": "1.5", "upper": None, "bounds": "[)"}),
    "days": (
        Range(date(2026, 1, 1), date(2026, 2, 1)),
        {"lower": "2026-01-01", "upper": "2026-02-01", "bounds": "[)"},
    ),
    "stay": (
        Range(datetime(2026, 1, 1, tzinfo=UTC), None),
        {"lower": "2026-01-01T00:00:00+00:00", "upper": None, "bounds": "[)"},
    ),
    "holidays": (
        [Range(date(2026, 1, 1), date(2026, 1, 2))],
        [{"lower": "2026-01-01", "upper": "2026-01-02", "bounds": "[)"}],
    ),
    "lasts": (timedelta(minutes=2), 120.0),
    "waits": ([timedelta(minutes=2), None], [120.0, None]),
    "parts": ([b"\xff\xfe"], ["//4="]),
    "keys": ([uuid.UUID(int=1)], ["00000000-0000-0000-0000-000000000001"]),
    "hosts": ([ipaddress.ip_address("10.0.0.1")], ["10.0.0.1"]),
    "grid": ([[Decimal("1.5")]], [["1.5"]]),
    "facts": ([1, {"a": None}], [1, {"a": None}]),
    "labels": ({"a": "b", "c": None}, {"a": "b", "c": None}),
    "words": ("'a' 'b'", "'a' 'b'"),
    "price": ("$1.00", "$1.00"),
    "level": (Level.HIGH, 2),
    "moment": (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    "clock": (time(9, 30), "09:30:00"),
    "ratio": (float("nan"), None),
    "share": (Decimal("NaN"), "NaN"),
    "real": (Decimal("1.5"), "1.5000000000"),
}


class Odd(db.Model):  # type: ignore[name-defined]
    """Columns that JSON cannot hold, and columns of unknown types."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    place: Mapped[Place | None] = mapped_column(PlaceType, default=None)
    places: Mapped[t.Any] = mapped_column(
        sa.ARRAY(PlaceType).with_variant(sa.JSON(), "sqlite", "mysql", "mariadb"), nullable=True
    )
    shape: Mapped[t.Any] = mapped_column(Shape, nullable=True)
    anything: Mapped[t.Any] = mapped_column(sa.PickleType, nullable=True)
    shout: Mapped[str | None] = mapped_column(Shout, default="a")
    photo: Mapped[bytes | None] = mapped_column(sa.LargeBinary, default=b"x")


class Safe(db.Model):  # type: ignore[name-defined]
    """Has a column that its type keeps from being read."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    word: Mapped[str | None] = mapped_column(SealedTextEncryptedType, default=None)


def catalog(channels: str) -> str:
    """A catalogue with one owner for all."""
    return f"version: 1\ndefaults: {{owner: owner}}\nchannels:\n{channels}"


def is_published(state: AppState, message: Message) -> None:
    """Fail unless the data with all that was asked for is valid by the OpenAPI document."""
    event = state.catalog.events[message.event]
    content = reference.webhook(state, event)["requestBody"]["content"]["application/json"]
    schema = content["schema"]["properties"]["data"]
    data = {**json.loads(message.data), **json.loads(message.extras or "{}")}
    jsonschema.Draft202012Validator(schema).validate(data)


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_every_type_of_postgresql_is_serialised(empty_database_url: str, tmp_path: Path) -> None:
    channels = catalog(f"  spreads: {{model: {HERE}:Spread, events: [created, updated, deleted]}}\n")
    session = postgresql.session
    with sa.create_engine(empty_database_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(
            sa.text("CREATE EXTENSION hstore")
        )  # a dialect asks for it once, when it first connects
    with capturing(postgresql, channels, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        session.add(Spread(id=1))
        session.commit()
        row = session.get_one(Spread, 1)
        for name, (value, _) in VALUES.items():
            setattr(row, name, value)
        session.commit()
        session.delete(row)
        session.commit()

        written = {name: text for name, (_, text) in VALUES.items()}
        [updated], [gone] = recorded_data(state, "spreads.updated"), recorded_data(state, "spreads.deleted")
        assert {name: gone[name] for name in written} == written
        assert {name: updated[name] for name in written}.keys() == written.keys()
        extras = json.loads(recorded(state)[1].extras or "{}")
        assert extras["changes"].keys() == written.keys()
        assert extras["changes"]["lasts"] == {"from": None, "to": 120.0}
        assert not state.bound["spreads"].doubts
        for message in recorded(state):
            is_published(state, message)


def test_what_json_cannot_hold_is_left_out_and_named(
    empty_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channels = catalog(f"  odds: {{model: {HERE}:Odd, events: [created, updated]}}\n")
    with capturing(db, channels, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        [named] = [each.message for each in caplog.records if each.name == "flask_webhooks.catalog"]
        assert "Odd.place (PlaceType) is left out of data" in named
        assert "Odd.shape (Shape) may hold what JSON cannot" in named
        assert "Odd.anything (PickleType) may hold" in named
        assert "shout" not in named
        assert "photo" not in named
        db.session.add(Odd(id=1, place=Place("a")))
        db.session.commit()
        row = db.session.get_one(Odd, 1)
        row.place, row.shout = Place("b"), "c"
        db.session.commit()

        created, updated = recorded(state)
        assert "place" not in json.loads(created.data)
        assert json.loads(updated.extras or "")["changes"].pop("place") == {}


def test_check_and_init_name_them_too(tmp_path: Path) -> None:
    (tmp_path / "types.yaml").write_text(catalog(f"  odds: {{model: {HERE}:Odd, events: [created]}}\n"))

    found, _ = check_catalog(["types.yaml"], tmp_path, ["channel"])

    assert found.ok
    assert [each.line for each in found.findings] == [4] * len(found.findings)
    assert any("Odd.place (PlaceType) is left out" in each.message for each in found.findings)
    draft = scaffold.draft(db, title="types").text
    assert "    # Odd.place (PlaceType) is left out of data: its values" in draft
    assert "Odd.shape (Shape) may hold" in draft


def test_a_raw_field_over_such_a_column_is_named(tmp_path: Path) -> None:
    import marshmallow as ma

    globals()["OddSchema"] = ma.Schema.from_dict({"id": ma.fields.Integer(), "place": ma.fields.Raw()})
    channel = f"  odds: {{model: {HERE}:Odd, schema: {HERE}:OddSchema, events: [created]}}\n"
    (tmp_path / "types.yaml").write_text(catalog(channel))

    _, bound = open_catalog("types.yaml", root=tmp_path)

    assert [str(doubt)[:47] for doubt in bound["odds"].doubts] == [
        "Odd.place (PlaceType) may hold what JSON cannot"
    ]


def test_a_type_that_seals_its_values_needs_a_schema(tmp_path: Path) -> None:
    (tmp_path / "types.yaml").write_text(catalog(f"  safes: {{model: {HERE}:Safe, events: [created]}}\n"))

    with pytest.raises(CatalogError, match='every column of Safe is sent, "word" too'):
        open_catalog("types.yaml", root=tmp_path)
