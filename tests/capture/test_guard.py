"""Schemas, includes and properties cannot change anything while they are dumped; an attempt is reported by name."""

from __future__ import annotations

import contextlib
import logging
import os
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    attributes,
    composite,
    make_transient,
    mapped_column,
    object_session,
    relationship,
)

from flask_webhooks.models import BrokenMessage, Delivery, Listener, Message, Secret, Subscription
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, Doorless, capturing, recorded_data
from tests.stage import recorded, subscribe

IBAN = "DE02120300000000202051"


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Point:
    """A composite."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y


class Account(db.Model):  # type: ignore[name-defined]
    """Has everything that a dump may change."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    iban: Mapped[str] = mapped_column(sa.String(40), default=IBAN)
    note: Mapped[str | None] = mapped_column(sa.String(40), default="n")
    x: Mapped[int] = mapped_column(default=1)
    y: Mapped[int] = mapped_column(default=2)
    tracked: Mapped[dict[str, t.Any]] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    listed: Mapped[list[t.Any]] = mapped_column(MutableList.as_mutable(sa.JSON()))
    plain: Mapped[dict[str, t.Any]] = mapped_column(sa.JSON())
    point: Mapped[Point] = composite("x", "y")
    cards: Mapped[list[Card]] = relationship(
        back_populates="account", cascade="all, delete-orphan", order_by="Card.id"
    )

    @hybrid_property
    def shown(self) -> str:
        """Masked when it is set."""
        return self.iban

    @shown.inplace.setter
    def _set_shown(self, value: str) -> None:
        self.iban = f"masked {value}"


class Card(db.Model):  # type: ignore[name-defined]
    """Hangs on an account."""

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(sa.ForeignKey("account.id"))
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    meta: Mapped[dict[str, t.Any]] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    account: Mapped[Account | None] = relationship(back_populates="cards")


class Audit(db.Model):  # type: ignore[name-defined]
    """What a schema should not write."""

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(40), default="")


Deed = t.Callable[[Account], t.Any]
deeds: list[Deed] = []
"""What the schema does to a row while it is dumped."""


class AccountSchema(ma.Schema):
    """Does the deeds in a `Method` field."""

    id = ma.fields.Integer()
    iban = ma.fields.String()
    total = ma.fields.Method("make_total")
    note = ma.fields.String()

    def make_total(self, account: Account) -> int:
        for deed in deeds:
            deed(account)
        return 7


class HookSchema(ma.Schema):
    """Masks before it dumps, and takes out what was dumped."""

    id = ma.fields.Integer()
    iban = ma.fields.String()
    tracked = ma.fields.Raw()

    @ma.pre_dump
    def mask(self, account: Account, **_: t.Any) -> Account:
        account.iban = "****"
        return account

    @ma.post_dump
    def strip(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        data["tracked"].pop("secret", None)
        return data


class CardSchema(ma.Schema):
    """Strips what hangs on a row."""

    id = ma.fields.Integer()
    meta = ma.fields.Raw()

    @ma.post_dump
    def strip(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        data["meta"].clear()
        return data


CATALOG = """
version: 1
title: Guarded
defaults: {owner: owner}
channels:
  accounts:
    title: Accounts
    model: tests.capture.test_guard:Account
    schema: tests.capture.test_guard:AccountSchema
    events: [created, updated, deleted]
    includes: {cards: cards, stripped: {path: cards, schema: "tests.capture.test_guard:CardSchema"}}
  hooked:
    title: Hooked
    model: tests.capture.test_guard:Account
    schema: tests.capture.test_guard:HookSchema
    events: [created, updated]
"""


@pytest.fixture
def state(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app on an empty database; a dump that is wrong fails the commit, for these tests to see it."""
    with capturing(db, CATALOG, database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        yield state
    deeds.clear()


def account(**values: t.Any) -> Account:
    """A new row with two cards."""
    return Account(
        id=1,
        tracked={"secret": 1, "deep": {"a": [1]}},
        listed=[1, 2],
        plain={"secret": 1, "deep": {"a": [1]}},
        cards=[Card(id=1, name="one", meta={"pin": 1}), Card(id=2, name="two", meta={"pin": 2})],
        **values,
    )


def contents(state: AppState) -> dict[str, list[tuple[t.Any, ...]]]:
    """All rows of the host's tables."""
    with state.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(table.c.id))]
            for table in (Account.__table__, Card.__table__, Audit.__table__)
        }


