"""Lists that stay fast and stable while rows arrive: newest first, by id, from the end of an index.

Ids are made in the order of time, so "the page after this one" is "ids below the last one": new rows come before it and
move nothing.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ids import first_at
from ..principal import ALL_OWNERS, Whose
from ..queries.bounds import PAGE, json_size
from ..sql.ranges import first, in_range
from ..web import Refused
from .operations import Call

__all__ = ["REACH", "bounded", "event_names", "floor_of", "newest", "owner_of", "paged", "walk"]

REACH = 20_000
"""Rows of a range that one page looks through for a filter that no index answers. One index more, for lists alone,
would be paid for by every commit."""
STEP = 500
"""Rows that are read together in search of those that pass a filter."""
PARTS = 50
"""Ranges that one statement reads; SQLite takes 500 at most."""


def owner_of(call: Call) -> Whose:
    """Return whose rows are asked for: a caller's own, or those that an operator asks for.

    :raises Refused: another owner's, and the caller is no operator.
    """
    asked: str | None = call.query.get("owner")
    if call.owner is ALL_OWNERS:
        return ALL_OWNERS if asked is None else asked
    if asked not in (None, call.owner):
        raise Refused(403, "Only operators may look at other owners.")
    return call.owner


def event_names(call: Call) -> list[str] | None:
    """Return the event types that the query names; None: all.

    An event that is in the catalogue no longer can still be looked for by its whole name.
    """
    pattern = call.query.get("event")
    if pattern is None or pattern == "*":
        return None
    return [event.name for event in call.state.catalog.expand(pattern)] or [pattern]


def walk(
    call: Call,
    found: sa.Select[t.Any],
    key: t.Any,
    equal: t.Mapping[t.Any, t.Any] | None = None,
    *,
    below: str | None = None,
) -> sa.Select[t.Any]:
    """Return rows below an id, newest first: all of a table, or those in a range of an index."""
    return in_range(found, call.state.engine.dialect, equal or {}, key, is_newest_first=True, below=below)


def span(query: t.Mapping[str, t.Any]) -> tuple[str, str | None]:
    """Return between which ids a list is, by its `since`, `until` and `cursor`: the least, and the first too large."""
    since = first_at(query["since"]) if "since" in query else ""
    until = first_at(query["until"]) if "until" in query else None
    return since, min(filter(None, (until, query.get("cursor"))), default=None)


def bounded(found: sa.Select[t.Any], column: t.Any, query: t.Mapping[str, t.Any]) -> sa.Select[t.Any]:
    """Limit a list to `since` and `until`: a range of ids."""
    if "since" in query:
        found = found.where(column >= first_at(query["since"]))
    if "until" in query:
        found = found.where(column < first_at(query["until"]))
    return found


def floor_of(session: Session, walks: t.Sequence[sa.Select[t.Any]], reach: int | None = None) -> str | None:
    """Return the id at which a page that filters has to end; None: it may see the last row of every range.

    :param walks: the ranges that it reads (see `walk`), without the filter that no index answers.
    :param reach: rows of each that it may read; `REACH` without it.
    """
    last = (reach or REACH) - 1
    ends = [walk.offset(last).limit(1).subquery().select() for walk in walks]
    found: list[str] = []
    for start in range(0, len(ends), PARTS):
        some = ends[start : start + PARTS]
        found.extend(session.scalars(sa.union_all(*some) if len(some) > 1 else some[0]))
    return max(found, default=None)


def newest(session: Session, walks: t.Sequence[sa.Select[t.Any]], limit: int) -> list[t.Any]:
    """Return the newest rows of several walks together."""
    limited = [first(walk, limit).subquery().select() for walk in walks]
    rows: list[t.Any] = []
    for start in range(0, len(limited), PARTS):
        some = limited[start : start + PARTS]
        rows.extend(session.execute(sa.union_all(*some) if len(some) > 1 else some[0]))
    rows.sort(key=lambda row: row.id, reverse=True)
    return rows[:limit]


def sifted(
    session: Session,
    walks: t.Callable[[str | None], t.Sequence[sa.Select[t.Any]]],
    limit: int,
    is_wanted: t.Callable[[t.Any], bool],
    *,
    since: str,
    below: str | None,
) -> tuple[list[t.Any], str | None]:
    """Return the newest rows of several walks that pass a filter which no index answers, and where the search gave up.

    The filter is no part of the statement: PostgreSQL would guess how many rows pass, and by that read and sort all.

    :param walks: makes the walks that begin below an id.
    :param since: the id at which they end.
    """
    rows: list[t.Any] = []
    left, step = REACH, limit
    while left > 0:
        some = newest(session, walks(below), step)
        rows += (row for row in some if row.id >= since and is_wanted(row))
        if len(rows) >= limit or len(some) < step or some[-1].id < since:
            return rows[:limit], None
        left -= len(some)
        below, step = some[-1].id, min(STEP, max(left, 1))
    return rows, below


def paged(
    rows: t.Sequence[t.Any],
    limit: int,
    show: t.Callable[[t.Any], dict[str, t.Any]],
    cursor: t.Callable[[t.Any], str] = lambda row: str(row.id),
    floor: str | None = None,
    room: int = PAGE,
) -> dict[str, t.Any]:
    """Return a page of rows, of which there is one more than `limit` if there is another page.

    :param floor: where the page stopped looking, although it may be short.
    :param room: bytes that its items may have together; of items that are larger it holds one.
    """
    items: list[dict[str, t.Any]] = []
    for row in rows[:limit]:
        item = show(row)
        room -= json_size(item)
        if items and room < 0:
            break
        items.append(item)
    has_more = len(rows) > len(items)
    return {"items": items, "next": cursor(rows[len(items) - 1]) if has_more and items else floor}
