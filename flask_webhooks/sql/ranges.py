"""Ranges of an index, read in its order: for lists, searches and counts.

PostgreSQL chooses its plan by statistics that may be outdated. If they say that most rows match, it walks the primary
key with a filter, and reads the whole log if no row matches any more. If they say that few rows lie between two ids, it
reads the rows of all owners between them. If they say that the range is shorter than the limit, it reads all of it and
sorts. So the statement is written in a form that only the right index can answer: the equality on the first column is
`= ANY (ARRAY[value])`, which the planner does not treat as a constant, so that the order includes that column; a bound
on the key is a row comparison together with the column before it. And a join with `_MANY` makes the planner expect more
rows than it would sort.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["count", "first", "in_range"]

FIRST = "00000000-0000-0000-0000-000000000000"
"""Sorts before all ids."""
_MANY = sa.func.regexp_split_to_table(sa.literal_column("''"), sa.literal_column("''")).alias("many")
"""One row, which PostgreSQL estimates as a thousand: a range that is joined with it seems a thousand times longer."""


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

    :param equal: the columns before `keys`, in the order of the index, with their values; empty for a whole table.
    :param since: lower bound of the first key, included. If the newest rows come first it does not end the scan: the
        caller has to stop reading there.
    :param below: upper bound of the first key, excluded. If the oldest rows come first it does not end the scan.
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
    """Bound a key within one value of the column before it. Both set the start of the scan, the value sets its end."""
    pair, typed = sa.tuple_(column, key), sa.literal(value, column.type)
    if since is None and not is_newest_first:
        since = FIRST
    if since is not None:
        yield pair >= sa.tuple_(typed, sa.literal(since, key.type))
    if below is not None:
        yield pair < sa.tuple_(typed, sa.literal(below, key.type))
    yield column >= value if is_newest_first else column <= value


def first(found: sa.Select[t.Any], count: int) -> sa.Select[t.Any]:
    """Limit a SELECT to `count` rows, as a literal in its text.

    For a parameter PostgreSQL assumes a tenth of the table, and would sort all rows instead of reading the index.
    """
    return found.limit(sa.literal_column(str(int(count)), sa.Integer))


def count(connection: sa.Connection, found: sa.Select[t.Any], most: int) -> int:
    """Return the number of rows of a SELECT, at most `most`; counting stops there."""
    some = sa.select(sa.func.count()).select_from(first(found, most).subquery())
    return t.cast("int", connection.scalar(some))
