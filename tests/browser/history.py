"""A business whose webhooks have run for a month, so that every page has something to show.

It is the same at each run except for the clock, so that screenshots differ only where the console does.
"""

from __future__ import annotations

import json
import math
import random
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import signing
from flask_webhooks.ids import first_at, uuid7
from flask_webhooks.models import Attempt, Delivery, Lane, Listener, Message, Secret, Subscription, Worker
from flask_webhooks.outbox import statistics
from flask_webhooks.reference import example_data
from flask_webhooks.state import AppState

BROKEN = {"Content-Type": "application/json", "Retry-After": "120", "Server": "envoy"}


class Line(t.NamedTuple):
    """One webhook of the business."""

    url: str
    description: str
    events: tuple[str, ...]
    environment: str = "production"
    per_hour: float = 40
    bad: float = 0.002
    """Share of requests that fail."""
    seconds: float = 0.06
    columns: t.Mapping[str, t.Any] = {}
    lane: t.Mapping[str, t.Any] = {}


def lines(now: datetime) -> list[Line]:
    """The webhooks, the newest first."""
    return [
        Line(
            "https://api.northwind.example/hooks/invoices",
            "Invoices into the ERP",
            ("invoices.*", "invoice_payments.created"),
            per_hour=180,
        ),
        Line(
            "https://hooks.warehouse.example/acme/stock-and-orders",
            "Stock levels for the warehouse",
            ("items.*", "bills.updated"),
            per_hour=64,
            bad=0.06,
            seconds=0.24,
            lane={"failures": 4, "failing_since": now - timedelta(minutes=12)},
        ),
        Line(
            "https://ledger-sync.example.net/v2/postings",
            "General ledger mirror",
            ("ledgers.*",),
            per_hour=320,
            seconds=0.035,
        ),
        Line(
            "https://crm.example.org/webhooks/8f2c",
            "Clients into the CRM",
            ("clients.*",),
            per_hour=12,
            bad=0.5,
            seconds=1.4,
            lane={
                "failures": 11,
                "failing_since": now - timedelta(hours=2),
                "paused_until": now + timedelta(minutes=7),
                "pauses": 4,
            },
        ),
        Line(
            "https://hooks.slack.example/services/T024/B7/acme",
            "Paid invoices into #sales",
            ("invoices.updated",),
            per_hour=5,
            seconds=0.19,
            columns={"format": "minimal"},
        ),
        Line(
            "https://old-billing.example.com/notify",
            "The billing system we left",
            ("invoices.*",),
            per_hour=0,
            columns={"active": False, "disabled_reason": "gone", "disabled_at": now - timedelta(days=2)},
        ),
        Line(
            "https://staging.northwind.example/hooks",
            "Trial of the new receiver",
            ("*",),
            environment="staging",
            per_hour=9,
            seconds=0.11,
        ),
        Line(
            "https://dev-tunnel.example.io/ada",
            "Ada's laptop",
            ("invoices.created",),
            environment="staging",
            per_hour=0,
            columns={"active": False},
        ),
    ]


def write(state: AppState, owner: str = "1", now: datetime | None = None) -> dict[str, str]:
    """Write it all; return the ids of the webhooks by their description."""
    now = now or datetime.now(UTC)
    rng = random.Random(7)
    ids: dict[str, str] = {}
    with Session(state.engine) as session:
        for number, line in enumerate(reversed(lines(now))):
            row = _subscription(state, session, line, owner, now - timedelta(days=40 - number))
            ids[line.description] = row.id
            tally = _tally(row.id, line, rng, now)
            statistics.add(session.connection(), tally)
            if line.per_hour:
                _log(state, session, row, line, rng, now)
        held = ids["Ada's laptop"]
        _held(state, session, held, owner, now)
        session.merge(Worker(name="web-1:4021", started_at=now - timedelta(days=3), seen_at=now))
        session.merge(Worker(name="web-2:1187", started_at=now - timedelta(hours=7), seen_at=now))
        session.commit()
    return ids


def _subscription(state: AppState, session: Session, line: Line, owner: str, made: datetime) -> Subscription:
    row = Subscription(
        id=_id(made), owner=owner, environment=line.environment, url=line.url, description=line.description,
        created_at=made, updated_at=made, **line.columns,
    )  # fmt: skip
    row.listeners = [
        Listener(
            owner=owner, event=event, includes=["line_items", "changes"] if event == "invoices.*" else []
        )
        for event in line.events
    ]
    row.secrets = [Secret(sealed=state.vault.seal(signing.generate().text), created_at=made)]
    session.add(row)
    session.flush()
    session.add(Lane(subscription_id=row.id, **line.lane))
    return row


def _id(moment: datetime) -> str:
    """An id of that time, with the random part of a new one."""
    return first_at(moment)[:15] + uuid7()[15:]


