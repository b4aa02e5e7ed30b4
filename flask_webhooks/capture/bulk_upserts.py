"""Upserts: INSERT ... ON CONFLICT, ON DUPLICATE KEY UPDATE, INSERT OR IGNORE.

The rows that the statement may meet are read and locked by its unique keys before. Then it runs as the host wrote it,
and the same keys are looked for again: what is there now and was not is new. Nothing about the statement or its result
is touched. Only where its rows cannot be found by the values that it gives them (from a SELECT, keys that the database
makes) the keys are asked for with RETURNING, as of other INSERTs.

Another transaction may commit a row between the look and the statement. What of that is ours, PostgreSQL says itself.
MariaDB does not: there a connection of our own reads what was committed. It shows as well how such a row was before,
for only we can have changed it since.
"""

from __future__ import annotations

import functools
import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..catalog import Kind, same
from .bulk_inserts import Insert
from .change import Change, Key, Values, deleted_keys
from .conflict_targets import ConflictTargets
from .loading import CHUNK, rows_where
from .side_session import unfiltered
from .sqlalchemy_internals import head_class, key_attributes, returned_columns
from .statements import Result, Unfollowed
from .unit_of_work import units_in

__all__ = ["Upsert"]

OldRows = dict[Key, dict[str, t.Any]]
"""What rows had, by primary key."""


