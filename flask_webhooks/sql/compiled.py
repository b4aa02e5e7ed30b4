"""Statements compiled once, for the few that run inside the host's commit.

SQLAlchemy walks over a statement to find its compiled form in the cache, and expands each list of parameters again:
about 80 µs, as much as everything else that a commit without subscriptions costs. Its work around `cursor.execute`
takes another 10 µs on SQLite and 30 on PostgreSQL. So unless something observes the statements of an engine, they go
directly to the cursor. On a connection that translates schemas SQLAlchemy executes them, because the compiled text
names the tables as they are declared.
"""

from __future__ import annotations

import itertools
import typing as t

import sqlalchemy as sa

__all__ = ["CompiledStatement"]

Row = t.Mapping[str, t.Any]


class CompiledStatement:
    """One statement, compiled for one dialect.

    :param names: the columns of an INSERT.
    """

    def __init__(
        self, statement: sa.Executable, dialect: sa.Dialect, names: t.Sequence[str] | None = None
    ) -> None:
        self._statement = statement
        compiled: t.Any = t.cast("t.Any", statement).compile(dialect=dialect, column_keys=names)
        self._text = str(compiled)
        self._is_positional = bool(compiled.positional)
        self._names = tuple(compiled.positiontup if compiled.positional else compiled.binds)
        self._binds = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in self._names
        ]
        columns: list[sa.ColumnElement[t.Any]] = list(getattr(statement, "selected_columns", ()))
        self._results = [
            (index, process)
            for index, column in enumerate(columns)
            if (process := column.type.dialect_impl(dialect).result_processor(dialect, None))
        ]

    def rows(self, connection: sa.Connection, values: Row) -> list[t.Sequence[t.Any]]:
        """Run a SELECT and return its rows."""
        if _is_translated(connection):
            return list(connection.execute(self._statement, self._named(values)))
        found = self._execute(connection, self._one(values), is_select=True)
        return [self._processed(row) for row in found] if found and self._results else found

    def run(self, connection: sa.Connection, rows: t.Sequence[Row]) -> None:
        """Run an INSERT: one execution, or one executemany."""
        if _is_translated(connection):
            connection.execute(self._statement, [self._named(row) for row in rows])
            return
        self._execute(connection, self._several(rows) if len(rows) > 1 else self._one(rows[0]))

    def _named(self, values: Row) -> dict[str, t.Any]:
        return {name: values[name] for name in self._names}

    def _one(self, values: Row) -> t.Any:
        made = [values[name] if process is None else process(values[name]) for name, process in self._binds]
        return tuple(made) if self._is_positional else dict(zip(self._names, made, strict=True))

    def _several(self, rows: t.Sequence[Row]) -> list[t.Any]:
        """Return the parameters of several rows. Works by column: an object shared by all rows is processed once."""
        columns: list[t.Iterable[t.Any]] = []
        for name, process in self._binds:
            values = [row[name] for row in rows]
            if process is None:
                columns.append(values)
            elif len(set(map(id, values))) == 1:
                columns.append(itertools.repeat(process(values[0]), len(values)))
            else:
                columns.append(map(process, values))
        made = list(zip(*columns, strict=True))
        return made if self._is_positional else [dict(zip(self._names, row, strict=True)) for row in made]

    def _processed(self, row: t.Iterable[t.Any]) -> list[t.Any]:
        values = list(row)
        for index, process in self._results:
            if values[index] is not None:
                values[index] = process(values[index])
        return values

    def _execute(self, connection: sa.Connection, parameters: t.Any, *, is_select: bool = False) -> t.Any:
        if _is_watched(connection):
            result = connection.exec_driver_sql(self._text, parameters)
            return result.fetchall() if is_select else None
        cursor = connection.connection.cursor()
        try:
            if isinstance(parameters, list):
                return cursor.executemany(self._text, parameters)
            cursor.execute(self._text, parameters)
            return cursor.fetchall() if is_select else None
        except Exception as error:
            # Raises it as an exception of SQLAlchemy, and invalidates the connection if it is lost.
            connection._handle_dbapi_exception(error, self._text, parameters, cursor, None)
        finally:
            cursor.close()


def _is_translated(connection: sa.Connection) -> bool:
    """Whether the connection maps schemas to others, such as to that of a tenant."""
    return bool(connection.get_execution_options().get("schema_translate_map"))


def _is_watched(connection: t.Any) -> bool:
    """Whether the statement must go through SQLAlchemy: for its log, for event hooks such as those of tracers, or to
    begin a transaction if there is none."""
    if connection._echo or connection.dialect._has_events or not connection.in_transaction():
        return True
    if not connection._has_events and not connection.engine._has_events:
        return False
    hooks = connection.dispatch
    return bool(hooks.before_cursor_execute or hooks.after_cursor_execute)
