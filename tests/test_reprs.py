"""No `repr` shows a secret: reprs end in logs, tracebacks and error reports."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import typing as t

import pytest
from cryptography.fernet import Fernet
from flask import Flask
from werkzeug.datastructures import MultiDict

import flask_webhooks
from flask_webhooks import signing, subscriptions
from flask_webhooks.api.operations import Answer
from flask_webhooks.config import Settings
from flask_webhooks.console.form import of_form
from flask_webhooks.console.pages import Page
from flask_webhooks.console.secrets import ShownSecret
from flask_webhooks.delivery import DeliveryTask, destinations, make_attempt, request, utcnow
from flask_webhooks.models import Message
from flask_webhooks.queue.redis_client import SentinelAddress
from flask_webhooks.signing import Vault
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.receivers import Receiver
from tests.stage import fill, recorded

SECRET = re.compile(
    r"secret|password|credential|sealed|encryption|_url$|proxy|private|certificate|"
    r"^(headers|body|raw|form|values|text|options|own|data|answer)$"
)
"""Names of fields that may hold a secret, or a customer's data."""
HARMLESS = {
    "api.operations.Operation.body", "api.operations.Operation.answer",  # kinds of schemas
    "capture.change.Change.values", "catalog.model.Channel.data", "catalog.containers.Record.private",
    "config.settings.Settings.base_url", "delivery.destination.Destination.secrets",
    "capture.events.Emitted.text", "capture.events.PendingEvent.text",
    "capture.events.PendingEvent.values", "console.pages.Redirect.values", "console.pages.Page.headers",
    "delivery.test_send.Subject.data", "payload.formats.Message.text", "queries.answers.Legible.text",
    "queries.log.LogQuery.text", "cli.scaffold.channels.Sketch.private",
    "cli.scaffold.channels.Sketch.holds_secrets", "cli.scaffold.writer.Draft.text",
    "testing.RecordedMessage.data", "testing.RecordedMessage.text",
}  # fmt: skip
"""What has been looked at: rows, sentences and drafts of the host's own, and what readers are shown anyway."""


def classes() -> t.Iterator[type]:
    for module in pkgutil.walk_packages(flask_webhooks.__path__, "flask_webhooks."):
        if not module.name.endswith("__main__"):
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and found.__module__ == module.name:
                    yield found


def shown(found: t.Any) -> set[str]:
    """The fields that a class itself shows."""
    if not dataclasses.is_dataclass(found) or not found.__dataclass_params__.repr:  # type: ignore[attr-defined]
        return set()
    return {each.name for each in dataclasses.fields(found) if each.repr}


def test_no_dataclass_shows_a_field_that_may_hold_a_secret() -> None:
    every = list(classes())
    risky = {
        f"{found.__module__.removeprefix('flask_webhooks.')}.{found.__name__}.{name}"
        for found in every
        for name in shown(found)
        if SECRET.search(name)
    }

    assert sum(map(dataclasses.is_dataclass, every)) > 80
    assert risky - HARMLESS == set()


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    return make_app(WEBHOOKS_ENCRYPTION_KEYS=Fernet.generate_key().decode(), SECRET_KEY="open sesame")


def test_nothing_on_the_way_of_a_delivery_shows_a_secret(app: Flask, inbox: Receiver) -> None:
    from sqlalchemy.orm import Session

    state = state_of(app)
    with Session(state.engine, expire_on_commit=False) as session:
        row, secret = subscriptions.create(
            state,
            session,
            SubscriptionInput(
                environment="staging",
                url=inbox.url(),
                events=["reports.ready"],
                headers={"Authorization": "Bearer sesame"},
            ),
            owner="1",
        )
        session.commit()
    fill(state, [row], 1, data='{"iban": "sesame"}')
    [message] = recorded(state)
    with state.engine.connect() as connection:
        destination = destinations(state, connection, [row.id], utcnow())[row.id]
    task = DeliveryTask(
        id=message.id, subscription_id=row.id, number=1, trigger="automatic", format="channel",
        includes=frozenset(), message=message, body=None,
    )  # fmt: skip
    built = request.build(state, destination, task, utcnow())
    result = make_attempt(state, destination, task, "test")
    reply = state.transport.send(built.outbound)

    assert result.ok
    assert inbox.requests[0].headers["authorization"] == "Bearer sesame"
    for each in (
        state,
        state.settings,
        destination,
        task,
        built,
        built.outbound,
        result,
        reply,
        secret,
        row,
    ):
        told = repr(each)
        for hidden in ("sesame", secret.text, secret.text[6:], *state.settings.encryption_keys):
            assert hidden not in told, type(each)


def test_nothing_else_shows_one() -> None:
    secret = signing.generate()
    settings = Settings.read(
        {
            "WEBHOOKS_REDIS_URL": "redis://:sesame@localhost/0",
            "WEBHOOKS_EGRESS_PROXY": "http://user:sesame@proxy:3128",
            "WEBHOOKS_ENCRYPTION_KEYS": ["sesame" * 7],
        }
    )
    form = of_form(MultiDict([("header_name", "X-Key"), ("header_value", "sesame")]))
    address = SentinelAddress((("a", 1),), "main", {"password": "sesame"}, {"password": "sesame"})
    told = [
        settings, form, address, Answer({"secret": "sesame"}, raw=b"sesame"), Page("a", {"secret": "sesame"}),
        ShownSecret(utcnow(), None, "sesame", False),
        Vault([Fernet.generate_key()]), secret, Message(data="sesame"),
    ]  # fmt: skip

    for each in told:
        assert "sesame" not in repr(each), type(each)
        assert secret.text not in repr(each)
