"""Models whose relationships are hard to follow, each in a channel of `linked_models.yaml`."""

from __future__ import annotations

import typing as t
from pathlib import Path

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column, relationship


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Order(db.Model):  # type: ignore[name-defined]
    """A composite key that others refer to."""

    tenant: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    items: Mapped[list[Item]] = relationship(back_populates="order", cascade="all, delete-orphan")


class Item(db.Model):  # type: ignore[name-defined]
    """Belongs to whom its order belongs to."""

    __table_args__ = (sa.ForeignKeyConstraint(["tenant", "order_number"], ["order.tenant", "order.number"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int | None]
    order_number: Mapped[int | None]
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    order: Mapped[Order | None] = relationship(back_populates="items")


class Vehicle(db.Model):  # type: ignore[name-defined]
    """Heads a joined-table inheritance."""

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")


class Car(Vehicle):
    """Others refer to the key in its own table."""

    __tablename__ = "car"
    __mapper_args__ = {"polymorphic_identity": "car"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle.id"), primary_key=True)
    wheels: Mapped[list[Wheel]] = relationship(back_populates="car")


class Wheel(db.Model):  # type: ignore[name-defined]
    """Touches its car, and can do without one."""

    id: Mapped[int] = mapped_column(primary_key=True)
    car_id: Mapped[int | None] = mapped_column(sa.ForeignKey("car.id"))
    size: Mapped[int] = mapped_column(default=1)
    car: Mapped[Car | None] = relationship(back_populates="wheels")


class Shelf(db.Model):  # type: ignore[name-defined]
    """Its books know nothing of it, and go with it."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    books: Mapped[list[Book]] = relationship(cascade="all, delete-orphan", order_by="Book.id")


class Author(db.Model):  # type: ignore[name-defined]
    """In no channel; an include of books."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Book(db.Model):  # type: ignore[name-defined]
    """A deferred column and an include that must be read before it goes, and pages that go with it."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    shelf_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shelf.id"))
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("author.id"), default=None)
    title: Mapped[str] = mapped_column(sa.String(20), default="")
    state: Mapped[str] = mapped_column(sa.String(20), default="new")
    blurb: Mapped[str | None] = deferred(mapped_column(sa.String(50), default=None))
    author: Mapped[Author | None] = relationship()
    pages: Mapped[list[Page]] = relationship(cascade="all, delete-orphan", order_by="Page.id")


class Page(db.Model):  # type: ignore[name-defined]
    """Goes with its book."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    book_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book.id"))
    text: Mapped[str | None] = deferred(mapped_column(sa.String(50), default=None))


@sa.event.listens_for(Book, "before_update")
def shelve(_: t.Any, __: t.Any, book: Book) -> None:
    """A state machine of the host's, which decides only while the row is being written."""
    if book.title == "finished":
        book.state = "done"


CATALOG = Path(__file__).with_name("linked_models.yaml")
