"""What our tables are called, and in which schema they are: one answer for each app.

The tables of the models are declared once and for all; every statement is put together from them. How a name is written
is the dialect's affair, and each engine has a dialect of its own, as each app has an engine. So that is the place where
an app that wants other names gets them, in whatever statement, compiled or cached. The default is left alone.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from ..errors import ConfigurationError

__all__ = ["DEFAULT_PREFIX", "LONGEST_PREFIX", "Naming", "TableName"]

DEFAULT_PREFIX = "webhook_"
LONGEST_PREFIX = 16
"""Characters: with it, the longest name of an index still fits into the 63 that PostgreSQL lets a name have."""


class TableName(quoted_name):
    """The declared name of one of our tables, as a type: a host's table may have the same name."""

    inherit_cache = True

    def __new__(cls, value: str, quote: bool | None = None) -> TableName:
        return super().__new__(cls, value, quote)


@dataclass(frozen=True, slots=True)
class Naming:
    """How one app's tables are called."""

    schema: str | None = None
    """None: the connection's own."""
    prefix: str = DEFAULT_PREFIX

    def name(self, declared: str) -> str:
        """Return what a table, an index or a constraint is called, of its declared name."""
        return str(declared).replace(DEFAULT_PREFIX, self.prefix, 1)

    def key(self, declared: str) -> str:
        """Return under what a table stands in a metadata."""
        return f"{self.schema}.{self.name(declared)}" if self.schema else self.name(declared)

    def apply(self, dialect: sa.Dialect) -> None:
        """Let everything that this dialect compiles from now on use these names.

        :raises ConfigurationError: it is the dialect of an app with other names, whose statements it may have compiled.
        """
        known = getattr(dialect, _ATTRIBUTE, None)
        if known == self:
            return
        if known is not None:
            raise ConfigurationError(
                f"One engine cannot lead two apps to tables of other names: {known} and {self}. Give each app an "
                "engine of its own, or both the same WEBHOOKS_SCHEMA and WEBHOOKS_TABLE_PREFIX."
            )
        setattr(dialect, _ATTRIBUTE, self)
        if self != Naming():
            made: t.Any = _preparer(t.cast("t.Any", dialect).preparer, self)
            dialect.preparer = made  # MySQL makes a second one where the server has ANSI_QUOTES
            dialect.identifier_preparer = made(dialect)

    @classmethod
    def of(cls, dialect: sa.Dialect) -> Naming:
        """Return what a dialect uses."""
        return t.cast("Naming", getattr(dialect, _ATTRIBUTE, None) or Naming())


_ATTRIBUTE = "webhooks_naming"


def _preparer(base: t.Any, naming: Naming) -> type:
    """Return a dialect's own way to write names, with ours written otherwise."""

    class Preparer(base):  # type: ignore[misc]
        def quote(self, ident: str, *more: t.Any) -> str:
            return str(super().quote(naming.name(ident) if type(ident) is TableName else ident, *more))

        def schema_for_object(self, item: t.Any) -> str | None:
            return naming.schema if naming.schema and _is_ours(item) else item.schema

        def _with_schema_translate(self, schema_translate_map: t.Any) -> t.Any:
            """Ours are in one place, whichever schemas the host's tables are looked for in."""
            made = super()._with_schema_translate(schema_translate_map)
            translated = made.schema_for_object
            if naming.schema:
                made.schema_for_object = lambda item: naming.schema if _is_ours(item) else translated(item)
            return made

    return Preparer


def _is_ours(item: t.Any) -> bool:
    return type(getattr(item, "name", None)) is TableName
