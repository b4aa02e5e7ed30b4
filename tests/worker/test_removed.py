"""Removed subscriptions are deleted with their last delivery, and cost other commits nothing until then."""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import outbox
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.ids import first_at
from flask_webhooks.models import Delivery, Hour, Lane, Message, Replay, Subscription
from flask_webhooks.state import AppState
from flask_webhooks.worker.maintenance import Maintenance
from tests.api.conftest import Customer
from tests.console.conftest import on_one_database
from tests.stage import fill, rows_of, subscribe

AGO = datetime.now(UTC) - timedelta(hours=2)


def removed(state: AppState, count: int, deleted_at: datetime = AGO) -> list[Subscription]:
    """Put removed subscriptions into the database, with what is kept of each."""
    now = datetime.now(UTC)
    rows = [
        Subscription(owner="1", environment="staging", url="http://127.0.0.1:1/", active=False, created_at=AGO,
                     updated_at=AGO, deleted_at=deleted_at)
        for _ in range(count)
    ]  # fmt: skip
    with Session(state.engine, expire_on_commit=False) as session:
        session.add_all(rows)
        session.flush()
        session.add_all(Lane(subscription_id=row.id) for row in rows)
        session.add_all(Hour(subscription_id=row.id, hour=AGO) for row in rows)
        session.add_all(
            Replay(subscription_id=row.id, state="done", states=[], events=[], since=now, until=now, digest="",
                   total=0, next_at=now, created_at=now)
            for row in rows[:3]
        )  # fmt: skip
        session.commit()
    return rows


def ended(state: AppState, rows: t.Sequence[Subscription], count: int) -> list[str]:
    """Put deliveries that have ended into the log; return the ids of their messages."""
    ids = fill(state, rows, count)
    with state.engine.begin() as connection:
        over = {"state": "cancelled", "due_at": None}
        connection.execute(sa.update(Delivery).where(Delivery.due_at.is_not(None)).values(over))
    return ids


def test_what_has_no_delivery_any_more_goes_with_all_that_is_kept_of_it(state: AppState) -> None:
    gone, logged = removed(state, 3), removed(state, 1)
    removed(state, 1, datetime.now(UTC))  # a commit may still be under way
    on = subscribe(state, "http://127.0.0.1:1/", "*")
    ended(state, logged, 1)

    Maintenance(state, "test", purging=60.0)._purge()

    with state.engine.connect() as connection:
        kept = set(connection.scalars(sa.select(Subscription.id)))
    assert not kept & {row.id for row in gone}
    assert {on.id, logged[0].id} < kept
    assert rows_of(state, Subscription, Lane, Hour, Replay) == [3, 2, 2, 2]


def test_it_goes_with_its_last_delivery(app: Flask, state: AppState) -> None:
    [row] = removed(state, 1)
    [key] = ended(state, [row], 1)
    old = first_at(datetime.now(UTC) - timedelta(days=31))
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(message_id=old))
        connection.execute(sa.update(Message).where(Message.id == key).values(id=old))

    result = app.test_cli_runner().invoke(webhooks_cli, ["purge"])

    assert result.exit_code == 0, result.output
    assert rows_of(state, Subscription, Lane, Hour, Replay) == [0, 0, 0, 0]


def test_it_is_done_in_steps(state: AppState) -> None:
    removed(state, 7)

    counts = []
    while not counts or counts[-1]:
        with state.engine.begin() as connection:
            counts.append(outbox.purge_removed(connection, datetime.now(UTC), most=3))

    assert counts == [3, 3, 1, 0]


@on_one_database
@pytest.mark.parametrize("have_deliveries", [False, True])
def test_2000_removed_ones_make_no_list_slow(app: Flask, state: AppState, have_deliveries: bool) -> None:
    rows = removed(state, 2_000)
    if have_deliveries:
        ended(state, rows, 2_000)
    on = subscribe(state, "http://127.0.0.1:1/", "reports.ready")
    [mine] = ended(state, [on], 1)
    call = Customer(app.test_client())
    call("GET", "/deliveries", expect=200)
    took: dict[str, float] = {}
    for path in ("/subscriptions", "/deliveries", f"/messages/{mine}", f"/deliveries?subscription={on.id}"):
        began = time.monotonic()
        found: t.Any = call("GET", path, expect=200)
        took[path] = time.monotonic() - began
        assert on.id in str(found)

    assert max(took.values()) < 1.0, took
