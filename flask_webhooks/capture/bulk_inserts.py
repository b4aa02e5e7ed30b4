"""Bulk INSERT: run it, learn the keys of its rows, and read them.

What the host gets back is what it would get without us, also where we had to add a RETURNING.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.engine.cursor import null_dml_result
from sqlalchemy.engine.result import IteratorResult

from ..catalog import Kind
from .change import Change, Key
from .side_session import unfiltered
from .sqlalchemy_internals import multiple_values, result_metadata, returned_columns
from .statements import Result, Statement, Unfollowed

__all__ = ["Insert"]


class Inserted(IteratorResult[t.Any]):
    """The result of an INSERT that returns no rows to the host, although it returned keys to us."""

    returns_rows = False

    def __init__(self, result: t.Any, count: int, width: int) -> None:
        super().__init__(result_metadata(null_dml_result()), iter(()))
        self.rowcount = count
        self._ours, self._is_list = result, result.context.executemany
        # As SQLAlchemy says of all but a single row.
        self.inserted_primary_key_rows = [(None,) * width] * (count if self._is_list else 1)
        self._soft_close()

    @property
    def inserted_primary_key(self) -> t.Any:
        """Unknown for several rows; not to be asked for after a list."""
        return self._ours.inserted_primary_key if self._is_list else self.inserted_primary_key_rows[0]

    @property
    def lastrowid(self) -> t.Any:
        """What the driver says."""
        found = self._ours.lastrowid
        return None if self._is_list else found

    def __getattr__(self, name: str) -> t.Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._ours, name)


class Insert(Statement):
    """An INSERT of rows that are certainly new."""

    kind: Kind | None = Kind.CREATED

    def capture(self) -> tuple[Result | None, list[Change]]:
        """Run it and read its rows."""
        if not self.admits(self._count()):
            return None, []
        result, keys = self._insert()
        self.result = result
        found: list[Change] = []
        for row in self.rows_of(keys):
            values = {name: (None, new) for name, new in self.values(row).items()}
            found.extend(self.changes(row, None, values))
        return result, found

    def _count(self) -> int:
        """How many rows there will be, one more than the limit at most."""
        if self.given:
            return len(self.given)
        if self.dml.select is None:
            return sum(len(rows) for rows in multiple_values(self.dml)) or 1
        # Only whether it passes the limit matters, so no more rows than that are counted.
        source: sa.Select[t.Any] = sa.select(sa.literal_column("1")).select_from(self.dml.select.subquery())
        some = source.limit(self.limit + 1).subquery()
        count: sa.Select[t.Any] = sa.select(sa.func.count()).select_from(some)
        with unfiltered(self.session):
            return int(self.session.scalar(count, t.cast("t.Any", self.execution.parameters)) or 0)

    def _insert(self) -> tuple[Result, list[Key]]:
        options = self.execution.execution_options
        by_rows = bool(self.execution.parameters) and options.get("dml_strategy") != "raw"
        if not (by_rows or self.given or returned_columns(self.dml) or self._is_many):
            return self._insert_one()
        is_raw_list = not (by_rows or returned_columns(self.dml) or self._is_many)
        if not self.connection.dialect.insert_returning or (is_raw_list and self._has_keys):
            return self._insert_of_known_keys()
        if returned_columns(self.dml):
            return self._insert_returning()
        result: t.Any = self.send(self.dml.returning(*self.keys()))
        keys = [tuple(row) for row in result]
        if by_rows:
            return null_dml_result(), keys
        # Of `values` with several rows, or of a SELECT, the ORM wraps the cursor's result; of `raw` it does not.
        return Inserted(getattr(result, "raw", result), len(keys), len(self.mapper.primary_key)), keys

    @property
    def _is_many(self) -> bool:
        return self.dml.select is not None or bool(multiple_values(self.dml))

    def _insert_one(self) -> tuple[Result, list[Key]]:
        """One row of `values`: SQLAlchemy learns its key by itself, on every database."""
        result: t.Any = self.send()
        columns = t.cast("sa.Table", self.mapper.local_table).primary_key
        names = [self.mapper.get_property_by_column(column).key for column in columns]
        known = dict(zip(names, result.inserted_primary_key or (), strict=False))
        key = tuple(known.get(attribute.key) for attribute in self.keys())
        # Of a key that a trigger or an unreturned default makes nothing is known.
        if None in key:
            raise self._keyless(result)
        return result, [key]

    def _insert_returning(self) -> tuple[Result, list[Key]]:
        """The host wants rows back: ours are columns at their end, cut off again."""
        if self.execution.execution_options.get("dml_strategy") == "raw":
            raise Unfollowed("with RETURNING cannot be captured with dml_strategy='raw'. Leave that away")
        keys = self.keys()
        result = self.send(self.dml.returning(*keys))
        width = len(result.keys()) - len(keys)
        rows = result.freeze()
        return rows().columns(*range(width)), [tuple(row[width:]) for row in rows()]

    def _insert_of_known_keys(self) -> tuple[Result, list[Key]]:
        if not self._has_keys:
            raise self._keyless()
        names = [key.key for key in self.keys()]
        return self.send(), [tuple(row[name] for name in names) for row in self._rows]

    @property
    def _rows(self) -> t.Sequence[t.Mapping[str, t.Any]]:
        return self.given or [t.cast("t.Mapping[str, t.Any]", self.execution.parameters or {})]

    @property
    def _has_keys(self) -> bool:
        names = [key.key for key in self.keys()]
        return not self._is_many and all(row.get(name) is not None for row in self._rows for name in names)

    def _keyless(self, result: Result | None = None) -> Unfollowed:
        why = "leaves its keys to a database that cannot return them. Give the keys, or add the objects one by one"
        return Unfollowed(why, result)
