"""Many values as one parameter: for PostgreSQL, which takes them apart.

psycopg prepares each value by itself, and a statement whose text depends on their number is planned anew each time.
Packed, rows are one text of JSON, and keys are one array: any number of them is the same statement.
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
    """Rows given as the parameter `name` (see `rows`), with the types of a table's columns.

    :param other: the type of columns that the table does not have.
    """
    types = [sa.column(each, table.c[each].type if each in table.c else other) for each in columns]
    given = sa.func.json_to_recordset(sa.cast(sa.bindparam(name, type_=sa.Text), sa.JSON))
    return given.table_valued(*types).render_derived(name, with_types=True)


def rows(rows: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Make one parameter of rows. They may hold what JSON holds, moments and bytes."""
    return _encoder.encode(rows)


def _plain(value: t.Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    raise TypeError(f"A column cannot hold {value!r}.")


_encoder = json.JSONEncoder(default=_plain, separators=(",", ":"), check_circular=False)


class KeyedStatement:
    """A statement about some keys, put together once: SQLAlchemy takes longer for that than a database to answer.

    PostgreSQL plans it by what it last counted in the tables, or once for all keys, so its plan must not rest on
    either. Keys come as one native array: the text of an array would be parsed again for each row that a scan looks
    at. A column that is no primary key is first looked up key by key, behind an `OFFSET 0` that PostgreSQL cannot move
    conditions through; then the statement goes by the primary keys that were found. Put no indexed column beside the
    keys: an index that looked empty when its table was counted would be read instead, from end to end. `unindexed`
    hides one.

    :param column: of UUIDs.
    :param make: makes the statement of the condition that the column has one of the values in `keys`.
    """

    def __init__(
        self, column: sa.Column[t.Any], make: t.Callable[[sa.ColumnElement[bool]], sa.Executable]
    ) -> None:
        self._packed = make(_among(column))
        self._listed = make(column.in_(sa.bindparam("keys", expanding=True)))

    def run(
        self, connection: sa.Connection, keys: t.Collection[str], **values: t.Any
    ) -> sa.CursorResult[t.Any]:
        """Execute it.

        :param values: what else it asks for.
        """
        if connection.dialect.name == "postgresql":
            return connection.execute(self._packed, {"keys": "{" + ",".join(keys) + "}", **values})
        return connection.execute(self._listed, {"keys": list(keys), **values})


# Without a type the driver leaves it to PostgreSQL, to which the parameter is an array then, and no text to be cast.
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
    """The values of an array as rows with the column `key`."""
    return sa.func.unnest(keys).table_valued("key").render_derived(name="each")


def unindexed(column: t.Any) -> sa.ColumnElement[t.Any]:
    """Return the value of a column of text as no index holds it: for conditions beside keys."""
    return t.cast("sa.ColumnElement[t.Any]", column.concat(sa.literal_column("''")))


def apart(found: sa.Select[t.Any]) -> sa.Subquery:
    """Return a SELECT as a table into which the planner moves no condition: for those that are put beside its keys."""
    return found.offset(_NONE).subquery()


_NONE = sa.literal_column("0", sa.Integer)
