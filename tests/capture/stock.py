"""Models for upserts: unique keys of all kinds, defaults of the database, and a trigger."""

from __future__ import annotations

import typing as t

import marshmallow as ma
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Ware(db.Model):  # type: ignore[name-defined]
    """May be met by its key, by its number in a shop, by its code, and while it is on sale by its place."""

    __table_args__ = (
        sa.UniqueConstraint("owner", "number", name="one_number"),
        sa.Index(
            "one_place",
            "place",
            unique=True,
            postgresql_where=sa.text("is_on_sale"),
            sqlite_where=sa.text("is_on_sale"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    number: Mapped[int]
    code: Mapped[str | None] = mapped_column(sa.String(20), unique=True)
    place: Mapped[str | None] = mapped_column(sa.String(20))
    is_on_sale: Mapped[bool] = mapped_column(default=True)
    count: Mapped[int] = mapped_column("amount", server_default="5")
    name: Mapped[str | None] = mapped_column(sa.String(20))


class Fragile(sa.types.TypeDecorator[str]):
    """Cannot read what is broken."""

    impl = sa.String(20)
    cache_ok = True

    def process_result_value(self, value: str | None, _: t.Any) -> str | None:
        if value == "broken":
            raise ValueError(value)
        return value


class Seal(db.Model):  # type: ignore[name-defined]
    """Its rows may have values that cannot be read."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    text: Mapped[str] = mapped_column(Fragile())


class FailingSchema(ma.Schema):
    """Fails at every ware."""

    number = ma.fields.Function(lambda ware: ware.nothing)


CATALOG = """
version: 1
channels:
  wares: {model: "tests.capture.stock:Ware", owner: owner, events: [created, updated, deleted]}
"""


def upsert(
    url: str, target: t.Sequence[t.Any], sets: t.Any, *, where: t.Any = None, model: t.Any = Ware
) -> t.Any:
    """An INSERT into wares (or others) that updates what it meets, as each database has it.

    :param sets: makes of the row that was to be inserted what is set; None: nothing is.
    """
    dialect = sa.make_url(url).get_backend_name()
    if dialect == "mysql":
        statement: t.Any = mysql.insert(model)
        return statement.on_duplicate_key_update(**(sets(statement.inserted) if sets else {"id": model.id}))
    statement = {"postgresql": postgresql, "sqlite": sqlite}[dialect].insert(model)  # type: ignore[attr-defined]
    if sets is None:
        return statement.on_conflict_do_nothing(index_elements=target or None)
    return statement.on_conflict_do_update(
        index_elements=target, set_=sets(statement.excluded), **({} if where is None else {"where": where})
    )
