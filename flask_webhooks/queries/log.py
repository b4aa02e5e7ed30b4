"""What is asked of the log, and how it is read: one description of filters for API, console and command line.

Ids are made in the order of time, so a time is an id, and "the page after this one" is "ids below the last one": rows
that are added meanwhile come before it and shift nothing.

A list merges several *walks*. A walk is a SELECT of one range of an index, made by `sql.ranges.in_range`, newest first.
A filter that no index answers is not part of the statement: PostgreSQL would estimate how many rows pass it, and from
that estimate choose to read and sort all of them. It is applied to the rows that were read, and a page gives up after
`REACH` rows and returns the place where the next one continues.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ids import first_at
from ..principal import ALL_OWNERS, Whose
from ..sql.ranges import first

__all__ = ["REACH", "STEP", "LogQuery", "end_of", "newest", "sifted"]

REACH = 20_000
"""Rows of a range that one page reads for a filter that no index answers. A further index, only for lists, would make
every commit slower."""
STEP = 500
"""Rows that are read with one statement while searching for those that pass a filter."""
PARTS = 50
"""Ranges that one statement reads; SQLite allows 500 parts of a UNION."""


@dataclass(frozen=True)
class LogQuery:
    """Filters, and the place of the page. An empty text means any."""

    owner: Whose = ALL_OWNERS
    subscriptions: tuple[str, ...] | None = None
    """Ids of the subscriptions whose deliveries are searched; None: all, which only operators may."""
    message: str = ""
    """Only deliveries of the message with this id."""
    environment: str = ""
    state: str = ""
    """One of `State`."""
    event: str = ""
    """An event type, or `invoices.*`."""
    names: tuple[str, ...] | None = None
    """The event types of the catalogue that `event` matches; None: all."""
    since: datetime | None = None
    until: datetime | None = None
    status: str = ""
    """`2xx` to `5xx`, a number, or `none` for no response."""
    text: str = ""
    """Part of the id of a delivery or of its message."""
    before: str = ""
    """Only ids below this one: the cursor of the page."""
    anchor: str = ""
    """Only this id and larger ones: the live part of a page."""

    @property
    def least(self) -> str:
        """The least id that `since` and `anchor` admit."""
        return max(self.anchor, first_at(self.since) if self.since else "")

    @property
    def limit(self) -> str | None:
        """The first id that `until` excludes; None without `until`."""
        return first_at(self.until) if self.until else None

    @property
    def below(self) -> str | None:
        """The first id that is too large for this page; None: no id is."""
        return min(filter(None, (self.limit, self.before)), default=None)

    @property
    def is_narrow(self) -> bool:
        """Whether no index answers one of its filters. The index on states begins with the subscription."""
        return bool(self.event or self.status or self.text or (self.state and self.subscriptions is None))


# ---- walks -----------------------------------------------------------------------------------------------


def end_of(session: Session, walks: t.Sequence[sa.Select[t.Any]], reach: int) -> str | None:
    """Return the largest id that is the `reach`-th of its range; None: no range has as many rows.

    :param walks: SELECTs of an id only.
    """
    # An OFFSET walks as many entries of the index as a page does at most, so this costs no more than a page.
    ends = [walk.offset(reach - 1).limit(1).subquery().select() for walk in walks]
    found: list[str] = []
    for start in range(0, len(ends), PARTS):
        found.extend(session.scalars(_united(ends[start : start + PARTS])))
    return max(found, default=None)


def newest(session: Session, walks: t.Sequence[sa.Select[t.Any]], count: int) -> list[t.Any]:
    """Return the newest `count` rows of several ranges."""
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
    """Return the newest rows of several ranges that pass a filter, and the id at which the search gave up, if it did.

    :param walks: makes the ranges below an id; None: whole ranges.
    :param is_wanted: a filter that no index answers.
    :param since: the id at which the ranges end.
    """
    rows: list[t.Any] = []
    left, step = REACH, count
    while left > 0:
        some = newest(session, walks(below), step)
        rows += (row for row in some if row.id >= since and is_wanted(row))
        if len(rows) >= count or len(some) < step or some[-1].id < since:
            return rows[:count], None
        left -= len(some)
        # Most filters pass some of the first rows, so the first step is small. If it did not suffice, few rows pass.
        below, step = some[-1].id, min(STEP, max(left, 1))
    return rows, below
