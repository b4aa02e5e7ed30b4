"""Which format a receiver gets: that of the event, the channel, the catalogue or its subscription."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_webhooks import Webhooks
from flask_webhooks.payload import Message, Recipient
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from tests.host import Client, Invoice, db, load_principal, make_host
from tests.receivers import Receiver
from tests.stage import recorded

CATALOG = """\
version: 1
title: Formats
defaults: {format: standard, formats: [slack]}
channels:
  invoices:
    model: tests.host:Invoice
    schema: tests.host:InvoiceSchema
    owner: owner
    events: [created, updated]
  clients:
    model: tests.host:Client
    owner: owner
    format: acme
    formats: [minimal, channel]
    events:
      created:
      updated: {format: minimal}
      deleted: {format: entity, formats: [entity], transition: REMOVE}
"""
KEYS = {
    "channel": ["event", "message", "idempotency_key", "environment", "data"],
    "standard": ["type", "timestamp", "data"],
    "minimal": ["event", "data"],
    "entity": [
        "entity_type",
        "transition_name",
        "status",
        "timestamp",
        "id",
        "event_type",
        "entity_state",
    ],
    "slack": ["text", "blocks"],
    "acme": ["what", "whose", "client", "note", "order"],
}


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> t.Iterator[Flask]:
    (tmp_path / "formats.yaml").write_text(CATALOG)
    webhooks = Webhooks()
    webhooks.principal_loader(load_principal)

    @webhooks.payload_format("acme")
    def acme(message: Message, recipient: Recipient) -> dict[str, object]:
        return {
            "what": message.name,
            "whose": recipient.owner,
            "client": message.data["name"],
            "note": recipient.metadata.get("note"),
            "order": [message.occurred_at.isoformat(timespec="microseconds"), message.sequence],
        }

    app = make_host(database_url, tmp_path, webhooks, WEBHOOKS_CATALOG=str(tmp_path / "formats.yaml"))
    with app.app_context():
        yield app
        db.session.remove()
    state_of(app).transport.close()
    with app.app_context():
        db.engine.dispose()


def subscribe(app: Flask, url: str, *events: str, expect: int = 201, **values: t.Any) -> t.Any:
    answer = app.test_client().post(
        "/webhooks/api/subscriptions",
        json={"url": url, "events": list(events), **values},
        headers={"X-Owner": "1"},
    )
    assert answer.status_code == expect, answer.get_data(as_text=True)
    return answer.get_json()


def live() -> None:
    """A client that is created, updated and deleted; an invoice that is created."""
    client = Client(owner="1", name="Ada")
    db.session.add_all([client, Invoice(owner="1", number="1")])
    db.session.commit()
    client.name = "Ada L."
    db.session.commit()
    db.session.delete(client)
    db.session.commit()


def sent(state: AppState, inbox: Receiver) -> list[dict[str, t.Any]]:
    assert Coordinator(state, holder="test").run().failed == 0
    return [json.loads(request.body) for request in inbox.requests]


@pytest.mark.parametrize(
    ("event", "format"),
    [
        ("invoices.created", "standard"),  # the catalogue's default
        ("clients.created", "acme"),  # the channel's, and one of the app's own
        ("clients.updated", "minimal"),  # the event's
        ("clients.deleted", "entity"),
    ],
)
def test_without_a_wish_the_nearest_counts(
    app: Flask, state: AppState, inbox: Receiver, event: str, format: str
) -> None:
    subscribe(app, inbox.url(), event)

    live()

    [body] = sent(state, inbox)
    assert list(body) == KEYS[format]


@pytest.mark.parametrize(
    ("event", "format"),
    [
        ("invoices.created", "slack"),
        ("invoices.created", "standard"),
        ("clients.created", "channel"),
        ("clients.created", "minimal"),
        ("clients.updated", "channel"),
    ],
)
def test_a_subscription_may_choose_what_the_catalogue_allows(
    app: Flask, state: AppState, inbox: Receiver, event: str, format: str
) -> None:
    subscribe(app, inbox.url(), event, format=format)

    live()

    [body] = sent(state, inbox)
    assert list(body) == KEYS[format]


@pytest.mark.parametrize(
    ("events", "format", "message"),
    [
        (
            ["invoices.created"],
            "minimal",
            "'minimal' is not offered for invoices.created. Offered: slack, standard.",
        ),
        (["clients.deleted"], "acme", "'acme' is not offered for clients.deleted. Offered: entity."),
        # Every event that is listened to must allow it.
        (
            ["*"],
            "minimal",
            "'minimal' is not offered for invoices.created, invoices.updated, clients.deleted. "
            "Offered: none.",
        ),
        (
            ["invoices.created"],
            "xml",
            "'xml' is no format. There are: channel, standard, entity, minimal, slack, acme.",
        ),
    ],
)
def test_it_may_not_choose_another(
    app: Flask, inbox: Receiver, events: list[str], format: str, message: str
) -> None:
    answer = subscribe(app, inbox.url(), *events, expect=422, format=format)

    assert answer["errors"] == [{"field": "format", "message": message}]


def test_a_format_of_the_app_sees_message_and_recipient(app: Flask, state: AppState, inbox: Receiver) -> None:
    """And so does the API: when it was, in microseconds of UTC, and what came after what."""
    subscribe(app, inbox.url(), "clients.created", metadata={"note": "for the books"})

    live()

    [message] = recorded(state)
    order = [message.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00"), message.sequence]
    wanted = {"what": "created", "whose": "1", "client": "Ada", "note": "for the books", "order": order}
    assert sent(state, inbox) == [wanted]
    answer = app.test_client().get(f"/webhooks/api/messages/{message.id}", headers={"X-Owner": "1"})
    assert [answer.get_json()[name] for name in ("occurred_at", "sequence")] == order


def test_one_event_to_two_receivers_in_two_formats(app: Flask, state: AppState, inbox: Receiver) -> None:
    subscribe(app, inbox.url("/a"), "clients.created")
    subscribe(app, inbox.url("/b"), "clients.created", format="channel")

    live()
    sent(state, inbox)

    keys = {request.target: list(json.loads(request.body)) for request in inbox.requests}
    assert keys == {"/a": KEYS["acme"], "/b": KEYS["channel"]}
    assert len({request.headers["webhook-id"] for request in inbox.requests}) == 1
