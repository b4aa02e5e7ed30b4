"""What the worker's statements write on each database: MySQL and MariaDB read some of them differently."""

from __future__ import annotations

import re
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from flask_webhooks import outbox
from flask_webhooks.delivery import destination
from flask_webhooks.health import Health
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Lane
from flask_webhooks.outbox import Lease
from flask_webhooks.sql.parameters import KeyedStatement
from flask_webhooks.state import AppState
from flask_webhooks.worker import completer
from tests.conftest import on_servers
from tests.stage import deliveries, fill, subscribe

NOWHERE = "http://127.0.0.1:1/"
OURS, THIEF = (f"00000000-0000-7000-8000-00000000000{number}" for number in (1, 2))


def at(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


def a_lease() -> Lease:
    return Lease("test", OURS, at(seconds=45))


def failed(row: Delivery, **columns: t.Any) -> outbox.Row:
    """An attempt that failed and is the last one."""
    return {
        "delivery": row.id,
        "was_due": row.due_at,
        "next_state": "failed",
        "next_due": None,
        "made": 3,
        "why": "http_5xx",
        "sent": b"{}",
        "ended": at(),
        **columns,
    }


class TestRescheduling:
    @pytest.fixture
    def pending(self, state: AppState) -> Delivery:
        fill(state, [subscribe(state, NOWHERE)], 1, trigger="manual", attempts=2)
        return deliveries(state)[0]

    def write(self, state: AppState, result: outbox.Row) -> Delivery:
        with state.engine.begin() as connection:
            outbox.reschedule(connection, [result])
        return deliveries(state)[0]

    def test_what_has_failed_for_good_is_not_due_any_more(self, state: AppState, pending: Delivery) -> None:
        result = failed(pending)
        row = self.write(state, result)

        assert (row.state, row.due_at, row.finished_at) == ("failed", None, result["ended"])
        assert (row.attempts, row.trigger, row.reason, row.body) == (3, "automatic", "http_5xx", b"{}")

    def test_many_are_written_in_one_statement(self, state: AppState) -> None:
        fill(state, [subscribe(state, NOWHERE)], 3)

        with state.engine.begin() as connection:
            outbox.reschedule(connection, [failed(row) for row in deliveries(state)])

        assert [(row.state, row.due_at) for row in deliveries(state)] == [("failed", None)] * 3

    def test_a_retry_is_due_at_its_time(self, state: AppState, pending: Delivery) -> None:
        result = failed(pending, next_state="pending", next_due=at(minutes=5), ended=None)
        row = self.write(state, result)

        assert (row.state, row.due_at, row.finished_at) == ("pending", result["next_due"], None)
        assert (row.attempts, row.trigger) == (3, "automatic")

    @pytest.mark.parametrize("moved", [("pending", 60.0, None), ("held", None, "off")], ids=["retry", "held"])
    def test_who_has_moved_it_meanwhile_is_not_overruled(
        self, state: AppState, pending: Delivery, moved: tuple[str, float | None, str | None]
    ) -> None:
        into, seconds, reason = moved
        due = None if seconds is None else at(seconds=seconds)
        with state.engine.begin() as connection:
            connection.execute(sa.update(Delivery).values(state=into, due_at=due, reason=reason))
        row = self.write(state, failed(pending))

        assert (row.state, row.due_at, row.trigger, row.finished_at) == (into, due, "manual", None)
        assert (row.attempts, row.reason) == (3, reason or "http_5xx")


@on_servers
def test_a_lane_that_another_worker_is_just_taking_is_skipped(state: AppState) -> None:
    taken, free = (subscribe(state, NOWHERE) for _ in range(2))
    fill(state, [taken, free], 2)
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Lane), [{"subscription_id": each.id} for each in (taken, free)])

    def take() -> list[str]:
        with state.engine.connect() as connection:
            return [row.subscription_id for row in outbox.lease(connection, a_lease(), at(), 10)]

    with ThreadPoolExecutor() as threads, state.engine.begin() as other:
        outbox.lock(other, taken.id)
        assert threads.submit(take).result(timeout=20) == [free.id]


@on_servers
def test_a_lane_that_was_lost_while_others_were_being_renewed_is_not_ours(state: AppState) -> None:
    keys = sorted(uuid7() for _ in range(outbox.CHUNK + 1))
    others = [uuid7() for _ in range(5_000)]  # so many that none is locked for being looked at
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Lane), [{"subscription_id": key, "token": OURS} for key in keys])
        connection.execute(sa.insert(Lane), [{"subscription_id": key} for key in others])
    looks: list[str] = []

    def steal(_: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        if statement.startswith("SELECT"):
            looks.append(statement)
            if len(looks) == 1:  # between the first 500 and the rest
                with state.engine.begin() as thief:
                    thief.execute(sa.update(Lane).where(Lane.subscription_id == keys[-1]).values(token=THIEF))

    with state.engine.begin() as connection:
        sa.event.listen(connection, "after_cursor_execute", steal)
        ours = outbox.fence(connection, a_lease(), dict.fromkeys(keys, Health()), renew=True)

    assert len(looks) == 2
    assert set(ours) == set(keys[:-1])


@pytest.mark.parametrize(
    "written",
    [
        {"failures": 3, "failing_since": at(minutes=-1)},
        {"pauses": 1, "paused_until": at(minutes=1)},
        {"window_failed": 2, "window_ok": 1, "window_at": at(minutes=-1)},
    ],
    ids=lambda written: next(iter(written)),
)
def test_what_another_process_wrote_of_a_receiver_is_read_whole(
    state: AppState, written: dict[str, t.Any]
) -> None:
    key, other = uuid7(), uuid7()
    nothing = {"failures": 0, "pauses": 0, "window_ok": 0, "window_failed": 0, "token": OURS}
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Lane), [{"subscription_id": each, **nothing} for each in (key, other)])
        connection.execute(sa.update(Lane).where(Lane.subscription_id == key).values(**written))
    known = {key: Health(succeeded_at=at()), other: Health(succeeded_at=at())}
    with state.engine.begin() as connection:
        ours = outbox.fence(connection, a_lease(), known, renew=False)

    assert ours[key] == Health(**written)
    assert ours[other] is known[other]


