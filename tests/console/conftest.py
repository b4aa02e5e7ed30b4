"""A host app whose principals come from headers, and a browser without JavaScript."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from flask_webhooks import Principal, Webhooks
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Message, Replay, Subscription
from flask_webhooks.state import AppState, state_of
from tests.stage import subscribe

ALL = "read,write,secrets"
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what is about HTML and not about SQL."""
SECRET = r"whsec_[A-Za-z0-9+/=]{40,}"
FORM: dict[str, t.Any] = {
    "url": "https://93.184.215.14/hooks",
    "description": "Mine",
    "active": "on",
    "environment": "staging",
    "signature": "v1",
    "event": ["invoices.created", "invoices.updated"],
    "include": ["invoices.updated lines", "invoices.updated changes"],
}
"""What the form sends for a webhook."""


def load_principal() -> Principal | None:
    """Whoever the headers say."""
    owner = request.headers.get("X-Owner")
    if owner is None:
        return None
    rights = frozenset(filter(None, request.headers.get("X-Rights", ALL).split(",")))
    return Principal(owner, rights, operator="X-Operator" in request.headers)


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks)


@pytest.fixture
def state(app: Flask) -> AppState:
    return state_of(app)


class Visitor:
    """A browser without JavaScript, with a signed-in user."""

    def __init__(
        self, app: Flask, owner: str | None = "1", rights: str = ALL, *, operator: bool = False
    ) -> None:
        self.client: FlaskClient = app.test_client()
        self._token: str | None = None
        self.prefix = "/webhooks/console"
        self.headers = {"X-Rights": rights}
        if owner is not None:
            self.headers["X-Owner"] = owner
        if operator:
            self.headers["X-Operator"] = "yes"

    def get(self, path: str, **options: t.Any) -> TestResponse:
        """Open a page."""
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.get(self.prefix + path, headers=headers, **options)

    def post(
        self,
        path: str,
        data: t.Mapping[str, t.Any] | None = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> TestResponse:
        """Send a form with the token that this visitor was shown."""
        given = self.token() if token is None else token
        form = {"webhooks_token": given, **(data or {})}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(self.prefix + path, data=form, headers={**self.headers, **named})

    def follow(self, answer: TestResponse, **options: t.Any) -> TestResponse:
        """Open the page that an answer leads to."""
        assert answer.status_code == 303, answer.text
        return self.get(answer.location.removeprefix(self.prefix), **options)

    def token(self) -> str:
        """Return the token on a page with a form."""
        if self._token is None:
            found = re.search(r'name="webhooks_token" value="([^"]+)"', self.get("/webhooks/new").text)
            self._token = found[1] if found is not None else ""
        return self._token


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    return Visitor(app)


class Log(t.NamedTuple):
    """A webhook with one delivery of every state, a failed attempt, and a replay."""

    subscription: Subscription
    deliveries: dict[str, str]
    """State to id."""
    replay: str


def write_log(
    state: AppState, url: str = "https://example.com/hooks", owner: str = "1", **more: t.Any
) -> Log:
    """Put a log into the database; `more` overrides columns of the attempt."""
    row = subscribe(state, url, "invoices.*", owner=owner, description=f"The hooks of {owner}")
    ids: dict[str, str] = {}
    with Session(state.engine) as session:
        for number, name in enumerate(("pending", "delivered", "failed", "held", "cancelled")):
            ids[name] = _delivery(session, row, name, number, more)
        replay = Replay(
            subscription_id=row.id, state="running", states=["failed"], events=[], since=now(), until=now(),
            digest="0", total=3, next_at=now(), created_at=now(),
        )  # fmt: skip
        session.add(replay)
        session.flush()
        key = replay.id
        session.commit()
    return Log(row, ids, key)


def now() -> datetime:
    return datetime.now(UTC)


def _delivery(
    session: Session, row: Subscription, name: str, number: int, more: t.Mapping[str, t.Any]
) -> str:
    event = "invoices.created" if number % 2 else "invoices.updated"
    message = Message(
        id=uuid7(), event=event, channel="invoices", owner=row.owner, environment="staging", occurred_at=now(),
        sequence=number, entity_id=str(number), text="Invoice changed.", data=json.dumps({"id": number}),
        extras=json.dumps({"changes": {"status": {"from": "draft", "to": "sent"}}}), size=20,
    )  # fmt: skip
    is_due = name == "pending"
    body = json.dumps({"event": event}).encode()
    delivery = Delivery(
        id=uuid7(), message_id=message.id, subscription_id=row.id, state=name, due_at=now() if is_due else None,
        attempts=1, format="channel", reason="http_5xx" if name == "failed" else None,
        body=body if name == "failed" else None,
    )  # fmt: skip
    session.add_all([message, delivery])
    if name in ("delivered", "failed"):
        sent = {"body_sha256": hashlib.sha256(body).hexdigest(), "body_size": len(body), **more}
        session.add(_attempt(delivery, row, name == "failed", sent))
    return delivery.id


def _attempt(delivery: Delivery, row: Subscription, fails: bool, more: t.Mapping[str, t.Any]) -> Attempt:
    values: dict[str, t.Any] = {
        "delivery_id": delivery.id, "subscription_id": row.id, "number": 1, "trigger": "automatic",
        "started_at": now(), "status": 500 if fails else 200, "failure": "http_5xx" if fails else None,
        "detail": "The receiver answered 500." if fails else "", "url": row.url,
        "request_headers": json.dumps({"webhook-id": delivery.message_id}),
        "response_headers": json.dumps({"Server": "nginx"}), "response_body": b"down",
        "response_truncated": False, "address": "203.0.113.1", "dns_seconds": 0.001, "connect_seconds": 0.002,
        "tls_seconds": 0.003, "first_byte_seconds": 0.01, "total_seconds": 0.011, "worker": "here:1",
    }  # fmt: skip
    return Attempt(id=uuid7(), **{**values, **more})


@pytest.fixture
def log(state: AppState) -> Log:
    return write_log(state)


def places(state: AppState, log: Log) -> list[tuple[str, str]]:
    """Every (method, path) of the console, with the ids of a log filled in."""
    ids = {
        "subscription_id": log.subscription.id,
        "delivery_id": log.deliveries["failed"],
        "replay_id": log.replay,
        "event_name": "invoices.created",
    }
    found = []
    for rule in state.app.url_map.iter_rules():
        blueprint, _, name = rule.endpoint.rpartition(".")
        if blueprint != "webhooks_console" or name in ("static", "accent", "unknown", "home"):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: ids[match[1]], rule.rule)
        found += [
            (method, path.removeprefix("/webhooks/console")) for method in rule.methods & {"GET", "POST"}
        ]
    return sorted(found)


def state_in_database(state: AppState, delivery_id: str) -> str:
    """Return the state of a delivery."""
    with state.engine.connect() as connection:
        return str(connection.scalar(sa.select(Delivery.state).where(Delivery.id == delivery_id)))


def only(state: AppState) -> Subscription:
    """Return the only webhook."""
    with Session(state.engine, expire_on_commit=False) as session:
        return session.scalars(sa.select(Subscription)).one()
