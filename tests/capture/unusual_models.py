"""Models in unusual corners of SQLAlchemy, each in a channel of `unusual_models.yaml`."""

from __future__ import annotations

import typing as t
from pathlib import Path

import marshmallow as ma
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    aliased,
    attribute_keyed_dict,
    column_property,
    deferred,
    mapped_column,
    relationship,
    synonym,
    validates,
)


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Box(db.Model):  # type: ignore[name-defined]
    """A column that is changed in place, one that is computed by a query, and one that is loaded late."""

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(20), default="1")
    owner = synonym("tenant")
    note: Mapped[str] = mapped_column(sa.String(20), default="")
    extra: Mapped[dict[str, t.Any]] = mapped_column(MutableDict.as_mutable(sa.JSON()), default=dict)
    late: Mapped[str | None] = deferred(mapped_column(sa.String(20), default=None))
    loud: Mapped[str] = column_property(sa.func.upper(note))
    by: Mapped[str] = mapped_column(sa.String(20), default="system", onupdate="system")
    blob: Mapped[str | None] = mapped_column(
        sa.String(20), default=None, deferred=True, deferred_raiseload=True
    )


class Shed(db.Model):  # type: ignore[name-defined]
    """Its tools are deleted by the database, its rakes know nothing of it, and its nails are a query."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    keeper_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keeper.id"), default=None)
    keeper: Mapped[Keeper | None] = relationship()
    tools: Mapped[list[Tool]] = relationship(passive_deletes=True, order_by="Tool.id")
    rakes: Mapped[list[Rake]] = relationship()
    nails: DynamicMapped[Nail] = relationship()
    pins: WriteOnlyMapped[Pin] = relationship(passive_deletes=True)


class Theme(MutableDict[str, t.Any]):
    """A dict of the host's that knows more than a dict."""

    @property
    def tone(self) -> str:
        """What a schema reads."""
        return t.cast("str", self["tone"])


class Rack(db.Model):  # type: ignore[name-defined]
    """Its collections are no lists, or lists that count."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    theme: Mapped[dict[str, t.Any]] = mapped_column(Theme.as_mutable(sa.JSON()), default=dict)
    by_name: Mapped[dict[str, Hook]] = relationship(
        collection_class=attribute_keyed_dict("name"), cascade="all, delete-orphan"
    )
    all_pegs: Mapped[set[Peg]] = relationship(cascade="all, delete-orphan")
    rails: Mapped[list[Rail]] = relationship(
        collection_class=ordering_list("place"), order_by="Rail.place", cascade="all, delete-orphan"
    )

    @property
    def tone(self) -> str:
        """Of the theme."""
        return t.cast("Theme", self.theme).tone


class Hook(db.Model):  # type: ignore[name-defined]
    """Known by its name."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    name: Mapped[str] = mapped_column(sa.String(20))
    rack_id: Mapped[int] = mapped_column(sa.ForeignKey("rack.id"))


class Peg(db.Model):  # type: ignore[name-defined]
    """Equal to those of its name."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    name: Mapped[str] = mapped_column(sa.String(20))
    rack_id: Mapped[int] = mapped_column(sa.ForeignKey("rack.id"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peg) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Rail(db.Model):  # type: ignore[name-defined]
    """Has a place, which is checked."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    place: Mapped[int] = mapped_column(default=0)
    rack_id: Mapped[int] = mapped_column(sa.ForeignKey("rack.id"))

    @validates("place")
    def check(self, _: str, place: int) -> int:
        """Refuse what is on no rail that there is."""
        if self.id is None:
            raise ValueError("no rail")
        return place


class RackSchema(ma.Schema):
    """Reads a property that reads what a column's own class has."""

    id = ma.fields.Integer()
    tone = ma.fields.String()


class Keeper(db.Model):  # type: ignore[name-defined]
    """In no channel; only the host reads it."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Tool(db.Model):  # type: ignore[name-defined]
    """Cannot be without its shed."""

    id: Mapped[int] = mapped_column(primary_key=True)
    shed_id: Mapped[int] = mapped_column(sa.ForeignKey("shed.id", ondelete="CASCADE"))


class Rake(db.Model):  # type: ignore[name-defined]
    """Gets its key from its shed's collection."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    shed_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shed.id"), default=None)


class Nail(db.Model):  # type: ignore[name-defined]
    """Of which there are too many to load."""

    id: Mapped[int] = mapped_column(primary_key=True)
    shed_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shed.id"))


class Pin(db.Model):  # type: ignore[name-defined]
    """Of which there are even more."""

    id: Mapped[int] = mapped_column(primary_key=True)
    shed_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shed.id"))


class Feed(db.Model):  # type: ignore[name-defined]
    """In no channel; its first entries are found by a window function (SQLAlchemy: row-limited relationships)."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Entry(db.Model):  # type: ignore[name-defined]
    """Of a feed."""

    id: Mapped[int] = mapped_column(primary_key=True)
    feed_id: Mapped[int] = mapped_column(sa.ForeignKey("feed.id"))


_row = sa.func.row_number().over(order_by=Entry.id, partition_by=Entry.feed_id)
_part = sa.select(Entry, _row.label("place")).alias()
_first = aliased(Entry, _part)
Feed.first_entries = relationship(
    _first, primaryjoin=sa.and_(_first.feed_id == Feed.id, _part.c.place < 10), viewonly=True
)


class Hand(db.Model):  # type: ignore[name-defined]
    """Of which there is another table, with keys of its own."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Chief(Hand):
    """In a table of its own."""

    __tablename__ = "chief"
    __mapper_args__: t.ClassVar[dict[str, t.Any]] = {"concrete": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Gate(db.Model):  # type: ignore[name-defined]
    """Its owner cannot be found."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="")

    @property
    def owner(self) -> str:
        """It has an owner unless it is shut."""
        if self.name == "shut":
            raise ZeroDivisionError("no owner today")
        return "1"


CATALOG = Path(__file__).with_name("unusual_models.yaml")
