"""What an upsert says: by which unique keys its rows may meet others, and with which values.

Nothing here asks the database. What the statement alone does not say is `Unfollowed`.
"""

from __future__ import annotations

import functools
import re
import typing as t

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.functions import FunctionElement

from .sqlalchemy_internals import has_row_limit, insert_values, multiple_values, prefixes, select_names
from .statements import Unfollowed, clauses_of

__all__ = ["ConflictTargets", "is_upsert"]

Columns = tuple["sa.Column[t.Any]", ...]
Row = t.Mapping["sa.Column[t.Any]", t.Any]

_MADE: t.Any = object()
"""A value that a default in Python or the database makes when the statement runs."""
_UNKNOWN: t.Any = object()
"""A value that an expression of the host's makes, which may give another when it is asked twice."""
_PURE = {
    "lower",
    "upper",
    "trim",
    "ltrim",
    "rtrim",
    "coalesce",
    "concat",
    "substr",
    "replace",
    "cast",
    "abs",
    "length",
}
_FICKLE = {"nextval", "next_value", "setval", "random", "rand", "uuid", "gen_random_uuid", "uuid_generate_v4"}
_CONSTANT = re.compile(r"\(?(-?\d+(\.\d+)?|'[^']*'|true|false)\)?", re.IGNORECASE)
_UPDATING = ("on_conflict_do_update", "on_duplicate_key_update")
_SKIPPING = ("on_conflict_do_nothing",)


def is_upsert(statement: t.Any) -> bool:
    """Say whether an INSERT may meet rows that are there: ON CONFLICT, INSERT OR REPLACE, INSERT IGNORE."""
    return bool(clauses_of(statement)) or not _words(statement).isdisjoint({"REPLACE", "IGNORE"})


def _words(statement: t.Any) -> set[str]:
    return {word for prefix, _ in prefixes(statement) for word in str(prefix).upper().split()}


