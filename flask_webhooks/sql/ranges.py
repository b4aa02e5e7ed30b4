"""Ranges of an index, read in its order: what a list, a search, a count walks through.

PostgreSQL chooses between such a range and walking the primary key with a filter by what it last counted. Where it
believes that most rows match it walks, and reads the whole log if by now none do; where it believes that hardly any
row is between two ids it reads those of everybody; and where it believes that the range is shorter than what is asked
for, it reads all of it and sorts. So the statement is written such that no other index answers it: the equality on the
first column as `= ANY (ARRAY[value])`, which the planner does not take for a constant, so that the order asks for that
column too; and a bound on the key together with the column before it, as a comparison of rows. And it is told of more
rows than anybody would sort (`_MANY`).
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["count", "first", "in_range"]

FIRST = "00000000-0000-0000-0000-000000000000"
"""The id before all others."""
_MANY = sa.func.regexp_split_to_table(sa.literal_column("''"), sa.literal_column("''")).alias("many")
"""One row, of which PostgreSQL believes that it is a thousand: a range that is joined with it seems so much longer."""


def in_range(
    found: sa.Select[t.Any],
    dialect: sa.Dialect,
    equal: t.Mapping[t.Any, t.Any],
    *keys: t.Any,
    is_newest_first: bool = False,
    since: str | None = None,
    below: str | None = None,
) -> sa.Select[t.Any]:
    """Limit a SELECT to a range of the index on the columns of `equal` and `keys`, in the order of `keys`.

    :param equal: the columns before `keys`, in their order in the index, and their values; none for a whole table.
    :param since: the least first key. Newest first it would not end the walk, so that the caller has to stop there.
    :param below: the first key that is too large. Oldest first it does not end the walk either.
    """
    columns = [*equal, *keys]
    is_postgresql = dialect.name == "postgresql"
    if is_postgresql:
        found = found.join_from(keys[0].expression.table, _MANY, sa.true())
    if not is_postgresql or not equal:
        found = found.where(*(column == value for column, value in equal.items()))
        found = found.where(*_bounds(keys[0], since, below))
        return found.order_by(*_ordered(keys, is_newest_first))
    (start, value), *others = equal.items()
    given = value if isinstance(value, sa.ColumnElement) else sa.literal(value, start.type)
    found = found.where(start == sa.any_(postgresql.array([given])))
    if others and (since is not None or below is not None):
        column, other = others.pop()
        found = found.where(*_together(column, other, keys[0], since, below, is_newest_first))
    found = found.where(*(column == other for column, other in others))
    return found.order_by(*_ordered(columns, is_newest_first))


def _ordered(columns: t.Sequence[t.Any], is_newest_first: bool) -> list[t.Any]:
    return [column.desc() if is_newest_first else column for column in columns]


def _bounds(key: t.Any, since: str | None, below: str | None) -> t.Iterator[sa.ColumnElement[bool]]:
    if since is not None:
        yield key >= since
    if below is not None:
        yield key < below


def _together(
    column: t.Any, value: t.Any, key: t.Any, since: str | None, below: str | None, is_newest_first: bool
) -> t.Iterator[sa.ColumnElement[bool]]:
    """Bound a key below a value of the column before it: where the walk begins by both, where it ends by the value."""
    pair, typed = sa.tuple_(column, key), sa.literal(value, column.type)
    if since is None and not is_newest_first:
        since = FIRST
    if since is not None:
        yield pair >= sa.tuple_(typed, sa.literal(since, key.type))
    if below is not None:
        yield pair < sa.tuple_(typed, sa.literal(below, key.type))
    yield column >= value if is_newest_first else column <= value


def first(found: sa.Select[t.Any], count: int) -> sa.Select[t.Any]:
    """Limit a SELECT to so many rows, written out.

    For any number PostgreSQL would make a plan that takes a tenth of the table for it, and sort all instead of walking.
    """
    return found.limit(sa.literal_column(str(int(count)), sa.Integer))


def count(connection: sa.Connection, found: sa.Select[t.Any], most: int) -> int:
    """Return how many rows a SELECT has; counting ends at `most`."""
    some = sa.select(sa.func.count()).select_from(first(found, most).subquery())
    return t.cast("int", connection.scalar(some))
