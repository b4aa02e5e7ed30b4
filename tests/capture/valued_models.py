"""Models with everything whose old value is hard to know, each in a channel of `valued_models.yaml`."""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass
from pathlib import Path

import marshmallow as ma
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    composite,
    deferred,
    mapped_column,
    relationship,
)


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Mood(enum.Enum):
    """Of an animal."""

    WILD = "wild"
    TAME = "tame"


@dataclass(frozen=True)
class Place:
    """Two columns that are one value."""

    x: int
    y: int


keepers = sa.Table(
    "cage_keeper",
    Base.metadata,
    sa.Column("cage_id", sa.ForeignKey("cage.id"), primary_key=True),
    sa.Column("keeper_id", sa.ForeignKey("keeper.id"), primary_key=True),
)


class Keeper(db.Model):  # type: ignore[name-defined]
    """In no channel; an include of cages."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), default="")


class Cage(db.Model):  # type: ignore[name-defined]
    """Touched by its animals."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    name: Mapped[str] = mapped_column(sa.String(50), default="")
    animals: Mapped[list[Animal]] = relationship(
        back_populates="cage", cascade="all, delete-orphan", order_by="Animal.id"
    )
    keepers: Mapped[list[Keeper]] = relationship(secondary=keepers)


class Animal(db.Model):  # type: ignore[name-defined]
    """The head of a joined-table and a single-table inheritance."""

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    name: Mapped[str] = mapped_column(sa.String(50), default="")
    mood: Mapped[Mood] = mapped_column(default=Mood.WILD)
    x: Mapped[int] = mapped_column(default=0)
    y: Mapped[int] = mapped_column(default=0)
    place: Mapped[Place] = composite("x", "y")
    story: Mapped[str | None] = deferred(mapped_column(sa.String(200), default=None))
    born: Mapped[str] = mapped_column(sa.String(20), server_default="then")
    tags: Mapped[list[t.Any]] = mapped_column(MutableList.as_mutable(sa.JSON()), default=list)
    facts: Mapped[dict[str, t.Any]] = mapped_column(MutableDict.as_mutable(sa.JSON()), default=dict)
    count: Mapped[int] = mapped_column(default=1, onupdate=lambda context: _one_more(context))
    revised: Mapped[int] = mapped_column(default=0, onupdate=sa.text("revised + 1"))
    trick: Mapped[str | None] = mapped_column(sa.String(20), default=None)
    cage_id: Mapped[int | None] = mapped_column(sa.ForeignKey("cage.id"), default=None)
    cage: Mapped[Cage | None] = relationship(back_populates="animals")

    @hybrid_property
    def title(self) -> str:
        """Not a column: its changes are those of its columns."""
        return f"{self.name} ({self.kind})"


def _one_more(context: t.Any) -> int:
    return 2


class Dog(Animal):
    """Has a table of its own, joined to that of animals."""

    __tablename__ = "dog"
    __mapper_args__ = {"polymorphic_identity": "dog"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
    breed: Mapped[str] = mapped_column(sa.String(50), default="")


class Pup(Animal):
    """Has no table of its own."""

    __tablename__ = None
    __mapper_args__ = {"polymorphic_identity": "pup"}


class Seat(db.Model):  # type: ignore[name-defined]
    """A composite primary key, which may change."""

    row: Mapped[str] = mapped_column(sa.String(5), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    note: Mapped[str] = mapped_column(sa.String(50), default="")


class Ticket(db.Model):  # type: ignore[name-defined]
    """A version counter, a state, and a collection without a way back."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    state: Mapped[str] = mapped_column(sa.String(20), server_default="new")
    version: Mapped[int] = mapped_column(default=1)
    stubs: Mapped[list[Stub]] = relationship()

    __mapper_args__ = {"version_id_col": version}

    @hybrid_property
    def summary(self) -> str:
        """What the schema shows."""
        return f"{self.state} {self.version}"


class Stub(db.Model):  # type: ignore[name-defined]
    """A member of a collection that it knows nothing of."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    ticket_id: Mapped[int | None] = mapped_column(sa.ForeignKey("ticket.id"), default=None)


class TicketSchema(ma.Schema):
    """Shows a hybrid."""

    id = ma.fields.Integer()
    state = ma.fields.String()
    summary = ma.fields.String()


CATALOG = Path(__file__).with_name("valued_models.yaml")
