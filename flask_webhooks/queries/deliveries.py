"""Pages of the log, newest first, filtered.

The index (subscription, state, id) has the deliveries of each subscription in each state in order. A page merges their
newest ends. A filter that no index answers (event, status, part of an id) is applied to the merged ids, a chunk at a
time; after `REACH` ids the search gives up and returns the place where the next page continues.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import typing as t
from dataclasses import dataclass

import sqlalchemy as sa

from .. import outbox
from ..models import ATTEMPTS, DELIVERIES, MESSAGES, State
from ..sql import ranges
from ..sql.parameters import KeyedStatement
from .log import LogQuery

__all__ = ["LINE", "LogLine", "LogPage", "page", "search"]

LINE = tuple(column.name for column in DELIVERIES.c if column.name not in ("body", "includes"))
"""The columns of `Delivery` in a line of the log: without the body, which may be large, and what only workers need."""
CHUNK = 500
"""Ids that are read and filtered with one statement."""
REACH = 10_000
"""Deliveries that one search reads."""
BRANCHES = 40
"""Index walks in one statement."""
CLASSES: t.Mapping[str, tuple[int, int]] = {
    "2xx": (200, 299),
    "3xx": (300, 399),
    "4xx": (400, 499),
    "5xx": (500, 599),
}


@dataclass(frozen=True)
class LogLine:
    """A delivery as a line of the log."""

    row: sa.Row[t.Any]
    """The columns `LINE`, and `event`, `text`, `occurred_at`, `entity_id` of its message; None if
    that has been purged."""
    last: sa.Row[t.Any] | None
    """`status`, `failure`, `total_seconds`, `started_at` of its last attempt."""


@dataclass(frozen=True)
class LogPage:
    """A page of the log."""

    entries: tuple[LogLine, ...]
    next: str | None
    """The cursor of the next page; None: this is the last one."""
    is_cut: bool
    """Whether the search gave up at `REACH`: there may be more after `next`."""


def search(connection: sa.Connection, wanted: LogQuery, most: int, reach: int = REACH) -> LogPage:
    """Return up to `most` deliveries.

    :param reach: deliveries to read for a filter that no index answers.
    """
    ids, behind, is_cut = page(connection, wanted, most, reach)
    return LogPage(_entries(connection, ids), behind, is_cut)


def page(
    connection: sa.Connection, wanted: LogQuery, most: int, reach: int = REACH
) -> tuple[list[str], str | None, bool]:
    """Return the ids of a page, the cursor of the next one, and whether the search gave up at `reach`."""
    ids = _walk(connection, wanted, most + 1)  # one more tells whether there is another page
    if not wanted.is_narrow:
        some = list(itertools.islice(ids, most + 1))
        return some[:most], some[most - 1] if len(some) > most else None, False
    found: list[str] = []
    looked = 0
    while chunk := list(itertools.islice(ids, min(CHUNK, reach - looked))):
        found += _fitting(connection, wanted, chunk)
        looked += len(chunk)
        if len(found) > most:
            return found[:most], found[most - 1], False
        if looked >= reach:  # a page may be short, or empty: its reader decides whether to go on
            return found, chunk[-1], True
    return found, None, False


def _walk(connection: sa.Connection, wanted: LogQuery, first: int) -> t.Iterator[str]:
    """Yield the ids that the indexes select, newest first. More of a branch is read only when the merge has used it up.

    :param first: ids of each branch that the first statement reads.
    """
    branches = _branches(connection.dialect, wanted)
    heads = _heads(connection, [branch(wanted.below) for branch in branches], first)
    rests = [_rest(connection, branch, head, first) for branch, head in zip(branches, heads, strict=True)]
    # Newest first a lower bound does not end the walk of an index, so it ends here.
    return itertools.takewhile(lambda key: key >= wanted.least, heapq.merge(*rests, reverse=True))


Branch = t.Callable[[str | None], sa.Select[t.Any]]
"""Makes the walk that begins below an id."""


def _branches(dialect: sa.Dialect, wanted: LogQuery) -> list[Branch]:
    if wanted.subscriptions is None:
        return [lambda below: _newest_first(dialect, below)]
    # The index begins with subscription and state, so all states of one are six ranges.
    states = [wanted.state] if wanted.state else [state.value for state in State]
    return [
        functools.partial(_newest_in, dialect, key, state) for key in wanted.subscriptions for state in states
    ]


def _newest_first(dialect: sa.Dialect, below: str | None) -> sa.Select[t.Any]:
    return ranges.in_range(
        sa.select(DELIVERIES.c.id), dialect, {}, DELIVERIES.c.id, is_newest_first=True, below=below
    )


def _newest_in(dialect: sa.Dialect, key: str, state: str, below: str | None) -> sa.Select[t.Any]:
    return outbox.in_state(dialect, key, state, is_newest_first=True, below=below)


def _heads(connection: sa.Connection, branches: t.Sequence[sa.Select[t.Any]], size: int) -> list[list[str]]:
    """Return the newest ids of each branch, in few statements."""
    heads: list[list[str]] = [[] for _ in branches]
    for start in range(0, len(branches), BRANCHES):
        parts = []
        for number, branch in enumerate(branches[start : start + BRANCHES], start):
            some = ranges.first(branch, size).subquery()
            parts.append(sa.select(sa.literal(number).label("branch"), some.c.id))
        for row in connection.execute(sa.union_all(*parts) if len(parts) > 1 else parts[0]):
            heads[row.branch].append(row.id)
    for head in heads:
        head.sort(reverse=True)
    return heads


def _rest(connection: sa.Connection, branch: Branch, ids: list[str], size: int) -> t.Iterator[str]:
    while True:
        yield from ids
        if len(ids) < size:
            return
        size = CHUNK  # one page was not enough: a filter is searching
        ids = list(connection.scalars(ranges.first(branch(ids[-1]), size)))


def _fitting(connection: sa.Connection, wanted: LogQuery, ids: t.Sequence[str]) -> list[str]:
    """Return those of some ids that pass the filters no index answers, in the same order."""
    if not ids:
        return []
    text = wanted.text.lower()
    rows = [
        row
        for row in _STATES_BY_DELIVERY.run(connection, ids)
        if (text in row.id or text in row.message_id) and wanted.state in ("", row.state)
    ]
    # One filter after the other, each by keys: rows that one drops are not looked up for the next.
    if wanted.event and rows:
        messages = _EVENTS_BY_MESSAGE.run(connection, [row.message_id for row in rows])
        known = {row.id for row in messages if _is_of(row.event, wanted.event)}
        rows = [row for row in rows if row.message_id in known]
    if wanted.status and rows:
        attempts = _STATUSES_BY_DELIVERY.run(connection, [row.id for row in rows])
        known = {row.delivery_id for row in attempts if _is_answer(row.status, wanted.status)}
        rows = [row for row in rows if row.id in known]
    return sorted((row.id for row in rows), reverse=True)


_STATES_BY_DELIVERY = KeyedStatement(
    DELIVERIES.c.id,
    lambda these: sa.select(DELIVERIES.c.id, DELIVERIES.c.message_id, DELIVERIES.c.state).where(these),
)
_EVENTS_BY_MESSAGE = KeyedStatement(
    MESSAGES.c.id, lambda these: sa.select(MESSAGES.c.id, MESSAGES.c.event).where(these)
)
_STATUSES_BY_DELIVERY = KeyedStatement(
    ATTEMPTS.c.delivery_id,
    lambda these: sa.select(ATTEMPTS.c.delivery_id, ATTEMPTS.c.status).distinct().where(these),
)


def _is_of(event: str, wanted: str) -> bool:
    return event.startswith(wanted[:-1]) if wanted.endswith(".*") else event == wanted


def _is_answer(status: int | None, wanted: str) -> bool:
    if status is None or wanted == "none":
        return status is None and wanted == "none"
    low, high = CLASSES.get(wanted) or (int(wanted), int(wanted))
    return low <= status <= high


_LINES_BY_DELIVERY = KeyedStatement(
    DELIVERIES.c.id,
    lambda these: (
        sa.select(
            *(DELIVERIES.c[name] for name in LINE),
            MESSAGES.c.event,
            MESSAGES.c.text,
            MESSAGES.c.occurred_at,
            MESSAGES.c.entity_id,
        )
        .select_from(DELIVERIES.outerjoin(MESSAGES, MESSAGES.c.id == DELIVERIES.c.message_id))
        .where(these)
        .order_by(DELIVERIES.c.id.desc())
    ),
)
_ATTEMPTS_BY_DELIVERY = KeyedStatement(
    ATTEMPTS.c.delivery_id,
    lambda these: (
        sa.select(
            ATTEMPTS.c.delivery_id,
            ATTEMPTS.c.status,
            ATTEMPTS.c.failure,
            ATTEMPTS.c.total_seconds,
            ATTEMPTS.c.started_at,
        )
        .where(these)
        .order_by(ATTEMPTS.c.started_at)
    ),
)


def _entries(connection: sa.Connection, ids: t.Sequence[str]) -> tuple[LogLine, ...]:
    if not ids:
        return ()
    rows: t.Any = _LINES_BY_DELIVERY.run(connection, ids).all()
    # The rows are in the order of time, so the last attempt of each delivery overwrites the others.
    last: dict[str, t.Any] = {row.delivery_id: row for row in _ATTEMPTS_BY_DELIVERY.run(connection, ids)}
    return tuple(LogLine(row, last.get(row.id)) for row in rows)
