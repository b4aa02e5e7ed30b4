"""`backfilling`, called from code; the command that runs it is in `tests/cli/test_resending.py`."""

from __future__ import annotations

import json
import typing as t

import sqlalchemy as sa
from flask import Flask

from flask_webhooks import replaying, signals
from flask_webhooks.backfilling import Backfill
from flask_webhooks.ids import is_backfilled
from flask_webhooks.state import AppState, state_of
from tests.api.conftest import URL, Customer
from tests.host import Client
from tests.stage import subscribe


def add(state: AppState, *names: str) -> None:
    """Put rows into the table as if they had been there before the extension."""
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Client), [{"owner": "1", "name": name} for name in names])


def run(state: AppState, subscription_id: str) -> list[str]:
    """Backfill the clients; return the names of those that were recorded, as the signal tells them."""
    told: list[str] = []

    def hear(_: t.Any, messages: t.Sequence[t.Mapping[str, t.Any]], **__: t.Any) -> None:
        told.extend(json.loads(message["data"])["name"] for message in messages)

    with signals.message_recorded.connected_to(hear, state.app):
        list(Backfill(state, "clients", subscription_id).turns())
    return told


def test_the_signal_tells_what_is_recorded(state: AppState) -> None:
    row = subscribe(state, URL, "clients.*")
    add(state, "a", "b")

    assert run(state, row.id) == ["a", "b"]
    assert run(state, row.id) == []


def test_each_row_goes_to_the_environment_that_the_app_names(make_app: t.Callable[..., Flask]) -> None:
    def place(event: str, data: t.Any, owner: str) -> str:
        assert (event, owner) == ("clients.created", "1")
        return "production" if data["name"].startswith("real") else "staging"

    app = make_app(WEBHOOKS_ENVIRONMENT=place)
    state, call = state_of(app), Customer(app.test_client())
    made = {
        where: call.subscribe("clients.*", environment=where)["id"] for where in ("staging", "production")
    }
    add(state, "real 1", "trial", "real 2")

    assert run(state, made["production"]) == ["real 1", "real 2"]
    assert run(state, made["staging"]) == ["trial"]
    for where, count in (("production", 2), ("staging", 1)):
        items = call("GET", f"/deliveries?subscription={made[where]}", expect=200)["items"]
        assert len(items) == count
        for each in items:
            assert call("GET", f"/messages/{each['message_id']}")["environment"] == where


def test_others_have_not_missed_it(app: Flask, state: AppState) -> None:
    call = Customer(app.test_client())
    mine, second = call.subscribe("clients.*")["id"], call.subscribe("clients.*")["id"]
    add(state, "a")
    run(state, mine)
    replay = f"/subscriptions/{second}/replay"

    [message] = call("GET", "/messages", expect=200)["items"]
    reasons = {
        each["subscription_id"]: each["reason"]
        for each in call("GET", f"/messages/{message['id']}")["subscriptions"]
    }
    assert reasons == {mine: None, second: "backfill"}
    assert call("POST", replay, {"mode": "missed", "dry_run": True}, expect=200)["total"] == 0
    call("POST", replay, {"mode": "missed"}, expect=202)
    assert replaying.turn(state) == 0


def test_a_key_of_the_hosts_own_is_none_of_a_backfill() -> None:
    key = f"backfill:{'x' * 36}:{'y' * 64}"

    assert is_backfilled(key)
    for other in (None, "backfill:1", f"{key}0", key.upper(), "backfill"):
        assert not is_backfilled(other)
