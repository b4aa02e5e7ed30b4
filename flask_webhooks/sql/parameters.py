"""Many values as one parameter, which PostgreSQL unpacks.

psycopg adapts each parameter separately, and a statement whose text depends on the number of values is planned again
each time. Packed, rows are one JSON text and keys are one array: the statement is the same for any number of them.
"""

from __future__ import annotations

import json
import typing as t
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["KeyedStatement", "apart", "each_of", "rows", "unindexed", "unpacked"]


def unpacked(
    name: str, table: sa.Table, columns: t.Sequence[str], other: sa.types.TypeEngine[t.Any] | None = None
) -> sa.TableValuedAlias:
    """Return a FROM item with the rows in the parameter `name` (see `rows`), with the types of a table's columns.

    :param other: the type of columns that the table does not have.
    """
    types = [sa.column(each, table.c[each].type if each in table.c else other) for each in columns]
    given = sa.func.json_to_recordset(sa.cast(sa.bindparam(name, type_=sa.Text), sa.JSON))
    return given.table_valued(*types).render_derived(name, with_types=True)


def rows(rows: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Return rows as one parameter. They may hold JSON values, datetimes and bytes."""
    return _encoder.encode(rows)


def _plain(value: t.Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    raise TypeError(f"A column cannot hold {value!r}.")


_encoder = json.JSONEncoder(default=_plain, separators=(",", ":"), check_circular=False)


class KeyedStatement:
    """A statement on rows with given keys, built once: SQLAlchemy needs longer to build it than a database to answer.

    PostgreSQL plans it by statistics that may be outdated, or once for all parameters, so a good plan must not depend
    on either. Keys are one native array: the text of an array would be parsed again for each row of a scan. For a
    column that is no primary key, the primary keys are looked up first, key by key, in a subquery with `OFFSET 0`, into
    which PostgreSQL cannot move conditions. Do not add a condition on an indexed column: PostgreSQL might read all of
    its index instead, if that looked empty when the statistics were made. `unindexed` hides a column's index.

    :param column: a column of UUIDs.
    :param make: returns the statement for the given condition, which says that `column` has one of the values in
        `keys`.
    """

    def __init__(
        self, column: sa.Column[t.Any], make: t.Callable[[sa.ColumnElement[bool]], sa.Executable]
    ) -> None:
        self._packed = make(_among(column))
        self._listed = make(column.in_(sa.bindparam("keys", expanding=True)))

    def run(
        self, connection: sa.Connection, keys: t.Collection[str], **values: t.Any
    ) -> sa.CursorResult[t.Any]:
        """Execute the statement.

        :param values: its other parameters.
        """
        if connection.dialect.name == "postgresql":
            return connection.execute(self._packed, {"keys": "{" + ",".join(keys) + "}", **values})
        return connection.execute(self._listed, {"keys": list(keys), **values})


# NULLTYPE: the driver sends no type, so PostgreSQL takes the parameter for the array, and not for a text to cast.
_KEYS = sa.cast(sa.bindparam("keys", type_=sa.types.NULLTYPE), postgresql.ARRAY(sa.Uuid(as_uuid=False)))


def _among(column: sa.Column[t.Any]) -> sa.ColumnElement[bool]:
    [primary] = column.table.primary_key
    if column is primary:
        return column == sa.any_(_KEYS)
    each = each_of(_KEYS)
    inner = column.table.alias("one")
    found = sa.select(inner.c[primary.name]).where(inner.c[column.name] == each.c.key)
    looked_up = found.offset(_NONE).lateral("found")
    ids = sa.select(looked_up.c[primary.name]).select_from(each.join(looked_up, sa.true()))
    return primary == sa.any_(sa.func.array(ids.scalar_subquery()))


def each_of(keys: sa.ColumnElement[t.Any]) -> sa.TableValuedAlias:
    """Return the values of an array as rows with the column `key`."""
    return sa.func.unnest(keys).table_valued("key").render_derived(name="each")


def unindexed(column: t.Any) -> sa.ColumnElement[t.Any]:
    """Return an expression for a text column that no index matches: for a further condition of a `KeyedStatement`."""
    return t.cast("sa.ColumnElement[t.Any]", column.concat(sa.literal_column("''")))


def apart(found: sa.Select[t.Any]) -> sa.Subquery:
    """Return a SELECT as a subquery into which the planner moves no condition of the outer statement."""
    return found.offset(_NONE).subquery()


_NONE = sa.literal_column("0", sa.Integer)
