"""Events that the host emits itself: they are part of the transaction, and mistakes raise at the call."""

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
from flask_sqlalchemy import track_modifications
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
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, RECORDING, SERVERS, counting, events, kinds, recorded_data
from tests.host import Client, Invoice, Note, Status, db
from tests.stage import recorded, subscribe

webhooks = Webhooks()


def nest(levels: int) -> t.Any:
    """A list in a list in a list."""
    made: t.Any = 1
    for _ in range(levels):
        made = [made]
    return made


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

        assert [data["n"] for data in recorded_data(state, "reports.ready")] == [2, 4]

    def test_many_at_once(self, state: AppState) -> None:
        with counting(state.engine) as sent:
            webhooks.emit_many("reports.ready", [{"n": number} for number in range(50)], owner="1")
            db.session.commit()

        assert len(recorded(state)) == 50
        assert kinds(sent)[-2:] == RECORDING[1:]
        assert kinds(sent)[:-2] in ([], RECORDING[:1])  # SQLite asks outside of a snapshot

    def test_an_instance_has_its_last_state(self, state: AppState) -> None:
        invoice = Invoice(owner="1", number="a")
        db.session.add(invoice)
        webhooks.emit("invoices.paid", invoice)
        invoice.number = "b"
        db.session.flush()
        invoice.number = "c"
        db.session.commit()

        assert [data["number"] for data in recorded_data(state, "invoices.paid")] == ["c"]

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

    def test_a_dict_that_is_used_again(self, state: AppState) -> None:
        """What was said is what the dict was at the call, and of whom: sequences are those of one object."""
        data: dict[str, t.Any] = {}
        for number in (1, 2, 1):
            data["id"], data["status"] = number, f"s{number}"
            webhooks.emit("reports.ready", data, owner="1")
        data.clear()
        db.session.commit()

        found = recorded(state)
        assert [(message.entity_id, message.status) for message in found] == [
            ("1", "s1"),
            ("2", "s2"),
            ("1", "s1"),
        ]
        assert [json.loads(message.data)["id"] for message in found] == [1, 2, 1]
        assert found[2].sequence > found[0].sequence

    def test_the_environment_is_chosen_by_what_is_sent(self, make_app: t.Callable[..., Flask]) -> None:
        seen: list[t.Any] = []

        def choose(event: str, data: t.Any, owner: str) -> str:
            seen.append(data)
            return "production"

        app = make_app(WEBHOOKS_ENVIRONMENT=choose, WEBHOOKS_RECORD="all")
        with app.app_context():
            data: dict[str, t.Any] = {"total": Decimal("1.10")}
            webhooks.emit("reports.ready", data, owner="1")
            data["total"] = "changed"
            db.session.commit()

            assert seen == [{"total": "1.10"}]
            assert [message.environment for message in recorded(state_of(app))] == ["production"]
            db.session.remove()


