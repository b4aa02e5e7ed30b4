"""The worker's statements use an index: the database's plans over a backlog that it has analysed."""

from __future__ import annotations

import contextlib
import re
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks import outbox
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Subscription
from flask_webhooks.outbox import Lease, Window
from flask_webhooks.state import AppState, state_of
from tests.conftest import DATABASES, new_database, new_mariadb_database, release
from tests.host import make_host
from tests.query_plans import plans, scans, statements
from tests.stage import fill, subscribe

DUE = "ix_webhook_deliveries_due"
LANES, ROWS = 20, 20_000
LONGEST = timedelta(seconds=45)
LATER = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture(scope="module", params=DATABASES)
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    """An app with a backlog, a part of which has been delivered, and of which the database has statistics."""
    folder = tmp_path_factory.mktemp("plans")
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder / 'test.sqlite'}"
        if request.param == "postgresql":
            url = stack.enter_context(new_database(request.getfixturevalue("postgres")))
        elif request.param == "mariadb":
            url = stack.enter_context(new_mariadb_database(request.getfixturevalue("mariadb")))
        app = make_host(url, folder)
        state = state_of(app)
        rows = [subscribe(state, "http://127.0.0.1:1/") for _ in range(LANES)]
        fill(state, rows, ROWS // 2)
        fill(state, rows, ROWS // 2, attempts=1)
        with state.engine.begin() as connection:
            done = sa.update(Delivery).where(Delivery.attempts == 1).values(state="delivered", due_at=None)
            connection.execute(done)
        with state.engine.begin() as connection:
            table = " TABLE webhook_deliveries" if request.param == "mariadb" else ""
            connection.exec_driver_sql(f"ANALYZE{table}")
        yield app
        release(app)


@pytest.fixture
def state(busy: Flask) -> AppState:
    return state_of(busy)


Ask = t.Callable[[sa.Connection, AppState], object]


def asked(state: AppState, ask: Ask) -> list[str]:
    """Return the plans of what the engine asks about deliveries; nothing stays as it was left."""

    def work() -> None:
        with state.engine.connect() as connection:
            ask(connection, state)
            connection.rollback()

    return plans(state, statements(state, work))


def read_whole(plan: str) -> list[str]:
    """Return the tables that are read from end to end; MariaDB calls the whole of an index `index`."""
    return scans(plan) or re.findall(r"'(webhook_deliveries)', '(?:ALL|index)'", plan)


def lanes(state: AppState) -> list[str]:
    with state.engine.connect() as connection:
        return list(connection.scalars(sa.select(Subscription.id).order_by(Subscription.id)))


def claim(connection: sa.Connection, state: AppState) -> None:
    now = datetime.now(UTC)
    lease = Lease("test", "00000000-0000-7000-8000-000000000001", now + LONGEST)
    assert len(outbox.lease(connection, lease, LATER, 10)) == 10
    outbox.give_back(connection, lease, lanes(state))
    connection.commit()


def heads(connection: sa.Connection, state: AppState) -> None:
    keys = lanes(state)
    found = outbox.select_due(connection, dict.fromkeys(keys, Window(20)), LATER)
    assert {len(rows) for rows in found.values()} == {20}
    behind = {key: Window(20, (rows[-1].due_at, rows[-1].id)) for key, rows in found.items()}
    outbox.select_due(connection, behind, LATER)


def first(connection: sa.Connection) -> t.Any:
    return connection.execute(sa.select(Delivery.id, Delivery.due_at).limit(1)).one()


BY_INDEX: dict[str, Ask] = {
    "claim": claim,
    "waiting": lambda connection, _: outbox.waiting(connection, LATER, LONGEST, 10),
    "next due": lambda connection, _: outbox.next_due(connection, LATER, LONGEST),
    "backlog": lambda connection, _: outbox.backlog(connection, LATER),
    "heads": heads,
}


@pytest.mark.parametrize("name", BY_INDEX)
def test_what_is_due_is_found_in_its_index(state: AppState, name: str) -> None:
    told = asked(state, BY_INDEX[name])

    assert told
    for plan in told:
        assert DUE in plan, plan
        assert not read_whole(plan), plan


def test_what_becomes_of_a_delivery_is_written_by_its_key(state: AppState) -> None:
    key = lanes(state)[0]

    def write(connection: sa.Connection, state: AppState) -> None:
        row = outbox.select_due(connection, {key: Window(1)}, LATER)[key][0]
        connection.rollback()
        outbox.still_due(connection, [row.id])
        outbox.bodies(connection, [row.id])
        outbox.succeed(connection, [row.id], LATER)
        result = {"delivery": row.id, "was_due": row.due_at, "next_state": "failed", "next_due": None}
        outbox.reschedule(connection, [{**result, "made": 1, "why": None, "sent": None, "ended": LATER}])

    told = asked(state, write)

    assert len(told) == 5
    for plan in told:
        assert not read_whole(plan), plan


def test_what_is_newer_than_a_backfill_is_found_by_its_object(state: AppState) -> None:
    told = [
        outbox.ObjectVersion(uuid7(), "reports", "1", 0),
        outbox.ObjectVersion(uuid7(), "reports", "2", 0),
    ]

    found = asked(state, lambda connection, _: outbox.find_outdated(connection, lanes(state)[0], told))

    assert found
    for plan in found:
        assert "ix_webhook_messages_of_object" in plan, plan
        assert not read_whole(plan), plan


def test_switching_looks_at_one_subscription(state: AppState) -> None:
    key = lanes(state)[0]

    def switch(connection: sa.Connection, state: AppState) -> None:
        outbox.hold(connection, key, "off")
        outbox.send_held(connection, key, LATER)
        outbox.discard_held(connection, key, LATER)
        outbox.find_inconsistent(connection)

    told = asked(state, switch)
    looks = [plan for plan in told if "ix_webhook_deliveries_" in plan]

    assert len(looks) >= 5  # PostgreSQL may also move what it found by it
    for plan in told:
        assert not read_whole(plan), plan


def test_a_look_at_everything_would_be_seen(state: AppState) -> None:
    def look(connection: sa.Connection, _: AppState) -> None:
        connection.execute(sa.select(Delivery.id).where(Delivery.reason == "x"))

    [plan] = asked(state, look)
    assert read_whole(plan) == ["webhook_deliveries"], plan
