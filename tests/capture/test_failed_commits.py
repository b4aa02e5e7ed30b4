"""Commits that fail and are repeated, and savepoints that the host's event listeners open inside a commit."""

from __future__ import annotations

import contextlib
import json
import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from flask_webhooks import signals
from flask_webhooks.capture import emit_many
from flask_webhooks.state import AppState
from tests.host import Invoice, Line, db
from tests.stage import deliveries, recorded

pytestmark = pytest.mark.usefixtures("listening")


@contextlib.contextmanager
def before_commit(work: t.Callable[[Session], None], *, first: bool = False) -> t.Iterator[None]:
    """A listener of the host's to the commits of roots; it runs after ours, or before it."""

    def listener(session: Session) -> None:
        if not session.in_nested_transaction():
            work(session)

    target: t.Any = Session if first else db.session()
    sa.event.listen(target, "before_commit", listener, insert=first)
    try:
        yield
    finally:
        sa.event.remove(target, "before_commit", listener)


class Veto:
    """Fails the first commit."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, session: Session) -> None:
        if not self.done:
            self.done = True
            raise ValueError("not yet")


def numbers(state: AppState) -> list[str]:
    """Numbers of the invoices that messages say were created."""
    assert {row.message_id for row in deliveries(state)} == {row.id for row in recorded(state)}
    created = [message for message in recorded(state) if message.event == "invoices.created"]
    return sorted(json.loads(message.data)["number"] for message in created)


def rows(state: AppState) -> list[str]:
    """Numbers of the invoices that are there."""
    with state.engine.connect() as connection:
        return sorted(connection.scalars(sa.select(Invoice.number)))


class TestASavepointInsideACommit:
    def test_one_that_fails_does_not_hide_what_follows(self, state: AppState) -> None:
        db.session.add(Invoice(id=1, owner="1", number="A"))
        db.session.commit()
        db.session.expunge_all()

        def work(session: Session) -> None:
            with contextlib.suppress(IntegrityError), session.begin_nested():
                session.add(Invoice(id=1, owner="1", number="again"))
            session.add(Invoice(id=3, owner="1", number="late"))

        db.session.add(Invoice(id=2, owner="1", number="B"))
        with before_commit(work):
            db.session.commit()

        assert numbers(state) == rows(state) == ["A", "B", "late"]

    @pytest.mark.parametrize("first", [True, False])
    def test_one_that_is_rolled_back_takes_only_its_own(self, state: AppState, first: bool) -> None:
        def work(session: Session) -> None:
            outer = session.begin_nested()
            with session.begin_nested():
                session.add(Invoice(owner="1", number="never"))
            outer.rollback()

        db.session.add(Invoice(owner="1", number="root"))
        db.session.flush()
        with before_commit(work, first=first):
            db.session.commit()

        assert numbers(state) == rows(state) == ["root"]

    def test_one_whose_release_is_refused(self, state: AppState) -> None:
        refused = []

        def refuse(session: Session) -> None:
            if session.in_nested_transaction() and not refused:
                refused.append(True)
                raise ValueError("no")

        def work(session: Session) -> None:
            with contextlib.suppress(ValueError), session.begin_nested():
                session.add(Invoice(owner="1", number="never"))

        db.session.add(Invoice(owner="1", number="root"))
        sa.event.listen(db.session(), "before_commit", refuse)
        with before_commit(work):
            db.session.commit()

        assert refused
        assert numbers(state) == rows(state) == ["root"]

    def test_the_signal_has_only_what_was_committed(self, state: AppState) -> None:
        told: list[str] = []

        def note(_: t.Any, messages: list[dict[str, t.Any]]) -> None:
            told.extend(message["id"] for message in messages)

        def work(session: Session) -> None:
            savepoint = session.begin_nested()
            session.add(Invoice(owner="1", number="never"))
            session.flush()
            savepoint.rollback()

        db.session.add(Invoice(owner="1", number="root"))
        with signals.message_recorded.connected_to(note), before_commit(work):
            db.session.commit()

        assert told == [message.id for message in recorded(state)]


class TestACommitThatIsTriedAgain:
    def test_it_records_once(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="A"))
        with before_commit(Veto()):
            with pytest.raises(ValueError, match="not yet"):
                db.session.commit()
            db.session.commit()

        assert numbers(state) == rows(state) == ["A"]

    def test_what_comes_to_nothing_meanwhile_is_nothing(self, state: AppState) -> None:
        db.session.add(invoice := Invoice(owner="1", number="A"))
        db.session.flush()
        with before_commit(Veto()):
            with pytest.raises(ValueError, match="not yet"):
                db.session.commit()
            db.session.delete(invoice)
            db.session.commit()

        assert rows(state) == []
        assert recorded(state) == []
        assert deliveries(state) == []

    def test_what_is_emitted_in_a_savepoint_goes_with_it(self, state: AppState) -> None:
        with before_commit(Veto()), pytest.raises(ValueError, match="not yet"):
            db.session.commit()
        emit_many(state, db.session(), "reports.ready", [{"id": 1}], owner="1")
        savepoint = db.session.begin_nested()
        emit_many(state, db.session(), "reports.ready", [{"id": 2}], owner="1")
        savepoint.rollback()
        db.session.commit()

        assert [message.entity_id for message in recorded(state)] == ["1"]

    def test_a_flush_that_failed_leaves_no_old_values(self, state: AppState) -> None:
        db.session.add(Invoice(id=1, owner="1", number="A"))
        db.session.commit()
        invoice = db.session.get_one(Invoice, 1)
        with pytest.raises(IntegrityError), db.session.begin_nested():
            db.session.expire(invoice)
            invoice.number = "B"
            db.session.flush()
            db.session.expire(invoice)
            invoice.number = "C"
            db.session.add(Invoice(id=1, owner="1"))
            with pytest.warns(sa.exc.SAWarning, match="conflicts with persistent"):
                db.session.flush()
        invoice.number = "D"
        db.session.commit()

        told = json.loads(recorded(state)[-1].extras or "{}")["changes"]
        assert told["number"] == {"from": "A", "to": "D"}

    def test_a_line_that_went_before_all_was_expunged(self, state: AppState) -> None:
        db.session.add(Invoice(id=1, owner="1", lines=[Line(id=1)]))
        db.session.commit()
        line = db.session.get_one(Line, 1)
        assert line.invoice is not None
        db.session.delete(line)
        db.session.flush()
        db.session.expire_all()
        db.session.expunge_all()
        db.session.commit()

        assert [message.event for message in recorded(state)] == ["invoices.created", "invoices.updated"]

    def test_where_a_line_has_been_meanwhile_is_not_touched(self, state: AppState) -> None:
        db.session.add_all([Invoice(id=1, owner="1", lines=[Line(id=1)]), Invoice(id=2, owner="1")])
        db.session.commit()
        before = len(recorded(state))
        line = db.session.get_one(Line, 1)
        line.invoice_id = 2
        db.session.flush()
        with before_commit(Veto()), pytest.raises(ValueError, match="not yet"):
            db.session.commit()
        line.invoice_id = 1
        db.session.flush()
        db.session.expire(db.session.get_one(Invoice, 1), ["lines"])
        db.session.delete(db.session.get_one(Invoice, 1))
        db.session.commit()

        told = [(message.event, message.entity_id) for message in recorded(state)[before:]]
        assert told == [("invoices.deleted", "1")]

    def test_what_is_changed_meanwhile_has_its_last_value(self, state: AppState) -> None:
        db.session.add(invoice := Invoice(owner="1", number="A"))
        with before_commit(Veto()):
            with pytest.raises(ValueError, match="not yet"):
                db.session.commit()
            invoice.number = "B"
            db.session.flush()
            invoice.number = "C"
            db.session.commit()

        assert [message.event for message in recorded(state)] == ["invoices.created"]
        assert numbers(state) == rows(state) == ["C"]

    def test_with_a_savepoint_open_that_is_then_rolled_back(self, state: AppState) -> None:
        with Session(state.engine) as session:
            root = session.begin()
            session.add(Invoice(owner="1", number="A"))
            session.flush()
            savepoint = session.begin_nested()
            session.add(Invoice(owner="1", number="B"))
            session.flush()
            veto = Veto()
            sa.event.listen(session, "before_commit", veto)
            with pytest.raises(ValueError, match="not yet"):
                root.commit()
            savepoint.rollback()
            root.commit()

        assert numbers(state) == rows(state) == ["A"]

    def test_the_signal_comes_once(self, state: AppState) -> None:
        told: list[str] = []

        def note(_: t.Any, messages: list[dict[str, t.Any]]) -> None:
            told.extend(message["id"] for message in messages)

        db.session.add(Invoice(owner="1", number="A"))
        with signals.message_recorded.connected_to(note), before_commit(Veto()):
            with pytest.raises(ValueError, match="not yet"):
                db.session.commit()
            db.session.commit()

        assert told == [message.id for message in recorded(state)]