def transient(row: Account) -> None:
    make_transient(row)
    row.iban = "masked"


def expunged(row: Account) -> None:
    t.cast("Session", object_session(row)).expunge(row)
    row.iban = "masked"


def audit(row: Account) -> None:
    db.session.add(Audit(text=row.iban))


CHANGES: dict[str, Deed] = {
    "an attribute": lambda row: setattr(row, "iban", "masked"),
    "an attribute to None": lambda row: setattr(row, "note", None),
    "a hybrid": lambda row: setattr(row, "shown", "x"),
    "a composite": lambda row: setattr(row, "point", Point(8, 9)),
    "a deleted attribute": lambda row: delattr(row, "note"),
    "a tracked dict": lambda row: row.tracked.pop("secret"),
    "inside a tracked dict": lambda row: (row.tracked["deep"]["a"].append(2), row.tracked.changed()),
    "a tracked list": lambda row: row.listed.append(3),
    "another dict": lambda row: setattr(row, "tracked", {}),
    "a plain dict": lambda row: row.plain["deep"].clear(),
    "a member taken out": lambda row: row.cards.pop(),
    "all members": lambda row: row.cards.clear(),
    "another collection": lambda row: setattr(row, "cards", row.cards[:1]),
    "a new member": lambda row: row.cards.append(Card(name="new", meta={})),
    "a new one that refers to it": lambda row: Card(name="new", meta={}, account=row),
    "a member's attribute": lambda row: setattr(row.cards[0], "name", "masked"),
    "a member's dict": lambda row: row.cards[0].meta.clear(),
    "a member's parent": lambda row: setattr(row.cards[0], "account", None),
    "another object": lambda row: setattr(db.session.get_one(Audit, 1), "text", "masked"),
    "a new object": audit,
    "a deletion": lambda row: db.session.delete(row),
    "the deletion of another": lambda row: db.session.delete(db.session.get_one(Audit, 1)),
    "merging": lambda row: db.session.merge(Audit(id=1, text="merged")),
    "expunging": expunged,
    "making it transient": transient,
    "behind the attribute": lambda row: vars(row).update(iban="masked"),
    "a committed value": lambda row: attributes.set_committed_value(row, "iban", "masked"),
    "a committed collection": lambda row: attributes.set_committed_value(row, "cards", row.cards[:1]),
}
HARMLESS: dict[str, Deed] = {
    "expiring": lambda row: db.session.expire(row),
    "expiring all": lambda row: db.session.expire_all(),
    "refreshing": lambda row: db.session.refresh(row),
    "flushing nothing": lambda row: db.session.flush(),
    "a query": lambda row: db.session.scalar(sa.select(sa.func.count()).select_from(Card)),
    "a query as text": lambda row: db.session.execute(sa.text("SELECT 1")),
    "a query with comments": lambda row: db.session.execute(sa.text("-- of\n/* the app */ SELECT 1")),
}


def autocommit(function: Deed) -> Deed:
    """The decorator of many a data-access function."""

    def decorated(row: Account) -> t.Any:
        try:
            found = function(row)
            db.session.commit()
        except Exception:
            db.session.rollback()
            raise
        return found

    return decorated


def saved(row: Account) -> t.Any:
    with db.session.begin_nested():
        return db.session.get(Card, 1)


