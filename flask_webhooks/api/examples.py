"""An example of every request and answer, all about the first event of the catalogue.

No secret in them works: each is a prefix only.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

import marshmallow as ma

from .. import payload, reference
from ..delivery import MASK
from ..reference import SAMPLE_ID, sample_data
from ..state import AppState
from . import catalog, schemas

__all__ = ["ARGUMENTS", "examples"]

Json = dict[str, t.Any]

SUBSCRIPTION_ID = "01981f6a-2b3c-7d4e-8f50-617283940516"
DELIVERY_ID = "01981f6e-5c1b-7a2b-8c3d-4e5f60718293"
ATTEMPT_ID = "01981f6e-5d00-7b1c-9d2e-3f4051627384"
REPLAY_ID = "01981f90-0a1b-7c2d-8e3f-405162738495"
MADE = "2025-07-18T21:10:00.000000+00:00"
HAPPENED = "2025-07-18T21:26:23.002000+00:00"
"""The time that `SAMPLE_ID` contains."""
SENT = "2025-07-18T21:26:23.232000+00:00"
URL, SECRET = "https://example.com/hooks", "whsec_…"

ARGUMENTS = {
    "subscription_id": SUBSCRIPTION_ID,
    "message_id": SAMPLE_ID,
    "delivery_id": DELIVERY_ID,
    "replay_id": REPLAY_ID,
}
"""Examples of path arguments."""

EXAMPLE = 8 * 1024
"""Bytes of the example of a catalogue."""


def examples(state: AppState) -> dict[str, t.Any]:
    """Return examples by the name of the schema; without `Catalog` and `Event` if the catalogue has no events."""
    event = next(iter(state.catalog.events.values()), None)
    name = event.name if event is not None else "webhooks.test"
    found = {
        "Trial": {"event": name} if event is not None else {},
        **_subscriptions(name if event is not None else "*"),
        **_log(state, name),
        **_replays(name),
        "Stats": _stats(),
    }
    if event is not None:
        listed = reference.listing(state, most=EXAMPLE)
        found["Catalog"] = {"title": listed["title"], "channels": listed["channels"][:1]}
        found["Event"] = catalog.event_detail(state, event)
    return found


def _filled(schema: type[ma.Schema], values: Json) -> Json:
    """Return an example with all fields of a schema: those without a value are null, as a new field mostly is."""
    return {name: values.get(name) for name in schema().fields}


def _subscriptions(pattern: str) -> Json:
    values = {
        "id": SUBSCRIPTION_ID,
        "url": URL,
        "description": "Bookkeeping",
        "environment": "staging",
        "active": True,
        "events": [{"event": pattern, "includes": ["changes"]}],
        "channels": [],
        "headers": ["X-Api-Key"],
        "rate_limit": 10.0,
        "metadata": {"team": "finance"},
        "signature": "v1",
        "created_at": MADE,
        "updated_at": MADE,
    }
    made = _filled(schemas.Subscription, values)
    del made["owner"]
    return {
        "NewSubscription": {
            "url": URL,
            "events": [{"event": pattern, "includes": ["changes"]}],
            "description": "Bookkeeping",
            "headers": {"X-Api-Key": "k-123"},
            "rate_limit": 10,
            "metadata": {"team": "finance"},
        },
        "SubscriptionChange": {"description": "Bookkeeping, new server", "metadata": {"team": None}},
        "Subscription": made,
        "CreatedSubscription": {**made, "secret": SECRET},
        "SubscriptionPage": {"items": [made], "next": None},
        "Rotation": {"overlap": 3600},
        "Secrets": {
            "secret": SECRET,
            "secrets": [
                {"secret": SECRET, "created_at": HAPPENED, "expires_at": None},
                {"secret": SECRET, "created_at": MADE, "expires_at": "2025-07-18T22:26:23.002000+00:00"},
            ],
        },
    }


def _log(state: AppState, name: str) -> Json:
    event = state.catalog.events.get(name)
    body = data = "{}"
    if event is not None:
        body = payload.encode(reference.bodies(state, event)[event.format])
        data = payload.encode(sample_data(state.bound[event.channel], event))
    return {
        **_deliveries(name, event.format if event is not None else "channel", body.encode()),
        **_messages(name, event.message if event is not None else "Test.", data),
    }


def _deliveries(event: str, format: str, body: bytes) -> Json:
    values = {
        "id": DELIVERY_ID,
        "message_id": SAMPLE_ID,
        "subscription_id": SUBSCRIPTION_ID,
        "event": event,
        "state": "delivered",
        "attempts": 1,
        "created_at": HAPPENED,
        "finished_at": SENT,
        "trigger": "automatic",
        "format": format,
    }
    delivery = _filled(schemas.Delivery, values)
    attempt = _attempt(body, event)
    log = {"body": body.decode(), "body_reason": None, "attempt_log": [attempt], "attempts_next": None}
    return {
        "Delivery": delivery,
        "DeliveryPage": {"items": [delivery], "next": DELIVERY_ID},
        "OneDelivery": {**delivery, **log},
        "AttemptPage": {"items": [attempt], "next": ATTEMPT_ID},
    }


def _messages(event: str, text: str, data: str) -> Json:
    message = {
        "id": SAMPLE_ID,
        "event": event,
        "environment": "staging",
        "occurred_at": HAPPENED,
        "text": text,
        "entity_id": "1",
        "sequence": 1,
        "size": len(data.encode()),
        "is_test": False,
    }
    outcome = {
        "subscription_id": SUBSCRIPTION_ID,
        "url": URL,
        "delivery_id": DELIVERY_ID,
        "state": "delivered",
        "reason": None,
        "explanation": "The receiver answered 2xx.",
    }
    details = {
        "data": json.loads(data),
        "data_reason": None,
        "includes": {},
        "broken": False,
        "subscriptions": [outcome],
        "next": None,
    }
    return {
        "Message": message,
        "MessagePage": {"items": [message], "next": None},
        "MessageDetail": {**message, **details},
    }


def _attempt(body: bytes, name: str) -> Json:
    values = {
        "id": ATTEMPT_ID,
        "number": 1,
        "trigger": "automatic",
        "started_at": SENT,
        "detail": "Answered 204.",
        "request": {
            "url": URL,
            "headers": {
                "content-type": "application/json",
                "webhook-id": SAMPLE_ID,
                "webhook-timestamp": "1752873983",
                "webhook-signature": "v1,…",
                "webhook-event": name,
                "webhook-occurred-at": HAPPENED,
                "webhook-sequence": "1",
                "webhook-attempt": "1",
                "webhook-delivery": DELIVERY_ID,
                "webhook-trigger": "live",
                "X-Api-Key": MASK,
            },
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "body_size": len(body),
        },
        "response": {
            "status": 204,
            "headers": {"server": "nginx"},
            "body": "",
            "body_note": None,
            "truncated": False,
        },
        "timings": {"dns": 0.004, "connect": 0.021, "tls": 0.043, "first_byte": 0.118, "total": 0.119},
        "worker": "worker-1",
    }
    return _filled(schemas.Attempt, values)


def _replays(name: str) -> Json:
    return {
        "NewReplay": {"mode": "failed", "since": MADE, "dry_run": False},
        "Replay": {
            "id": REPLAY_ID,
            "subscription_id": SUBSCRIPTION_ID,
            "state": "running",
            "states": ["failed"],
            "events": [],
            "since": MADE,
            "until": SENT,
            "total": 120,
            "queued": 50,
            "created_at": SENT,
            "finished_at": None,
        },
    }


def _stats() -> Json:
    figures = {"attempts": 40, "p50": 0.12, "p95": 0.43}
    outcomes = {"ok": 38, "redirected": 0, "refused": 0, "broken": 1, "unanswered": 1}
    return {
        "window": "1h",
        "since": "2025-07-18T21:00:00.000000+00:00",
        "until": SENT,
        "states": {"delivered": 38, "failed": 1, "cancelled": 0, "pending": 1, "held": 0, "broken": 0},
        **figures,
        "success_rate": 0.95,
        "health": {
            "failures": 0,
            "failing_since": None,
            "succeeded_at": SENT,
            "paused_until": None,
            "paused_reason": None,
            "waits_for": None,
            "waits_until": None,
            "paced_rate": None,
        },
        "series": [{"at": "2025-07-18T21:00:00.000000+00:00", **figures, **outcomes}],
    }
