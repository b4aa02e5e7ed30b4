"""Bulk UPDATE and DELETE: no row may change that was not read before.

The rows are read and locked by the statement's own criteria. Then the statement runs on these rows alone: one that
another transaction commits in between is no more changed than if the statement had come a moment earlier. SQLite has
one writer at a time; there the transaction becomes it before the rows are read.
"""

from __future__ import annotations

import contextlib
import functools
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect
from sqlalchemy.sql import visitors

from ..catalog import Kind, same
from ..outbox.recording import CHUNK
from .change import Change, Key
from .loading import load, rows_where
from .owners import load_linked
from .side_session import unfiltered
from .sqlalchemy_internals import (
    conditions,
    from_objects,
    independent_ctes,
    is_criteria_option,
    key_attributes,
    options_of,
    without_conditions,
    without_orm_criteria,
)
from .statements import Result, Statement, Unfollowed

__all__ = ["BulkChange", "Deletion", "Update", "has_dml"]

PARAMETERS = 30_000
"""How many keys a statement may name: PostgreSQL takes 65,535 parameters, and the host has some too."""
_MEANWHILE = "rows that were committed while it ran. Roll back and run it again"


class BulkChange(Statement):
    """An UPDATE or DELETE."""

    def read(self) -> list[t.Any] | None:
        """Return the rows that the statement will change, locked; None if they are not taken."""
        if self.side_session.captured_rows >= self.limit and not self.admits(1):
            return None
        # SQLite has no lock of a row: from here on no other connection writes at all.
        self.become_writer()
        if self.given is not None:
            return self.rows_of(self.named(), lock=True) if self.admits(len(self.given)) else None
        select = self.locked(self._matching().limit(self._most()))
        with unfiltered(self.session):
            rows = list(self.session.scalars(select, self.execution.parameters or {}))
        return rows if self.admits(len(rows)) else None

    def named(self) -> list[Key]:
        """The primary keys in the rows that the statement comes with."""
        names = [prop.key for prop in key_attributes(self.mapper)]
        return list(dict.fromkeys(tuple(row[name] for name in names) for row in self.given or ()))

    def _most(self) -> int:
        """How many rows to read: one more than the limit tells that there are more."""
        own = self.dml.dialect_kwargs.get(f"{self.connection.dialect.name}_limit")  # DELETE ... LIMIT 10
        return min(self.limit + 1, own) if isinstance(own, int) else self.limit + 1

    def _matching(self) -> sa.Select[t.Any]:
        """A SELECT of exactly the rows that the statement matches, each once."""
        select, criteria = self.select(), conditions(self.dml)
        if not self.is_core:
            # SQLAlchemy puts them on the table that is changed, and into subqueries.
            select = select.options(*(each for each in options_of(self.dml) if is_criteria_option(each)))
        if not self._others:
            return select.where(*criteria)
        # A row that joins several rows of another table would be read several times: EXISTS gives it once.
        others: t.Any = sa.select(sa.literal_column("1")).where(*criteria).correlate(self._table)
        # Not as an ORM query: that would put filters on the other tables too, which an UPDATE does not.
        return select.where(sa.exists(without_orm_criteria(others)))

    @property
    def _table(self) -> t.Any:
        entity: t.Any = inspect(self.entity)
        return entity.selectable if entity.is_aliased_class else self.mapper.local_table

    @property
    def _others(self) -> set[t.Any]:
        """The tables that its criteria name in addition to the one that is changed."""
        return {each for part in conditions(self.dml) for each in from_objects(part)} - {self._table}

    def run(self, rows: t.Sequence[t.Any]) -> Result:
        """Run it on the rows that were read.

        :raises Unfollowed: it concerned others too.
        """
        condition = self._among(rows)
        if self.given is not None or condition is None:
            result = self.result = self.send()
        else:
            with _narrowed(self.connection, self.dml.table, condition, instead=self._chooses):
                self.result = self.send()
                return self.result
        # The database counts what it changed: more than was read means that others committed rows in between.
        if self.given is None and getattr(result, "rowcount", -1) > len(rows):
            raise Unfollowed(f"concerned {_MEANWHILE}", result)
        return result

    @functools.cached_property
    def _chooses(self) -> bool:
        """Whether its criteria may choose others when they are asked again: by a function, or by a query."""
        if self.execution.parameters or self.is_core or self._others:
            return False
        parts = [each for part in conditions(self.dml) for each in visitors.iterate(part)]
        return any(isinstance(each, sa.sql.functions.FunctionElement | sa.SelectBase) for each in parts)

    def _among(self, rows: t.Sequence[t.Any]) -> sa.ColumnElement[bool] | None:
        """The condition that a row is one of these; None where it need not be said, or would be too long."""
        local = t.cast("sa.Table", self.mapper.local_table)
        columns: list[t.Any] = list(local.primary_key) or list(self.mapper.primary_key)
        is_settled = self.connection.dialect.name == "sqlite" and not self._chooses
        if is_settled or len(rows) * len(columns) > PARAMETERS:
            return None
        if not rows:
            return sa.false()
        names = [self.mapper.get_property_by_column(column).key for column in columns]
        entity: t.Any = inspect(self.entity)
        if entity.is_aliased_class:
            columns = [entity.selectable.corresponding_column(column) for column in columns]
        return rows_where(columns, [[getattr(row, name) for name in names] for row in rows])