class ConflictTargets:
    """Of one upsert on one table."""

    def __init__(self, statement: t.Any, parameters: t.Any, mapper: orm.Mapper[t.Any], dialect: str) -> None:
        """Read the statement.

        :raises Unfollowed: it does not say which rows it meets.
        """
        self._statement, self._parameters, self._mapper = statement, parameters, mapper
        self.table = t.cast("sa.Table", mapper.local_table)
        clauses = clauses_of(statement)
        # A dialect of another library may have clauses that do what cannot be guessed.
        for clause in clauses:
            if clause.__visit_name__ not in (*_UPDATING, *_SKIPPING):
                raise Unfollowed(f"has a clause that is not known ({clause.__visit_name__})")
        words = _words(statement)
        if "REPLACE" in words:
            raise Unfollowed("that replaces rows (REPLACE) does not tell which")
        # MySQL ignores other errors too with it, and so may insert other values than were given.
        if "IGNORE" in words and dialect != "sqlite":
            raise Unfollowed("that leaves rows out (IGNORE) does not tell which")
        self.updates = any(clause.__visit_name__ in _UPDATING for clause in clauses)
        """Whether rows that are there are changed; else they are left as they are."""
        self._targets = [self._target(clause) for clause in clauses]

    # ---- by which keys ----

    def _target(self, clause: t.Any) -> Columns | None:
        """The columns by whose values a clause meets rows; None: by any unique key."""
        # PostgreSQL: ON CONFLICT ON CONSTRAINT name.
        name = getattr(clause, "constraint_target", None)
        if name is not None:
            found = self._named(str(name))
            if found is None:
                raise Unfollowed(f"names a constraint ({name}) that is not in the table's metadata")
            return found
        elements = getattr(clause, "inferred_target_elements", None)
        if elements is None:
            return None
        columns = tuple(column for each in elements if (column := self._column(each)) is not None)
        # A unique index on lower(email) is met by values that are not in the statement.
        if len(columns) < len(elements):
            raise Unfollowed("has a conflict target that is an expression")
        return columns

    def _named(self, name: str) -> Columns | None:
        table = self.table
        for each in (*table.constraints, *table.indexes):
            if not isinstance(each, sa.PrimaryKeyConstraint | sa.UniqueConstraint | sa.Index):
                continue
            # As PostgreSQL calls what has no name.
            middle = (
                [] if isinstance(each, sa.PrimaryKeyConstraint) else [column.name for column in each.columns]
            )
            ending = "key" if middle else "pkey"
            if name == (each.name or "_".join([table.name, *middle, ending])):
                return _plain(each)
        return None

    @functools.cached_property
    def unique(self) -> tuple[Columns, ...]:
        """The columns of each unique key that a row may be met or found by."""
        table = self.table
        found = [_plain(each) for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
        found += [_plain(each) for each in table.indexes if each.unique]
        # Targets may name an index that exists in the database alone.
        known = [tuple(table.primary_key), *(each for each in self._targets if each), *found]
        return tuple(dict.fromkeys(each for each in known if each))

    @property
    def deciding(self) -> tuple[Columns, ...]:
        """Those of them by which a row that is there comes to be updated."""
        return self.unique if None in self._targets else tuple(each for each in self._targets if each)

    # ---- with which values ----

    @property
    def source(self) -> t.Any:
        """The SELECT that its rows come from, or None."""
        return self._statement.select

    @property
    def source_columns(self) -> dict[sa.Column[t.Any], t.Any]:
        """Of an INSERT from a SELECT: which column gets which of its columns."""
        selected = self.source.subquery()
        names = select_names(self._statement)
        return {
            column: each
            for name, each in zip(names, selected.c, strict=False)
            if (column := self._column(name)) is not None
        }

    @property
    def _meeting(self) -> t.Any:
        """The SELECT with no columns but those by which rows are met.

        Only these are asked for before it runs, so what it gives the others, such as a key made by `random()`, may be
        another each time. Unless it takes only some of its rows, which may be chosen by any of its columns.
        """
        source, names = self.source, select_names(self._statement)
        if not isinstance(source, sa.Select) or has_row_limit(source):
            return source
        given = list(source.selected_columns)
        if len(given) != len(names):
            return source
        # Where nothing is updated no row is looked for, so no column is needed.
        deciding = {column for columns in self.deciding if self.updates for column in columns}
        kept = [each for name, each in zip(names, given, strict=True) if self._column(name) in deciding]
        return source.with_only_columns(*kept, maintain_column_froms=True)

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The values of each row, by column; what the statement leaves to defaults is not in it."""
        given = self._parameters
        fixed = self._by_column(insert_values(self._statement) or {})
        if multiple_values(self._statement):
            return [self._by_column(row) for some in multiple_values(self._statement) for row in some]
        many = given if isinstance(given, list) else [given] if given else []
        return [{**fixed, **self._by_column(row)} for row in many] or [fixed]

    def _by_column(self, row: t.Any) -> dict[sa.Column[t.Any], t.Any]:
        if not isinstance(row, t.Mapping):
            row = dict(zip(self.table.c, row, strict=False))
        return {
            column: _unwrapped(value)
            for key, value in row.items()
            if (column := self._column(key)) is not None
        }

    def _column(self, key: t.Any) -> sa.Column[t.Any] | None:
        """The column of the table that an attribute, a column or a name of either stands for."""
        if isinstance(key, str):
            if key in self._mapper.column_attrs:
                found = [each for each in self._mapper.column_attrs[key].columns if each in self._own]
                if found:
                    return t.cast("sa.Column[t.Any]", found[0])
            named = [each for each in self.table.c if key in (each.key, each.name)]
            return named[0] if named else None
        # An attribute of a mapped class stands for its column.
        if hasattr(key, "__clause_element__"):
            key = key.__clause_element__()
        return t.cast(
            "sa.Column[t.Any] | None",
            self.table.corresponding_column(key) if isinstance(key, sa.Column) else None,
        )

    @functools.cached_property
    def _own(self) -> set[sa.Column[t.Any]]:
        return set(self.table.c)

    # ---- which rows ----

    @property
    def is_identified(self) -> bool:
        """Whether each row can be found by the values that the statement gives it, once it is there."""
        return self.source is None and all(
            any(self._values(row, columns) for columns in self.unique) for row in self.rows
        )

    @property
    def is_anything_identified(self) -> bool:
        """Whether at least one of its rows can be."""
        return self.source is not None or any(
            self._values(row, columns) for row in self.rows for columns in self.unique
        )

    def check_known(self) -> None:
        """Refuse rows that may meet others by a value that is not known before the statement runs.

        :raises Unfollowed: names the column.
        """
        if self.source is not None and not _is_steady(self._meeting):
            raise Unfollowed("is of a SELECT that gives other rows when it is asked twice")
        for columns in self.deciding if self.updates else ():
            if self.source is not None:
                given = self.source_columns.keys()
                lacking = [column for column in columns if column not in given]
                doubtful = lacking if len(lacking) < len(columns) else []
            else:
                found = [(column, self._value(row, column)) for row in self.rows for column in columns]
                # A key that is one value made by a default (a UUID, a counter) meets nothing.
                doubts = (_UNKNOWN, _MADE) if len(columns) > 1 else (_UNKNOWN,)
                doubtful = [column for column, value in found if any(value is each for each in doubts)]
            if doubtful:
                raise Unfollowed(f"does not say which {doubtful[0].name} its conflict target has")

    def conditions(self) -> t.Iterator[tuple[Columns, list[tuple[t.Any, ...]]]]:
        """For each unique key the values by which rows may be met."""
        for columns in self.unique:
            values = [found for row in self.rows if (found := self._values(row, columns))]
            if values:
                yield columns, _distinct(values)

    def _values(self, row: Row, columns: Columns) -> tuple[t.Any, ...] | None:
        """What a row has in a unique key; None if that meets nothing, or is not known."""
        values = tuple(self._value(row, column) for column in columns)
        return None if any(each is None or each is _UNKNOWN or each is _MADE for each in values) else values

    def _value(self, row: Row, column: sa.Column[t.Any]) -> t.Any:
        if column in row:
            value = row[column]
            return value if not isinstance(value, sa.ClauseElement) or _is_pure(value) else _UNKNOWN
        default: t.Any = column.default
        if default is not None:
            return default.arg if default.is_scalar else _MADE
        server: t.Any = column.server_default
        if server is None:
            return None
        text = server.arg if isinstance(server, sa.DefaultClause) else None
        if isinstance(text, str):
            return sa.literal_column("'" + text.replace("'", "''") + "'")
        if isinstance(text, sa.TextClause) and _CONSTANT.fullmatch(text.text.strip()):
            return sa.literal_column(text.text)
        return _MADE


def _is_pure(element: sa.ClauseElement) -> bool:
    """Say whether a value is certainly the same when it is asked for twice, and does nothing else."""
    return not any(
        isinstance(each, sa.TextClause | sa.Sequence)
        or getattr(each, "is_dml", False)
        or (isinstance(each, FunctionElement) and getattr(each, "name", "") not in _PURE)
        for each in visitors.iterate(element)
    )


def _is_steady(source: sa.ClauseElement) -> bool:
    """Say whether a SELECT may be asked twice, as far as it can be seen."""
    return not any(
        isinstance(each, sa.Sequence)
        or (isinstance(each, FunctionElement) and getattr(each, "name", "").lower() in _FICKLE)
        for each in visitors.iterate(source)
    )


def _plain(each: t.Any) -> Columns:
    """The columns of a constraint or an index; nothing if it is about expressions."""
    if isinstance(each, sa.Index) and any(not isinstance(part, sa.Column) for part in each.expressions):
        return ()
    return tuple(each.columns)


def _unwrapped(value: t.Any) -> t.Any:
    if isinstance(value, BindParameter) and not value.required:
        return value.effective_value
    return value


def _distinct(values: list[tuple[t.Any, ...]]) -> list[tuple[t.Any, ...]]:
    try:
        # JSON values and the like cannot be hashed: they are asked for as often as they are given.
        return list(dict.fromkeys(values))
    except TypeError:
        return values
