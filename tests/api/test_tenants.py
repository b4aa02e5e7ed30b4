"""Owners, keys and names that the database's collation takes for equal are still different."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import Principal, Webhooks, checks
from flask_webhooks.models import Base, Message
from flask_webhooks.state import AppState, state_of
from tests.host import db
from tests.stage import deliveries, recorded, subscribe

from .conftest import Customer
from .test_rights import BODIES, filled, possessions, routes

ALIKE = [
    ("acme", "ACME"),
    ("acme", "acme "),
    ("acme", "acme\t"),
    ("strasse", "stra\u00dfe"),
    ("acme", "acm\u00e9"),
    ("acm\u00e9", "acme\u0301"),
    ("acme", "ac\u200bme"),
    ("acme", "\uff41cme"),
    ("\U0001f98a", "\U0001f43b"),
]
NAMES = ["case", "space", "tab", "ligature", "accent", "normal form", "zero width", "full width", "emoji"]
alike = pytest.mark.parametrize(("one", "two"), ALIKE, ids=NAMES)


class Tenant(Customer):
    """A customer whose owner no header could hold."""

    def __init__(self, app: Flask, owner: str) -> None:
        super().__init__(app.test_client())
        self.state, self.owner = state_of(app), owner

    def __call__(self, *args: t.Any, **more: t.Any) -> t.Any:
        who = Principal(self.owner, {"read", "write", "secrets"})
        object.__setattr__(self.state, "load_principal", lambda: who)
        return super().__call__(*args, **more)


@alike
def test_a_tenant_that_looks_alike_sees_nothing(app: Flask, state: AppState, one: str, two: str) -> None:
    first, second = Tenant(app, one), Tenant(app, two)
    mine = possessions(state, first, one)
    walked = 0

    for path in ("/subscriptions", "/messages", "/deliveries"):
        assert first("GET", path, expect=200)["items"], path
        assert second("GET", path, expect=200)["items"] == [], path
    for method, path, operation in routes(app):
        if operation is not None and any(name.endswith("_id") for name in operation.arguments):
            second(method, filled(path, mine), BODIES.get(operation.name, {}) if method != "GET" else None)
            assert second.last.status_code == 404, (method, path)
            walked += 1
    assert walked >= 12


@alike
def test_a_key_of_a_tenant_that_looks_alike_is_another(app: Flask, one: str, two: str) -> None:
    body = {"url": "http://127.0.0.1:5999/", "events": ["*"]}
    made = [
        Tenant(app, owner)("POST", "/subscriptions", body, expect=201, idempotency_key="k")
        for owner in (one, two)
    ]

    assert made[0]["secret"] != made[1]["secret"]
    assert made[0]["id"] != made[1]["id"]


def test_keys_that_look_alike_are_two(call: Customer) -> None:
    body = {"url": "http://127.0.0.1:5999/", "events": ["*"]}
    made = {
        key: call("POST", "/subscriptions", body, expect=201, idempotency_key=key)["id"]
        for key in ("Key", "key", "KEY")
    }

    assert len(set(made.values())) == 3


def test_the_limit_of_a_tenant_is_its_own(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_SUBSCRIPTION_LIMIT=1)

    for owner in ("acme", "ACME", "acme "):
        Tenant(app, owner).subscribe("*")


@alike
def test_events_reach_their_own_tenant(
    app: Flask, state: AppState, webhooks: Webhooks, one: str, two: str
) -> None:
    rows = {owner: subscribe(state, "https://example.com/", "reports.*", owner=owner) for owner in (one, two)}

    webhooks.emit("reports.ready", {"id": 1}, owner=one, dedupe_key="k")
    db.session.commit()
    webhooks.emit("reports.ready", {"id": 1}, owner=two, dedupe_key="k")
    db.session.commit()

    owners = {message.id: message.owner for message in recorded(state)}
    assert sorted(owners.values()) == sorted([one, two])
    assert {(owners[each.message_id], each.subscription_id) for each in deliveries(state)} == {
        (owner, row.id) for owner, row in rows.items()
    }


@alike
def test_dedupe_keys_that_look_alike_are_two(state: AppState, webhooks: Webhooks, one: str, two: str) -> None:
    subscribe(state, "https://example.com/", "*")

    for key in (one, two, one, two):
        webhooks.emit("reports.ready", {"id": key}, owner="1", dedupe_key=key)
        db.session.commit()

    assert [message.dedupe_key for message in recorded(state)] == [one, two]


def test_names_that_look_alike_are_no_filter(state: AppState, call: Customer) -> None:
    possessions(state, call)

    for query in ("event=INVOICES.CREATED", "event=invoices.created%20"):
        assert call("GET", f"/messages?{query}", expect=200)["items"] == [], query
        assert call("GET", f"/deliveries?{query}", expect=200)["items"] == [], query


@pytest.fixture
def webhooks(app: Flask) -> Webhooks:
    """The extension; the app is that of the current context."""
    return Webhooks()


def test_an_older_database_is_found_and_mended(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    """MariaDB: the statements that `flask webhooks check` recommends work unchanged."""
    engine = state.engine
    assert checks.check_database(engine).findings == ()
    if engine.dialect.name != "mysql":
        return
    with engine.connect() as connection:
        connection.exec_driver_sql("SET foreign_key_checks = 0")
        for name in Base.metadata.tables:
            connection.exec_driver_sql(
                f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
            )

    checks.refuse_missing_tables(engine)  # as each worker does at its start
    assert "ALTER TABLE webhook_owners" in caplog.records[-1].remedy  # type: ignore[attr-defined]
    [finding] = checks.check_database(engine).findings
    statements = finding.message.partition(": SET")[2]
    with engine.connect() as connection:
        for statement in f"SET{statements}".strip("; ").split("; "):
            connection.exec_driver_sql(statement)

    assert checks.check_database(engine).findings == ()
    with Session(engine) as session:
        for owner in ("acme", "ACME"):
            session.add(
                Message(
                    event="reports.ready", channel="reports", owner=owner, environment="staging",
                    occurred_at=datetime.now(UTC), sequence=1, text="x", data="{}", size=2,
                )
            )  # fmt: skip
        session.commit()
        assert session.scalars(sa.select(Message.owner).where(Message.owner == "acme")).all() == ["acme"]