def _tally(key: str, line: Line, rng: random.Random, now: datetime) -> statistics.HourlyCounts:
    tally = statistics.HourlyCounts()
    for back in range(720):
        at = statistics.hour_of(now) - timedelta(hours=back)
        busy = max(0.0, math.sin((at.hour - 6) / 24 * 2 * math.pi) + 0.55) * (0.35 if at.weekday() > 4 else 1)
        for _ in range(round(line.per_hour * busy * rng.uniform(0.6, 1.15) / 4)):
            bad = rng.random() < line.bad * (8 if 3 < back < 6 and line.bad < 0.01 else 1)
            status = rng.choice((500, 503, 404, None)) if bad else rng.choice((200, 204))
            state = "failed" if bad else "delivered"
            tally.add(
                key, at, status=status, seconds=rng.lognormvariate(math.log(line.seconds), 0.45), state=state
            )
    return tally


def _log(
    state: AppState, session: Session, row: Subscription, line: Line, rng: random.Random, now: datetime
) -> None:
    names = [event for pattern in line.events for event in state.catalog.expand(pattern)]
    at = now - timedelta(seconds=rng.uniform(25, 70) if line.lane else rng.uniform(4, 60))
    for number in range(24):
        event = rng.choice(names)
        _delivery(state, session, row, line, rng, (event, at, number), now)
        at -= timedelta(seconds=rng.expovariate(1 / (3600 / line.per_hour)) + 2)


def _delivery(
    state: AppState,
    session: Session,
    row: Subscription,
    line: Line,
    rng: random.Random,
    what: tuple[t.Any, datetime, int],
    now: datetime,
) -> None:
    event, at, number = what
    fails = (number in (1, 2) and bool(line.lane)) or rng.random() < line.bad
    message = _message(state, session, row, event, at, rng)
    waits = fails and number < 6
    delivery = Delivery(
        id=_id(at), message_id=message.id, subscription_id=row.id,
        state="pending" if waits else "failed" if fails else "delivered",
        due_at=now + timedelta(minutes=4 + 7 * number) if waits else None,
        attempts=3 if fails else 1, format=row.format or event.format,
        includes="changes,line_items" if event.channel == "invoices" else None,
        reason="http_5xx" if fails else None, finished_at=None if waits else at,
    )  # fmt: skip
    session.add(delivery)
    for turn in range(delivery.attempts):
        after = timedelta(seconds=(0.02, 5.4, 16)[turn])
        session.add(_attempt(delivery, row, message, at + after, turn + 1, fails, line, rng))


def _message(
    state: AppState, session: Session, row: Subscription, event: t.Any, at: datetime, rng: random.Random
) -> Message:
    data = example_data(state.bound[event.channel], event)
    entity = str(rng.randint(1000, 4999))
    data.update({name: entity for name in ("id",) if name in data})
    extras = {"line_items": [{"description": "Consulting", "quantity": "2", "unit_price": "450.00"}]}
    if event.event == "updated":
        extras["changes"] = {
            "status": {"from": "sent", "to": "paid"},
            "amount_due": {"from": "900.00", "to": "0.00"},
        }  # type: ignore[assignment]
    message = Message(
        id=_id(at), event=event.name, channel=event.channel, owner=row.owner, environment=row.environment,
        occurred_at=at, sequence=int(at.timestamp() * 1e6), entity_id=entity, text=event.message,
        data=json.dumps(data), extras=json.dumps(extras), size=400,
    )  # fmt: skip
    session.add(message)
    return message


def _attempt(
    delivery: Delivery,
    row: Subscription,
    message: Message,
    at: datetime,
    number: int,
    fails: bool,
    line: Line,
    rng: random.Random,
) -> Attempt:
    seconds = rng.lognormvariate(math.log(line.seconds), 0.4)
    body = (
        b'{"error":"upstream connect error","detail":"inventory-db: connection pool exhausted after 2000 ms"}'
    )
    return Attempt(
        id=_id(at), delivery_id=delivery.id, subscription_id=row.id, number=number, trigger="automatic",
        started_at=at, status=503 if fails else 204, failure="http_5xx" if fails else None,
        detail="The receiver answered 503." if fails else "", url=row.url,
        request_headers=json.dumps({
            "Content-Type": "application/json", "User-Agent": "Flask-Webhooks/0.1.0", "webhook-id": message.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        }),
        body_sha256="0" * 64, body_size=612,
        response_headers=json.dumps(BROKEN if fails else {"Server": "nginx"}),
        response_body=body if fails else None, response_truncated=False, address="203.0.113.24",
        dns_seconds=0.004, connect_seconds=0.018, tls_seconds=0.031,
        first_byte_seconds=0.053 + seconds, total_seconds=0.055 + seconds, worker="web-1:4021",
    )  # fmt: skip


def _held(state: AppState, session: Session, key: str, owner: str, now: datetime) -> None:
    row = session.get_one(Subscription, key)
    event = state.catalog.events["invoices.created"]
    for number in range(3):
        at = now - timedelta(minutes=20 * number + 3)
        message = _message(state, session, row, event, at, random.Random(number))
        session.add(
            Delivery(
                id=_id(at),
                message_id=message.id,
                subscription_id=key,
                state="held",
                due_at=None,
                format="channel",
                reason="off",
            )
        )


def wipe(state: AppState) -> None:
    """Delete every row of ours."""
    with state.engine.begin() as connection:
        for model in (Attempt, Delivery, Message, Lane, Listener, Secret, Subscription, Worker):
            connection.execute(sa.delete(model))
