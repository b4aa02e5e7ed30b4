"""The root of the tables, and SQL as text that names them."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.elements import TextClause

from .naming import DEFAULT_PREFIX, TableName
from .types import Instant

__all__ = ["COLLATION", "Base", "text"]

COLLATION = "utf8mb4_nopad_bin"
"""MariaDB's name for comparing texts byte for byte. By default it treats `ACME`, `acme` and `acme ` as one tenant, and
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


class _Text(TextClause):
    """SQL as text that contains our tables by their declared names."""

    inherit_cache = True


def text(sql: str) -> TextClause:
    """Return SQL as text, like `sqlalchemy.text`; it contains our tables by their declared names."""
    return _Text(sql)


_NAME = re.compile(rf"\b{DEFAULT_PREFIX}\w+")


@compiles(_Text)
def _visit_text(element: t.Any, compiler: t.Any, **options: t.Any) -> str:
    def named(match: re.Match[str]) -> str:
        table = Base.metadata.tables.get(match[0])
        return match[0] if table is None else str(compiler.preparer.format_table(table))

    written = element._clone()
    written.text = _NAME.sub(named, element.text)
    return str(compiler.visit_textclause(written, **options))
