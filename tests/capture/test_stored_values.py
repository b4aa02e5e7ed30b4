"""Events use the stored values of the row, in whatever form they were assigned: owner, conditions, `changes`, data."""

from __future__ import annotations

import datetime as dt
import enum
import json
import typing as t
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from flask_webhooks import payload
from flask_webhooks.bindings.serializers import column_renderer
from flask_webhooks.capture import emit_many
from flask_webhooks.models import Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
S = db.session


class Status(enum.Enum):
    """By its names in the database."""

    SENT = "sent"
    PAID = "paid"


class Size(enum.Enum):
    """By its values there."""

    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    """A number with a name."""

    LOW = 1


class Word(str, enum.Enum):  # noqa: UP042 - its str() is another than its value
    """A text with a name."""

    HI = "hi"


class Name(str):
    """A text that thinks it is more."""


class Lower(sa.TypeDecorator[str]):
    """Keeps a text in small letters."""

    impl = sa.String(50)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.strip().lower()


class InSql(sa.TypeDecorator[str]):
    """Does so in SQL."""

    impl = sa.String(50)
    cache_ok = True

    def bind_expression(self, bindvalue: sa.BindParameter[str]) -> sa.ColumnElement[str]:
        return sa.func.lower(bindvalue)


class Ticking(sa.TypeDecorator[str]):
    """Never writes the same twice, as a salted hash does."""

    impl = sa.String(50)
    cache_ok = True
    count = 0

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        Ticking.count += 1
        return None if value is None else f"{value}-{Ticking.count}"


