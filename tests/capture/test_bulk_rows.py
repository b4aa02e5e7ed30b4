"""Which rows a bulk statement changes: exactly those have messages, in every form and with concurrent writers."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import ORMExecuteState, Session, aliased, with_loader_criteria

from flask_webhooks.errors import BulkStatementError
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, SERVERS, counting, invoices_left, kinds, quietly
from tests.capture.valued_models import Animal, Dog, Pup
from tests.capture.valued_models import db as valued_db
from tests.host import Invoice, Line, db
from tests.stage import recorded, subscribe


@pytest.fixture
def rows(listening: None, state: AppState) -> None:
    """Three committed invoices of two owners, each with four lines, without events."""
    subscribe(state, NOWHERE, "invoices.*", owner="2")
    quietly(state, *(Invoice(id=n, owner="2" if n == 3 else "1", lines=four()) for n in (1, 2, 3)))


def four() -> list[Line]:
    return [Line(text="a") for _ in range(4)]


def recorded_events(state: AppState) -> list[tuple[str, str | None]]:
    return [(message.event, message.entity_id) for message in recorded(state)]


@contextlib.contextmanager
def meanwhile(engine: sa.Engine, verb: str, act: t.Callable[[], None]) -> t.Iterator[None]:
    """Do something once, just before the first statement on invoices with this verb is sent."""
    done: list[bool] = []

    def listen(_: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        if statement.startswith(verb) and "invoice" in statement and "0 = 1" not in statement and not done:
            done.append(True)
            act()

    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)
    assert done


@pytest.mark.usefixtures("rows")
class TestSeveralTables:
    def test_an_update_from_lines_makes_one_event_per_invoice(self, state: AppState) -> None:
        result = db.session.execute(
            sa.update(Invoice).where(Line.invoice_id == Invoice.id, Line.text == "a").values(number="new"),
            execution_options={"synchronize_session": False},
        )
        db.session.commit()

        assert result.rowcount in (3, 15)  # type: ignore[attr-defined]  # MariaDB counts what matched
        assert recorded_events(state) == [("invoices.updated", str(number)) for number in (1, 2, 3)]

    def test_the_limit_counts_invoices(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(WEBHOOKS_BULK_LIMIT=2)
        with app.app_context():
            with pytest.raises(BulkStatementError, match="more than 2 rows"):
                db.session.execute(
                    sa.update(Invoice).where(Line.invoice_id == Invoice.id).values(number="new"),
                    execution_options={"synchronize_session": False},
                )
            db.session.rollback()

    def test_a_deletion_by_a_subquery(self, state: AppState) -> None:
        db.session.execute(
            sa.delete(Invoice).where(Invoice.id.in_(sa.select(Line.invoice_id).where(Line.invoice_id < 3))),
            execution_options={"synchronize_session": False},
        )
        db.session.commit()

        assert recorded_events(state) == [("invoices.deleted", "1"), ("invoices.deleted", "2")]

    def test_an_alias(self, state: AppState) -> None:
        alias = aliased(Invoice)
        db.session.execute(
            sa.update(alias).where(alias.id == 2).values(number="new"),
            execution_options={"synchronize_session": False},
        )
        db.session.commit()

        assert recorded_events(state) == [("invoices.updated", "2")]

    def test_a_plain_table_with_conditions_on_classes(self, state: AppState) -> None:
        """These make an ORM statement of it, of the class that comes first."""
        invoice, line = Invoice.__table__, Line.__table__
        db.session.execute(sa.update(invoice).where(Invoice.id == 2).values(number="new"))
        db.session.execute(
            sa.update(line).where(Invoice.id == 1, Invoice.id == Line.invoice_id).values(text="new"),
            execution_options={"synchronize_session": False},
        )
        db.session.commit()

        assert recorded_events(state) == [("invoices.updated", "2")]

    def test_a_cte_that_changes_something_is_refused(self, state: AppState) -> None:
        """To read the rows would run it a second time."""
        gone = sa.delete(Line).where(Line.invoice_id == 1).returning(Line.invoice_id).cte()
        with pytest.raises(BulkStatementError, match="CTE"):
            db.session.execute(
                sa.update(Invoice).where(Invoice.id.in_(sa.select(gone.c.invoice_id))).values(number="new")
            )


MINE = with_loader_criteria(Invoice, Invoice.owner == "1")


def of_my_tenant(execution: ORMExecuteState) -> None:
    """SQLAlchemy's recipe for tenants."""
    execution.statement = t.cast("t.Any", execution.statement).options(MINE)


