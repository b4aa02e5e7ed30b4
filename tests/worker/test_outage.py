"""An unreachable database, and rows that cannot be delivered or written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import threading
import typing as t
from collections import Counter

import pytest
import sqlalchemy as sa

from flask_webhooks import Webhooks, signals
from flask_webhooks.models import Delivery, Lane, Message, Secret, Subscription
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState, state_of
from tests.receivers import Receiver, many_headers, ok, raw
from tests.stage import attempts, deliveries, fill, lane_of, recorded, subscribe, wait_until
from tests.worker.answers import Gate, background, run

pytestmark = pytest.mark.long


def cut(state: AppState) -> None:
    """Break every connection of the app, as a restart of the server does; its pool still has broken ones."""
    beside = sa.create_engine(state.engine.url, poolclass=sa.NullPool)
    with beside.connect() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        connection.execute(sa.text(others + "AND datname = current_database()"))


@contextlib.contextmanager
def locked(state: AppState) -> t.Iterator[None]:
    """Nobody else can write: another process holds SQLite's lock, or PostgreSQL's on the tables."""
    with state.engine.connect() as connection:
        if state.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("UPDATE webhook_lanes SET token = token")
        elif state.engine.dialect.name == "mysql":
            connection.exec_driver_sql("SELECT token FROM webhook_lanes FOR UPDATE")
        else:
            connection.execute(sa.text("LOCK TABLE webhook_lanes, webhook_attempts IN ACCESS EXCLUSIVE MODE"))
        yield
        connection.rollback()


@pytest.fixture
def hasty(state: AppState) -> AppState:
    """An app whose database gives up on a lock at once."""

    @sa.event.listens_for(state.engine, "connect")
    def connect(connection: t.Any, _: t.Any) -> None:
        if state.engine.dialect.name == "sqlite":
            connection.execute("PRAGMA busy_timeout=20")
        elif state.engine.dialect.name == "mysql":
            connection.query("SET innodb_lock_wait_timeout = 1")
        else:
            connection.autocommit = True
            connection.execute("SET lock_timeout = 20")
            connection.autocommit = False

    state.engine.dispose()
    return state


def test_results_wait_until_the_database_can_be_written_again(hasty, caplog):
    state = hasty
    gate = Gate()
    with Receiver(gate) as receiver:
        subscription = subscribe(state, receiver.url())
        fill(state, [subscription], 20)
        with caplog.at_level(logging.WARNING), background(state) as other:
            wait_until(lambda: gate.held >= 2)
            with locked(state):
                gate.opened.set()
                wait_until(lambda: "database.trouble" in caplog.text)
                sent = len(receiver.requests)
                # nothing more is sent of which could not be written that it was
                wait_until(lambda: caplog.text.count("database.trouble") == 1)
                assert len(receiver.requests) <= sent + 4
            report = other.wait()

    assert report.delivered == 20
    assert len(receiver.requests) == 20  # no duplicates
    assert [row.state for row in deliveries(state)] == ["delivered"] * 20
    assert len(attempts(state)) == 20
    # said once when it went and once when it came back, however often it was tried
    assert caplog.text.count("database.trouble") == 1
    assert caplog.text.count("database.back") == 1


@pytest.mark.parametrize(
    "database_url", ["postgresql"], indirect=True
)  # SQLite has no connections that break
def test_connections_that_break_again_and_again_lose_and_repeat_nothing(state):
    gate = Gate(seconds=0.005)
    with Receiver(gate) as receiver:
        subscriptions = [subscribe(state, receiver.url(f"/{n}")) for n in range(10)]
        ids = fill(state, subscriptions, 600)
        with background(state) as other:
            for place in range(1, 6):
                wait_until(lambda place=place: len(receiver.requests) >= place * 100 or other.is_over)
                cut(state)
            report = other.wait()

        received = [request.headers["webhook-id"] for request in receiver.requests]

    assert sorted(received) == sorted(ids)
    assert report.delivered == 600
    assert len(attempts(state)) == 600
    assert {row.state for row in deliveries(state)} == {"delivered"}
    assert all(lane_of(state, each).leased_until is None for each in subscriptions)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "place",
    [
        r"SELECT .*FROM webhook_lanes.*FOR UPDATE",
        r"INSERT INTO webhook_attempts",
        r".*webhook_hours",
        r"UPDATE webhook_deliveries SET state=.* attempts=\(",
        r"UPDATE webhook_deliveries SET state=CASE",
        r"UPDATE webhook_lanes SET .*failures",
        "COMMIT",
    ],
)
def test_a_backend_that_is_killed_while_it_records_costs_nothing(state, place):
    """Each of the statements that write a batch, three times."""
    left = [1, 1, 1]

    def kill(connection: sa.Connection, statement: str) -> None:
        if "webhook_attempts" in statement:
            connection.info["is_recording"] = True
        if (
            left
            and re.match(place, statement, re.DOTALL)
            and (place != "COMMIT" or connection.info.pop("is_recording", False))
        ):
            left.pop()
            cut(state)

    sa.event.listen(state.engine, "before_cursor_execute", lambda c, _, statement, *__: kill(c, statement))
    sa.event.listen(state.engine, "commit", lambda connection: kill(connection, "COMMIT"))
    with Receiver(Gate(seconds=0.005)) as good, Receiver(ok(status=500)) as bad:
        sound = [subscribe(state, good.url(f"/{n}")) for n in range(5)]
        broken = [subscribe(state, bad.url(f"/{n}"), retry="none") for n in range(3)]
        ids = fill(state, [*sound, *broken], 400 if place != "COMMIT" else 80)
        report = run(state)
        received = [each.headers["webhook-id"] for each in (*good.requests, *bad.requests)]

    assert not left
    assert sorted(set(received)) == sorted(received)
    assert set(received) <= set(ids)
    assert report.delivered == len(good.requests) == len(ids) * 5 // 8
    assert report.failed == len(bad.requests)
    assert len(attempts(state)) == len(received)
    assert Counter(row.state for row in deliveries(state))["delivered"] == report.delivered
    assert all(lane_of(state, each).leased_until is None for each in (*sound, *broken))


def test_a_run_that_is_stopped_while_the_database_is_away_ends(hasty):
    state = hasty
    gate = Gate()
    with Receiver(gate) as receiver:
        fill(state, [subscribe(state, receiver.url())], 4)
        with background(state) as other:
            wait_until(lambda: gate.held >= 2)
            with locked(state):
                gate.opened.set()
                other.stop.set()
                wait_until(lambda: other.run.is_ending)
            other.wait(20)

    assert len(attempts(state)) == len(receiver.requests)


@pytest.mark.parametrize("error", [sa.exc.OperationalError, sa.exc.ProgrammingError])
def test_lanes_are_given_back_where_it_breaks_before_the_run_knows_them(state, error):
    fill(state, [subscription := subscribe(state, "http://127.0.0.1:1/")], 1)
    stop = ShutdownFlag()

    @sa.event.listens_for(state.engine, "before_cursor_execute")
    def cut_off(connection: t.Any, cursor: t.Any, statement: str, *_: t.Any) -> None:
        if "JOIN webhook_secrets" in statement:
            assert lane_of(state, subscription).token is not None
            stop.set()
            raise error(statement, {}, Exception("the connection is lost"))

    with contextlib.suppress(sa.exc.ProgrammingError):
        run(state, stop=stop)

    lane = lane_of(state, subscription)
    assert stop.is_set()
    assert (lane.token, lane.leased_until) == (None, None)


class Unheard:
    """Commits reach the database, but the connection breaks before it says so: those that log an attempt.

    :param number: of the first such commit that is lost, from 1; the next ones are heard again.
    """

    def __init__(self, state: AppState, number: int = 1) -> None:
        self.lost, self._left, self._is_logging = 0, number, False
        sa.event.listen(state.engine, "before_cursor_execute", self._note)
        sa.event.listen(state.engine, "commit", self._commit)

    def _note(self, connection: t.Any, cursor: t.Any, statement: str, *_: t.Any) -> None:
        if "INSERT INTO webhook_attempts" in statement:
            self._is_logging = True

    def _commit(self, connection: sa.Connection) -> None:
        if not self._is_logging:
            return
        self._is_logging = False
        self._left -= 1
        if self._left == 0:
            self.lost += 1
            driver: t.Any = connection.connection.dbapi_connection
            driver.commit()
            raise sa.exc.OperationalError("COMMIT", {}, Exception("the connection is lost"))


class TestCommitUnheard:
    def test_what_it_counted_is_not_forgotten(self, make_app):
        state = state_of(make_app(WEBHOOKS_RETRY=[3600.0], WEBHOOKS_SUBSCRIPTION_CONCURRENCY=1))
        unheard = Unheard(state)
        with Receiver(ok(status=500)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 5)
            report = run(state)

        assert unheard.lost == 1
        assert (report.failed, len(attempts(state)), len(receiver.requests)) == (5, 5, 5)
        lane = lane_of(state, subscription)
        assert (lane.failures, lane.window_failed) == (5, 5)
        assert [row.attempts for row in deliveries(state)] == [1] * 5

    def test_it_is_announced_once_all_the_same(self, state):
        told: list[str] = []
        names = ("delivery_attempted", "delivery_failed", "subscription_disabled")
        receivers = {name: lambda _, name=name, **__: told.append(name) for name in names}
        for name, receive in receivers.items():
            getattr(signals, name).connect(receive, state.app)
        unheard = Unheard(state)
        with Receiver(ok(status=410)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            run(state)

        assert unheard.lost == 1
        assert told == ["delivery_attempted", "delivery_failed", "subscription_disabled"]
        assert lane_of(state, subscription).leased_until is None

    @pytest.mark.parametrize("number", range(1, 6))
    def test_it_may_come_while_a_batch_is_written_one_by_one(self, state, number, caplog):
        """The first of them that cannot be written makes the rest go singly."""
        gate, transport = Gate(), state.transport

        class Odd:
            """A transport that passes on what no driver takes."""

            def __getattr__(self, name: str) -> t.Any:
                return getattr(transport, name)

            def send(self, outbound: t.Any) -> t.Any:
                reply = transport.send(outbound)
                return dataclasses.replace(reply, address=object()) if "/odd" in outbound.url else reply

        unheard = Unheard(state, number)
        with Receiver(gate) as receiver:
            subscriptions = [subscribe(state, receiver.url(path)) for path in ("/a", "/odd", "/b", "/c")]
            fill(state, subscriptions, 8)
            with background(dataclasses.replace(state, transport=t.cast("t.Any", Odd()))) as other:
                wait_until(lambda: gate.held == 8)
                gate.opened.set()
                report = other.wait()

        assert unheard.lost <= 1
        assert report.delivered == len(receiver.requests) == len(attempts(state)) == 8
        assert {row.state for row in deliveries(state)} == {"delivered"}
        assert all(lane_of(state, each).leased_until is None for each in subscriptions)
        assert "lane.taken_over" not in caplog.text

    def test_results_of_a_lane_that_was_lost_in_it_are_dropped(self, state):
        gate, unheard = Gate(), Unheard(state)
        with Receiver(gate) as receiver:
            ours, theirs = subscribe(state, receiver.url()), subscribe(state, receiver.url())
            fill(state, [ours, theirs], 2)
            with background(state) as other:
                wait_until(lambda: gate.held == 2)
                thief = "00000000-0000-7000-8000-000000000001"
                _execute(state, sa.update(Lane).where(Lane.subscription_id == theirs.id).values(token=thief))
                gate.opened.set()
                report = other.wait()

        assert unheard.lost == 1
        assert (report.delivered, report.lost, len(attempts(state))) == (1, 1, 1)


class Poison:
    """Ways to spoil a delivery so that it cannot be sent."""

    @staticmethod
    def no_secret(state: AppState, subscription: Subscription) -> None:
        _execute(state, sa.delete(Secret).where(Secret.subscription_id == subscription.id))

    @staticmethod
    def schedule(state: AppState, subscription: Subscription) -> None:
        change = sa.update(Subscription).where(Subscription.id == subscription.id).values(retry="often")
        _execute(state, change)

    @staticmethod
    def format(state: AppState, subscription: Subscription) -> None:
        _of(state, subscription, format="bad")

    @staticmethod
    def unknown_format(state: AppState, subscription: Subscription) -> None:
        _of(state, subscription, format="gone")

    @staticmethod
    def unknown_event(state: AppState, subscription: Subscription) -> None:
        messages = sa.select(Delivery.message_id).where(Delivery.subscription_id == subscription.id)
        _execute(state, sa.update(Message).where(Message.id.in_(messages)).values(event="reports.gone"))

    @staticmethod
    def data(state: AppState, subscription: Subscription) -> None:
        messages = sa.select(Delivery.message_id).where(Delivery.subscription_id == subscription.id)
        _execute(state, sa.update(Message).where(Message.id.in_(messages)).values(data="{not json"))

    @staticmethod
    def url(state: AppState, subscription: Subscription) -> None:
        change = sa.update(Subscription).where(Subscription.id == subscription.id).values(url="nonsense")
        _execute(state, change)


def _of(state: AppState, subscription: Subscription, **columns: t.Any) -> None:
    _execute(state, sa.update(Delivery).where(Delivery.subscription_id == subscription.id).values(**columns))


def _execute(state: AppState, statement: t.Any) -> None:
    with state.engine.begin() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("no_secret", "poison"),
        ("schedule", "poison"),
        ("format", "poison"),
        ("unknown_format", "unknown_format"),
        ("unknown_event", "unknown_event"),
        ("data", "poison"),
        ("url", "blocked_address"),
    ],
)
def test_a_poisoned_row_has_a_reason_is_kept_and_stops_no_other(make_app, inbox, spoil, reason):
    hooks = Webhooks()

    @hooks.payload_format("bad")
    def bad(message: t.Any, recipient: t.Any) -> t.Any:
        raise RuntimeError("text that PostgreSQL does not take: \0 \ud800")

    state = state_of(make_app(webhooks=hooks, WEBHOOKS_RETRY=[3600.0]))
    spoilt, sound = subscribe(state, inbox.url()), subscribe(state, inbox.url())
    fill(state, [spoilt, sound], 20)
    getattr(Poison, spoil)(state, spoilt)

    run(state)

    found = {(row.subscription_id, row.state, row.reason) for row in deliveries(state)}
    assert found == {(spoilt.id, "pending", reason), (sound.id, "delivered", None)}
    assert len(inbox.requests) == 10
    logged = [row for row in attempts(state) if row.subscription_id == spoilt.id]
    assert len(logged) == 10
    assert all(row.failure == reason and row.detail for row in logged)
    assert lane_of(state, spoilt).leased_until is None


def test_a_message_that_was_purged_fails_for_good(state, inbox):
    fill(state, [subscribe(state, inbox.url())], 1)
    _execute(state, sa.delete(Message))

    run(state)

    assert [(row.state, row.reason) for row in deliveries(state)] == [("failed", "purged")]


def test_an_answer_that_cannot_be_stored_does_not_keep_the_delivery_open(state, inbox):
    """What no receiver should be able to send through the transport, sent by a broken one of ours."""
    transport = state.transport
    sound, odd = subscribe(state, inbox.url("/sound")), subscribe(state, inbox.url("/odd"))
    fill(state, [sound, odd], 20)

    class Odd:
        """A transport that passes on what no database takes."""

        def __getattr__(self, name: str) -> t.Any:
            return getattr(transport, name)

        def send(self, outbound: t.Any) -> t.Any:
            reply = transport.send(outbound)
            return dataclasses.replace(reply, address="\0" * 90) if "/odd" in outbound.url else reply

    run(dataclasses.replace(state, transport=Odd()))

    assert {row.state for row in deliveries(state)} == {"delivered"}
    assert len(inbox.requests) == 20
    assert len(attempts(state)) == 20


@pytest.mark.parametrize(
    "behaviour",
    [many_headers(), raw(b"\xff\x00 nonsense\r\n\r\n"), ok(b"\0\xff", 500, {"X": "\x7f\xe9"})],
    ids=["10,000 headers", "no HTTP", "odd bytes"],
)
def test_whatever_a_receiver_answers_is_written(state, behaviour):
    with Receiver(behaviour) as receiver:
        fill(state, [subscribe(state, receiver.url(), retry="none")], 3)
        run(state)

    assert {row.state for row in deliveries(state)} == {"failed"}
    assert len(attempts(state)) == 3


def test_a_sender_that_crashes_is_logged_and_the_delivery_is_tried_again(state, inbox, caplog):
    class Broken:
        """A transport with a mistake of ours in it."""

        def send(self, outbound: t.Any) -> t.Any:
            raise ZeroDivisionError

    fill(state, [subscribe(state, inbox.url())], 2)

    run(dataclasses.replace(state, transport=Broken()))

    assert [(row.state, row.reason) for row in deliveries(state)] == [("pending", "poison")] * 2
    assert "delivery.crashed" in caplog.text
    assert "ZeroDivisionError" in attempts(state)[0].detail
    assert json.loads(attempts(state)[0].request_headers) == {}


def test_no_thread_is_left_when_a_run_has_ended(state, inbox):
    fill(state, [subscribe(state, inbox.url(f"/{n}")) for n in range(20)], 60)

    run(state)

    assert not [each for each in threading.enumerate() if each.name.startswith("webhooks-0")]
    assert recorded(state)