UUID = uuid.UUID("6f9619ff-8b86-d011-b42d-00cf4fc964ff")
NOW = dt.datetime(2026, 3, 1, 12, 30, 45, 123456)  # noqa: DTZ001 - as naive columns want it
EAST = dt.timezone(dt.timedelta(hours=2))
TYPES: dict[str, tuple[t.Any, list[t.Any]]] = {
    "text": (sa.String(20), ["a", "A ", 5, True, 1.5, Name("n"), Word.HI, Decimal("1.0"), "ü"]),
    "char": (sa.CHAR(8), ["a", "12345678", "a  ", 5, Name("n")]),
    "letters": (sa.Text(), ["a", 7, Word.HI]),
    "whole": (sa.Integer(), [5, "5", "-7", "007", True, 5.0, 2.5, Level.LOW, Decimal(3), " 8 "]),
    "big": (sa.BigInteger(), [2**60, "12", True]),
    "flag": (sa.Boolean(), [True, 1, 0, False]),
    "money": (
        sa.Numeric(12, 2),
        [
            Decimal(100),
            Decimal("1.005"),
            Decimal("-1.005"),
            Decimal("-0.001"),
            100,
            "7.1",
            0.125,
            2.675,
            Decimal("1E+3"),
        ],
    ),
    "round": (sa.Numeric(10), [Decimal("2.5"), Decimal("3.5"), Decimal("-2.5"), 7]),
    "free": (sa.Numeric(), [Decimal("1.10"), Decimal("1E+2"), Decimal("-0.0"), 5, 1.5, "2.50"]),
    "floating": (sa.Numeric(8, 2, asdecimal=False), [1.25, 1.125, 2, Decimal("3.456")]),
    "double": (sa.Float(), [1.1, 5, True, "2.5", Decimal("1.5"), 1e20]),
    "single": (sa.REAL(), [1.1, 0.5, 16777217.0]),
    "status": (sa.Enum(Status), [Status.PAID, "PAID", "SENT"]),
    "size": (
        sa.Enum(Size, values_callable=lambda kind: [each.value for each in kind]),
        [Size.LARGE, "l", "s"],
    ),
    "word": (sa.Enum("hi", "ho", name="word"), ["hi", Word.HI]),
    "key": (sa.Uuid(), [UUID, str(UUID).upper(), UUID.hex]),
    "key_text": (sa.Uuid(as_uuid=False), [str(UUID), str(UUID).upper(), UUID.hex, UUID]),
    "moment": (
        sa.DateTime(),
        [NOW, NOW.replace(tzinfo=dt.UTC), NOW.replace(tzinfo=EAST), NOW.isoformat(), NOW.date()],
    ),
    "instant": (
        sa.DateTime(timezone=True),
        [NOW, NOW.replace(tzinfo=dt.UTC), NOW.replace(tzinfo=EAST), NOW.isoformat()],
    ),
    "day": (sa.Date(), [NOW.date(), NOW, "2026-03-01"]),
    "hour": (sa.Time(), [NOW.time(), NOW.time().replace(tzinfo=EAST), "10:00:00"]),
    "span": (sa.Interval(), [dt.timedelta(days=2, microseconds=7), "3 days"]),
    "facts": (
        sa.JSON(),
        [{"a": 1}, {"a": (1, 2)}, {1: "x"}, [Name("x")], {"m": Word.HI}, "x", 1, sa.JSON.NULL, 1.5],
    ),
    "tracked": (MutableDict.as_mutable(sa.JSON()), [{"a": 1}, {"a": (1, 2)}, {1: 2}]),
    "lower": (Lower(), ["a@x", " A@X "]),
    "in_sql": (InSql(), ["A", "a"]),
    "ticking": (Ticking(), ["pw"]),
}
ON_POSTGRESQL: dict[str, tuple[t.Any, list[t.Any]]] = {
    "numbers": (postgresql.ARRAY(sa.Integer()), [[1, 2], (1, 2), ["3", 4], [[1, 2], [3, 4]], [True]]),
    "keys": (postgresql.ARRAY(sa.Uuid()), [[UUID], [str(UUID).upper()]]),
    "jsonb": (
        postgresql.JSONB(),
        [{"b": 1, "a": (1,)}, [Level.LOW], {"big": 1e25}, [0.5, 1e17], {"a": (1e25,)}],
    ),
    "address": (postgresql.INET(), ["10.0.0.1", "10.0.0.1/32"]),
    "stamp": (postgresql.TIMESTAMP(precision=0), [NOW, NOW.replace(microsecond=0)]),
    "zoned": (
        postgresql.TIMESTAMP(precision=3, timezone=True),
        [NOW.replace(tzinfo=dt.UTC), NOW.replace(tzinfo=EAST), NOW.replace(tzinfo=dt.UTC, microsecond=0)],
    ),
    "wait": (postgresql.INTERVAL(), [dt.timedelta(hours=30), "1 day"]),
}
ON_MARIADB: dict[str, tuple[t.Any, list[t.Any]]] = {
    "choice": (mysql.ENUM("hi", "ho"), ["hi", "HI", "ho"]),
    "places": (mysql.DOUBLE(8, 2, asdecimal=False), [1.25, 1.239]),
}
EVERY = {**TYPES, **ON_POSTGRESQL, **ON_MARIADB}
CASES = [(name, at) for name, (_, values) in EVERY.items() for at in range(len(values))]


class Row(db.Model):  # type: ignore[name-defined]
    """A column of each type."""

    __tablename__ = "stored_row"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("stored_row.id"), default=None)
    parent: Mapped[Row | None] = relationship(remote_side=[id])


for _name, (_type, _) in EVERY.items():
    if _name in ON_POSTGRESQL:  # on other databases the column is unused
        _type = sa.JSON().with_variant(_type, "postgresql")
    elif _name in ON_MARIADB:
        _type = sa.JSON().with_variant(_type, "mysql", "mariadb")
    setattr(Row, _name, mapped_column(_name, _type, nullable=True))


class Account(db.Model):  # type: ignore[name-defined]
    """Whose owner is in a form that may be assigned in another."""

    __tablename__ = "stored_account"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    code: Mapped[str | None] = mapped_column(sa.CHAR(8), default=None)
    mail: Mapped[str | None] = mapped_column(Lower(), default=None)
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    bills: Mapped[list[Bill]] = relationship(back_populates="account")