ENDS: dict[str, Deed] = {
    "commit": lambda row: db.session.commit(),
    "rollback": lambda row: db.session.rollback(),
    "savepoint": lambda row: db.session.begin_nested(),
    "a block in a savepoint": saved,
    "a savepoint that is rolled back": lambda row: db.session.begin_nested().rollback(),
    "a function that commits": autocommit(
        lambda row: db.session.scalars(sa.select(Card).where(Card.account_id == row.id)).all()
    ),
    "commit after a refresh": lambda row: (db.session.refresh(row), db.session.commit()),
    "unbound commit": lambda row: Session.commit(db.session()),
    "the session's transaction": lambda row: db.session().get_transaction().rollback(),
    "commit of the session's transaction": lambda row: db.session().get_transaction().commit(),
}
"""What ends transactions, with nothing to write."""
WRITES: dict[str, Deed] = {
    "commit of a change": lambda row: (setattr(row, "iban", "masked"), db.session.commit()),
    "a function that commits a change": autocommit(lambda row: setattr(row, "iban", "masked")),
    "rollback of a change": lambda row: (setattr(row, "iban", "masked"), db.session.rollback()),
    "a change in a savepoint": lambda row: (
        point := db.session.begin_nested(),
        audit(row),
        point.commit(),
    ),
    "a savepoint after a change": lambda row: (audit(row), db.session.begin_nested()),
    "a savepoint of the transaction": lambda row: db.session().get_transaction()._begin(nested=True),
    "flush": lambda row: (audit(row), db.session.flush()),
    "close": lambda row: db.session.close(),
    "remove": lambda row: db.session.remove(),
    "bulk update": lambda row: db.session.execute(sa.update(Account).values(iban="masked")),
    "table update": lambda row: db.session.execute(Account.__table__.update().values(iban="masked")),
    "text": lambda row: db.session.execute(sa.text("UPDATE account SET iban = 'masked'")),
    "text with comments": lambda row: db.session.execute(
        sa.text("/* SELECT */ UPDATE account SET iban = 'masked'")
    ),
    "connection": lambda row: db.session.connection().execute(sa.text("DELETE FROM card")),
    "rollback of the connection": lambda row: db.session.connection().rollback(),
    "legacy": lambda row: db.session.query(Account).update({"iban": "masked"}),
    "bulk save": lambda row: db.session.bulk_save_objects([Audit(text="x")]),
    "unbound flush": lambda row: (audit(row), Session.flush(db.session())),
    "private flush": lambda row: (audit(row), db.session()._flush()),
    "unbound private flush": lambda row: (audit(row), Session._flush(db.session())),
    "unbound commit": lambda row: (audit(row), Session.commit(db.session())),
    "unbound close": lambda row: Session.close(db.session()),
    "unbound execute": lambda row: Session.execute(db.session(), sa.delete(Card)),
    "commit of the session's transaction": lambda row: (audit(row), db.session().get_transaction().commit()),
    "the connection's transaction": lambda row: db.session.connection().get_transaction().rollback(),
    "commit of the connection's": lambda row: db.session.connection().get_transaction().commit(),
    "unbound rollback of the connection": lambda row: sa.Connection.rollback(db.session.connection()),
    "savepoint of the connection": lambda row: db.session.connection().begin_nested(),
    "closing the connection": lambda row: db.session.connection().close(),
    "a cursor": lambda row: db.session.connection().connection.cursor().execute("DELETE FROM card"),
    "the driver's SQL": lambda row: db.session.connection().exec_driver_sql("DELETE FROM card"),
    "the connection of a result": lambda row: (
        db.session.connection().execute(sa.select(1)).connection.execute(sa.delete(Card))
    ),
    "mappings": lambda row: db.session.bulk_insert_mappings(sa.inspect(Audit), [{"text": "x"}]),
}


def work(session: t.Any) -> None:
    """What the host does, in two commits; it keeps its objects."""
    session.add_all([row := account(), Audit(id=1, text="first")])
    session.commit()
    row.note = "changed"
    row.tracked["more"] = 1
    session.commit()
    row.x = 5
    session.flush()
    session.commit()


@pytest.mark.parametrize("expires", [True, False], ids=["expiring", "keeping"])
@pytest.mark.parametrize("name", [*CHANGES, *HARMLESS])
def test_the_database_ends_as_without_a_subscription(
    state: AppState, caplog: pytest.LogCaptureFixture, name: str, expires: bool
) -> None:
    db.session().expire_on_commit = expires
    work(db.session)
    expected = contents(state)
    before = vars(db.session.get_one(Account, 1)).copy()
    db.session.rollback()
    for table in (Card, Account, Audit):
        db.session.execute(sa.delete(table.__table__))
    db.session.commit()
    db.session.remove()

    subscribe(state, NOWHERE, "accounts.*", includes=["cards", "changes"])
    deeds.append((CHANGES | HARMLESS)[name])
    db.session().expire_on_commit = expires
    work(db.session)

    assert contents(state) == expected
    row = db.session.get_one(Account, 1)
    for key in ("iban", "note", "x", "y", "tracked", "listed", "plain"):
        assert getattr(row, key) == before.get(key, getattr(row, key)), key
    assert [card.name for card in row.cards] == ["one", "two"]
    assert [card.meta for card in row.cards] == [{"pin": 1}, {"pin": 2}]
    assert [(row.point.x, row.point.y)] == [(5, 2)]
    row.cards[0].name = "renamed"  # it does not become an orphan
    deeds.clear()
    db.session.commit()
    assert [card.name for card in db.session.scalars(sa.select(Card).order_by(Card.id))] == ["renamed", "two"]

    assert len(recorded(state)) == 3
    assert {data["iban"] for data in recorded_data(state, "accounts.updated")} == {IBAN} or name in CHANGES
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert bool(warned) == (name in CHANGES), [record.getMessage() for record in warned]
    assert all("AccountSchema at the field 'total'" in record.getMessage() for record in warned)


