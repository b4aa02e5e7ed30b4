"""Statements compiled once, for the few that run inside the host's commit.

SQLAlchemy finds a compiled statement in its cache by walking over it, and expands every list of parameters anew:
about 80 µs, as much as all the rest that a commit pays when nobody listens.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

__all__ = ["Prepared"]

Row = t.Mapping[str, t.Any]


class Prepared:
    """One statement for one dialect."""

    def __init__(
        self, statement: sa.Executable, dialect: sa.Dialect, names: t.Sequence[str] | None = None
    ) -> None:
        compiled: t.Any = t.cast("t.Any", statement).compile(dialect=dialect, column_keys=names)
        self._text = str(compiled)
        self._is_positional = bool(compiled.positional)
        self._parameters = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in (compiled.positiontup if compiled.positional else compiled.binds)
        ]
        columns: list[sa.ColumnElement[t.Any]] = list(getattr(statement, "selected_columns", ()))
        self._results = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]

    def rows(self, connection: sa.Connection, values: Row) -> list[list[t.Any]]:
        """Run a SELECT."""
        found = connection.exec_driver_sql(self._text, self._one(values)).fetchall()
        return [
            [
                value if process is None else process(value)
                for value, process in zip(row, self._results, strict=True)
            ]
            for row in found
        ]

    def run(self, connection: sa.Connection, rows: t.Sequence[Row]) -> None:
        """Run an INSERT: one execution, or one executemany."""
        made = [self._one(row) for row in rows]
        connection.exec_driver_sql(self._text, made if len(made) > 1 else made[0])

    def _one(self, values: Row) -> t.Any:
        made = [
            values[name] if process is None else process(values[name]) for name, process in self._parameters
        ]
        if self._is_positional:
            return tuple(made)
        return {name: value for (name, _), value in zip(self._parameters, made, strict=True)}
