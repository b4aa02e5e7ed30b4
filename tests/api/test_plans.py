"""Lists read ranges of indexes: the plans that the database makes for the statements of a request."""

from __future__ import annotations

import contextlib
import itertools
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from bench.api import fill
from flask_webhooks import Principal
from flask_webhooks.queries import log
from flask_webhooks.state import AppState, state_of
from tests.conftest import DATABASES, new_database, new_mariadb_database
from tests.host import db
from tests.query_plans import plans, scans, statements

from .conftest import Customer, lasting

pytestmark = pytest.mark.long

ROWS = 60_000
"""Enough that PostgreSQL, which has counted them, would rather read an index than the table."""
TIME = "since=2026-01-01T00:00:00Z&until=2036-01-01T00:00:00Z"
MESSAGES = [
    "&".join(filter(None, some))
    for some in itertools.product(
        ["", "event=invoices.paid", "event=invoices.*", "event=gone.for_good"],
        ["", "environment=staging"],
        ["", TIME],
    )
]
DELIVERIES = [
    "&".join(filter(None, some))
    for some in itertools.product(
        ["", "subscription={key}", "message={message}"],
        ["", "state=failed", "state=delivered"],
        ["", "event=invoices.paid", "event=invoices.*"],
        ["", TIME],
    )
]
PATHS = [
    *(f"/messages?{query}" for query in MESSAGES),
    *(f"/deliveries?{query}" for query in DELIVERIES),
    "/messages/{message}",
    "/deliveries/{delivery}",
    "/subscriptions/{key}/stats",
]


@pytest.fixture(scope="module", params=DATABASES)
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    """An app with a log that is worth an index."""
    folder = tmp_path_factory.mktemp("plans")
    with contextlib.ExitStack() as stack:
        config = {}
        if request.param != "sqlite":
            make = new_database if request.param == "postgresql" else new_mariadb_database
            url = stack.enter_context(
                make(request.getfixturevalue("postgres" if make is new_database else "mariadb"))
            )
            config["SQLALCHEMY_DATABASE_URI"] = url
        app = stack.enter_context(lasting(folder, **config))
        call = Customer(app.test_client())
        keys = [call.subscribe("invoices.*")["id"] for _ in range(2)]
        fill(state_of(app), ROWS, keys, datetime.now(UTC))
        yield app
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def state(logged: Flask) -> AppState:
    return state_of(logged)


@pytest.fixture
def call(logged: Flask) -> Customer:
    return Customer(logged.test_client())


@pytest.fixture
def places(call: Customer) -> dict[str, str]:
    """The values of a path's arguments."""
    delivery = call("GET", "/deliveries?limit=1")["items"][0]
    return {"key": delivery["subscription_id"], "message": delivery["message_id"], "delivery": delivery["id"]}


@contextlib.contextmanager
def as_operator(state: AppState) -> t.Iterator[None]:
    before = state.load_principal
    object.__setattr__(state, "load_principal", lambda: Principal("1", frozenset({"read"}), operator=True))
    try:
        yield
    finally:
        object.__setattr__(state, "load_principal", before)


@pytest.mark.parametrize("operator", [False, True], ids=["owner", "operator"])
def test_no_list_reads_a_table_from_end_to_end_or_counts(
    state: AppState, call: Customer, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, operator: bool
) -> None:
    monkeypatch.setattr(log, "REACH", 500)  # to this log what 20,000 is to a large one
    with as_operator(state) if operator else contextlib.nullcontext():
        for path in PATHS:
            seen = statements(state, lambda path=path: call("GET", path.format(**places), expect=200))  # type: ignore[misc]
            found = plans(state, seen)

            if "/stats" not in path:
                assert not [each for each, _ in seen if "count(" in each.lower()], path
            assert 1 <= len(found) <= 8, (path, found)
            for (statement, _), plan in zip(seen, found, strict=True):
                assert not scans(plan), (path, plan)
                # a handful of rows
                is_of_some = "message=" in path or "?" not in path or "message_id IN (" in statement
                assert is_of_some or "TEMP B-TREE FOR ORDER BY" not in plan, (path, plan)


@pytest.mark.parametrize(("event", "walks_messages"), [("invoices.paid", True), ("invoices.updated", False)])
def test_failed_deliveries_of_a_rare_event_are_found_by_the_event(
    state: AppState, call: Customer, event: str, walks_messages: bool
) -> None:
    found = statements(state, lambda: call("GET", f"/deliveries?event={event}&state=failed", expect=200))

    by_message = [each for each, _ in found if "message_id IN (" in each or "one.message_id = " in each]
    assert bool(by_message) == walks_messages


def through(call: Customer, query: str) -> list[str]:
    """Return the ids of a list, page by page."""
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = call("GET", f"/{query}{cursor}", expect=200)
        seen += [row["id"] for row in page["items"]]
        cursor = f"&cursor={page['next']}" if page["next"] else None
    assert len(seen) == len(set(seen))
    return seen


FILTERS = [
    "event=invoices.paid",
    "event=invoices.paid&state=failed",
    "event=invoices.updated&state=failed",
    "event=invoices.paid&since=2026-01-01T00:00:00Z",
    "event=invoices.paid&until=2036-01-01T00:00:00Z",
    "event=invoices.*&state=failed&subscription={key}",
    "state=failed",
]


@pytest.mark.parametrize("operator", [False, True], ids=["owner", "operator"])
@pytest.mark.parametrize("query", FILTERS)
def test_pages_that_stop_looking_leave_nothing_out(
    state: AppState,
    call: Customer,
    places: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    operator: bool,
) -> None:
    with as_operator(state) if operator else contextlib.nullcontext():
        path = f"deliveries?limit=100&{query.format(**places)}"
        whole = through(call, path)
        monkeypatch.setattr(log, "REACH", 8000)

        assert sorted(through(call, path)) == sorted(whole)
        assert whole


def test_an_operators_messages_of_a_rare_event(
    state: AppState, call: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = through(call, "messages?event=invoices.paid")
    monkeypatch.setattr(log, "REACH", 8000)

    with as_operator(state):
        assert through(call, "messages?event=invoices.paid") == own
        assert call("GET", "/messages?event=nothing.at_all")["items"] == []


def test_a_scan_would_be_seen(state: AppState) -> None:
    def scan() -> None:
        with Session(state.engine) as session:
            session.execute(sa.text("SELECT * FROM webhook_deliveries WHERE format = 'x'")).all()

    [plan] = plans(state, statements(state, scan))
    assert scans(plan) == ["webhook_deliveries"]
