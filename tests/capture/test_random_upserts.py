"""Random upserts: the host's results are unchanged, and the events are the difference between the rows before and
after.

Each transaction runs twice from the same rows: without us and rolled back, then with us and committed.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from flask_webhooks.models import Delivery, Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, changes
from tests.capture.stock import CATALOG, Ware, db
from tests.capture.test_bulk_results import answers
from tests.stage import recorded, subscribe

pytestmark = pytest.mark.long

NUMBERS, COUNTS = st.integers(1, 3), st.integers(0, 2)
TEXTS = st.sampled_from(["a", "b"])
VALUES: dict[str, st.SearchStrategy[t.Any]] = {
    "id": NUMBERS,
    "owner": st.sampled_from(["1", "2"]),
    "number": NUMBERS,
    "code": st.none() | TEXTS,
    "place": st.none() | TEXTS,
    "is_on_sale": st.booleans(),
    "count": COUNTS,
    "name": TEXTS,
}
OPTIONAL = ("id", "owner", "code", "place", "is_on_sale", "count", "name")
TARGETS = (("id",), ("owner", "number"), ("code",), ("place",), ())
SETS = ("count", "more", "name", "code", "owner", "number")
FORMS = ("values", "many", "mapping", "list", "raw", "select", "columns", "entities")
Rows = list[dict[str, t.Any]]


@dataclass
class Statement:
    """One upsert, whatever the database."""

    form: str
    target: tuple[str, ...]
    sets: list[str]
    """Empty: it does nothing where it meets a row."""
    is_choosy: bool
    """Whether only rows of which there are few are updated."""
    rows: Rows = field(default_factory=list)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Any upsert; rows have the same columns, except in a list of parameters."""
    form = draw(st.sampled_from(FORMS))
    names = draw(st.sets(st.sampled_from(OPTIONAL)))
    most = 1 if form in ("values", "mapping") else 3
    found = []
    for _ in range(draw(st.integers(1, most))):
        if form == "list":
            names = draw(st.sets(st.sampled_from(OPTIONAL)))
        some = sorted({*names, "number", *(["owner", "is_on_sale"] if form == "select" else [])})
        found.append({name: draw(VALUES[name]) for name in some})
    sets = draw(st.lists(st.sampled_from(SETS), max_size=2, unique=True))
    if {"count", "more"} <= set(sets):
        sets.remove("more")
    return Statement(form, draw(st.sampled_from(TARGETS)), sets, draw(st.booleans()), found)


def built(each: Statement, dialect: str) -> t.Any:
    """The statement without its rows."""
    flavour: t.Any = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}[dialect]
    statement = flavour.insert(Ware)
    new = statement.inserted if dialect == "mysql" else statement.excluded
    sets = {name: new[name] for name in each.sets if name not in ("count", "more")}
    if "count" in each.sets:
        sets["amount"] = new.amount
    if "more" in each.sets:
        sets["amount"] = Ware.count + 1
    if dialect == "mysql":
        return statement.on_duplicate_key_update(**(sets or {"amount": Ware.count}))
    target: dict[str, t.Any] = {"index_elements": list(each.target)} if each.target else {}
    if each.target == ("place",):
        target["index_where"] = sa.text("is_on_sale")
    if not sets or (not each.target and dialect == "postgresql"):
        return statement.on_conflict_do_nothing(**target)
    where = Ware.count < 2 if each.is_choosy else None
    return statement.on_conflict_do_update(**target, set_=sets, where=where)


def selecting(statement: t.Any, rows: Rows, dialect: str) -> t.Any:
    """The statement with a SELECT of these rows."""
    names = ["amount" if name == "count" else name for name in rows[0]]
    types = [Ware.__table__.c[name].type for name in names]

    def cell(value: t.Any, name: str, kind: t.Any) -> t.Any:
        given = sa.literal(value, kind)
        return (sa.cast(given, kind) if dialect == "postgresql" else given).label(name)

    parts = [
        sa.select(*(cell(*each) for each in zip(row.values(), names, types, strict=True))) for row in rows
    ]
    selected = (parts[0] if len(parts) == 1 else sa.union_all(*parts)).subquery()
    return statement.from_select(names, sa.select(*selected.c).where(sa.true()))


def execute(session: Session, each: Statement) -> dict[str, t.Any]:
    """Run it; return all that the host may ask about the result, and its objects."""
    statement = built(each, session.get_bind().dialect.name)
    options: dict[str, t.Any] = {}
    parameters: t.Any = None
    if each.form == "values":
        statement = statement.values(each.rows[0])
    elif each.form == "many":
        statement = statement.values(each.rows)
    elif each.form == "select":
        statement = selecting(statement, each.rows, session.get_bind().dialect.name)
    elif each.form == "raw":
        parameters = [
            {("amount" if name == "count" else name): value for name, value in row.items()}
            for row in each.rows
        ]
        options = {"dml_strategy": "raw"}
    else:
        parameters = each.rows[0] if each.form == "mapping" else each.rows
    if each.form == "columns":
        statement = statement.returning(Ware.number, Ware.count)
    if each.form == "entities":
        statement = statement.returning(Ware)
        options["populate_existing"] = True
    result = session.execute(statement, parameters, execution_options=options)
    return seen(result, each, session.get_bind().dialect.name)


