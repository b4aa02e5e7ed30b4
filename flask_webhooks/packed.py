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

__all__ = ["Among", "rows", "unpacked"]


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


class Among:
    """A statement about some keys, put together once: SQLAlchemy takes longer for that than a database to answer.

    :param column: of UUIDs.
    :param make: makes the statement of the condition that the column has one of the values in `keys`.
    """

    def __init__(
        self, column: sa.ColumnElement[t.Any], make: t.Callable[[sa.ColumnElement[bool]], sa.Executable]
    ) -> None:
        array = sa.cast(sa.bindparam("keys", type_=sa.Text), postgresql.ARRAY(sa.Uuid(as_uuid=False)))
        # Not `= ANY (array)`: a plan made while the table was small would take the text apart anew for each row.
        self._packed = make(column.in_(sa.select(sa.func.unnest(array))))
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
