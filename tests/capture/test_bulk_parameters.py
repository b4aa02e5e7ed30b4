"""Rows that a bulk statement takes from any iterable: each does what it does without us, and is captured."""

from __future__ import annotations

import types
import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, events, quietly
from tests.host import Invoice
from tests.stage import subscribe

Rows = list[dict[str, t.Any]]
SHAPES: dict[str, t.Callable[[Rows], t.Any]] = {
    "a list": list,
    "a tuple": tuple,
    "a generator": lambda rows: (row for row in rows),
    "an iterator": iter,
    "a map": lambda rows: map(dict, rows),
    "a view": lambda rows: dict(enumerate(rows)).values(),
    "a list of read-only mappings": lambda rows: [types.MappingProxyType(row) for row in rows],
    "a generator of read-only mappings": lambda rows: (types.MappingProxyType(row) for row in rows),
    "a generator of pairs": lambda rows: (tuple(row.items()) for row in rows),
    "a mapping": lambda rows: rows[0] if rows else {},
    "a text": lambda rows: "rows",
    "a number": lambda rows: len(rows),
}
ROWS: dict[str, Rows] = {
    "two": [{"id": 7, "owner": "1", "number": "a"}, {"id": 50, "owner": "1", "number": "b"}],
    "one": [{"id": 50, "owner": "1", "number": "b"}],
    "none": [],
}


def _upsert(dialect: str, *, is_returning: bool = False) -> t.Any:
    if dialect in ("mysql", "mariadb"):
        # PyMySQL takes no list of rows for a statement with other parameters behind VALUES.
        theirs = mysql.insert(Invoice)
        return theirs.on_duplicate_key_update(number=theirs.inserted.number)
    insert: t.Any = (postgresql if dialect == "postgresql" else sqlite).insert(Invoice)
    statement = insert.on_conflict_do_update(index_elements=["id"], set_={"number": insert.excluded.number})
    return statement.returning(Invoice.id) if is_returning else statement


def _ignore(dialect: str) -> t.Any:
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(Invoice).prefix_with("IGNORE")
    insert: t.Any = (postgresql if dialect == "postgresql" else sqlite).insert(Invoice)
    return insert.on_conflict_do_nothing()


STATEMENTS: dict[str, t.Callable[[str], t.Any]] = {
    "insert": lambda dialect: sa.insert(Invoice),
    "insert returning": lambda dialect: sa.insert(Invoice).returning(Invoice.id),
    "insert raw": lambda dialect: sa.insert(Invoice).execution_options(dml_strategy="raw"),
    "insert into the table": lambda dialect: t.cast("sa.Table", Invoice.__table__).insert(),
    "upsert": _upsert,
    "upsert returning": lambda dialect: _upsert(dialect, is_returning=True),
    "insert or ignore": _ignore,
    "update by key": lambda dialect: sa.update(Invoice),
    "delete by key": lambda dialect: sa.delete(Invoice),
}


def _done(state: AppState, statement: t.Any, parameters: t.Any, *, is_ours: bool) -> list[t.Any]:
    """What the host sees of a statement: the error or the rows that it returns, and what the table has then."""
    with Session(state.engine, info={"webhooks": is_ours}) as session:
        try:
            result = session.execute(statement, parameters)
            found = ["rows", *_named(result.all())] if getattr(result, "returns_rows", True) else ["no rows"]
        except Exception as error:
            found = [type(error), str(error).partition("\n")[0]]
            session.rollback()
        found.append(_named(session.execute(sa.select(Invoice.id, Invoice.number).order_by(Invoice.id))))
        session.commit() if is_ours else session.rollback()
    return found


def _named(rows: t.Iterable[t.Any]) -> list[t.Any]:
    """Rows without the ids that the database has made: a sequence never gives one twice."""
    return [(row[0] if row[0] in (7, 50) else "made", *row[1:]) for row in rows]


@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "unheard"])
@pytest.mark.parametrize("words", STATEMENTS)
def test_a_statement_takes_the_rows_that_it_takes_without_us(
    state: AppState, words: str, is_heard: bool
) -> None:
    statement = STATEMENTS[words](state.engine.dialect.name)
    if is_heard:
        subscribe(state, NOWHERE, "invoices.*")
    unlike: dict[tuple[str, str], t.Any] = {}
    for shape, make in SHAPES.items():
        if words == "update by key" and shape == "a mapping":  # those are values for all rows, and a new key
            continue
        for count, rows in ROWS.items():
            with Session(state.engine, info={"webhooks": False}) as session:
                session.execute(sa.delete(Invoice))
                session.commit()
            quietly(state, Invoice(id=50, owner="1", number="there"))
            without = _done(state, statement, make(rows), is_ours=False)
            ours = _done(state, statement, make(rows), is_ours=True)
            if ours != without:
                unlike[shape, count] = without, ours
    assert unlike == {}


@pytest.mark.parametrize("shape", [name for name in SHAPES if "a generator" in name or name == "a tuple"])
def test_they_are_captured(state: AppState, shape: str) -> None:
    quietly(state, Invoice(id=50, owner="1", number="there"))
    subscribe(state, NOWHERE, "invoices.*")
    with Session(state.engine) as session:
        session.execute(_upsert(state.engine.dialect.name), SHAPES[shape](ROWS["two"]))
        session.commit()
    assert sorted(events(state)) == ["invoices.created", "invoices.updated"]