def seen(result: t.Any, each: Statement, dialect: str) -> dict[str, t.Any]:
    """All that a result says, as far as it means something."""
    count = getattr(result, "rowcount", None)
    found = answers(result)
    if each.form == "entities":
        found["all"] = [(ware.id, ware.number, ware.count, ware.code) for (ware,) in found["all"]]
    if dialect == "sqlite":  # says what was inserted last, in whatever table
        for name in ("lastrowid", "inserted_primary_key", "inserted_primary_key_rows"):
            del found[name]
    elif each.form == "select":  # MariaDB says it only of an INSERT that returns nothing
        del found["lastrowid"]
    # SQLAlchemy does not keep it everywhere; of an INSERT from a SELECT we know how many rows there were.
    return {**found, "rowcount": count if each.form != "select" else None}


class Shop:
    """The wares, and the messages about them."""

    def __init__(self, state: AppState) -> None:
        self.state = state
        self.dialect = state.engine.dialect.name

    def begin(self, rows: Rows) -> None:
        """Have these wares and no others, and no messages."""
        with Session(self.state.engine, info={"webhooks": False}) as session:
            for model in (Delivery, Message, Ware):
                session.execute(sa.delete(model))
            for row in rows:
                try:
                    with session.begin_nested():
                        session.add(Ware(**row))
                except sa.exc.IntegrityError:
                    continue
            session.commit()

    def count_anew(self) -> None:
        """Let keys that the database makes be the same again."""
        again = {
            "postgresql": "ALTER SEQUENCE ware_id_seq RESTART WITH 1000",
            "mysql": "ALTER TABLE ware AUTO_INCREMENT = 1000",
        }
        if self.dialect in again:
            with self.state.engine.begin() as connection:
                connection.exec_driver_sql(again[self.dialect])

    def rows(self, session: Session) -> dict[int, dict[str, t.Any]]:
        """All of them, as they stand in the database."""
        columns = [
            column.label(attribute.key)
            for attribute in sa.inspect(Ware).column_attrs
            for column in attribute.columns
        ]
        return {row.id: dict(row._mapping) for row in session.connection().execute(sa.select(*columns))}

    def run(self, some: list[Statement], *, is_out: bool) -> tuple[list[t.Any], t.Any, t.Any]:
        """Run them in one transaction; return what the host got, and the rows before and after."""
        self.count_anew()
        with Session(self.state.engine, info={"webhooks": not is_out}) as session:
            before = self.rows(session)
            got: list[t.Any] = []
            for each in some:
                try:
                    with session.begin_nested():
                        got.append(execute(session, each))
                except sa.exc.DBAPIError as error:
                    got.append(type(error))
            after = self.rows(session)
            session.rollback() if is_out else session.commit()
        return got, before, after

    def told(self) -> list[t.Any]:
        """Event, owner, row and what changed, of each message."""
        return sorted(
            (
                message.event,
                message.owner,
                json.dumps(json.loads(message.data), sort_keys=True),
                json.dumps(changes(message), sort_keys=True),
            )
            for message in recorded(self.state)
        )


def expected(before: dict[int, dict[str, t.Any]], after: dict[int, dict[str, t.Any]]) -> list[t.Any]:
    """The expected messages."""
    found = []

    def tell(kind: str, row: dict[str, t.Any], diff: dict[str, t.Any]) -> None:
        texts = (json.dumps(each, sort_keys=True) for each in (row, diff))
        found.append((f"wares.{kind}", row["owner"], *texts))

    for key, row in after.items():
        old = before.get(key)
        if old is None:
            tell("created", row, {})
        elif old["owner"] != row["owner"]:
            tell("deleted", old, {})
            tell("created", row, {})
        elif old != row:
            tell("updated", row, {name: [old[name], row[name]] for name in row if old[name] != row[name]})
    return sorted(found)


def check(shop: Shop, rows: Rows, some: list[Statement]) -> None:
    shop.begin(rows)
    without, _, left = shop.run(some, is_out=True)
    got, before, after = shop.run(some, is_out=False)

    assert got == without
    assert after == left
    assert shop.told() == expected(before, after)


def run(database_url: str, folder: Path, examples: int) -> None:
    with capturing(db, CATALOG, database_url, folder, WEBHOOKS_ON_ERROR="raise") as state:
        for owner in ("1", "2"):
            subscribe(state, NOWHERE, "wares.*", owner=owner, includes=["changes"])
        shop = Shop(state)
        wares = st.lists(st.fixed_dictionaries({**VALUES}), max_size=3)
        test = given(wares, st.lists(statements(), min_size=1, max_size=3))(
            lambda rows, some: check(shop, rows, some)
        )
        settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize="WEBHOOKS_TEST_DEEP" not in os.environ,
        )(test)()


def test_a_hundred(database_url: str, tmp_path: Path) -> None:
    run(database_url, tmp_path, 40 if database_url.startswith("mysql") else 100)


@pytest.mark.deep
def test_thousands(database_url: str, tmp_path: Path) -> None:
    run(database_url, tmp_path, 3000)
