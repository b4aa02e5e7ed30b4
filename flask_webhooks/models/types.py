"""What columns are made of."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import mapped_column

from ..ids import uuid7

__all__ = [
    "LONG_BINARY",
    "LONG_TEXT",
    "PLAIN_INSTANT",
    "UUID",
    "Id",
    "Instant",
    "Key",
    "Name",
    "Seconds",
    "Word",
]


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment: an aware datetime in UTC with microseconds, also where the database knows no time zones."""

    impl = sa.DateTime
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[t.Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return _in_utc(value)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> t.Callable[[t.Any], t.Any] | None:
        """As always, but in one step where the driver makes moments: a worker reads several for each delivery."""
        read = super().result_processor(dialect, coltype)
        return read if self.impl_instance.result_processor(dialect, coltype) else _in_utc


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


PLAIN_INSTANT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
LONG_BINARY = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
UUID = sa.Uuid(as_uuid=False)

Id = t.Annotated[str, mapped_column(UUID, primary_key=True, default=uuid7)]
Key = t.Annotated[str, mapped_column(UUID)]
Name = t.Annotated[str, mapped_column(sa.String(255))]
Word = t.Annotated[str, mapped_column(sa.String(32))]
Seconds = t.Annotated[float, mapped_column(sa.Double)]