@pytest.mark.usefixtures("rows")
class TestFilters:
    @pytest.mark.parametrize("verb", ["update", "delete"])
    @pytest.mark.parametrize("by", ["option", "listener", "listener that runs it"])
    def test_only_the_rows_of_the_tenant_have_events(self, state: AppState, verb: str, by: str) -> None:
        def run(execution: ORMExecuteState) -> t.Any:
            if not execution.is_select:
                of_my_tenant(execution)
                return execution.invoke_statement()
            return None

        session = db.session()
        statement: t.Any = sa.delete(Invoice) if verb == "delete" else sa.update(Invoice).values(number="new")
        if by == "option":
            statement = statement.options(MINE)
        else:
            sa.event.listen(session, "do_orm_execute", of_my_tenant if by == "listener" else run)
        session.execute(statement, execution_options={"synchronize_session": False})
        session.commit()

        assert recorded_events(state) == [(f"invoices.{verb}d", "1"), (f"invoices.{verb}d", "2")]
        assert invoices_left(state) == ([3] if verb == "delete" else [1, 2, 3])

    @pytest.mark.parametrize("verb", ["update", "delete", "restore", "insert"])
    def test_what_hides_rows_from_all_sessions_hides_none_from_us(self, state: AppState, verb: str) -> None:
        """Soft deletion: a filter on `Session` itself, which concerns what is selected."""
        statements: dict[str, t.Any] = {
            "update": sa.update(Invoice).where(Invoice.id == 1).values(number="hidden"),
            "delete": sa.delete(Invoice).where(Invoice.number == "hidden"),
            "restore": sa.update(Invoice).where(Invoice.id == 2).values(number="back"),
            "insert": sa.insert(Invoice).values(id=9, owner="1", number="hidden"),
        }

        def hide(execution: ORMExecuteState) -> None:
            if execution.is_select and not execution.is_column_load and not execution.is_relationship_load:
                execution.statement = execution.statement.options(
                    with_loader_criteria(Invoice, Invoice.number != "hidden", include_aliases=True)
                )

        with state.engine.begin() as connection:
            connection.execute(sa.update(Invoice.__table__).where(Invoice.id == 2).values(number="hidden"))
        sa.event.listen(Session, "do_orm_execute", hide)
        try:
            db.session.execute(statements[verb])
            db.session.commit()
        finally:
            sa.event.remove(Session, "do_orm_execute", hide)

        event, key = {"update": ("updated", "1"), "insert": ("created", "9")}.get(
            verb, ("deleted" if verb == "delete" else "updated", "2")
        )
        assert recorded_events(state) == [(f"invoices.{event}", key)]
        assert invoices_left(state) == {"delete": [1, 3], "insert": [1, 2, 3, 9]}.get(verb, [1, 2, 3])

    def test_what_is_filtered_out_does_not_count(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(WEBHOOKS_BULK_LIMIT=2)
        with app.app_context():
            db.session.execute(
                sa.delete(Invoice).options(MINE), execution_options={"synchronize_session": False}
            )
            db.session.rollback()

    def test_a_listener_that_runs_nothing(self, state: AppState) -> None:
        session = db.session()
        sa.event.listen(session, "do_orm_execute", lambda _: sa.engine.result.null_result())
        session.execute(sa.delete(Invoice))
        session.commit()

        assert recorded_events(state) == []
        assert invoices_left(state) == [1, 2, 3]

    def test_a_filter_that_only_the_engine_knows(self, state: AppState) -> None:
        def narrow(_: t.Any, statement: t.Any, many: t.Any, one: t.Any, __: t.Any) -> t.Any:
            if statement.is_delete and str(statement.table) == "invoice":
                statement = statement.where(Invoice.__table__.c.owner == "1")
            return statement, many, one

        sa.event.listen(state.engine, "before_execute", narrow, retval=True)
        try:
            db.session.execute(sa.delete(Invoice), execution_options={"synchronize_session": False})
            db.session.commit()
        finally:
            sa.event.remove(state.engine, "before_execute", narrow)

        assert recorded_events(state) == [("invoices.deleted", "1"), ("invoices.deleted", "2")]

    def test_the_limit_of_a_statement(self, state: AppState) -> None:
        """Only MariaDB and MySQL have one."""
        has_limit = state.engine.dialect.name in ("mysql", "mariadb")
        options = {f"{state.engine.dialect.name}_limit": 2} if has_limit else {}
        for statement in (sa.update(Invoice).values(number="new"), sa.delete(Invoice)):
            db.session.execute(
                statement.with_dialect_options(**options), execution_options={"synchronize_session": False}
            )
            db.session.commit()

        assert len(recorded(state)) == (4 if has_limit else 6)
        assert len(invoices_left(state)) == (1 if has_limit else 0)


@pytest.mark.usefixtures("rows")
class TestOthersThatWrite:
    @pytest.mark.parametrize("database_url", SERVERS, indirect=True)
    @pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
    def test_a_row_that_comes_after_the_look_stays_as_it_is(self, state: AppState, verb: str) -> None:
        """The default of PostgreSQL sees it: without us, and a moment later, it would have been changed."""
        engine = state.engine.execution_options(isolation_level="READ COMMITTED")
        statements: dict[str, t.Any] = {
            "UPDATE": sa.update(Invoice).values(number="new"),
            "DELETE": sa.delete(Invoice),
        }
        with (
            Session(engine) as session,
            meanwhile(engine, verb, lambda: quietly(state, Invoice(id=9, owner="1", number="late"))),
        ):
            result = session.execute(statements[verb])
            session.commit()

        assert result.rowcount == 3
        assert recorded_events(state) == [(f"invoices.{verb.lower()}d", str(number)) for number in (1, 2, 3)]
        with Session(state.engine) as session:
            assert session.get_one(Invoice, 9).number == "late"

    @pytest.mark.parametrize("database_url", SERVERS, indirect=True)
    def test_a_row_that_is_named_and_comes_after_the_look(self, state: AppState) -> None:
        engine = state.engine.execution_options(isolation_level="READ COMMITTED")
        with (
            Session(engine) as session,
            meanwhile(engine, "UPDATE", lambda: quietly(state, Invoice(id=9, owner="1", number="late"))),
            pytest.raises(BulkStatementError, match="Roll back and run it again"),
        ):
            session.execute(sa.update(Invoice), [{"id": 9, "number": "new"}])

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_on_sqlite_no_other_writer_comes_in_between(self, state: AppState) -> None:
        refused: list[str] = []

        def write() -> None:
            with state.engine.connect() as other:
                other.exec_driver_sql("PRAGMA busy_timeout=0")
                try:
                    other.exec_driver_sql("INSERT INTO client (owner, name) VALUES ('1', 'late')")
                except sa.exc.OperationalError as error:
                    refused.append(str(error))

        with meanwhile(state.engine, "SELECT", write):
            db.session.execute(sa.update(Invoice).values(number="new"))
            db.session.commit()

        assert "locked" in refused[0]


class TestInheritance:
    def test_a_condition_on_the_table_of_the_base_class(self, valued: AppState) -> None:
        """To an UPDATE SQLAlchemy does not join that table by itself, as it does to a SELECT."""
        quietly(valued, Dog(id=1, name="a", breed="pug"), Dog(id=2, name="b", breed="pug"))
        valued_db.session.execute(
            sa.update(Dog).where(Dog.id == Animal.id, Dog.name == "a").values(breed="mix"),
            execution_options={"synchronize_session": False},
        )
        valued_db.session.commit()

        assert [pair for pair in recorded_events(valued) if pair[0].startswith("dogs")] == [
            ("dogs.updated", "1")
        ]

    def test_single_tables(self, valued: AppState) -> None:
        quietly(valued, Pup(id=1, name="a"), Animal(id=2, name="b"))
        valued_db.session.execute(sa.update(Pup).values(name="c"))
        valued_db.session.commit()

        assert {pair for pair in recorded_events(valued) if "updated" in pair[0]} == {
            ("pups.updated", "1"),
            ("animals.updated", "1"),
        }
        with pytest.raises(BulkStatementError, match="core_only"):
            valued_db.session.execute(
                sa.update(Pup).values(name="d"), execution_options={"dml_strategy": "core_only"}
            )

    def test_rows_of_subclasses_are_read_together(self, valued: AppState) -> None:
        quietly(valued, *(Dog(id=number, name="a", breed="pug") for number in range(1, 9)))
        with counting(valued.engine) as sent:
            valued_db.session.execute(sa.update(Animal).values(name="c"))

        assert len([kind for kind in kinds(sent) if kind.startswith("SELECT")]) == 4
