"""What columns are made of, and the root of the tables."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, mapped_column

from ..ids import uuid7
from .naming import TableName

__all__ = [
    "COLLATION",
    "LONG_BINARY",
    "LONG_TEXT",
    "PLAIN_INSTANT",
    "UUID",
    "Base",
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


COLLATION = "utf8mb4_nopad_bin"
"""MariaDB's name for comparing texts byte for byte. By default it takes `ACME`, `acme` and `acme ` for one tenant, and
`straße` for `strasse`; keys, names of events and ids likewise. MySQL has another name."""
_EITHER = f"/*M!{COLLATION}*//*!80017 utf8mb4_0900_bin*/"
"""Each server reads the comment that is for it: an engine `mysql+pymysql://` may lead to either."""
_BYTE_FOR_BYTE = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": _EITHER,
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": COLLATION,
}
"""Of the table and not of columns, so that no column is forgotten, and none that a migration adds later."""


class Base(DeclarativeBase):
    """Root of the tables; its metadata is copied into the host's by `attach`."""

    @classmethod
    def __table_cls__(cls, name: str, metadata: sa.MetaData, *items: t.Any, **options: t.Any) -> sa.Table:
        """Make a table that an app may call otherwise, and that compares byte for byte."""
        return sa.Table(TableName(name), metadata, *items, **{**_BYTE_FOR_BYTE, **options})

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Instant()}