@pytest.mark.usefixtures("listening")
class TestOver:
    """A transaction that is over takes nothing any more: what is emitted then would be lost."""

    def test_after_the_commit(self, state: AppState) -> None:
        said: list[str] = []

        def late(*_: t.Any) -> None:
            with pytest.raises(
                EmitError, match=r"reports\.ready.*committed.*before_commit.*session="
            ) as caught:
                webhooks.emit("reports.ready", {}, owner="1")
            said.append(str(caught.value))

        sa.event.listen(db.session(), "after_commit", late)
        with db.session.begin_nested():  # SQLAlchemy calls it for a savepoint too
            db.session.add(Client(owner="1", name="x"))
        db.session.commit()
        sa.event.remove(db.session(), "after_commit", late)
        db.session.commit()

        assert len(said) == 2
        assert events(state) == ["clients.created"]

    def test_in_models_committed(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(SQLALCHEMY_TRACK_MODIFICATIONS=True)

        def late(_: t.Any, changes: t.Any) -> None:
            webhooks.emit("reports.ready", {}, owner="1")

        with app.app_context(), track_modifications.models_committed.connected_to(late):
            db.session.add(Client(owner="1", name="x"))
            with pytest.raises(EmitError, match=r"reports\.ready.*models_committed"):
                db.session.commit()
            db.session.remove()

            assert db.session.query(Client).count() == 1
            db.session.remove()

    def test_in_a_session_of_its_own_it_may(self, state: AppState) -> None:
        def late(*_: t.Any) -> None:
            with Session(state.engine) as other:
                webhooks.emit("reports.ready", {}, owner="1", session=other)
                other.commit()

        sa.event.listen(db.session(), "after_commit", late)
        db.session.add(Client(owner="1", name="x"))
        db.session.commit()
        sa.event.remove(db.session(), "after_commit", late)

        assert events(state) == ["clients.created", "reports.ready"]

    def test_after_a_failed_flush(self, state: AppState) -> None:
        db.session.add(Client(id=1, owner="1", name="x"))
        db.session.commit()
        db.session.expunge_all()
        db.session.add(Client(id=1, owner="1", name="twice"))
        with pytest.raises(sa.exc.IntegrityError):
            db.session.flush()
        with pytest.raises(EmitError, match=r"reports\.failed.*over"):
            webhooks.emit("reports.failed", {}, owner="1")
        db.session.rollback()
        webhooks.emit("reports.failed", {}, owner="1")
        db.session.commit()

        assert events(state) == ["clients.created", "reports.failed"]


@pytest.mark.usefixtures("listening")
class TestInstances:
    """An event about an object needs a row that the object stands for, at the latest when it is committed."""

    def refused(self, words: str, error: type[Exception] = EmitError) -> None:
        with pytest.raises(error, match=words):
            db.session.commit()
        db.session.rollback()

    def test_one_that_was_never_added(self, state: AppState) -> None:
        webhooks.emit("invoices.paid", Invoice(owner="1"))
        self.refused(r"invoices\.paid.*Invoice None.*never added.*Add it")

        assert events(state) == []

    def test_one_that_is_added_later(self, state: AppState) -> None:
        invoice = Invoice(owner="1")
        webhooks.emit("invoices.paid", invoice)
        db.session.add(invoice)
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.paid"]

    def test_one_whose_savepoint_was_rolled_back(self, state: AppState) -> None:
        invoice = Invoice(id=5, owner="1")
        savepoint = db.session.begin_nested()
        db.session.add(invoice)
        db.session.flush()
        savepoint.rollback()
        webhooks.emit("invoices.paid", invoice)
        self.refused(r"invoices\.paid.*Invoice 5.*rolled back")

        assert events(state) == []

    @pytest.mark.parametrize("owner", [None, "1"])
    def test_one_that_was_expunged(self, state: AppState, owner: str | None) -> None:
        invoice = Invoice(id=5, owner="1")
        db.session.add(invoice)
        db.session.flush()
        webhooks.emit("invoices.paid", invoice, owner=owner)
        db.session.expire(invoice)
        db.session.expunge(invoice)
        self.refused(r"invoices\.paid.*Invoice 5.*no session.*Add it")

    @pytest.mark.parametrize("owner", [None, "1"])
    def test_one_whose_row_is_gone(self, state: AppState, owner: str | None) -> None:
        db.session.add(invoice := Invoice(id=5, owner="1"))
        db.session.commit()
        webhooks.emit("invoices.paid", invoice, owner=owner)
        db.session.execute(sa.text("DELETE FROM invoice"))
        db.session.expire_all()
        self.refused(r"invoices\.paid.*Invoice 5.*row is gone")

    def test_one_that_cannot_be_read_at_the_call(self, state: AppState) -> None:
        db.session.add(invoice := Invoice(id=5, owner="1"))
        db.session.commit()
        db.session.execute(sa.text("DELETE FROM invoice"))
        with pytest.raises(EmitError, match=r"invoices\.paid.*Invoice 5.*its row is gone"):
            webhooks.emit("invoices.paid", invoice)
        db.session.rollback()
        db.session.close()
        with pytest.raises(EmitError, match=r"invoices\.paid.*Invoice 5.*detached"):
            webhooks.emit("invoices.paid", invoice)

    def test_one_that_loses_its_owner(self, state: AppState) -> None:
        db.session.add(client := Client(id=5, owner="1", name="x"))
        webhooks.emit("clients.updated", client)
        db.session.flush()
        client.__dict__["owner"] = None
        self.refused(r"clients\.updated.*Client 5.*no owner", OwnerMissingError)

    def test_one_that_is_deleted_in_the_same_transaction(self, state: AppState) -> None:
        db.session.add(invoice := Invoice(owner="1", number="last"))
        db.session.commit()
        webhooks.emit("invoices.paid", invoice)
        db.session.delete(invoice)
        db.session.commit()

        assert events(state) == ["invoices.created", "invoices.deleted", "invoices.paid"]
        assert recorded_data(state, "invoices.paid")[0]["number"] == "last"

    def test_one_that_is_just_being_inserted(self, state: AppState) -> None:
        """A listener of the host's emits it inside the flush, which may be the last of the commit."""

        def emit(session: Session, _: t.Any) -> None:
            for obj in session.new:
                webhooks.emit("clients.updated", obj, owner="1")

        def add_late(session: Session) -> None:
            session.add(Client(owner="1", name="late"))

        session = db.session()
        sa.event.listen(session, "after_flush", emit)
        sa.event.listen(session, "before_commit", add_late)
        session.add(Client(owner="1", name="early"))
        session.commit()
        sa.event.remove(session, "after_flush", emit)
        sa.event.remove(session, "before_commit", add_late)

        assert sorted(data["name"] for data in recorded_data(state, "clients.updated")) == ["early", "late"]
        assert all(message.entity_id != "None" for message in recorded(state))

    def test_many_that_are_expired_are_not_read_one_by_one(self, state: AppState) -> None:
        db.session.add_all(invoices := [Invoice(owner="1") for _ in range(20)])
        db.session.commit()
        webhooks.emit_many("invoices.paid", invoices)
        db.session.expire_all()
        with counting(state.engine) as sent:
            db.session.commit()

        assert kinds(sent).count("SELECT invoice") <= 2
        assert len(recorded_data(state, "invoices.paid")) == 20

    def test_what_cannot_be_serialised_is_logged(
        self, make_app: t.Callable[..., Flask], caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(WEBHOOKS_ON_ERROR="log", WEBHOOKS_RECORD="all")
        with app.app_context():
            db.session.add(invoice := Invoice(id=5, owner="1"))
            db.session.commit()
            webhooks.emit("invoices.paid", invoice)
            webhooks.emit("invoices.paid", Invoice(owner="1"))
            db.session.execute(sa.text("DELETE FROM invoice"))
            db.session.expire_all()
            db.session.add(Client(owner="1", name="x"))
            db.session.commit()

            assert events(state_of(app)) == ["invoices.created", "clients.created"]
            db.session.remove()

        assert "invoices.paid of Invoice 5" in caplog.text
        assert "invoices.paid of Invoice None" in caplog.text


@pytest.mark.usefixtures("listening")
class TestDedupeKey:
    def test_a_second_does_nothing(self, state: AppState) -> None:
        for _ in range(2):
            webhooks.emit("reports.ready", {"n": 1}, owner="1", dedupe_key="k")
            webhooks.emit("reports.ready", {"n": 2}, owner="1", dedupe_key="k")
            db.session.commit()

        assert [data["n"] for data in recorded_data(state, "reports.ready")] == [1]

    def test_it_is_the_owners_and_the_events(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "reports.*", owner="2")
        webhooks.emit("reports.ready", {}, owner="1", dedupe_key="k")
        webhooks.emit("reports.failed", {}, owner="1", dedupe_key="k")
        webhooks.emit("reports.ready", {}, owner="2", dedupe_key="k")
        db.session.commit()

        assert len(recorded(state)) == 3

    def test_it_is_for_one_row(self, state: AppState) -> None:
        with pytest.raises(EmitError, match=r"reports\.ready.*5 rows.*'k'.*one by one"):
            webhooks.emit_many("reports.ready", [{"n": n} for n in range(5)], owner="1", dedupe_key="k")
        webhooks.emit_many("reports.ready", [{"n": 7}], owner="1", dedupe_key="k")
        db.session.commit()

        assert [data["n"] for data in recorded_data(state, "reports.ready")] == [7]

    def test_it_may_be_anything_that_text_can_be_made_of(self, state: AppState) -> None:
        key: t.Any = uuid.UUID(int=1)
        webhooks.emit("reports.ready", {}, owner="1", dedupe_key=key)
        webhooks.emit("reports.ready", {}, owner="1", dedupe_key=str(key))
        db.session.commit()

        assert len(recorded(state)) == 1

    def test_one_that_was_rolled_back_does_not_count(self, state: AppState) -> None:
        webhooks.emit("reports.ready", {"n": 1}, owner="1", dedupe_key="k")
        db.session.rollback()
        webhooks.emit("reports.ready", {"n": 2}, owner="1", dedupe_key="k")
        db.session.commit()

        assert [data["n"] for data in recorded_data(state, "reports.ready")] == [2]

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

        assert [data["n"] for data in recorded_data(state, "reports.ready")] == [1 if first_commits else 2]


MISTAKES = pytest.mark.parametrize(
    ("event", "data", "owner", "error", "words"),
    [
        ("reports.raedy", {}, "1", UnknownEventError, "reports.ready"),
        ("nothing.like.it", {}, "1", UnknownEventError, "nothing.like.it"),
        ("reports.ready", {}, None, OwnerMissingError, "reports.ready"),
        ("reports.ready", {"x": "y" * 300_000}, "1", PayloadTooLargeError, "WEBHOOKS_PAYLOAD_LIMIT"),
        ("reports.ready", {"x": "ü" * 200_000}, "1", PayloadTooLargeError, "reports.ready"),
        ("reports.ready", {"a": [{"b": object()}]}, "1", PayloadError, r"reports\.ready.*data\.a\[0\]\.b"),
        ("reports.ready", {"a": {1, object()}}, "1", PayloadError, r"reports\.ready.*data\.a"),
        ("reports.ready", {"a": float("nan")}, "1", PayloadError, r"reports\.ready.*data\.a"),
        ("reports.ready", {"a": object()}, "1", PayloadError, r"reports\.ready.*data\.a"),
        ("reports.ready", {(1, 2): 3}, "1", PayloadError, r"reports\.ready.*key"),
        ("reports.ready", {"a": "\ud800"}, "1", PayloadError, r"reports\.ready.*data\.a.*surrogate"),
        ("reports.ready", {"\ud800": 1}, "1", PayloadError, r"reports\.ready.*data has the key.*surrogate"),
        ("reports.ready", {"a": 10**5000}, "1", PayloadError, r"reports\.ready.*data\.a.*digits"),
        ("reports.ready", {10**5000: 1}, "1", PayloadError, r"reports\.ready.*data has the key"),
        ("reports.ready", {"a": nest(100_000)}, "1", PayloadError, r"reports\.ready.*data\.a\[0\].*deep"),
        ("reports.ready", {"id": "x" * 256}, "1", EmitError, r"reports\.ready.*id.*256.*255.*shorter"),
        ("reports.ready", {"id": "a\0"}, "1", EmitError, r"reports\.ready.*id.*'a\\x00'.*NUL"),
        ("reports.ready", {"status": "a\0"}, "1", EmitError, r"reports\.ready.*status.*NUL"),
        ("reports.ready", {}, "o" * 256, EmitError, r"reports\.ready.*owner.*256.*255"),
        ("reports.ready", {}, "o\0", EmitError, r"reports\.ready.*owner.*NUL"),
        ("reports.ready", {}, "\ud800", EmitError, r"reports\.ready.*owner.*surrogate"),
    ],
)


class TestMistakes:
    @MISTAKES
    def test_show_at_the_call(
        self, state: AppState, event: str, data: t.Any, owner: str | None, error: type, words: str
    ) -> None:
        with pytest.raises(error, match=words):
            webhooks.emit(event, data, owner=owner)
        assert issubclass(error, EmitError)
        db.session.commit()

        assert events(state) == []

    @MISTAKES
    def test_show_where_it_is_muted_too(
        self, app: Flask, event: str, data: t.Any, owner: str | None, error: type, words: str
    ) -> None:
        """Else the first call outside would be the first to fail."""
        with webhooks.muted(), pytest.raises(error, match=words):
            webhooks.emit(event, data, owner=owner)
        with (
            Session(db.engine, info={"webhooks": False}) as session,
            pytest.raises(error, match=words),
        ):
            webhooks.emit(event, data, owner=owner, session=session)

    @pytest.mark.parametrize("key", ["k" * 201, "k\0", "\udfff"])
    def test_a_key_that_does_not_fit(self, state: AppState, key: str) -> None:
        with pytest.raises(EmitError, match=r"reports\.ready.*dedupe_key"):
            webhooks.emit("reports.ready", {}, owner="1", dedupe_key=key)

    @pytest.mark.usefixtures("listening")
    def test_what_just_fits(self, state: AppState) -> None:
        owner = "ü" * 255
        subscribe(state, NOWHERE, "reports.*", owner=owner)
        webhooks.emit("reports.ready", {"id": "é" * 255}, owner=owner, dedupe_key="k" * 200)
        db.session.commit()

        assert [message.entity_id for message in recorded(state)] == ["é" * 255]

    @pytest.mark.usefixtures("listening")
    def test_a_status_that_is_too_long_is_cut(self, state: AppState) -> None:
        """The data shows it in full."""
        webhooks.emit("reports.ready", {"status": "s" * 300}, owner="1")
        db.session.commit()

        [message] = recorded(state)
        assert message.status == "s" * 255
        assert json.loads(message.data) == {"status": "s" * 300}

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

        assert recorded_data(state, "reports.ready") == [
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


@pytest.mark.parametrize("owner", ["", " ", "\t\n"])
def test_an_empty_owner_is_none(app: Flask, owner: str) -> None:
    with pytest.raises(OwnerMissingError, match="owner"):
        Webhooks().emit("reports.ready", {"id": 1}, owner=owner)
