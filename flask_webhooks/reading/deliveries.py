"""Pages of the log, newest first, filtered.

The index (subscription, state, id) has each state of each subscription sorted already. A page is the merge of their
newest ends; a filter that no index answers (event, status, part of an id) is applied to what the merge yields, a chunk
at a time, and gives up at `REACH` with the place where it may go on.
"""

from __future__ import annotations

import heapq
import itertools
import typing as t
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ..ids import first_at
from ..models import Attempt, Delivery, Message, State

__all__ = ["Entry", "Search", "Slice", "search"]

A, D, M = (t.cast("sa.Table", model.__table__) for model in (Attempt, Delivery, Message))
CHUNK = 500
REACH = 10_000
"""Deliveries that one search looks through."""
BRANCHES = 40
"""Index walks in one statement."""
CLASSES: t.Mapping[str, tuple[int, int]] = {
    "2xx": (200, 299),
    "3xx": (300, 399),
    "4xx": (400, 499),
    "5xx": (500, 599),
}


@dataclass(frozen=True)
class Search:
    """What is asked for; empty means any."""

    subscriptions: tuple[str, ...] | None
    """Ids; None for all there are, which is for operators."""
    state: str = ""
    event: str = ""
    """An event type, or `invoices.*`."""
    since: datetime | None = None
    until: datetime | None = None
    status: str = ""
    """`2xx` to `5xx`, a number, or `none`: no answer."""
    text: str = ""
    """Part of the id of a delivery or of its message."""
    before: str = ""
    """Only older ones than this id."""
    anchor: str = ""
    """Only this one and newer ones."""

    @property
    def is_narrow(self) -> bool:
        """Whether it has a filter that no index answers."""
        return bool(self.event or self.status or self.text)


@dataclass(frozen=True)
class Entry:
    """A delivery as a line of the log."""

    row: sa.Row[t.Any]
    """The columns of `Delivery` but its body, and `event`, `text`, `occurred_at`, `entity_id` of its message; None if
    that has been purged."""
    last: sa.Row[t.Any] | None
    """`status`, `failure`, `total_seconds`, `started_at` of its last attempt."""


@dataclass(frozen=True)
class Slice:
    """A page."""

    entries: tuple[Entry, ...]
    next: str | None
    """Where the next page begins; None: there is no more."""
    is_cut: bool
    """Whether the search gave up at `REACH`: there may be more behind `next`."""


def search(connection: sa.Connection, wanted: Search, most: int, reach: int = REACH) -> Slice:
    """Return up to `most` deliveries.

    :param reach: how many are looked through for a filter that no index answers.
    """
    ids = _walk(connection, wanted, most + 1)
    if not wanted.is_narrow:
        some = list(itertools.islice(ids, most + 1))
        return Slice(_entries(connection, some[:most]), some[most - 1] if len(some) > most else None, False)
    found: list[str] = []
    looked = 0
    while chunk := list(itertools.islice(ids, min(CHUNK, reach - looked))):
        found += _fitting(connection, wanted, chunk)
        looked += len(chunk)
        if len(found) > most:
            return Slice(_entries(connection, found[:most]), found[most - 1], False)
        if looked >= reach:
            return Slice(_entries(connection, found), chunk[-1], True)
    return Slice(_entries(connection, found), None, False)


def _walk(connection: sa.Connection, wanted: Search, first: int) -> t.Iterator[str]:
    """Yield what the indexes can tell, newest first: each branch is read on only when the merge has used it up.

    :param first: how many of each branch are read at once to begin with.
    """
    branches = _branches(wanted)
    heads = _heads(connection, branches, first)
    rests = [_rest(connection, branch, head, first) for branch, head in zip(branches, heads, strict=True)]
    return heapq.merge(*rests, reverse=True)