class Bill(db.Model):  # type: ignore[name-defined]
    """Belongs to whom its account belongs to."""

    __tablename__ = "stored_bill"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(sa.ForeignKey("stored_account.id"))
    status: Mapped[Status] = mapped_column(sa.Enum(Status, name="bill_status"), default=Status.SENT)
    count: Mapped[int] = mapped_column(default=0)
    mail: Mapped[str | None] = mapped_column(Lower(), default=None)
    account: Mapped[Account | None] = relationship(back_populates="bills")


class Auto(db.Model):  # type: ignore[name-defined]
    """Gets its values from defaults, which may be in another form too."""

    __tablename__ = "stored_auto"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default=1)
    mail: Mapped[str] = mapped_column(Lower(), default="A@X", onupdate=lambda: "B@X")
    count: Mapped[int] = mapped_column(default="5", onupdate=lambda: "6")
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2), default=7, onupdate=lambda: 8)
    given: Mapped[str] = mapped_column(Lower(), server_default="s")
    note: Mapped[str] = mapped_column(sa.String(20), default="")


class Kid(Auto):
    """In two tables."""

    __tablename__ = "stored_kid"

    id: Mapped[int] = mapped_column(sa.ForeignKey("stored_auto.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default="3")
    low: Mapped[str] = mapped_column(Lower(), default="X")


CATALOG = """\
version: 1
channels:
  rows:
    model: tests.capture.test_stored_values:Row
    owner: owner
    events: [created, updated, deleted]
    includes: [parent]
  keys:
    model: tests.capture.test_stored_values:Account
    owner: key
    events: [created, updated, deleted]
    includes: [bills]
  codes: {model: "tests.capture.test_stored_values:Account", owner: code, events: [created, updated, deleted]}
  mails: {model: "tests.capture.test_stored_values:Account", owner: mail, events: [created, updated, deleted]}
  autos: {model: "tests.capture.test_stored_values:Auto", owner: owner, events: [created, updated, deleted]}
  kids:
    model: tests.capture.test_stored_values:Kid
    owner: owner
    events: {created: , updated: , deleted: , three: {on: created, when: {size: 3, low: x, mail: a@x}}}
  bills:
    model: tests.capture.test_stored_values:Bill
    owner: account.key
    events:
      created:
      updated:
      deleted:
      paid: {on: [created, updated], when: {status: paid}}
      five: {on: [created, updated], when: {count: 5}}
      mailed: {on: [created, updated], when: {mail: a@x}}
      unmailed: {on: updated, when: {mail: {from: a@x}}}
"""


@pytest.fixture
def state(database_url: str, tmp_path: Path) -> Iterator[AppState]:
    """Owner "1" and owners in stored form listen to everything."""
    with capturing(db, CATALOG, database_url, tmp_path) as state:
        for owner in ("1", str(UUID), "abc", "abc     ", "a@x"):
            subscribe(state, NOWHERE, "*", owner=owner, includes=["changes", "parent", "bills"])
        yield state


class LeftOut(str):
    """A value that the type of its column does not give back: SQLite keeps a text in a column of numbers."""


def rows(session: Session) -> dict[int, dict[str, t.Any]]:
    """All rows as a session that knows nothing of them reads them, as JSON."""
    render = column_renderer(t.cast("t.Any", sa.inspect(Row)))
    found: dict[int, dict[str, t.Any]] = {}
    with Session(session.connection(), info={"webhooks": False}) as beside:
        for row in beside.scalars(sa.select(Row)):
            data = json.loads(payload.encode(render(row)))
            hidden = {name: LeftOut(getattr(row, name)) for name in render.keys if name not in data}
            found[row.id] = {**data, **hidden}
    return found


def shown(row: dict[str, t.Any]) -> dict[str, t.Any]:
    """The columns that events show."""
    return {name: value for name, value in row.items() if not isinstance(value, LeftOut)}


def is_taken(session: Session, name: str, value: t.Any) -> bool:
    """Whether SQLAlchemy and the database take a value."""
    try:
        with session.begin_nested():
            session.add(Row(**{name: value}))
            session.flush()
    except (SQLAlchemyError, AttributeError, TypeError, ValueError):
        return False
    return True


def messages(session: Session, seen: set[str]) -> dict[int, Message]:
    """The message of each row since then, at most one."""
    found = [each for each in session.scalars(sa.select(Message)) if each.id not in seen]
    assert len({each.entity_id for each in found}) == len(found)
    seen.update(each.id for each in found)
    return {int(each.entity_id or 0): each for each in found}


@pytest.mark.parametrize("expires", [True, False], ids=["expires", "stays"])
@pytest.mark.parametrize("steps", [1, pytest.param(9, marks=pytest.mark.deep)])
def test_events_have_the_stored_value_whatever_was_assigned(
    state: AppState, expires: bool, steps: int
) -> None:
    """Created, set to the same once more, changed to other values, and deleted: with values of every type."""
    with Session(db.engine, info={"webhooks": False}) as muted:
        cases = [(name, at) for name, at in CASES if is_taken(muted, name, EVERY[name][1][at])]
        muted.rollback()
    assert len(cases) > 80
    seen: set[str] = set()
    with Session(db.engine, expire_on_commit=expires) as session:
        objects = [Row(id=key, **{name: EVERY[name][1][at]}) for key, (name, at) in enumerate(cases, 1)]
        session.add_all(objects)
        session.commit()
        now = rows(session)
        told = messages(session, seen)
        for key, case in enumerate(cases, 1):
            assert json.loads(told[key].data) == shown(now[key]), case

        for step in range(steps + 1):
            before = now
            for row, (name, at) in zip(objects, cases, strict=True):
                ours = [value for each, value in ((n, EVERY[n][1][a]) for n, a in cases) if each == name]
                mine = [a for n, a in cases if n == name].index(at)
                setattr(row, name, ours[(mine + step) % len(ours)])
            session.commit()
            now = rows(session)
            told = messages(session, seen)
            for key, (name, at) in enumerate(cases, 1):
                about = name, at, step
                assert (key in told) == (now[key] != before[key]), about
                if key in told:
                    is_shown = name in shown(before[key]) and name in shown(now[key])
                    pair = {"from": before[key][name], "to": now[key][name]} if is_shown else {}
                    assert told[key].event == "rows.updated"
                    assert json.loads(told[key].data) == shown(now[key]), about
                    assert json.loads(told[key].extras or "{}")["changes"] == {name: pair}, about

        for row, (name, at) in zip(objects, cases, strict=True):
            setattr(row, name, EVERY[name][1][at])
        session.flush()
        now = rows(session)
        for row in objects:
            session.delete(row)
        session.commit()
        told = messages(session, seen)
        for key, case in enumerate(cases, 1):
            assert json.loads(told[key].data) == shown(now[key]), case


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


def commit_and_read(state: AppState, *channels: str) -> list[tuple[str, str]]:
    """Commit; return event and owner of the new messages."""
    before = len(recorded(state))
    S.commit()
    return sorted((each.event, each.owner) for each in recorded(state)[before:] if each.channel in channels)


class TestTheOwner:
    def test_a_uuid_in_capitals(self, state: AppState) -> None:
        S.add(Account(id=1, key=str(UUID).upper()))

        assert commit_and_read(state, "keys") == [("keys.created", str(UUID))]

    def test_a_code_that_the_database_pads(self, state: AppState) -> None:
        S.add(Account(id=1, key=str(UUID), code="abc"))
        padded = "abc     " if S.get_bind().dialect.name == "postgresql" else "abc"

        assert commit_and_read(state, "codes") == [("codes.created", padded)]

    def test_a_type_of_the_hosts(self, state: AppState) -> None:
        S.add(Account(id=1, key=str(UUID), mail=" A@X"))

        assert commit_and_read(state, "mails") == [("mails.created", "a@x")]

    def test_along_a_path(self, state: AppState) -> None:
        S.add(Bill(id=1, account=Account(id=1, key=str(UUID).upper())))

        assert commit_and_read(state, "bills") == [("bills.created", str(UUID))]

    def test_another_form_of_the_same_is_no_move(self, state: AppState) -> None:
        save(Account(id=1, key=str(UUID), mail="a@x", name="old"))
        account = S.get_one(Account, 1)
        account.key, account.mail, account.name = UUID.hex, "A@X", "new"

        assert commit_and_read(state, "keys", "mails") == [
            ("keys.updated", str(UUID)),
            ("mails.updated", "a@x"),
        ]

    @pytest.mark.parametrize("expires", [True, False])
    def test_of_what_is_deleted(self, state: AppState, expires: bool) -> None:
        with Session(db.engine, expire_on_commit=expires) as session:
            account = Account(id=1, key=str(UUID).upper(), mail="A@X")
            session.add(account)
            session.commit()
            session.delete(account)
            session.commit()

        found = [(each.event, each.owner) for each in recorded(state) if each.event.endswith(".deleted")]
        assert sorted(found) == [("keys.deleted", str(UUID)), ("mails.deleted", "a@x")]

    def test_of_what_is_deleted_by_the_same_commit(self, state: AppState) -> None:
        save(Account(id=1, key=str(UUID), mail="b@x"))
        account = S.get_one(Account, 1)
        account.mail = "A@X"
        S.flush()
        S.delete(account)

        assert commit_and_read(state, "mails") == []  # b@x, who has it, listens to nothing


class TestConditions:
    @pytest.fixture
    def bill(self, state: AppState) -> Bill:
        save(Bill(id=1, account=Account(id=1, key=str(UUID)), mail="b@x"))
        return S.get_one(Bill, 1)

    def test_an_enum_by_its_name(self, state: AppState, bill: Bill) -> None:
        bill.status = "PAID"  # type: ignore[assignment]
        assert commit_and_read(state, "bills") == [("bills.paid", str(UUID)), ("bills.updated", str(UUID))]

        bill.status = "PAID"  # type: ignore[assignment]
        assert commit_and_read(state, "bills") == []

    def test_a_number_as_text(self, state: AppState, bill: Bill) -> None:
        bill.count = "5"  # type: ignore[assignment]

        assert commit_and_read(state, "bills") == [("bills.five", str(UUID)), ("bills.updated", str(UUID))]

    def test_on_create(self, state: AppState, bill: Bill) -> None:
        S.add(Bill(id=2, account_id=1, status="PAID", count="5", mail="A@X"))

        assert [event for event, _ in commit_and_read(state, "bills")] == [
            "bills.created",
            "bills.five",
            "bills.mailed",
            "bills.paid",
        ]

    def test_a_type_of_the_hosts(self, state: AppState, bill: Bill) -> None:
        bill.mail = "A@X"

        assert [event for event, _ in commit_and_read(state, "bills")] == ["bills.mailed", "bills.updated"]

    def test_a_step_that_only_the_row_knew(self, state: AppState, bill: Bill) -> None:
        bill.mail = "A@X"
        S.flush()
        bill.mail = "C@X"

        assert [event for event, _ in commit_and_read(state, "bills")] == [
            "bills.mailed",
            "bills.unmailed",
            "bills.updated",
        ]

    def test_by_an_expression(self, state: AppState, bill: Bill) -> None:
        bill.count = Bill.count + 5  # type: ignore[assignment]

        assert [event for event, _ in commit_and_read(state, "bills")] == ["bills.five", "bills.updated"]

    def test_in_bulk(self, state: AppState, bill: Bill) -> None:
        S.execute(sa.update(Bill).values(count="5", mail="A@X", status="PAID"))

        assert [event for event, _ in commit_and_read(state, "bills")] == [
            "bills.five",
            "bills.mailed",
            "bills.paid",
            "bills.updated",
        ]


def reads(sent: t.Iterable[str]) -> list[str]:
    """Statements that read some columns of rows; whole rows are read for columns that were not given."""
    return [each for each in sent if each.startswith("SELECT stored_row") and "stored_row.wait" not in each]


class TestWhatItCosts:
    def test_nothing_where_values_are_as_the_row_has_them(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            save(
                *(
                    Row(
                        text="a",
                        char="12345678",
                        whole=1,
                        flag=True,
                        money=Decimal("1.00"),
                        key=UUID,
                        facts={"a": [1]},
                    )
                    for _ in range(3)
                )
            )

        assert reads(sent) == []

    def test_nothing_where_the_type_says_it(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            save(
                *(
                    Row(
                        text=5,
                        char="a",
                        whole="5",
                        flag=1,
                        money=100,
                        key_text=str(UUID).upper(),
                        status="PAID",
                    )
                    for _ in range(3)
                )
            )

        assert reads(sent) == []

    def test_one_statement_for_all_rows_and_only_those_columns(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            save(*(Row(text="a", lower="A", whole=2.0) for _ in range(3)))

        [statement] = reads(sent)
        assert statement.split("FROM")[0].count(",") == 2

    def test_nothing_without_a_subscription(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            save(*(Row(owner="8", lower="A", whole=2.0) for _ in range(3)))

        assert reads(sent) == []


@pytest.mark.parametrize("zone", [dt.UTC, EAST])
def test_instants_are_shown_in_the_zone_of_the_connection(state: AppState, zone: dt.tzinfo) -> None:
    """As a SELECT on it would give them."""
    with Session(db.engine) as session:
        if db.engine.dialect.name == "postgresql":
            session.execute(sa.text("SET TIME ZONE 'Asia/Kolkata'"))
        row = Row(id=1, instant=NOW.replace(tzinfo=zone))
        session.add(row)
        session.commit()
        assert json.loads(recorded(state)[-1].data) == rows(session)[1]
        row.text = "n"
        session.commit()
        assert json.loads(recorded(state)[-1].data) == rows(session)[1]
        session.connection().invalidate()


def test_children_of_a_deleted_row_have_events_though_their_owner_was_assigned(state: AppState) -> None:
    with Session(db.engine, expire_on_commit=False) as session:
        account = Account(id=1, key=str(UUID).upper(), bills=[Bill(id=1)])
        session.add(account)
        session.commit()
        session.expire(account, ["bills"])
        session.delete(account)
        session.commit()

    [gone] = [each for each in recorded(state) if each.event == "keys.deleted"]
    assert [each["id"] for each in json.loads(gone.extras or "{}")["bills"]] == [1]


def test_the_hosts_objects_keep_what_was_assigned(state: AppState) -> None:
    with Session(db.engine, expire_on_commit=False) as session:
        row = Row(whole="5", lower="A@X", tracked={"a": (1, 2)})
        session.add(row)
        session.commit()

        assert (row.whole, row.lower, row.tracked) == ("5", "A@X", {"a": (1, 2)})
        assert not session.dirty


def of_channel(state: AppState, channel: str) -> list[Message]:
    return [each for each in recorded(state) if each.channel == channel]


def read(cls: type, key: int) -> dict[str, t.Any]:
    """A row as a session that knows nothing of it reads it."""
    with Session(db.engine, info={"webhooks": False}) as session:
        found = column_renderer(t.cast("t.Any", sa.inspect(cls)))(session.get_one(cls, key))
    return t.cast("dict[str, t.Any]", json.loads(payload.encode(found)))


@pytest.mark.parametrize("expires", [True, False], ids=["expires", "stays"])
def test_defaults_of_a_row_in_two_tables(state: AppState, expires: bool) -> None:
    with Session(db.engine, expire_on_commit=expires) as session:
        kid = Kid(id=1)
        session.add(kid)
        session.commit()
        first = read(Kid, 1)
        assert {each.event: json.loads(each.data) for each in of_channel(state, "kids")} == {
            "kids.created": first,
            "kids.three": first,
        }

        kid.note = "n"
        session.commit()
        now = read(Kid, 1)
        told = of_channel(state, "kids")[-1]
        assert json.loads(told.data) == now
        assert json.loads(told.extras or "{}")["changes"] == {
            name: {"from": first[name], "to": now[name]} for name in ("note", "mail", "count", "amount")
        }

        kid.note = "m"
        session.commit()
        changes = json.loads(of_channel(state, "autos")[-1].extras or "{}")["changes"]
        assert changes == {"note": {"from": "n", "to": "m"}}

        session.delete(kid)
        session.commit()
        assert json.loads(of_channel(state, "kids")[-1].data) == {**now, "note": "m"}


def test_a_repeated_commit_uses_the_stored_values_too(state: AppState) -> None:
    def refuse(_: t.Any) -> None:
        raise ValueError("no")

    S.add(Account(id=1, key=str(UUID).upper(), mail="A@X"))
    sa.event.listen(S(), "before_commit", refuse)
    with pytest.raises(ValueError, match="no"):
        S.commit()
    sa.event.remove(S(), "before_commit", refuse)

    assert commit_and_read(state, "keys", "mails") == [("keys.created", str(UUID)), ("mails.created", "a@x")]


def test_includes_show_the_row_too(state: AppState) -> None:
    S.add(Row(id=2, parent=Row(id=1, owner="8", whole="5", lower="A", money=Decimal(1))))
    S.commit()

    parent = json.loads(recorded(state)[-1].extras or "{}")["parent"]
    assert {name: parent[name] for name in ("whole", "lower", "money")} == {
        "whole": 5,
        "lower": "a",
        "money": "1.00",
    }


def test_what_is_emitted_shows_the_row(state: AppState) -> None:
    save(Row(id=1, owner="8"))
    row = S.get_one(Row, 1)
    row.whole, row.lower = "5", "A"
    emit_many(state, S(), "rows.created", [row], owner="1")
    S.commit()

    data = json.loads(recorded(state)[-1].data)
    assert (data["whole"], data["lower"]) == (5, "a")


def test_an_assignment_that_was_never_stored_is_shown_only_if_its_form_is_known(state: AppState) -> None:
    row = Row(id=1, whole=1, money=Decimal("1.00"), text="a")
    save(row)
    row.whole, row.money, row.text = 2.0, 3, "b"
    S.delete(row)
    S.commit()

    [gone] = [json.loads(each.data) for each in recorded(state) if each.event == "rows.deleted"]
    assert (gone["whole"], gone["money"], gone["text"]) == (1, "3.00", "b")


@pytest.mark.parametrize("synchronized", ["fetch", False])
def test_an_include_shows_no_rows_that_are_gone(state: AppState, synchronized: t.Any) -> None:
    with Session(db.engine, expire_on_commit=False) as session:
        account = Account(id=1, key=str(UUID), bills=[Bill(id=1), Bill(id=2), Bill(id=3)])
        session.add(account)
        session.commit()
        gone, deleted, _ = held = account.bills
        session.execute(
            sa.delete(Bill).where(Bill.id == 1).execution_options(synchronize_session=synchronized)
        )
        session.delete(deleted)
        account.name = "b"
        session.commit()

        assert account.bills is held
        assert gone in held, "the host finds what it had"
    told = json.loads(next(each.extras for each in recorded(state) if each.event == "keys.updated") or "{}")
    assert [each["id"] for each in told["bills"]] == [3]