@pytest.mark.parametrize("name", WRITES)
def test_what_would_write_is_refused_with_schema_and_field(state: AppState, name: str) -> None:
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(WRITES[name])
    db.session.add(account())
    with pytest.raises(
        Exception, match=r"accounts\.created of Account 1.*'total' of AccountSchema.*may only read"
    ):
        db.session.commit()
    deeds.clear()
    db.session.commit()

    assert db.session.get_one(Account, 1).iban == IBAN
    assert [card.name for card in db.session.get_one(Account, 1).cards] == ["one", "two"]
    assert contents(state)["audit"] == []
    assert [data["iban"] for data in recorded_data(state, "accounts.created")] == [IBAN]


@pytest.mark.parametrize("is_followed", [False, True], ids=["", "before the flush"])
@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_transaction_with_nothing_to_write_does_nothing(
    state: AppState, caplog: pytest.LogCaptureFixture, name: str, is_followed: bool
) -> None:
    subscribe(state, NOWHERE, "accounts.*", includes=["cards"])
    deeds.append(ENDS[name])
    if is_followed:  # another listener to the commit: ours then comes before the flush
        sa.event.listen(db.session(), "before_commit", lambda session: None)
    db.session.add(row := account())
    if is_followed:
        db.session.flush()
        db.session.add(Audit(id=2, text="second"))
    db.session.add(Audit(id=1, text="first"))
    db.session.commit()
    row.note = "changed"
    db.session.commit()

    assert contents(state)["audit"][0] == (1, "first")
    assert [row.note for row in db.session.scalars(sa.select(Account))] == ["changed"]
    assert [data["total"] for data in recorded_data(state, "accounts.created")] == [7]
    assert [data["note"] for data in recorded_data(state, "accounts.updated")] == ["changed"]
    warned = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("dump.ended")
    ]
    assert ["accounts.created" in text for text in warned] == [True, False]
    assert all("AccountSchema at the field 'total' calls " in text for text in warned)


