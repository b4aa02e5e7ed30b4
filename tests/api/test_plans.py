"""Lists read ranges of indexes: what the database says it will do with the statements that a request makes."""

from __future__ import annotations

import re
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.api import fill
from flask_webhooks.state import AppState

from .conftest import Customer

LOG = ("webhook_messages", "webhook_deliveries", "webhook_attempts")
PATHS = [
    "/messages",
    "/messages?event=invoices.paid",
    "/messages?environment=staging&since=2026-01-01T00:00:00Z",
    "/deliveries",
    "/deliveries?state=failed",
    "/deliveries?subscription={key}",
    "/deliveries?subscription={key}&state=delivered&until=2036-01-01T00:00:00Z",
    "/deliveries?event=invoices.paid",
    "/deliveries?event=invoices.paid&state=failed",
    "/subscriptions/{key}/stats",
]


def plans(state: AppState, work: t.Callable[[], object]) -> list[str]:
    """Return the plan of every statement about the log that `work` makes."""
    seen: list[tuple[str, t.Any]] = []

    def keep(_: t.Any, __: t.Any, statement: str, parameters: t.Any, *___: t.Any) -> None:
        if any(name in statement for name in LOG):
            seen.append((statement, parameters))

    sa.event.listen(state.engine, "before_cursor_execute", keep)
    work()
    sa.event.remove(state.engine, "before_cursor_execute", keep)
    ask = "EXPLAIN QUERY PLAN " if state.engine.dialect.name == "sqlite" else "EXPLAIN "
    with state.engine.connect() as connection:
        return [
            "\n".join(str(row) for row in connection.exec_driver_sql(ask + statement, parameters))
            for statement, parameters in seen
        ]


def scans(plan: str) -> list[str]:
    """Return the tables of the log that a plan reads from end to end."""
    found = re.findall(r"SCAN (webhook_\w+)(?! USING)|Seq Scan on (webhook_\w+)", plan)
    return [one or other for one, other in found if (one or other) in LOG]


@pytest.fixture
def logged(state: AppState, call: Customer) -> str:
    """A log that is worth an index; the id of the subscription."""
    key: str = call.subscribe("invoices.*")["id"]
    fill(state, 30_000, [key], datetime.now(UTC))
    return key


def test_no_list_reads_a_table_from_end_to_end(state: AppState, call: Customer, logged: str) -> None:
    for path in PATHS:
        told = plans(state, lambda path=path: call("GET", path.format(key=logged), expect=200))  # type: ignore[misc]

        assert told, path
        for plan in told:
            assert not scans(plan), (path, plan)
            assert "TEMP B-TREE FOR ORDER BY" not in plan, (path, plan)


@pytest.mark.parametrize(("event", "walks_messages"), [("invoices.paid", True), ("invoices.updated", False)])
def test_failed_deliveries_of_a_rare_event_are_found_by_the_event(
    state: AppState, call: Customer, logged: str, event: str, walks_messages: bool
) -> None:
    found: list[str] = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *args: found.append(args[2]))

    call("GET", f"/deliveries?event={event}&state=failed", expect=200)

    lists = [statement for statement in found if "webhook_deliveries.state" in statement]
    assert [("ORDER BY webhook_messages.id" in each) for each in lists] == [walks_messages]


def test_the_next_page_goes_the_same_way(state: AppState, call: Customer, logged: str) -> None:
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = call("GET", f"/deliveries?event=invoices.updated&state=failed&limit=70{cursor}", expect=200)
        seen += [row["id"] for row in page["items"]]
        cursor = f"&cursor={page['next']}" if page["next"] else None

    assert len(seen) == len(set(seen)) == 300


def test_no_list_counts(state: AppState, call: Customer, logged: str) -> None:
    seen: list[str] = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))

    for path in PATHS[:-1]:
        call("GET", path.format(key=logged), expect=200)

    assert seen
    assert not [statement for statement in seen if "count(" in statement.lower()]


def test_a_scan_would_be_seen(state: AppState, logged: str) -> None:
    def scan() -> None:
        with Session(state.engine) as session:
            session.execute(sa.text("SELECT * FROM webhook_deliveries WHERE format = 'x'")).all()

    [plan] = plans(state, scan)
    assert scans(plan) == ["webhook_deliveries"]
