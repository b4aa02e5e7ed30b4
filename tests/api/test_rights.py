"""Authentication and rights in the API: no principal, a missing right, another owner, another site."""

from __future__ import annotations

import re
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.orm import Session

from flask_webhooks import Principal, Webhooks
from flask_webhooks.api.operations import OPERATIONS, Operation
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Message, Replay
from flask_webhooks.state import AppState, state_of

from .conftest import Customer, lasting

ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>")
BODIES: dict[str, t.Any] = {
    "create_subscription": {"url": "http://127.0.0.1:5999/", "events": ["*"]},
}


def routes(app: Flask) -> list[tuple[str, str, Operation | None]]:
    """Every method on every path below the API, with its operation; None: the path has no such method."""
    known = {operation.name: operation for operation in OPERATIONS}
    found = []
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/webhooks/api"):
            operation = known.get(rule.endpoint.removeprefix("webhooks."))
            methods = (
                rule.methods if rule.methods is not None else {"GET", "POST", "TRACE", "PROPFIND", "XYZ"}
            )
            found += [(method, rule.rule, operation) for method in methods if method != "OPTIONS"]
    assert len({operation.name for _, _, operation in found if operation}) == len(OPERATIONS)
    return found


def possessions(state: AppState, call: Customer, owner: str = "1", **values: t.Any) -> dict[str, str]:
    """One object of every kind that has an id, all of them the caller's."""
    subscription = call.subscribe("invoices.*", **values)["id"]
    message, delivery, replay, now = uuid7(), uuid7(), uuid7(), datetime.now(UTC)
    with Session(state.engine) as session:
        session.add(
            Message(
                id=message, event="invoices.created", channel="invoices", owner=owner, environment="staging",
                occurred_at=now, sequence=1, text="x", data="{}", size=2,
            )
        )  # fmt: skip
        session.add(
            Delivery(
                id=delivery, message_id=message, subscription_id=subscription, state="failed", due_at=None,
                format="channel",
            )
        )  # fmt: skip
        session.add(
            Replay(
                id=replay, subscription_id=subscription, state="running", states=["failed"], events=[],
                since=now, until=now, digest="", total=0, next_at=now, created_at=now,
            )
        )  # fmt: skip
        session.commit()
    return {
        "subscription_id": subscription,
        "message_id": message,
        "delivery_id": delivery,
        "replay_id": replay,
        "event": "invoices.created",
        "path": "anything",
    }


def filled(path: str, values: t.Mapping[str, str]) -> str:
    return ARGUMENT.sub(lambda match: values[match[1]], path).removeprefix("/webhooks/api")


def test_nothing_is_reached_without_a_principal(app: Flask, state: AppState, call: Customer) -> None:
    mine = possessions(state, call)
    client = app.test_client()

    for method, path, _ in routes(app):
        answer = client.open(f"/webhooks/api{filled(path, mine)}", method=method, json={})
        assert answer.status_code == 401, (method, path)
        if method != "HEAD":
            assert answer.mimetype == "application/problem+json", (method, path)