def test_it_is_said_once_for_each_event(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(ENDS["commit"])
    db.session.add(row := account())
    for note in "abc":
        row.note = note
        db.session.commit()

    assert len(recorded_data(state, "accounts.updated")) == 2
    assert [record.message.count("dump.ended") for record in caplog.records] == [1, 1]


def test_a_savepoint_of_a_transaction_cannot_be_undone_by_a_dump(state: AppState) -> None:
    """Half of a transaction is never committed, nor taken back."""
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(ENDS["rollback"])
    db.session.add(Audit(id=1, text="first"))
    with db.session.begin_nested():
        db.session.add(account())
    db.session.commit()
    deeds[:] = [ENDS["commit"]]
    db.session.get_one(Account, 1).note = "changed"
    db.session.flush()
    db.session.rollback()

    assert [row[1] for row in contents(state)["audit"]] == ["first"]
    assert [data["note"] for data in recorded_data(state, "accounts.created")] == ["n"]
    assert recorded_data(state, "accounts.updated") == []
    assert db.session.get_one(Account, 1).note == "n"


def test_an_error_under_a_decorator_that_rolls_back_is_named_itself(state: AppState) -> None:
    def missing(row: Account) -> t.Any:
        raise LookupError("no such card")

    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(autocommit(missing))
    db.session.add(account())
    with pytest.raises(Exception, match=r"'total' of AccountSchema: LookupError: no such card"):
        db.session.commit()


def test_what_was_refused_first_is_named(state: AppState) -> None:
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(WRITES["a function that commits a change"])
    db.session.add(account())
    with pytest.raises(Exception, match=r"'total' of AccountSchema.*it calls commit\(\)"):
        db.session.commit()


def test_an_error_of_another_database_is_the_schemas(state: AppState) -> None:
    """The transaction of the host is not concerned: its commit goes through."""
    object.__setattr__(state.settings, "on_error", "record")

    def ask(row: Account) -> None:
        with sa.create_engine("sqlite://").connect() as connection:
            connection.execute(sa.text("SELECT count(*) FROM nowhere"))

    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(ask)
    db.session.add_all([account(), Audit(id=1, text="first")])
    db.session.commit()

    assert [row[1] for row in contents(state)["audit"]] == ["first"]
    with Session(state.engine) as session:
        [broken] = session.scalars(sa.select(BrokenMessage))
        assert "'total' of AccountSchema" in broken.error


def test_a_refusal_that_is_swallowed_is_still_one(state: AppState) -> None:
    def careless(row: Account) -> None:
        with contextlib.suppress(Exception):
            audit(row)
            db.session.commit()

    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(careless)
    db.session.add(account())
    with pytest.raises(Exception, match=r"'total' of AccountSchema.*commit\(\)"):
        db.session.commit()


def test_hooks_are_named_and_one_dump_does_not_spoil_the_next(
    state: AppState, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(state, NOWHERE, "hooked.*", "accounts.*")
    db.session.add(account())
    db.session.commit()
    [row] = contents(state)["account"]

    assert IBAN in row
    assert db.session.get_one(Account, 1).tracked == {"secret": 1, "deep": {"a": [1]}}
    assert [data["iban"] for data in recorded_data(state, "hooked.created")] == ["****"]
    assert [data["iban"] for data in recorded_data(state, "accounts.created")] == [IBAN]
    assert "HookSchema in mask or strip changes what it dumps, Account 1.iban" in caplog.text


def test_an_include_is_named(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    subscribe(state, NOWHERE, "accounts.*", includes=["stripped"])
    db.session.add(account())
    db.session.commit()

    assert [row[-1] for row in contents(state)["card"]] == [{"pin": 1}, {"pin": 2}]
    assert "The include 'stripped' (CardSchema) in strip changes" in caplog.text


def test_what_the_host_has_not_flushed_stays_exactly(state: AppState) -> None:
    """A listener of the host's comes after ours: it still sees what it has changed, and SQLAlchemy writes that."""
    seen: list[tuple[t.Any, ...]] = []

    def follow(session: Session) -> None:
        row = session.get_one(Account, 1)
        seen.append(
            (row.iban, row.note, dict(row.tracked), len(row.cards), row in session.dirty, len(session.new))
        )

    subscribe(state, NOWHERE, "accounts.*")
    db.session.add_all([row := account(), Audit(id=1, text="first")])
    db.session.commit()
    deeds.extend(CHANGES[name] for name in ("an attribute", "a tracked dict", "all members", "a new object"))
    sa.event.listen(db.session(), "before_commit", follow)
    row.x = 3
    db.session.flush()
    row.iban, row.tracked["mine"] = "theirs", 1
    row.cards.pop()
    db.session.add(Audit(id=2, text="second"))
    db.session.commit()

    tracked = {"secret": 1, "deep": {"a": [1]}, "mine": 1}
    assert seen == [("theirs", "n", tracked, 1, True, 1)]
    assert row.iban == "theirs"
    assert row.tracked == tracked
    assert [card.id for card in row.cards] == [1]
    assert [text for _, text in contents(state)["audit"]] == ["first", "second"]


def test_the_hosts_other_session_is_guarded_too(state: AppState) -> None:
    """The schema says `db.session`, whatever session commits."""
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(audit)
    db.session.get(Audit, 1)
    db.session.rollback()
    with Session(state.engine) as session:
        session.add(account())
        session.commit()
    db.session.commit()

    assert contents(state)["audit"] == []


def test_rows_of_bulk_statements_and_deleted_ones(state: AppState) -> None:
    db.session.add(account())
    db.session.commit()
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(CHANGES["an attribute"])
    deeds.append(CHANGES["a tracked dict"])
    db.session.execute(sa.update(Account).values(note="bulk"))
    db.session.commit()
    [row] = contents(state)["account"]
    assert IBAN in row
    db.session.delete(db.session.get_one(Account, 1))
    db.session.commit()

    assert contents(state)["account"] == []
    assert [message.event for message in recorded(state)] == ["accounts.updated", "accounts.deleted"]


@contextlib.contextmanager
def owned_by(state: AppState, monkeypatch: pytest.MonkeyPatch, whose: Deed) -> t.Iterator[None]:
    """Let a property say whose accounts are."""
    bound = state.bound["accounts"]
    names = ((bound, "owner_path"), (bound.owner, "path"))
    before = [getattr(each, name) for each, name in names]
    for each, name in names:
        object.__setattr__(each, name, ("whose",))
    monkeypatch.setattr(Account, "whose", property(whose), raising=False)
    try:
        yield
    finally:
        for (each, name), value in zip(names, before, strict=True):
            object.__setattr__(each, name, value)


def test_an_owner_that_assigns(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    def whose(row: Account) -> str:
        row.iban = "masked"
        return "1"

    subscribe(state, NOWHERE, "accounts.*")
    with owned_by(state, monkeypatch, whose):
        db.session.add(account())
        db.session.commit()

    assert IBAN in contents(state)["account"][0]
    assert [message.event for message in recorded(state)] == ["accounts.created"]


@pytest.mark.parametrize("deed", ["commit", "table update"])
def test_an_owner_may_only_read_too(
    state: AppState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deed: str
) -> None:
    def whose(row: Account) -> str:
        (ENDS | WRITES)[deed](row)
        return "1"

    object.__setattr__(state.settings, "on_error", "record")
    subscribe(state, NOWHERE, "accounts.*")
    with owned_by(state, monkeypatch, whose):
        db.session.add_all([account(), Audit(id=1, text="first")])
        db.session.commit()

    assert IBAN in contents(state)["account"][0]
    assert [row[1] for row in contents(state)["audit"]] == ["first"]
    is_ended = deed in ENDS
    assert {message.owner for message in recorded(state)} == {"1" if is_ended else ""}
    assert ("The owner (owner) calls commit()" in caplog.text) == is_ended


def test_an_owner_that_commits_is_logged_once(
    state: AppState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it is asked for: at the commit, before a deletion, when something is emitted."""

    def whose(row: Account) -> str:
        db.session.commit()
        return "1"

    subscribe(state, NOWHERE, "accounts.*")
    with owned_by(state, monkeypatch, whose):
        db.session.add(row := account())
        db.session.commit()
        Doorless().emit("accounts.updated", row)
        db.session.commit()
        db.session.delete(row)
        db.session.commit()

    names = [f"accounts.{name}" for name in ("created", "updated", "deleted")]
    assert [each.event for each in recorded(state)] == names
    assert caplog.text.count("dump.ended") == 1


def test_an_owner_never_commits_half_of_a_transaction(
    state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where it is asked for before the commit either."""

    def whose(row: Account) -> str:
        db.session.commit()
        return "1"

    db.session.add(row := account())
    db.session.commit()
    subscribe(state, NOWHERE, "accounts.*")
    with owned_by(state, monkeypatch, whose):
        db.session.add(Audit(id=1, text="first"))
        db.session.flush()
        Doorless().emit("accounts.updated", row)
        db.session.delete(row)
        db.session.flush()
        db.session.rollback()

    assert contents(state)["audit"] == []
    assert len(contents(state)["account"]) == 1
    assert recorded(state) == []


def test_an_emit_while_dumping_is_refused(state: AppState) -> None:
    subscribe(state, NOWHERE, "accounts.*")
    extension = Doorless()
    deeds.append(lambda row: extension.emit("accounts.updated", row))
    db.session.add(account())
    with pytest.raises(Exception, match=r"'total' of AccountSchema.*emit\(\)"):
        db.session.commit()


@pytest.mark.parametrize("name", WRITES)
def test_recorded_as_broken_the_hosts_commit_is_whole(state: AppState, name: str) -> None:
    object.__setattr__(state.settings, "on_error", "record")
    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(WRITES[name])
    db.session.add_all([account(), Audit(id=1, text="first")])
    db.session.commit()

    assert [row[2] for row in contents(state)["account"]] == [IBAN]
    assert [row[1] for row in contents(state)["audit"]] == ["first"]
    assert len(contents(state)["card"]) == 2
    with Session(state.engine) as session:
        [broken] = session.scalars(sa.select(BrokenMessage))
        assert "'total' of AccountSchema" in broken.error


def test_an_error_of_the_database_in_a_dump_is_that_schemas(state: AppState) -> None:
    """PostgreSQL would accept no further statement in the transaction, although the host's code caught the error."""
    object.__setattr__(state.settings, "on_error", "record")

    def count(row: Account) -> None:
        db.session.execute(sa.text("SELECT count(*) FROM nowhere"))

    def swallow(row: Account) -> None:
        with contextlib.suppress(sa.exc.DBAPIError):
            count(row)

    subscribe(state, NOWHERE, "accounts.*")
    deeds.append(count)
    db.session.add_all([row := account(), Audit(id=1, text="first")])
    db.session.commit()
    deeds[:] = [swallow, lambda row: db.session.scalar(sa.select(sa.func.count()).select_from(Card))]
    row.note = "other"
    db.session.commit()

    assert [row[1] for row in contents(state)["audit"]] == ["first"]
    assert [data["note"] for data in recorded_data(state, "accounts.updated")] == ["other"]
    with Session(state.engine) as session:
        [broken] = session.scalars(sa.select(BrokenMessage))
        assert "'total' of AccountSchema" in broken.error
        assert "nowhere" in broken.error


deep = bool(os.environ.get("WEBHOOKS_TEST_DEEP"))
STEPS: dict[str, t.Callable[[Account, int], t.Any]] = {
    "note": lambda row, n: setattr(row, "note", f"note {n}"),
    "iban": lambda row, n: setattr(row, "iban", f"iban {n}"),
    "tracked": lambda row, n: row.tracked.update({f"key{n}": n}),
    "nested": lambda row, n: setattr(row, "tracked", {**row.tracked, "deep": {"a": [n]}}),
    "listed": lambda row, n: row.listed.append(n),
    "point": lambda row, n: setattr(row, "point", Point(n, n)),
    "pop": lambda row, n: row.cards and row.cards.pop(),
    "append": lambda row, n: row.cards.append(Card(id=10 + n, name=f"new {n}", meta={})),
    "rename": lambda row, n: row.cards and setattr(row.cards[0], "name", f"renamed {n}"),
    "meta": lambda row, n: row.cards and row.cards[0].meta.update(n=n),
    "flush": lambda row, n: db.session.flush(),
    "commit": lambda row, n: db.session.commit(),
}


def careless(name: str) -> Deed:
    """Do it, and ignore an error: one deed may leave nothing to do for the next."""

    def deed(row: Account) -> None:
        with contextlib.suppress(Exception):
            CHANGES[name](row)

    return deed


def emptied(session: t.Any) -> None:
    session.remove()
    for table in (Card, Account, Audit):
        session.execute(sa.delete(table.__table__))
    session.commit()
    session.remove()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8),
    chosen=st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=4),
    expires=st.booleans(),
    is_followed=st.booleans(),
)
@settings(
    max_examples=400 if deep else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_with_and_without_a_subscription_the_database_ends_the_same(
    state: AppState, names: list[str], chosen: list[str], expires: bool, is_followed: bool
) -> None:
    """Whatever some nasty schema does, and whatever the host has flushed when we are called."""

    def follow(session: Session) -> None:
        """Another listener to the commit: ours then comes before the flush."""

    found = []
    for is_heard in (False, True):
        deeds.clear()
        emptied(db.session)
        with state.engine.begin() as connection:
            for model in (Delivery, Message, Listener, Secret, Subscription):
                connection.execute(sa.delete(model.__table__))
        if is_heard:
            subscribe(state, NOWHERE, "accounts.*", includes=["cards", "changes"])
            deeds.extend(careless(name) for name in chosen)
        db.session().expire_on_commit = expires
        if is_followed:
            sa.event.listen(db.session(), "before_commit", follow)
        db.session.add_all([account(), Audit(id=1, text="first")])
        db.session.commit()
        for number, name in enumerate(names):
            STEPS[name](db.session.get_one(Account, 1), number)
        db.session.commit()
        found.append(contents(state))
    deeds.clear()

    assert found[0] == found[1]
