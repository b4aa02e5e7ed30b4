"""Random examples for `test_random`: a model, and writes in several transactions."""

from __future__ import annotations

import enum
import typing as t
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import marshmallow as ma
import sqlalchemy as sa
from hypothesis import strategies as st


class Mood(enum.Enum):
    """A column's own enum."""

    CALM = "calm"
    WILD = "wild"


class Upper(sa.types.TypeDecorator[str]):
    """Writes something else than was assigned."""

    impl = sa.String(40)
    cache_ok = True

    def process_bind_param(self, value: t.Any, dialect: t.Any) -> t.Any:
        return value if value is None else str(value).upper()


@dataclass(frozen=True)
class Kind:
    """A type of a column, what may be assigned, and how a schema shows it."""

    make: t.Callable[[], t.Any]
    values: tuple[t.Any, ...]
    """Of the type that a row has."""
    odd: tuple[t.Any, ...]
    """What drivers take as well, or refuse, or write as something else."""
    field: t.Callable[[], ma.fields.Field[t.Any]]


MOMENT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
DAY = date(2026, 3, 1)
KEY = uuid.UUID("01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c")
KINDS: dict[str, Kind] = {
    "text": Kind(lambda: sa.String(40), ("a", "", "é"), (7, Mood.CALM), ma.fields.String),
    "number": Kind(sa.Integer, (0, 5), ("6", 2.0, True), ma.fields.Integer),
    "amount": Kind(
        lambda: sa.Numeric(12, 2),
        (Decimal("1.50"), Decimal(0)),
        (2, 2.25, "3.10"),
        lambda: ma.fields.Decimal(as_string=True),
    ),
    "share": Kind(sa.Float, (0.5, -1.0), (1, "1.5", Decimal("2.5")), ma.fields.Float),
    "flag": Kind(sa.Boolean, (True, False), (1, "yes"), ma.fields.Boolean),
    "day": Kind(sa.Date, (DAY,), ("2026-03-02", MOMENT), ma.fields.Date),
    "moment": Kind(
        lambda: sa.DateTime(timezone=True), (MOMENT,), ("2026-03-01T12:00:00", DAY), ma.fields.DateTime
    ),
    "hour": Kind(sa.Time, (time(9, 30),), ("10:00",), ma.fields.Time),
    "length": Kind(sa.Interval, (timedelta(seconds=90),), ("00:02:00",), ma.fields.TimeDelta),
    "mood": Kind(
        lambda: sa.Enum(Mood), (Mood.CALM, Mood.WILD), ("WILD", "wild"), lambda: ma.fields.Enum(Mood)
    ),
    "state": Kind(
        lambda: sa.Enum(Mood, name="state", values_callable=lambda cls: [each.value for each in cls]),
        (Mood.CALM, Mood.WILD),
        ("calm", "WILD"),
        lambda: ma.fields.Enum(Mood, by_value=True),
    ),
    "word": Kind(lambda: sa.Enum("x", "y", name="word"), ("x", "y"), ("z", Mood.CALM), ma.fields.String),
    "key": Kind(sa.Uuid, (KEY,), (str(KEY), KEY.hex), ma.fields.UUID),
    "facts": Kind(sa.JSON, ({"a": [1, None]}, [1], "text"), ({"when": DAY}, (1, 2)), ma.fields.Raw),
    "loud": Kind(Upper, ("LOUD",), ("loud", 5), ma.fields.String),
    "raw": Kind(sa.LargeBinary, (b"\x00\xff",), ("text",), ma.fields.Raw),
}


# ---- examples --------------------------------------------------------------------------------------------

Write = tuple[str, int, dict[str, t.Any]]
"""How, the key of a row, and what is assigned."""


@dataclass(frozen=True)
class Example:
    """A model and what is done with it."""

    columns: tuple[str, ...]
    has_schema: bool
    transactions: tuple[tuple[Write, ...], ...]
    traits: frozenset[str] = frozenset()
    """Of `TRAITS`."""


IN_BULK = (
    *("bulk insert", "bulk update", "bulk delete", "bulk_save_objects", "upsert", "insert or nothing"),
    *("update unseen", "update fetched", "update returning", "delete unseen", "delete fetched"),
    *("delete returning", "insert returning", "update many", "bulk rolled back", "bulk in a savepoint"),
    *("update read and rolled back", "insert read and rolled back"),
)
HOW = (
    *("add", "assign", "merge", "delete", "flush", "expire", "move", "in a savepoint", "rolled back"),
    *(
        "by relationship",
        "muted",
        "detached",
        "expunge",
        "refresh",
        "read",
        "tag",
        "untag",
        "under",
        "commit",
    ),
    *IN_BULK,
)
TRAITS = {
    "stays": "a session that does not expire what it commits",
    "single": "a class below in the same table",
    "joined": "a class below with a table of its own",
    "composite": "a key of two columns",
    "versioned": "a version counter",
    "computed": "columns that queries and databases compute",
    "led": "an owner along relationships",
    "touching": "rows that touch their parent",
}


@st.composite
def examples(draw: st.DrawFn, *, is_odd: bool) -> Example:
    """Draw one: few columns, few keys, so that writes meet each other."""
    columns = tuple(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4, unique=True)))
    some = {name: (None, *KINDS[name].values, *(KINDS[name].odd if is_odd else ())) for name in columns}
    values = st.fixed_dictionaries({}, optional={name: st.sampled_from(some[name]) for name in columns})
    write = st.tuples(st.sampled_from(HOW), st.integers(1, 3), values)
    transactions = st.lists(st.lists(write, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
    traits = draw(st.frozensets(st.sampled_from(sorted(TRAITS)), max_size=3))
    return Example(columns, draw(st.booleans()), tuple(draw(transactions)), traits)