def _branches(wanted: Search) -> list[sa.Select[t.Any]]:
    lower = max(filter(None, (wanted.anchor, first_at(wanted.since) if wanted.since else "")), default="")
    upper = min(filter(None, (wanted.before, first_at(wanted.until) if wanted.until else "")), default="")
    branch: sa.Select[t.Any] = sa.select(D.c.id).order_by(D.c.id.desc())
    if lower:
        branch = branch.where(D.c.id >= lower)
    if upper:
        branch = branch.where(D.c.id < upper)
    if wanted.subscriptions is None:
        return [branch.where(D.c.state == wanted.state) if wanted.state else branch]
    states = [wanted.state] if wanted.state else [state.value for state in State]
    return [
        branch.where(D.c.subscription_id == key, D.c.state == state)
        for key in wanted.subscriptions
        for state in states
    ]


def _heads(connection: sa.Connection, branches: t.Sequence[sa.Select[t.Any]], size: int) -> list[list[str]]:
    """Return the newest ids of each branch, in few statements."""
    heads: list[list[str]] = [[] for _ in branches]
    for start in range(0, len(branches), BRANCHES):
        parts = []
        for number, branch in enumerate(branches[start : start + BRANCHES], start):
            some = branch.limit(size).subquery()
            parts.append(sa.select(sa.literal(number).label("branch"), some.c.id))
        for row in connection.execute(sa.union_all(*parts) if len(parts) > 1 else parts[0]):
            heads[row.branch].append(row.id)
    for head in heads:
        head.sort(reverse=True)
    return heads


def _rest(connection: sa.Connection, branch: sa.Select[t.Any], ids: list[str], size: int) -> t.Iterator[str]:
    while True:
        yield from ids
        if len(ids) < size:
            return
        size = CHUNK
        ids = list(connection.scalars(branch.where(D.c.id < ids[-1]).limit(size)))


def _fitting(connection: sa.Connection, wanted: Search, ids: t.Sequence[str]) -> list[str]:
    """Return those of some ids that pass the filters no index answers, in the same order."""
    if not ids:
        return []
    fitting = sa.select(D.c.id, D.c.message_id).where(D.c.id.in_(ids)).order_by(D.c.id.desc())
    if wanted.event:
        fitting = fitting.join(M, M.c.id == D.c.message_id)
        if wanted.event.endswith(".*"):
            fitting = fitting.where(M.c.event.startswith(wanted.event[:-1], autoescape=True))
        else:
            fitting = fitting.where(M.c.event == wanted.event)
    if wanted.status:
        fitting = fitting.where(_answered(wanted.status))
    rows = connection.execute(fitting)
    text = wanted.text.lower()
    return [row.id for row in rows if text in row.id or text in row.message_id]


def _answered(status: str) -> sa.ColumnElement[bool]:
    of_delivery = A.c.delivery_id == D.c.id
    if status == "none":
        return sa.exists().where(of_delivery, A.c.status.is_(None))
    low, high = CLASSES.get(status) or (int(status), int(status))
    return sa.exists().where(of_delivery, A.c.status.between(low, high))


_ENTRY = sa.select(
    *(column for column in D.c if column.name not in ("body", "includes")),
    M.c.event,
    M.c.text,
    M.c.occurred_at,
    M.c.entity_id,
).select_from(D.outerjoin(M, M.c.id == D.c.message_id))


def _entries(connection: sa.Connection, ids: t.Sequence[str]) -> tuple[Entry, ...]:
    if not ids:
        return ()
    rows: t.Any = connection.execute(_ENTRY.where(D.c.id.in_(ids)).order_by(D.c.id.desc())).all()
    attempts: t.Any = connection.execute(
        sa.select(A.c.delivery_id, A.c.status, A.c.failure, A.c.total_seconds, A.c.started_at)
        .where(A.c.delivery_id.in_(ids))
        .order_by(A.c.started_at)
    )
    last = {row.delivery_id: row for row in attempts}
    return tuple(Entry(row, last.get(row.id)) for row in rows)
