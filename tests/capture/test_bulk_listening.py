"""For bulk statements the subscriptions at commit count, not those at the time of the statement."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks.errors import BulkStatementError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, SERVERS, counting, events, invoices_left, kinds, quietly
from tests.host import Invoice, Line, Note, db
from tests.stage import subscribe

STATEMENTS: dict[str, tuple[t.Any, ...]] = {
    "update": (sa.update(Invoice).values(number="new"),),
    "delete": (sa.delete(Invoice),),
    "insert": (sa.insert(Invoice), [{"owner": "1"}] * 3),
    "insert values": (sa.insert(Invoice).values([{"owner": "1"}] * 3),),
    "insert from": (
        sa.insert(Invoice).from_select(
            ["owner", "number", "total", "status"],
            sa.select(Invoice.owner, Invoice.number, Invoice.total, Invoice.status),
        ),
    ),
}


@pytest.fixture
def rows(state: AppState) -> None:
    """Three invoices, and no subscription."""
    quietly(state, *(Invoice(id=number, owner="1") for number in (101, 102, 103)))


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
@pytest.mark.parametrize("words", STATEMENTS)
class TestASubscription:
    """On SQLite no subscription can be created while another transaction writes."""

    def test_that_is_made_before_the_commit_counts(self, state: AppState, words: str) -> None:
        db.session.execute(*STATEMENTS[words])
        subscribe(state, NOWHERE, "invoices.*")
        db.session.commit()

        assert len(events(state)) == 3

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_that_the_transaction_cannot_see_counts(self, state: AppState, words: str, level: str) -> None:
        with Session(state.engine.execution_options(isolation_level=level)) as session:
            session.scalars(sa.select(Note)).all()
            subscribe(state, NOWHERE, "invoices.*")
            session.execute(*STATEMENTS[words])
            session.commit()

        assert len(events(state)) == 3


@pytest.fixture
def small(make_app: t.Callable[..., Flask], rows: None) -> t.Iterator[AppState]:
    """An app that captures two rows of a statement, inside its context."""
    app = make_app(WEBHOOKS_BULK_LIMIT=2)
    with app.app_context():
        yield state_of(app)


class TestMoreThanTheLimit:
    @pytest.mark.parametrize("words", STATEMENTS)
    def test_is_allowed_without_a_subscription(self, small: AppState, words: str) -> None:
        db.session.execute(*STATEMENTS[words])
        db.session.commit()

        assert events(small) == []
        assert len(invoices_left(small)) == {"update": 3, "delete": 0}.get(words, 6)

    @pytest.mark.parametrize("words", STATEMENTS)
    def test_is_refused_before_it_runs_with_a_subscription(self, small: AppState, words: str) -> None:
        subscribe(small, NOWHERE, "invoices.*")
        with counting(small.engine) as sent, pytest.raises(BulkStatementError, match="WEBHOOKS_BULK_LIMIT"):
            db.session.execute(*STATEMENTS[words])
        db.session.rollback()

        assert {kind for kind in kinds(sent) if "invoice" in kind} <= {"SELECT invoice", "DELETE invoice"}
        assert invoices_left(small) == [101, 102, 103]

    @pytest.mark.parametrize("database_url", SERVERS, indirect=True)
    def test_is_refused_when_the_transaction_cannot_see_who_listens(self, small: AppState) -> None:
        with Session(small.engine.execution_options(isolation_level="REPEATABLE READ")) as session:
            session.scalars(sa.select(Note)).all()
            subscribe(small, NOWHERE, "invoices.updated")
            with pytest.raises(BulkStatementError, match="WEBHOOKS_BULK_LIMIT"):
                session.execute(sa.update(Invoice).values(number="new"))

    def test_who_listens_to_what_is_touched_listens(self, small: AppState) -> None:
        quietly(small, *(Line(invoice_id=101) for _ in range(3)))
        subscribe(small, NOWHERE, "invoices.updated")
        with pytest.raises(BulkStatementError, match="WEBHOOKS_BULK_LIMIT"):
            db.session.execute(sa.update(Line).values(text="new"))
        db.session.rollback()

    def test_who_listens_to_something_else_does_not(self, small: AppState) -> None:
        subscribe(small, NOWHERE, "invoices.created", "clients.*")
        db.session.execute(sa.update(Invoice).values(number="new"))
        db.session.commit()

        assert events(small) == []

    def test_in_many_small_statements_keeps_no_more_rows_than_one(self, small: AppState) -> None:
        """A batch job of a million rows, a thousand at a time, must not collect them all without a subscription."""
        for number in (101, 102, 103):
            db.session.execute(sa.update(Invoice).where(Invoice.id == number).values(number="new"))
        with counting(small.engine) as sent:
            db.session.execute(sa.update(Invoice).where(Invoice.id == 101).values(number="newer"))
            db.session.commit()

        assert kinds(sent) == ["SELECT webhook_listeners", "UPDATE invoice", *COMMIT]

    def test_in_many_small_statements_is_recorded_with_a_subscription(self, small: AppState) -> None:
        subscribe(small, NOWHERE, "invoices.*")
        for number in (101, 102, 103):
            db.session.execute(sa.update(Invoice).where(Invoice.id == number).values(number="new"))
        db.session.commit()

        assert events(small) == ["invoices.updated"] * 3


COMMIT = ["SELECT webhook_listeners"]
"""All statements of a commit with bulk statements but without a subscription: their rows are not read again."""