def test_without_a_principal_loader_nothing_is_reached(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(webhooks=Webhooks())

    answer = app.test_client().get("/webhooks/api/subscriptions", headers={"X-Owner": "1"})

    assert answer.status_code == 401


def test_another_owners_id_is_404_on_every_route(
    app: Flask, state: AppState, call: Customer, other: Customer
) -> None:
    mine = possessions(state, call)
    with state.engine.connect() as connection:
        before = {
            name: connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY 1")).all()
            for name in ("webhook_subscriptions", "webhook_deliveries", "webhook_replays", "webhook_secrets")
        }
    walked = 0

    for method, path, operation in routes(app):
        if operation is None or not any(name.endswith("_id") for name in operation.arguments):
            continue
        other(method, filled(path, mine), BODIES.get(operation.name, {}) if method != "GET" else None)
        assert other.last.status_code == 404, (method, path, other.last.data)
        call("GET", filled("/subscriptions/<subscription_id>", mine), expect=200)
        walked += 1

    assert walked >= 12
    with state.engine.connect() as connection:
        for name, rows in before.items():
            assert connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY 1")).all() == rows, name


def test_lists_hold_only_ones_own(state: AppState, call: Customer, other: Customer) -> None:
    mine = possessions(state, call)

    for path in ("/subscriptions", "/messages", "/deliveries"):
        assert call("GET", path, expect=200)["items"]
        assert other("GET", path, expect=200)["items"] == []
        other("GET", f"{path}?owner=1", expect=403)
    for query in (f"subscription={mine['subscription_id']}", f"message={mine['message_id']}"):
        assert call("GET", f"/deliveries?{query}", expect=200)["items"]
        assert other("GET", f"/deliveries?{query}", expect=200)["items"] == []


def rights_of(app: Flask, webhooks_rights: set[str], *, operator: bool = False) -> None:
    hooks = Webhooks()
    hooks.principal_loader(lambda: Principal("1", frozenset(webhooks_rights), operator))
    state = state_of(app)
    object.__setattr__(state, "load_principal", lambda: hooks._load_principal())


@pytest.mark.parametrize("right", ["read", "write", "secrets"])
def test_every_operation_needs_its_right(app: Flask, state: AppState, call: Customer, right: str) -> None:
    mine = possessions(state, call)
    rights_of(app, {"read", "write", "secrets"} - {right})

    for operation in OPERATIONS:
        body = BODIES.get(operation.name, {}) if operation.writes else None
        call(operation.method, filled(operation.path, mine), body)
        is_refused = call.last.status_code == 403
        assert is_refused == (operation.right == right), (operation.name, call.last.data)
        if operation.name == "delete_subscription" and not is_refused:
            break


def test_an_operator_sees_every_owner(app: Flask, call: Customer, other: Customer) -> None:
    mine, theirs = call.subscribe(), other.subscribe()
    rights_of(app, {"read", "write"}, operator=True)

    items = call("GET", "/subscriptions", expect=200)["items"]
    assert [(each["id"], each["owner"]) for each in items] == [(theirs["id"], "2"), (mine["id"], "1")]
    assert [each["id"] for each in call("GET", "/subscriptions?owner=2")["items"]] == [theirs["id"]]
    made = call.subscribe("invoices.created", owner="3")
    assert made["owner"] == "3"


# ---- other sites -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed_in(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    """The host authenticates by a cookie, which browsers send by themselves."""

    def load() -> Principal | None:
        if request.cookies.get("session") or request.headers.get("Authorization"):
            return Principal("1", frozenset({"read", "write"}))
        return None

    with lasting(tmp_path_factory.mktemp("signed")) as app:
        object.__setattr__(state_of(app), "load_principal", load)
        yield app


CASES = [
    ("a page of the same origin", {"Sec-Fetch-Site": "same-origin"}, "application/json", 201),
    ("a page of the same origin, older browser", {"Origin": "http://localhost"}, "application/json", 201),
    ("another site", {"Sec-Fetch-Site": "cross-site"}, "application/json", 403),
    ("a sister site", {"Sec-Fetch-Site": "same-site"}, "application/json", 403),
    ("another site, older browser", {"Origin": "https://evil.example"}, "application/json", 403),
    ("a page without an origin", {"Origin": "null"}, "application/json", 403),
    ("another port", {"Origin": "http://localhost:8080"}, "application/json", 403),
    ("a form of the same origin", {"Sec-Fetch-Site": "same-origin"}, "text/plain", 415),
    ("a form of another site", {"Sec-Fetch-Site": "cross-site"}, "application/x-www-form-urlencoded", 403),
    ("a form that looks like JSON", {"Origin": "https://evil.example"}, "text/plain; application/json", 403),
    ("a form with a file", {"Sec-Fetch-Site": "same-origin"}, "multipart/form-data; boundary=x", 415),
    ("a typed address", {"Sec-Fetch-Site": "none"}, "application/json", 403),
    ("two hosts in one", {"Origin": "http://localhost@evil.example"}, "application/json", 403),
    ("a cookie without any proof", {}, "application/json", 403),
    ("a token of the host's API", {"Authorization": "Bearer x"}, "application/json", 201),
    (
        "a token, from a script of another site that CORS lets through",
        {"Authorization": "Bearer x", "Origin": "https://partner.example"},
        "application/json",
        201,
    ),
    (
        "a password that the browser repeats by itself",
        {"Authorization": "Basic x", "Sec-Fetch-Site": "cross-site"},
        "application/json",
        403,
    ),
]


@pytest.mark.parametrize(
    ("headers", "kind", "status"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_change_must_be_meant(signed_in: Flask, headers: dict[str, str], kind: str, status: int) -> None:
    client = signed_in.test_client()
    client.set_cookie("session", "1")

    answer = client.post(
        "/webhooks/api/subscriptions",
        data='{"url": "http://127.0.0.1:5999/", "events": ["*"]}',
        headers={"Content-Type": kind, **headers},
    )

    assert answer.status_code == status, answer.data