KEYED = {
    name.strip("_").lower(): each
    for module in (outbox.leases, outbox.deliveries, destination)
    for name, each in vars(module).items()
    if isinstance(each, KeyedStatement)
}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", KEYED)
def test_keys_are_taken_apart_once_and_not_for_each_row(state: AppState, name: str) -> None:
    """Plans are kept: one that was made while a table was small, and reads all of it, took three seconds later."""
    statement = str(KEYED[name]._packed.compile(dialect=state.engine.dialect))
    names: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda match: names.setdefault(match[1], f"${len(names) + 1}"), statement)
    given = ", ".join("'{}'" if each == "keys" else "NULL" for each in names)
    with state.engine.connect() as connection:
        for way in (
            "plan_cache_mode = force_generic_plan",
            "enable_indexscan = off",
            "enable_bitmapscan = off",
        ):
            connection.exec_driver_sql(f"SET LOCAL {way}")
        connection.exec_driver_sql(f"PREPARE kept AS {text}")
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN EXECUTE kept ({given})").scalars())
        connection.exec_driver_sql("DEALLOCATE kept")

    assert f"= ANY ({names['keys']})" in plan or "unnest" in plan
    assert "::uuid[]" not in plan


class TestManyAtOnce:
    """On PostgreSQL rows come as JSON and keys as one array: nothing may be lost on the way."""

    ROW: t.ClassVar[dict[str, t.Any]] = {
        "number": 1,
        "trigger": "automatic",
        "started_at": datetime(2026, 11, 26, 23, 59, 59, 123_457, timezone(timedelta(hours=5, minutes=30))),
        "status": 200,
        "failure": None,
        "detail": "quote \" backslash \\ line\nfeed \u2028 tab\t é € 😀 {} 'null'",
        "url": "https://example.com/ü?a=%27",
        "request_headers": '{"a": "\\u0000"}',
        "body_sha256": "a" * 64,
        "body_size": 2**31 - 1,
        "response_headers": None,
        "response_body": bytes(range(256)),
        "response_truncated": True,
        "address": "2001:db8::1",
        "dns_seconds": 0.1 + 0.2,
        "connect_seconds": 1e-9,
        "tls_seconds": None,
        "first_byte_seconds": 123456.789,
        "total_seconds": 5e-324,
        "worker": "w",
    }

    def test_attempts_are_what_was_given(self, state: AppState) -> None:
        given = [
            {**self.ROW, "id": uuid7(), "delivery_id": uuid7(), "subscription_id": uuid7(), "number": number}
            for number in range(3)
        ]
        with state.engine.begin() as connection:
            outbox.log(connection, given)
        with state.engine.connect() as connection:
            found = connection.execute(sa.select(Attempt.__table__).order_by(Attempt.id)).mappings().all()

        assert [dict(row) for row in found] == given

    def test_large_answers_too(self, state: AppState) -> None:
        ids = [uuid7() for _ in range(5)]
        row = {
            **self.ROW,
            "delivery_id": uuid7(),
            "subscription_id": uuid7(),
            "response_body": b"x" * 3 * 2**20,
        }
        with state.engine.begin() as connection:
            outbox.log(connection, [{**row, "id": each} for each in ids])
            assert outbox.logged(connection, ids) == set(ids)

    def test_a_value_that_is_none_is_refused(self, state: AppState) -> None:
        if state.engine.dialect.name == "mysql":
            pytest.skip("its driver takes anything for a text")
        row = {**self.ROW, "id": uuid7(), "delivery_id": uuid7(), "subscription_id": uuid7()}
        with state.engine.connect() as connection, pytest.raises(completer.VALUE_ERRORS):
            outbox.log(connection, [{**row, "detail": object()}])

    def test_keys_find_their_rows(self, state: AppState) -> None:
        subscriptions = [subscribe(state, NOWHERE) for _ in range(3)]
        fill(state, subscriptions, 6)
        keys = [each.id for each in subscriptions]
        messages = {row.message_id for row in deliveries(state)}
        with state.engine.connect() as connection:
            assert outbox.messages(connection, {*messages, uuid7()}).keys() == messages
            assert outbox.messages(connection, set()) == {}
            lanes = {row.subscription_id for row in outbox.lease(connection, a_lease(), at(), 10)}
            connection.commit()
            assert lanes == set(keys)
            known = dict.fromkeys([*keys, uuid7()], Health())
            assert outbox.fence(connection, a_lease(), known, renew=True) == dict.fromkeys(keys, Health())
            connection.rollback()
