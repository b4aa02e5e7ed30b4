"""A guest changes nothing: random models and random writes end the same with us and without, listened to or not.

An example is a model (column types, with a schema or without, beside a fixed parent) and a list of transactions. It
is played three times on an empty database: without us, with nobody subscribed, with every event and every include
subscribed. The rows and what was raised must be the same each time, and every body that would be sent must be valid
by the JSON Schema that is published of it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import typing as t
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase

from flask_webhooks import state as states
from flask_webhooks.models import Base as OurBase
from tests.capture.conftest import NOWHERE, Doorless
from tests.capture.test_published import are_published
from tests.host import make_transactional
from tests.stage import subscribe

OWNERS = ("1", "2")
PHASES = tuple(Phase) if "WEBHOOKS_TEST_DEEP" in os.environ else (Phase.explicit, Phase.generate)
"""To shrink an example takes minutes: with WEBHOOKS_TEST_DEEP alone."""


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


HOW = (
    *("add", "assign", "merge", "delete", "flush", "expire", "move", "in a savepoint", "rolled back"),
    *("bulk insert", "bulk update", "bulk delete", "bulk_save_objects", "by relationship"),
    *("upsert", "insert or nothing"),
)


@st.composite
def examples(draw: st.DrawFn, *, is_odd: bool) -> Example:
    """Draw one: few columns, few keys, so that writes meet each other."""
    columns = tuple(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4, unique=True)))
    some = {name: (None, *KINDS[name].values, *(KINDS[name].odd if is_odd else ())) for name in columns}
    values = st.fixed_dictionaries({}, optional={name: st.sampled_from(some[name]) for name in columns})
    write = st.tuples(st.sampled_from(HOW), st.integers(1, 3), values)
    transactions = st.lists(st.lists(write, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
    return Example(columns, draw(st.booleans()), tuple(draw(transactions)))


class House:
    """The models of one example, and an app with them."""

    def __init__(self, example: Example) -> None:
        self.example = example
        base = type("Base", (DeclarativeBase,), {})
        self.db = SQLAlchemy(model_class=base)
        self.parent: t.Any = type(
            "Parent",
            (self.db.Model,),
            {
                "__tablename__": "parent",
                "__module__": __name__,
                "id": sa.Column(sa.Integer, primary_key=True),
                "owner": sa.Column(sa.String(20)),
                "items": sa.orm.relationship("Item", back_populates="parent"),
            },
        )
        self.item: t.Any = type(
            "Item",
            (self.db.Model,),
            {
                "__tablename__": "item",
                "__module__": __name__,
                "id": sa.Column(sa.Integer, primary_key=True, autoincrement=False),
                "owner": sa.Column(sa.String(20), default="1"),
                "parent_id": sa.Column(sa.ForeignKey("parent.id")),
                "parent": sa.orm.relationship("Parent", back_populates="items"),
                **{f"c_{name}": sa.Column(KINDS[name].make(), nullable=True) for name in example.columns},
            },
        )
        fields = {f"c_{name}": KINDS[name].field() for name in example.columns if name != "raw"}
        for field in fields.values():
            field.allow_none = True
        self.schema: t.Any = ma.Schema.from_dict({"id": ma.fields.Integer(), **fields}, name="ItemSchema")

    def catalog(self) -> str:
        """Both models, each with the other as an include."""
        schema = f"    schema: {__name__}:ItemSchema\n" if self.example.has_schema else ""
        watched = ", ".join(f"c_{name}" for name in self.example.columns)
        return (
            "version: 1\nchannels:\n"
            f"  items:\n    model: {__name__}:Item\n{schema}    owner: owner\n"
            "    events:\n      created:\n      updated:\n      deleted:\n"
            f"      turned: {{when: {{changed: [{watched}]}}}}\n    includes: [parent]\n"
            f"  parents:\n    model: {__name__}:Parent\n    owner: owner\n"
            "    events: [created, updated, deleted]\n    includes: [items]\n"
        )

    @contextlib.contextmanager
    def open(self, url: str, folder: Path, mode: str) -> t.Iterator[t.Any]:
        """Yield the state (None without us) inside an app's context, on empty tables."""
        module = t.cast("t.Any", sys.modules[__name__])
        module.Item, module.Parent, module.ItemSchema = self.item, self.parent, self.schema
        app = Flask(__name__, instance_path=str(folder / "instance"))
        catalog = folder / "webhooks.yaml"
        catalog.write_text(self.catalog())
        app.config.update(SECRET_KEY="test", SQLALCHEMY_DATABASE_URI=url, WEBHOOKS_CATALOG=str(catalog))
        self.db.init_app(app)
        if mode != "without":
            Doorless(app, self.db)
        with app.app_context():
            if self.db.engine.dialect.name == "sqlite":
                make_transactional(self.db.engine)
            self.db.drop_all()
            self.db.create_all()
            state = states.state_of(app) if mode != "without" else None
            if state is not None and mode == "subscribed":
                for owner in OWNERS:
                    subscribe(state, NOWHERE, "items.*", owner=owner, includes=["changes", "parent"])
                    subscribe(state, NOWHERE, "parents.*", owner=owner, includes=["changes", "items"])
            try:
                yield state
            finally:
                self.db.session.remove()
                self.db.drop_all()
                self.db.engine.dispose()
                if state is not None:
                    state.transport.close()


# ---- playing ---------------------------------------------------------------------------------------------


