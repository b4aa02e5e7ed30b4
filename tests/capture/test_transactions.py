"""An event exists if and only if its commit does."""

from __future__ import annotations

import json

import pytest
from flask import Flask
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from flask_webhooks.state import AppState
from tests.host import Invoice, Note, Status, db
from tests.stage import deliveries, recorded, subscribe


@pytest.fixture
def listening(state: AppState) -> None:
    """Somebody listens to all about invoices."""
    subscribe(state, "http://127.0.0.1:9/", "invoices.*")


def events(state: AppState) -> list[str]:
    return [message.event for message in recorded(state)]


@pytest.mark.usefixtures("listening")
class TestCommit:
    def test_a_created_object_is_an_event(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="A"))
        db.session.commit()

        [message] = recorded(state)
        assert (message.event, message.owner, message.environment) == ("invoices.created", "1", "staging")
        assert message.text == "Invoice created successfully."
        [delivery] = deliveries(state)
        assert (delivery.message_id, delivery.state) == (message.id, "pending")

    def test_a_rollback_leaves_nothing(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1"))
        db.session.flush()
        db.session.rollback()
        db.session.commit()

        assert events(state) == []

    def test_closing_without_commit_leaves_nothing(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1"))
        db.session.flush()
        db.session.close()
        db.session.add(Invoice(owner="1", number="B"))
        db.session.commit()

        assert ['"number":"B"' in message.data for message in recorded(state)] == [True]

    def test_a_transition_comes_with_the_update(self, state: AppState) -> None:
        invoice = Invoice(owner="1")
        db.session.add(invoice)
        db.session.commit()
        invoice.status = Status.SENT
        db.session.commit()
        invoice.note = "x"
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.updated", "invoices.sent", "invoices.updated"]

    def test_models_of_no_catalogue_are_left_alone(self, state: AppState) -> None:
        db.session.add(Note(text="x"))
        db.session.commit()

        assert events(state) == []


@pytest.mark.usefixtures("listening")
class TestSavepoints:
    def test_rolled_back(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="out"))
        with pytest.raises(ZeroDivisionError), db.session.begin_nested():
            db.session.add(Invoice(owner="1", number="in"))
            db.session.flush()
            raise ZeroDivisionError
        db.session.commit()

        assert ["out" in message.data for message in recorded(state)] == [True]

    def test_released_and_the_root_rolled_back(self, state: AppState) -> None:
        with db.session.begin_nested():
            db.session.add(Invoice(owner="1"))
        db.session.rollback()
        db.session.commit()

        assert events(state) == []

    def test_inner_released_outer_rolled_back(self, state: AppState) -> None:
        outer = db.session.begin_nested()
        db.session.add(Invoice(owner="1", number="x"))
        with db.session.begin_nested():
            db.session.add(Invoice(owner="1", number="y"))
        outer.rollback()
        db.session.add(Invoice(owner="1", number="z"))
        db.session.commit()

        assert ['"z"' in message.data for message in recorded(state)] == [True]

    def test_both_released(self, state: AppState) -> None:
        with db.session.begin_nested():
            db.session.add(Invoice(owner="1"))
            with db.session.begin_nested():
                db.session.add(Invoice(owner="1"))
        db.session.commit()

        assert events(state) == ["invoices.created"] * 2

    @pytest.mark.parametrize("is_outer_open", [True, False])
    @pytest.mark.parametrize("is_flushed", [True, False])
    def test_left_open_when_the_root_commits(
        self, state: AppState, is_flushed: bool, is_outer_open: bool
    ) -> None:
        """SQLAlchemy releases them on the way."""
        with Session(state.engine) as session, session.begin():
            session.add(Invoice(owner="1", number="a"))
            if is_outer_open:
                session.begin_nested()
                session.add(Invoice(owner="1", number="b"))
            session.begin_nested()
            session.add(Invoice(owner="1", number="c"))
            if is_flushed:
                session.flush()

        numbers = sorted(json.loads(message.data)["number"] for message in recorded(state))
        assert numbers == (["a", "b", "c"] if is_outer_open else ["a", "c"])

    def test_an_outer_one_is_released_with_an_inner_one_open(self, state: AppState) -> None:
        outer = db.session.begin_nested()
        db.session.add(Invoice(owner="1"))
        db.session.begin_nested()
        db.session.add(Invoice(owner="1"))
        outer.commit()
        found = events(state)
        db.session.commit()

        assert found == []
        assert events(state) == ["invoices.created"] * 2

    def test_closed_without_a_word_is_rolled_back(self, state: AppState) -> None:
        nested = db.session.begin_nested()
        db.session.add(Invoice(owner="1"))
        db.session.flush()
        nested.close()
        db.session.commit()

        assert db.session.query(Invoice).all() == []
        assert events(state) == []

    def test_an_integrity_error_inside(self, state: AppState) -> None:
        db.session.add(Invoice(id=1, owner="1"))
        db.session.flush()
        db.session.expunge_all()
        with pytest.raises(IntegrityError), db.session.begin_nested():
            db.session.add(Invoice(id=2, owner="1"))
            db.session.flush()
            db.session.add(Invoice(id=1, owner="1"))
            db.session.flush()
        db.session.add(Invoice(id=3, owner="1"))
        db.session.commit()

        assert [message.entity_id for message in recorded(state)] == ["1", "3"]


class TestNobodyListens:
    def test_nothing_is_recorded(self, state: AppState) -> None:
        subscribe(state, "http://127.0.0.1:9/", "clients.*")
        subscribe(state, "http://127.0.0.1:9/", "invoices.*", owner="2")
        db.session.add(Invoice(owner="1"))
        db.session.commit()

        assert events(state) == []

    def test_of_an_inactive_subscription_it_is_held(self, state: AppState) -> None:
        subscribe(state, "http://127.0.0.1:9/", "invoices.created", active=False)
        db.session.add(Invoice(owner="1"))
        db.session.commit()

        assert [(row.state, row.due_at) for row in deliveries(state)] == [("held", None)]


@pytest.mark.usefixtures("listening")
def test_a_plain_session_is_seen(state: AppState, app: Flask) -> None:
    with Session(state.engine) as session:
        session.add(Invoice(owner="1"))
        session.commit()

    assert events(state) == ["invoices.created"]
