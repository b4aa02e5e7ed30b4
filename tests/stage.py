"""Steps that many tests share: subscribe, read what was recorded, wait for a condition, set a clock ahead."""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import signing
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Lane, Listener, Message, Secret, Subscription
from flask_webhooks.state import AppState


def subscribe(
    state: AppState,
    url: str,
    *events: str,
    owner: str = "1",
    includes: t.Sequence[str] = (),
    **columns: t.Any,
) -> Subscription:
    """Put a subscription into the database as it would stand there, without the checks of the API."""
    now = datetime.now(UTC)
    row = Subscription(owner=owner, environment="staging", url=url, created_at=now, updated_at=now, **columns)
    row.listeners = [Listener(owner=owner, event=event, includes=list(includes)) for event in events]
    row.secrets = [Secret(sealed=state.vault.seal(signing.generate().text), created_at=now)]
    with Session(state.engine, expire_on_commit=False) as session:
        session.add(row)
        session.commit()
    return row


def fill(state: AppState, subscriptions: t.Sequence[Subscription], count: int, **columns: t.Any) -> list[str]:
    """Put `count` due deliveries of `reports.ready` into the database, spread evenly; return their messages' ids."""
    now = datetime.now(UTC)
    message = {
        "event": "reports.ready",
        "channel": "reports",
        "owner": "1",
        "environment": "staging",
        "occurred_at": now,
        "sequence": 1,
        "text": "Report ready.",
        "data": columns.pop("data", '{"id": 1}'),
        "size": 9,
    }
    delivery = {"state": "pending", "due_at": now, "attempts": 0, "trigger": "automatic", "format": "channel"}
    messages = [{"id": uuid7(), **message} for _ in range(count)]
    rows = [
        {
            "id": uuid7(),
            "message_id": row["id"],
            "subscription_id": subscriptions[number % len(subscriptions)].id,
            **delivery,
            **columns,
        }
        for number, row in enumerate(messages)
    ]
    with state.engine.begin() as connection:
        connection.execute(sa.insert(t.cast("sa.Table", Message.__table__)), messages)
        connection.execute(sa.insert(t.cast("sa.Table", Delivery.__table__)), rows)
    return [row["id"] for row in messages]


def attempts(state: AppState) -> list[Attempt]:
    """The whole log, in the order it was written."""
    with Session(state.engine, expire_on_commit=False) as session:
        return list(session.scalars(sa.select(Attempt).order_by(Attempt.id)))


def lane_of(state: AppState, subscription: Subscription) -> Lane:
    """How the sending side of a subscription stands."""
    with Session(state.engine, expire_on_commit=False) as session:
        return session.get_one(Lane, subscription.id)


def secret_of(state: AppState, subscription: Subscription) -> str:
    """The newest secret of a subscription, in the clear."""
    with state.engine.connect() as connection:
        sealed = connection.scalar(
            sa.select(Secret.sealed)
            .where(Secret.subscription_id == subscription.id)
            .order_by(Secret.id.desc())
            .limit(1)
        )
    assert sealed is not None
    return state.vault.open(sealed)


def wait_until(condition: t.Callable[[], t.Any], seconds: float = 60.0, *, about: str = "") -> t.Any:
    """Return the first true value of `condition`, asked again and again; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {about or condition}")
        time.sleep(0.01)


def recorded(state: AppState) -> list[Message]:
    """All messages, in the order they were recorded."""
    with Session(state.engine, expire_on_commit=False) as session:
        return list(session.scalars(sa.select(Message).order_by(Message.id)))


def deliveries(state: AppState) -> list[Delivery]:
    """All deliveries, in the order they were recorded."""
    with Session(state.engine, expire_on_commit=False) as session:
        return list(session.scalars(sa.select(Delivery).order_by(Delivery.id)))


def states(state: AppState) -> list[str]:
    """The states of all deliveries, in the order they were recorded."""
    return [delivery.state for delivery in deliveries(state)]


def rows_of(state: AppState, *models: type[t.Any]) -> list[int]:
    """How many rows the table of each model has."""
    with state.engine.connect() as connection:
        return [connection.scalar(sa.select(sa.func.count()).select_from(model)) or 0 for model in models]


def clock_ahead(**terms: float) -> t.Callable[[], datetime]:
    """A clock that is ahead of this machine's by so much (behind, if negative)."""
    return lambda: datetime.now(UTC) + timedelta(**terms)