class Update(BulkChange):
    """An UPDATE, by criteria or with a list of rows."""

    kind = Kind.UPDATED

    def capture(self) -> tuple[Result | None, list[Change]]:
        """Read the rows, run it, read them again."""
        rows = self.read()
        if rows is None:
            return None, []
        # Values are copied, since the second read fills the same objects.
        before = {self.key(row): self.values(row) for row in rows}
        result = self.run(rows)
        after = self.rows_left(self.named() if self.given is not None else list(before))
        self._check(before, after, result)
        found: list[Change] = []
        for row in after:
            old = before[self.key(row)]
            values = {
                name: (old[name], new) for name, new in self.values(row).items() if not same(old[name], new)
            }
            if self.discriminator in values:
                raise self.untraceable(result)
            found.extend(self.changes(row, None, values))
        return result, found

    def _check(self, before: t.Mapping[Key, t.Any], after: t.Sequence[t.Any], result: Result) -> None:
        keys = {self.key(row) for row in after}
        if not keys >= before.keys():
            raise self.untraceable(result)
        if keys > before.keys():
            raise Unfollowed(f"names {_MEANWHILE}", result)


class Deletion(BulkChange):
    """A DELETE."""

    kind = Kind.DELETED

    def capture(self) -> tuple[Result | None, list[Change]]:
        """Read the rows with all that a listener may ask for, run it, and see which are gone."""
        # Snapshots must not be refreshed by a later statement of this transaction.
        self.session = self.side_session.new_session(self.connection)
        rows = self.read()
        if rows is None:
            return None, []
        self._complete(rows)
        last = {self.key(row): (row, self.values(row)) for row in rows}
        result = self.run(rows)
        for key in self._left(list(last), result):
            del last[key]
        found: list[Change] = []
        for row, values in last.values():
            found.extend(self.changes(row, row, {name: (old, None) for name, old in values.items()}))
        return result, found

    def _complete(self, rows: t.Sequence[t.Any]) -> None:
        """Load the relationships that schemas and includes read, a few statements for all rows of a class."""
        by_class: dict[type, list[Key]] = {}
        for row in rows:
            by_class.setdefault(type(row), []).append(self.key(row))
        for cls, keys in by_class.items():
            plan = self.registry.plan(cls)
            paths = plan.read | plan.along if plan is not None else ()
            if paths:
                load(self.session, cls, keys, paths)
            for bound in plan.bounds if plan is not None else ():
                load_linked(((bound, row, {}) for row in rows if type(row) is cls), is_kept=True)

    def _left(self, keys: t.Sequence[Key], result: Result) -> list[Key]:
        """Those that are still there: a trigger, or a filter that we cannot see, has spared them."""
        if getattr(result, "rowcount", -1) == len(keys):
            return []
        left: list[Key] = []
        for start in range(0, len(keys), CHUNK):
            condition = rows_where(self.keys(), keys[start : start + CHUNK])
            select = sa.select(*self.keys()).select_from(self.entity).where(condition)
            with unfiltered(self.session):
                left += [tuple(row) for row in self.session.execute(select)]
        return left


@contextlib.contextmanager
def _narrowed(
    connection: sa.Connection, table: t.Any, condition: t.Any, *, instead: bool
) -> t.Iterator[None]:
    """Add a condition to the UPDATE or DELETE of a table just before it is sent, or put it in place of its own.

    SQLAlchemy would hold criteria of the statement itself against each object in the host's session.
    """

    def narrow(_: t.Any, statement: t.Any, many: t.Any, one: t.Any, __: t.Any) -> t.Any:
        if (statement.is_update or statement.is_delete) and statement.table is table:
            if instead:
                statement = without_conditions(statement)
            statement = statement.where(condition)
        return statement, many, one

    sa.event.listen(connection, "before_execute", narrow, retval=True)
    try:
        yield
    finally:
        sa.event.remove(connection, "before_execute", narrow)


def has_dml(statement: t.Any) -> bool:
    """Say whether reading the rows of a statement would change others: INSERT, UPDATE or DELETE in a CTE."""
    parts = [*(() if statement.is_insert else conditions(statement)), *independent_ctes(statement)]
    if getattr(statement, "select", None) is not None:
        parts.append(statement.select)
    return any(getattr(each, "is_dml", False) for part in parts for each in visitors.iterate(part))
