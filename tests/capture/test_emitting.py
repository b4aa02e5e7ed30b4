"""Events that the host emits itself: they join the transaction, and mistakes show at the call."""

from __future__ import annotations

import enum
import json
import threading
import typing as t
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import Webhooks
from flask_webhooks.errors import (
    EmitError,
    OwnerMissingError,
    PayloadError,
    PayloadTooLargeError,
    UnknownEventError,
)
from flask_webhooks.models import Message
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, RECORDING, SERVERS, counting, events, kinds, told
from tests.host import Client, Invoice, Note, Status, db
from tests.stage import recorded, subscribe

webhooks = Webhooks()


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.usefixtures("listening")
class TestTransaction:
    def test_it_exists_when_the_commit_does(self, state: AppState) -> None:
        webhooks.emit("reports.ready", {"id": 7}, owner="1")
        assert events(state) == []
        db.session.commit()

        [message] = recorded(state)
        assert (message.event, message.entity_id, json.loads(message.data)) == (
            "reports.ready",
            "7",
            {"id": 7},
        )

    def test_it_goes_with_a_rollback_and_a_savepoint(self, state: AppState) -> None:
        webhooks.emit("reports.ready", {"n": 1}, owner="1")
        db.session.rollback()
        webhooks.emit("reports.ready", {"n": 2}, owner="1")
        nested = db.session.begin_nested()
        webhooks.emit("reports.ready", {"n": 3}, owner="1")
        nested.rollback()
        with db.session.begin_nested():
            webhooks.emit("reports.ready", {"n": 4}, owner="1")
        db.session.commit()

        assert [data["n"] for data in told(state, "reports.ready")] == [2, 4]

    def test_many_at_once(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            webhooks.emit_many("reports.ready", [{"n": number} for number in range(50)], owner="1")
            db.session.commit()

        assert len(recorded(state)) == 50
        assert kinds(sent)[-2:] == RECORDING[1:]
        assert kinds(sent)[:-2] in ([], RECORDING[:1])  # SQLite asks beside a snapshot

    def test_an_instance_has_its_last_state(self, state: AppState) -> None:
        invoice = Invoice(owner="1", number="a")
        db.session.add(invoice)
        webhooks.emit("invoices.paid", invoice)
        invoice.number = "b"
        db.session.flush()
        invoice.number = "c"
        db.session.commit()

        assert [data["number"] for data in told(state, "invoices.paid")] == ["c"]

    def test_in_another_session(self, state: AppState) -> None:
        with Session(state.engine) as session:
            webhooks.emit("reports.ready", {}, owner="1", session=session)
            session.commit()

        assert events(state) == ["reports.ready"]

    def test_not_where_it_is_muted(self, state: AppState) -> None:
        with webhooks.muted():
            webhooks.emit("reports.ready", {}, owner="1")
        with Session(state.engine, info={"webhooks": False}) as session:
            webhooks.emit("reports.ready", {}, owner="1", session=session)
            session.commit()
        db.session.commit()

        assert events(state) == []


@pytest.mark.usefixtures("listening")
class TestDedupeKey:
    def test_a_second_does_nothing(self, state: AppState) -> None:
        for _ in range(2):
            webhooks.emit("reports.ready", {"n": 1}, owner="1", dedupe_key="k")
            webhooks.emit("reports.ready", {"n": 2}, owner="1", dedupe_key="k")
            db.session.commit()

        assert [data["n"] for data in told(state, "reports.ready")] == [1]

    def test_it_is_the_owners_and_the_events(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "reports.*", owner="2")
        webhooks.emit("reports.ready", {}, owner="1", dedupe_key="k")
        webhooks.emit("reports.failed", {}, owner="1", dedupe_key="k")
        webhooks.emit("reports.ready", {}, owner="2", dedupe_key="k")
        db.session.commit()

        assert len(recorded(state)) == 3

    def test_one_that_was_rolled_back_does_not_count(self, state: AppState) -> None:
        webhooks.emit("reports.ready", {"n": 1}, owner="1", dedupe_key="k")
        db.session.rollback()
        webhooks.emit("reports.ready", {"n": 2}, owner="1", dedupe_key="k")
        db.session.commit()

        assert [data["n"] for data in told(state, "reports.ready")] == [2]

    @pytest.mark.parametrize("first_commits", [True, False])
    @pytest.mark.parametrize("database_url", SERVERS, indirect=True)
    def test_of_two_transactions_at_a_time(self, app: Flask, state: AppState, first_commits: bool) -> None:
        """The second waits for the first to end; on SQLite there is only one at a time anyway."""
        written, done = threading.Event(), threading.Event()
        with Session(state.engine) as first:
            webhooks.emit("reports.ready", {"n": 1}, owner="1", dedupe_key="k", session=first)
            first.flush()

            def hold(_: t.Any) -> None:
                written.set()
                done.wait(1)
                if not first_commits:
                    raise ZeroDivisionError

            def run() -> None:
                written.wait(10)
                with app.app_context(), Session(state.engine) as second:
                    webhooks.emit("reports.ready", {"n": 2}, owner="1", dedupe_key="k", session=second)
                    second.commit()
                done.set()

            sa.event.listen(first, "before_commit", hold)
            thread = threading.Thread(target=run)
            thread.start()
            if first_commits:
                first.commit()
            else:
                with pytest.raises(ZeroDivisionError):
                    first.commit()
                first.rollback()
            thread.join(20)

        assert [data["n"] for data in told(state, "reports.ready")] == [1 if first_commits else 2]


class TestMistakes:
    @pytest.mark.parametrize(
        ("event", "data", "owner", "error", "words"),
        [
            ("reports.raedy", {}, "1", UnknownEventError, "reports.ready"),
            ("nothing.like.it", {}, "1", UnknownEventError, "nothing.like.it"),
            ("reports.ready", {}, None, OwnerMissingError, "reports.ready"),
            ("reports.ready", {"x": "y" * 300_000}, "1", PayloadTooLargeError, "WEBHOOKS_PAYLOAD_LIMIT"),
            ("reports.ready", {"x": "ü" * 200_000}, "1", PayloadTooLargeError, "reports.ready"),
            ("reports.ready", {"a": [{"b": b"x"}]}, "1", PayloadError, r"reports\.ready.*data\.a\[0\]\.b"),
            ("reports.ready", {"a": {1, 2}}, "1", PayloadError, r"reports\.ready.*data\.a"),
            ("reports.ready", {"a": float("nan")}, "1", PayloadError, r"reports\.ready.*data\.a"),
            ("reports.ready", {"a": timedelta(1)}, "1", PayloadError, r"reports\.ready.*data\.a"),
            ("reports.ready", {"a": object()}, "1", PayloadError, r"reports\.ready.*data\.a"),
            ("reports.ready", {(1, 2): 3}, "1", PayloadError, r"reports\.ready.*key"),
        ],
    )
    def test_show_at_the_call(
        self, state: AppState, event: str, data: t.Any, owner: str | None, error: type, words: str
    ) -> None:
        with pytest.raises(error, match=words):
            webhooks.emit(event, data, owner=owner)
        assert issubclass(error, EmitError)
        db.session.commit()

        assert events(state) == []

    def test_an_instance_of_another_model(self, app: Flask) -> None:
        with pytest.raises(PayloadError, match=r"invoices\.created.*Note"):
            webhooks.emit("invoices.created", Note(text="x"), owner="1")

    def test_an_instance_without_an_owner(self, app: Flask) -> None:
        client = Client(name="x")
        with pytest.raises(OwnerMissingError, match=r"clients\.created"):
            webhooks.emit("clients.created", client)

    @pytest.mark.usefixtures("listening")
    def test_what_json_does_not_know_and_we_do(self, state: AppState) -> None:
        moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
        key = uuid.UUID(int=1)
        webhooks.emit(
            "reports.ready",
            {
                "decimal": Decimal("1.10"),
                "datetime": moment,
                "date": date(2026, 3, 1),
                "time": time(12),
                "uuid": key,
                "enum": Colour.RED,
                "status": Status.PAID,
            },
            owner="1",
        )
        db.session.commit()

        assert told(state, "reports.ready") == [
            {
                "decimal": "1.10",
                "datetime": moment.isoformat(),
                "date": "2026-03-01",
                "time": "12:00:00",
                "uuid": str(key),
                "enum": "red",
                "status": "paid",
            }
        ]


@pytest.mark.usefixtures("listening")
class TestOrder:
    def test_the_sequence_of_an_object_grows(self, state: AppState) -> None:
        invoice = Invoice(owner="1")
        db.session.add(invoice)
        db.session.commit()
        for status in (Status.SENT, Status.PAID):
            invoice.status = status
            db.session.commit()

        found = [message.sequence for message in recorded(state)]
        assert len(found) == 5
        assert found == sorted(set(found))

    def test_also_when_a_clock_is_behind(self, state: AppState) -> None:
        """What another machine wrote lies in our future."""
        invoice = Invoice(owner="1")
        db.session.add(invoice)
        db.session.commit()
        future = recorded(state)[0].sequence + 10**12
        with Session(state.engine) as session:
            session.query(Message).update({"sequence": future})
            session.commit()
        invoice.status = Status.SENT
        db.session.commit()

        found = [message.sequence for message in recorded(state)]
        assert found[0] == future < found[1] < found[2] < future + 10

    def test_also_for_emitted_data(self, state: AppState) -> None:
        webhooks.emit_many("reports.ready", [{"id": 1}, {"id": 1}, {"id": 2}], owner="1")
        db.session.commit()

        one, two, _ = (message.sequence for message in recorded(state))
        assert two > one

    def test_occurred_at_is_utc_with_microseconds(self, state: AppState) -> None:
        before = datetime.now(UTC)
        webhooks.emit("reports.ready", {}, owner="1")
        db.session.commit()

        [message] = recorded(state)
        assert before <= message.occurred_at <= datetime.now(UTC)
        assert message.occurred_at.utcoffset() == timedelta(0)
        assert abs(message.sequence - message.occurred_at.timestamp() * 1e6) < 1e6
