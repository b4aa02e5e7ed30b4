"""The statements on the log that a piece of work makes, and the plans that the database makes for them."""

from __future__ import annotations

import re
import typing as t

import sqlalchemy as sa

from flask_webhooks.state import AppState

LOG = ("webhook_messages", "webhook_deliveries", "webhook_attempts")


def statements(state: AppState, work: t.Callable[[], object]) -> list[tuple[str, t.Any]]:
    """Return every statement about the log that `work` makes, with its parameters."""
    seen: list[tuple[str, t.Any]] = []

    def keep(_: t.Any, __: t.Any, statement: str, parameters: t.Any, *___: t.Any) -> None:
        if any(name in statement for name in LOG):
            seen.append((statement, parameters))

    sa.event.listen(state.engine, "before_cursor_execute", keep)
    work()
    sa.event.remove(state.engine, "before_cursor_execute", keep)
    return seen


def plans(state: AppState, seen: t.Sequence[tuple[str, t.Any]]) -> list[str]:
    """Return the plan of each of some statements, as the database makes it for a log that it has counted."""
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