class Upsert(Insert):
    """An INSERT of rows of which some may be there."""

    kind = None

    def capture(self) -> tuple[Result | None, list[Change]]:
        """Look, run it, and look again."""
        self._updated_keys: list[Key] = []
        # First: what is raised here has changed nothing yet.
        self.conflicts.check_known()
        is_found = self.conflicts.is_identified
        if not is_found and not self._can_ask:
            raise self._keyless()
        if not self.admits(self._count()):
            return None, []
        self.become_writer()
        try:
            there = self._existing_keys()
        except sa.exc.DBAPIError:
            raise
        except sa.exc.StatementError as error:  # values that its types do not take: the statement will say so
            raise Unfollowed("has values that cannot be looked for") from error
        before = self._locked_values(there) if self.conflicts.updates else {key: {} for key in there}
        result, news = self._run(before) if is_found else self._run_returning(before)
        self.result = result
        old_rows = self._committed_between(news)
        keys = [*(before if self.conflicts.updates else ()), *news]
        return result, list(self._changes(keys, {**before, **old_rows}, result))

    @functools.cached_property
    def conflicts(self) -> ConflictTargets:
        return ConflictTargets(self.dml, self.execution.parameters, self.mapper, self.connection.dialect.name)

    def _count(self) -> int:
        return super()._count() if self.dml.select is not None else len(self.conflicts.rows)

    @property
    def _can_ask(self) -> bool:
        """Whether the database can return the keys, and SQLAlchemy lets us have them."""
        is_raw = self.execution.execution_options.get("dml_strategy") == "raw"
        is_one = not (returned_columns(self.dml) or self._is_many or self.execution.parameters)
        return is_one or (
            self.connection.dialect.insert_returning and not (is_raw and returned_columns(self.dml))
        )

    # ---- before ----

    def _existing_keys(self) -> list[Key]:
        """The primary keys of the rows that are there and may be met."""
        conflicts = self.conflicts
        if conflicts.source is None:
            return [tuple(row) for row in self._rows_with_values(self._columns)]
        if not conflicts.updates:
            return []
        given = conflicts.source_columns
        met = [
            sa.and_(*(column == given[column] for column in columns))
            for columns in conflicts.deciding
            if given.keys() >= set(columns)
        ]
        if not met:
            return []
        selected = next(iter(given.values())).table
        others: t.Any = sa.select(sa.literal_column("1")).select_from(selected).where(sa.or_(*met))
        select = sa.select(*self._columns).where(sa.exists(others.correlate(conflicts.table)))
        with unfiltered(self.session):
            return [tuple(row) for row in self.session.execute(select, self.execution.parameters or {})]

    def _rows_with_values(self, columns: t.Sequence[t.Any]) -> list[t.Any]:
        """Columns of the rows that have the values of this statement in a unique key, each row once."""
        found: dict[t.Any, t.Any] = {}
        for place, values in self.conflicts.conditions():
            plain: list[Key] = []
            others: list[Key] = []
            for each in values:
                (others if any(isinstance(one, sa.ClauseElement) for one in each) else plain).append(each)
            conditions = [
                rows_where(place, plain[start : start + CHUNK]) for start in range(0, len(plain), CHUNK)
            ]
            conditions += [
                sa.and_(*(column == value for column, value in zip(place, each, strict=True)))
                for each in others
            ]
            for condition in conditions:
                select = sa.select(*columns).where(condition)
                found |= {tuple(row[: len(self._columns)]): row for row in self.connection.execute(select)}
        return list(found.values())

    @functools.cached_property
    def _columns(self) -> list[t.Any]:
        """The columns of the primary key in the table itself."""
        table = self.conflicts.table
        return [
            next(column for column in prop.columns if column.table is table)
            for prop in key_attributes(self.mapper)
        ]

    def _locked_values(self, keys: t.Sequence[Key]) -> OldRows:
        """What these rows have, which now stay as they are until we change them.

        By their primary keys: to lock what is not there would keep others, on MariaDB, from inserting anything near.
        """
        return {self.key(row): self.values(row) for row in self.rows_of(keys, lock=True)}

    # ---- the statement ----

    def _run(self, before: OldRows) -> tuple[Result, list[Key]]:
        """Run it untouched, and find what was not there."""
        result = self.send()
        if self.connection.dialect.name != "postgresql":
            return result, [
                key for row in self._rows_with_values(self._columns) if (key := tuple(row)) not in before
            ]
        width = len(self._columns)
        found = self._rows_with_values([*self._columns, *_made_by_us(self.conflicts.table)])
        ours = [tuple(row) for row in found if row[width] and tuple(row[:width]) not in before]
        self._updated_keys = [row[:width] for row in ours if not row[-1]]
        return result, [row[:width] for row in ours]

    def _run_returning(self, before: OldRows) -> tuple[Result, list[Key]]:
        """Run it, and learn its keys from the database itself."""
        if isinstance(self.execution.parameters, list) and not returned_columns(self.dml):
            # PostgreSQL updates no row twice in one statement, and the host's were one for each row.
            self.dml = self.dml.execution_options(insertmanyvalues_page_size=1)
        result, keys = self._insert()
        # RETURNING gives updated rows too; those that were there are compared with what they had.
        news = [key for key in dict.fromkeys(keys) if key not in before and None not in key]
        if self.connection.dialect.name == "postgresql" and self.conflicts.updates:
            marks = _made_by_us(self.conflicts.table)
            for start in range(0, len(news), CHUNK):
                condition = rows_where(self._columns, news[start : start + CHUNK])
                select = sa.select(*self._columns, *marks).where(condition)
                self._updated_keys.extend(
                    tuple(row)[:-2] for row in self.connection.execute(select) if not row[-1]
                )
        return result, news

    def _insert_one(self) -> tuple[Result, list[Key]]:
        """A row that nothing known keeps out; something else may."""
        result, keys = super()._insert_one()
        # What SQLite gives back then is the key of the row that was inserted last.
        is_lite = self.connection.dialect.name == "sqlite"
        is_in = not is_lite or self.connection.scalar(sa.select(sa.func.changes()))
        return result, keys if is_in else []

    # ---- what others have committed in between ----

    def _committed_between(self, news: t.Sequence[Key]) -> OldRows:
        """What those of the new rows had that are not new, but were committed by others since we looked."""
        name = self.connection.dialect.name
        keys = list(self._updated_keys) if name == "postgresql" else list(news)
        if name not in ("postgresql", "sqlite"):
            # What we have deleted ourselves looks there as if it had been committed in between.
            ours = self._deleted()
            keys = [key for key in keys if key not in ours]
        if not keys or name == "sqlite" or not self.conflicts.updates:
            return {}
        found: OldRows = {}
        with self.registry.fresh_engine(self.connection).connect() as fresh:
            info = {**self.session.info}
            with Session(fresh, autoflush=False, info=info) as session, unfiltered(session):
                for start in range(0, len(keys), CHUNK):
                    select = self.select().where(rows_where(self.keys(), keys[start : start + CHUNK]))
                    found |= {self.key(row): self.values(row) for row in session.scalars(select)}
        return found

    def _deleted(self) -> set[Key]:
        """The primary keys of rows of this class that the transaction has deleted."""
        units = units_in(self.execution.session.get_transaction())
        unit = units.get(self.registry) if units is not None else None
        items = [item for some in unit.items.values() for item in some] if unit is not None else []
        return {key[1:] for key in deleted_keys(items) if key[0] is head_class(self.mapper)}

    # ---- what happened ----

    def _changes(self, keys: t.Sequence[Key], old_rows: OldRows, result: Result) -> t.Iterator[Change]:
        rows = self.rows_left(keys)
        if len(rows) < len(keys):
            raise self.untraceable(result)
        for row in rows:
            old, now = old_rows.get(self.key(row)), self.values(row)
            values: Values = {
                name: (old[name] if old is not None else None, new)
                for name, new in now.items()
                if old is None or not same(old[name], new)
            }
            # A row that became one of another class was read as the wrong one before.
            if old is not None and self.discriminator in values:
                raise self.untraceable(result)
            yield from self.changes(row, None, values, Kind.CREATED if old is None else Kind.UPDATED)


def _made_by_us(table: sa.Table) -> tuple[t.Any, t.Any]:
    """What PostgreSQL knows of a row's version: whether this transaction has made it, and as a new row.

    Visible to us and yet in progress can only be our own. An UPDATE after a conflict has locked the row before, and the
    lock stays in `xmax`. Not asked for with RETURNING: partitioned tables cannot say it there.
    """
    made, locked = _system("xmin", table), _system("xmax", table)
    number = sa.func.txid_current() - sa.func.age(made)
    is_ours = sa.func.txid_status(number) == sa.literal_column("'in progress'")
    return is_ours.label("is_ours"), (locked == sa.literal_column("0")).label("is_new")


def _system(name: str, table: sa.Table) -> t.Any:
    column: t.Any = sa.column(name)
    column.table = table
    return column
