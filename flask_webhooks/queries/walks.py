"""Several ranges of indexes read together, newest first: what a list merges, a step at a time.

A range is a SELECT that `sql.ranges.in_range` has made. A filter that no index answers is no part of the statement:
PostgreSQL would guess how many rows pass, and by that read and sort all. It is applied to what was read, and the page
gives up after `REACH` rows with the place where it may go on.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..sql.ranges import first

__all__ = ["REACH", "STEP", "end_of", "newest", "sifted"]

REACH = 20_000
"""Rows of a range that one page looks through for a filter that no index answers. One index more, for lists alone,
would be paid for by every commit."""
STEP = 500
"""Rows that are read together in search of those that pass a filter."""
PARTS = 50
"""Ranges that one statement reads; SQLite takes 500 at most."""


def end_of(session: Session, walks: t.Sequence[sa.Select[t.Any]], reach: int) -> str | None:
    """Return the id that ends `reach` rows of the shortest of several ranges; None: none has as many.

    :param walks: SELECTs of an id alone.
    """
    # An OFFSET walks that many entries of the index: what one page costs at most anyway.
    ends = [walk.offset(reach - 1).limit(1).subquery().select() for walk in walks]
    found: list[str] = []
    for start in range(0, len(ends), PARTS):
        found.extend(session.scalars(_united(ends[start : start + PARTS])))
    return max(found, default=None)


def newest(session: Session, walks: t.Sequence[sa.Select[t.Any]], count: int) -> list[t.Any]:
    """Return the newest rows of several ranges together."""
    limited = [first(walk, count).subquery().select() for walk in walks]
    rows: list[t.Any] = []
    for start in range(0, len(limited), PARTS):
        rows.extend(session.execute(_united(limited[start : start + PARTS])))
    rows.sort(key=lambda row: row.id, reverse=True)
    return rows[:count]


def _united(parts: t.Sequence[sa.Select[t.Any]]) -> t.Any:
    return sa.union_all(*parts) if len(parts) > 1 else parts[0]


def sifted(
    session: Session,
    walks: t.Callable[[str | None], t.Sequence[sa.Select[t.Any]]],
    count: int,
    is_wanted: t.Callable[[t.Any], bool],
    *,
    since: str,
    below: str | None,
) -> tuple[list[t.Any], str | None]:
    """Return the newest rows of several ranges that pass a filter which no index answers, and where the search gave up.

    :param walks: makes the ranges that begin below an id.
    :param since: the id at which they end.
    """
    rows: list[t.Any] = []
    left, step = REACH, count
    while left > 0:
        some = newest(session, walks(below), step)
        rows += (row for row in some if row.id >= since and is_wanted(row))
        if len(rows) >= count or len(some) < step or some[-1].id < since:
            return rows[:count], None
        left -= len(some)
        # Most filters pass some of the first rows: the first step is small, the others are not.
        below, step = some[-1].id, min(STEP, max(left, 1))
    return rows, below
