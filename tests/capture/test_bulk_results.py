"""The host gets the same results from a bulk statement with and without us, with and without subscriptions."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks.errors import BulkStatementError
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, events, quietly
from tests.host import Invoice
from tests.stage import subscribe

ROW = {"id": 7, "owner": "1", "number": "a"}
ROWS = [ROW, {"id": 8, "owner": "1", "number": "b"}]
COPY = sa.insert(Invoice).from_select(
    ["id", "owner", "number", "total", "status"],
    sa.select(Invoice.id + 100, Invoice.owner, Invoice.number, Invoice.total, Invoice.status),
    include_defaults=False,
)
RAW = {"dml_strategy": "raw"}
INSERTS: dict[str, tuple[t.Any, t.Any, dict[str, t.Any]]] = {
    "values": (sa.insert(Invoice).values(**ROW), None, {}),
    "values without a key": (sa.insert(Invoice).values(owner="1", number="a"), None, {}),
    "an expression": (sa.insert(Invoice).values(**{**ROW, "number": sa.func.upper("a")}), None, {}),
    "several values": (sa.insert(Invoice).values(ROWS), None, {}),
    "from a select": (COPY, None, {}),
    "a mapping": (sa.insert(Invoice), ROW, {}),
    "a list": (sa.insert(Invoice), ROWS, {}),
    "an empty list": (sa.insert(Invoice).values(**ROW), [], {}),
    "raw": (sa.insert(Invoice), ROW, RAW),
    "raw list": (sa.insert(Invoice), ROWS, RAW),
    "raw list without keys": (sa.insert(Invoice), [{"owner": "1"}, {"owner": "1"}], RAW),
    "raw select": (COPY, None, RAW),
    "columns": (sa.insert(Invoice).values(**ROW).returning(Invoice.number, Invoice.id), None, {}),
    "columns of a list": (sa.insert(Invoice).returning(Invoice.number), ROWS, {}),
    "columns in order": (
        sa.insert(Invoice).returning(Invoice.number, sort_by_parameter_order=True),
        ROWS,
        {},
    ),
}
ASKED = (
    "returns_rows",
    "is_insert",
    "inserted_primary_key",
    "inserted_primary_key_rows",
    "lastrowid",
    "context",
)


def answers(result: t.Any) -> dict[str, t.Any]:
    """All that a host may ask a result: values, or the kinds of errors."""
    found: dict[str, t.Any] = {}
    for name in ASKED:
        try:
            found[name] = getattr(result, name)
        except Exception as error:
            found[name] = type(error)
    found["context"] = found["context"] is not AttributeError
    for name in ("keys", "all"):
        try:
            found[name] = list(getattr(result, name)())
        except Exception as error:
            found[name] = type(error)
    return found


@pytest.mark.parametrize("words", INSERTS)
def test_an_insert(state: AppState, words: str) -> None:
    statement, parameters, options = INSERTS[words]
    quietly(state, Invoice(id=50, owner="1"), Invoice(id=60, owner="1"))
    subscribe(state, NOWHERE, "invoices.*")
    found, counts = {}, {}
    for is_out in (True, False):
        with Session(state.engine, info={"webhooks": not is_out}) as session:
            result = session.execute(statement, parameters, execution_options=options)
            counts[is_out] = getattr(result, "rowcount", None)
            found[is_out] = answers(result)
            session.rollback() if is_out else session.commit()
    if words == "values without a key":  # what PostgreSQL and MariaDB have counted is not given back
        for each in found.values():
            assert each.pop("inserted_primary_key")[0] is not None
            del each["inserted_primary_key_rows"], each["lastrowid"]
    if words == "several values" or state.engine.dialect.name in ("mysql", "mariadb"):
        for each in found.values():
            each.pop("lastrowid", None)

    assert found[False] == found[True]
    assert set(events(state)) == {"invoices.created"}
    # SQLAlchemy does not keep the count of an INSERT on every database, and then says -1.
    assert counts[False] == counts[True] or (counts[True], counts[False]) == (-1, len(events(state)))


REFUSED: dict[str, tuple[t.Any, ...]] = {
    "from_statement of an update": (
        sa.select(Invoice).from_statement(sa.update(Invoice).values(number="b").returning(Invoice)),
    ),
    "from_statement of an insert": (
        sa.select(Invoice).from_statement(sa.insert(Invoice).values(**ROW).returning(Invoice)),
    ),
    "a list of criteria": (
        sa.update(Invoice).where(Invoice.number == sa.bindparam("n")).values(note="z"),
        [{"n": "a"}, {"n": "b"}],
    ),
    "a list of deletions": (
        sa.delete(Invoice).where(Invoice.number == sa.bindparam("n")),
        [{"n": "a"}, {"n": "b"}],
    ),
    "raw with columns": (
        sa.insert(Invoice).values(**ROW).returning(Invoice.number).execution_options(**RAW),
    ),
    "a schema of its own": (
        sa.update(Invoice).values(number="b").execution_options(schema_translate_map={None: "other"}),
    ),
}


def run(state: AppState, words: str, *, is_out: bool) -> t.Any:
    """What the host gets from a statement that cannot be captured: an answer, or the kind of an error."""
    statement, *parameters = REFUSED[words]
    options = {"dml_strategy": "core_only", "synchronize_session": False} if "list of" in words else {}
    with Session(state.engine, info={"webhooks": not is_out}) as session:
        try:
            return answers(session.execute(statement, *parameters, execution_options=options))
        except Exception as error:
            return type(error)


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_captured_is_refused_with_a_subscription(state: AppState, words: str) -> None:
    subscribe(state, NOWHERE, "invoices.*")

    assert run(state, words, is_out=False) is BulkStatementError


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_captured_is_allowed_without_a_subscription(
    state: AppState, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(state, NOWHERE, "clients.*")
    quietly(state, Invoice(id=1, owner="1", number="a"))

    assert [str(run(state, words, is_out=False)) for _ in range(2)] == [
        str(run(state, words, is_out=True))
    ] * 2
    [warning] = [each for each in caplog.records if "bulk.not_captured" in each.message]
    assert all(name in warning.message for name in ("muted()", "emit_many", "WEBHOOKS_BULK"))


@pytest.mark.parametrize(
    "statement",
    [
        sa.text("SELECT * FROM invoice"),
        sa.select(Invoice),
        sa.union_all(sa.select(Invoice), sa.select(Invoice)),
    ],
)
def test_from_statement_of_a_select_is_none_of_our_business(state: AppState, statement: t.Any) -> None:
    quietly(state, Invoice(id=1, owner="1"))
    subscribe(state, NOWHERE, "invoices.*")
    with Session(state.engine) as session:
        found = session.scalars(sa.select(Invoice).from_statement(statement)).all()

    assert {invoice.id for invoice in found} == {1}


def test_what_sqlalchemy_refuses_it_refuses_by_itself(state: AppState) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    with Session(state.engine) as session:
        with pytest.raises(sa.exc.InvalidRequestError, match="No primary key value"):
            session.execute(sa.update(Invoice), [{"number": "b"}])
        with pytest.raises(sa.exc.InvalidRequestError, match="Bulk ORM DELETE"):
            session.execute(sa.delete(Invoice), [{"id": 1}])


@pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
def test_objects_in_the_session_are_brought_up_to_date_as_without_us(
    state: AppState, synchronize: t.Any
) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    seen = []
    for is_in in (False, True):
        with Session(state.engine, info={"webhooks": is_in}) as session:
            invoice = Invoice(id=1, owner="1", number="a")
            session.add(invoice)
            session.flush()
            options = {"synchronize_session": synchronize}
            update = sa.update(Invoice).where(Invoice.id == 1).values(number="b")
            session.execute(update, execution_options=options)
            seen.append(invoice.__dict__.get("number"))
            session.execute(sa.delete(Invoice).where(Invoice.id == 1), execution_options=options)
            seen.append(invoice in session)
            session.rollback()

    assert seen[:2] == seen[2:]


def test_a_flush_that_the_host_holds_back_is_held_back(state: AppState) -> None:
    subscribe(state, NOWHERE, "invoices.*")
    with Session(state.engine) as session:
        waiting = Invoice(id=1, owner="1")
        session.add(waiting)
        session.execute(sa.update(Invoice).values(number="b"), execution_options={"autoflush": False})

        assert waiting in session.new


def test_a_statement_inside_a_flush(state: AppState) -> None:
    """A listener of the host's may run one."""
    subscribe(state, NOWHERE, "invoices.*")
    quietly(state, Invoice(id=1, owner="1"))

    def also(session: Session, *_: t.Any) -> None:
        session.execute(sa.update(Invoice).where(Invoice.id == 1).values(number="b"))

    with Session(state.engine) as session:
        sa.event.listen(session, "before_flush", also)
        session.add(Invoice(id=2, owner="1"))
        session.commit()

    assert sorted(events(state)) == ["invoices.created", "invoices.updated"]
