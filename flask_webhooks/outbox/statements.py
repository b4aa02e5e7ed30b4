"""What the statements of this room share: the size of their lists, and connections without a transaction."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

__all__ = ["CHUNK", "Row", "autocommit", "chunks", "is_mysql"]

Row = dict[str, t.Any]
T = t.TypeVar("T")
CHUNK = 500
"""Values in one IN list: below every database's limit of parameters."""


def chunks(items: t.Sequence[T], size: int = CHUNK) -> t.Iterator[t.Sequence[T]]:
    """Cut a list."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def autocommit(engine: sa.Engine) -> sa.Connection:
    """Connect for looks and single statements: on PostgreSQL without the two trips that a transaction around costs.

    A worker's coordinator shares the interpreter with its senders, and has to wait for it after each trip.
    """
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    return connection


def is_mysql(dialect: sa.Dialect) -> bool:
    """Whether it is MySQL or MariaDB, which are one here."""
    return dialect.name in ("mysql", "mariadb")
