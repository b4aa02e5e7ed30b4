from __future__ import annotations

import json

from sqlalchemy.orm import Session

from flask_webhooks import models, signing
from flask_webhooks.state import AppState

from .conftest import Command

URL = "http://127.0.0.1:5999/hooks"


def test_a_subscription_is_created_and_its_secret_printed(state: AppState, flask_webhooks: Command) -> None:
    words = ("subscribe", "--owner", "7", "--url", URL, "--event", "invoices.paid", "--event", "clients.*")

    said = flask_webhooks(*words).output

    with Session(state.own_engine) as session:
        [row] = session.query(models.Subscription)
        assert (row.owner, row.url, row.environment) == ("7", URL, "staging")
        assert {each.event for each in row.listeners} == {"invoices.paid", "clients.*"}
    assert f"{row.id}: clients.* invoices.paid of 7 in staging go to {URL}" in said
    assert signing.parse(said.split()[-1]).kind == "v1"


def test_as_json_it_is_what_the_api_answers(state: AppState, flask_webhooks: Command) -> None:
    words = (
        "--owner",
        "7",
        "--url",
        URL,
        "--event",
        "*",
        "--environment",
        "production",
        "--description",
        "CRM",
    )

    said = json.loads(flask_webhooks("subscribe", *words, "--json").stdout)

    read = state.app.test_client().get(f"/webhooks/api/subscriptions/{said['id']}", headers={"X-Owner": "7"})
    assert {"owner", "secret"} == said.keys() - read.json.keys()
    assert "for staging" in said["note"]
    assert {name: said[name] for name in ("description", "environment", "events")} == {
        "description": "CRM",
        "environment": "production",
        "events": [{"event": "*", "includes": []}],
    }


def test_one_that_gets_nothing_from_this_app_says_so(flask_webhooks: Command) -> None:
    words = ("--owner", "7", "--url", URL, "--event", "*", "--environment")

    told = "a subscription for production gets none of them. (WEBHOOKS_ENVIRONMENT)"
    assert told in flask_webhooks("subscribe", *words, "production").output
    assert "none of them" not in flask_webhooks("subscribe", *words, "staging").output


def test_every_mistake_is_a_line(flask_webhooks: Command) -> None:
    words = ("--owner", "None", "--url", "https://10.0.0.1/", "--event", "invoice.created")

    said = flask_webhooks("subscribe", *words, expect=1).output

    assert "owner: No account can have this owner key." in said
    assert "\nurl: " in said
    assert (
        "\nevents.0: There is no event 'invoice.created' in the catalogue. Did you mean \"invoices.created\"?"
        in said
    )