class Play:
    """Does what an example says, and keeps what came of it."""

    def __init__(self, house: House) -> None:
        self.house, self.session = house, house.db.session
        self.raised: list[str] = []
        self.kept: list[t.Any] = []
        """What was found: SQLAlchemy holds rows weakly, and whether they are read again shall not hang on that."""

    def run(self) -> tuple[list[str], list[tuple[t.Any, ...]]]:
        """Return what was raised, and all rows at the end."""
        for transaction in self.house.example.transactions:
            for write in transaction:
                self._try(lambda write=write: self._write(*write))
            self._try(self.session.commit)
        with self.house.db.engine.connect() as connection:
            tables = (self.house.parent.__table__, self.house.item.__table__)
            # As the database has it: types that cannot read what was written shall not fail here.
            rows = [
                tuple(map(str, row))
                for table in tables
                for row in connection.exec_driver_sql(f"SELECT * FROM {table.name} ORDER BY id")
            ]
        return self.raised, rows

    def _try(self, work: t.Callable[[], t.Any]) -> None:
        try:
            work()
            self.raised.append("")
        except Exception as error:  # whatever comes, the host sees it, and rolls back
            self.raised.append(type(error).__name__)
            self.session.rollback()

    def _write(self, how: str, key: int, values: dict[str, t.Any]) -> None:
        given = {f"c_{name}": value for name, value in values.items()}
        item, session = self.house.item, self.session
        if how == "add":
            session.add(item(id=key, **given))
        elif how == "merge":
            session.merge(item(id=key, **given))
        elif how in ("assign", "move", "delete"):
            self._change(how, key, given)
        elif how == "flush":
            session.flush()
        elif how == "expire":
            session.flush()
            session.expire_all()
        elif how == "by relationship":
            parent = session.get(self.house.parent, key) or self.house.parent(id=key, owner="1")
            session.add(parent)
            parent.items.append(session.get(item, key) or item(id=key, **given))
        elif how == "in a savepoint":
            with session.begin_nested():
                self._change("assign", key, given)
        elif how == "rolled back":
            nested = session.begin_nested()
            self._change("assign", key, given)
            session.flush()
            nested.rollback()
        else:
            self._bulk(how, key, given)

    def _change(self, how: str, key: int, given: dict[str, t.Any]) -> None:
        found = self.session.get(self.house.item, key)
        if found is None:
            return
        self.kept.append(found)
        if how == "delete":
            self.session.delete(found)
        elif how == "move":
            found.owner = OWNERS[found.owner == OWNERS[0]]
        for name, value in given.items():
            setattr(found, name, value)

    def _bulk(self, how: str, key: int, given: dict[str, t.Any]) -> None:
        item, session = self.house.item, self.session
        if how == "bulk insert":
            session.execute(sa.insert(item), [{"id": key, **given}, {"id": key + 3, **given}])
        elif how == "bulk_save_objects":
            session.bulk_save_objects([item(id=key, **given)])
        elif how == "bulk delete":
            session.execute(sa.delete(item).where(item.id >= key))
        elif how == "bulk update":
            session.execute(sa.update(item).where(item.id >= key).values(owner="2", **given))
        else:
            dialect = {"sqlite": sqlite, "postgresql": postgresql}[session.get_bind().dialect.name]
            statement = t.cast("t.Any", dialect).insert(item).values(id=key, owner="1", **given)
            if how == "upsert":
                statement = statement.on_conflict_do_update(
                    index_elements=["id"], set_={"owner": "2", **given}
                )
            else:
                statement = statement.on_conflict_do_nothing()
            session.execute(statement)


def play(example: Example, url: str, folder: Path) -> set[str]:
    """Play an example three times and compare; return the events that were told."""
    house = House(example)
    with house.open(url, folder, "without"):
        expected = Play(house).run()
    for name in [table.name for table in OurBase.metadata.tables.values()]:
        assert name not in house.db.metadata.tables, "the first play is without us"
    with house.open(url, folder, "silent"):
        assert Play(house).run() == expected
    with house.open(url, folder, "subscribed") as state:
        assert Play(house).run() == expected
        return are_published(state)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("is_odd", [False, True], ids=["plain", "odd"])
def test_a_host_is_the_same_with_us(empty_database_url: str, tmp_path: Path, is_odd: bool) -> None:
    @settings(
        max_examples=int(os.environ.get("WEBHOOKS_TEST_EXAMPLES", "15")),
        phases=PHASES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(examples(is_odd=is_odd))
    def check(example: Example) -> None:
        note(repr(example))
        play(example, empty_database_url, tmp_path)

    check()


FOUND = {
    "an include of what a bulk statement deletes": Example(
        ("number",), False, ((("by relationship", 2, {"number": "6"}), ("bulk delete", 2, {})),)
    ),
    "assigned and deleted without a flush between": Example(
        ("share",),
        False,
        (
            (("add", 2, {"share": Decimal("2.5")}),),
            (("assign", 2, {"share": Decimal("1.5")}), ("delete", 2, {})),
        ),
    ),
    "an update to what can be written and not read": Example(
        ("mood",), False, ((("add", 1, {}),), (("assign", 1, {"mood": "wild"}),))
    ),
    "a word that is none of the enum's, without a schema": Example(
        ("word", "state", "number"),
        False,
        (
            (("add", 1, {"word": "z", "state": "WILD", "number": "many"}),),
            (("assign", 1, {"word": "x", "state": Mood.CALM}),),
            (("assign", 1, {"word": "z", "number": 5}),),
        ),
    ),
    "a deletion of what can be written and not read": Example(
        ("word",),
        True,
        ((("add", 1, {}),), (("assign", 1, {"word": "z"}), ("flush", 1, {}), ("delete", 1, {}))),
    ),
}
"""What was drawn once and failed."""


@pytest.mark.parametrize("example", FOUND.values(), ids=FOUND)
def test_what_was_found(example: Example, tmp_path: Path) -> None:
    play(example, f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path)
