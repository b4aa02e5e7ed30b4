"""Columns whose `==` returns no bool, such as numpy arrays and the vectors of pgvector."""

from __future__ import annotations

import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks.catalog import same
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, events, last_changes
from tests.stage import subscribe


class Answer:
    """The result of comparing arrays: one answer for each element."""

    def __init__(self, each: t.Iterable[bool]) -> None:
        self.each = list(each)

    def all(self) -> bool:
        return all(self.each)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array with more than one element is ambiguous.")


class Vector:
    """As much of an array as matters here."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *values: float) -> None:
        self.values = values
        self.shape = (len(values),)

    def __eq__(self, other: object) -> t.Any:
        theirs = other.values if isinstance(other, Vector) else [other] * len(self.values)
        if len(theirs) == 1:  # as numpy does
            theirs = theirs * len(self.values)
        return Answer(mine == their for mine, their in zip(self.values, theirs, strict=True))

    def __ne__(self, other: object) -> t.Any:
        return Answer(not each for each in (self == other).each)


class VectorType(sa.TypeDecorator[Vector]):
    """Like pgvector's it leaves comparing to `==`."""

    impl = sa.String(100)
    cache_ok = True

    def process_bind_param(self, value: Vector | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else " ".join(map(str, value.values))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Vector | None:
        return None if value is None else Vector(*map(float, value.split()))


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Page(db.Model):  # type: ignore[name-defined]
    """A text with its place in a space of meanings."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(50), default="1")
    title: Mapped[str] = mapped_column(sa.String(50), default="")
    place: Mapped[Vector | None] = mapped_column(VectorType, default=None)
    again: Mapped[Vector | None] = mapped_column(VectorType, onupdate=lambda: Vector(0, 0), default=None)


class PageSchema(ma.Schema):
    """Nobody wants to read vectors."""

    id = ma.fields.Integer()
    title = ma.fields.String()


CATALOG = """\
version: 1
channels:
  pages:
    model: tests.capture.test_vectors:Page
    schema: tests.capture.test_vectors:PageSchema
    owner: owner
    events:
      created:
      updated: {ignore: [again]}
      placed: {on: updated, when: {place: {from: null}}}
"""


@pytest.fixture
def library(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with a page that has a vector, and a subscription that includes `changes`."""
    with capturing(db, CATALOG, database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        db.session.add(Page(id=1, place=Vector(1, 2)))
        db.session.commit()
        yield state


def page() -> Page:
    """The one there is, loaded."""
    return db.session.get_one(Page, 1)


def test_another_vector_is_an_update(library: AppState) -> None:
    page().place = Vector(1, 3)
    db.session.commit()

    assert events(library) == ["pages.created", "pages.updated"]


def test_changes_leave_out_what_json_cannot_hold(library: AppState) -> None:
    """Whoever listens must not make the host's commit fail by asking for `changes`."""
    found = page()
    found.place, found.title = Vector(1, 3), "x"
    db.session.commit()

    assert last_changes(library, "pages.updated") == {"title": ["", "x"]}


def test_there_and_back_is_nothing(library: AppState) -> None:
    found = page()
    found.place = Vector(9, 9)
    db.session.flush()
    found.place = Vector(1, 2)
    db.session.commit()

    assert events(library) == ["pages.created"]


def test_the_same_again_is_nothing(library: AppState) -> None:
    page().place = Vector(1, 2)
    db.session.commit()

    assert events(library) == ["pages.created"]


def test_one_that_is_set_by_an_expression(library: AppState) -> None:
    page().place = sa.literal("4.0 5.0")  # type: ignore[assignment]
    db.session.commit()

    assert events(library) == ["pages.created", "pages.updated"]


def test_a_condition_on_a_vector(library: AppState) -> None:
    found = page()
    found.place = None
    db.session.commit()
    found.place = Vector(1, 2)
    db.session.commit()
    found.place = Vector(1, 3)
    db.session.commit()

    assert events(library).count("pages.placed") == 1


def test_bulk_statements(library: AppState) -> None:
    db.session.execute(sa.update(Page).values(title="x"))
    db.session.commit()

    assert events(library) == ["pages.created", "pages.updated"]
    assert last_changes(library, "pages.updated") == {"title": ["", "x"]}


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        (1, 1, True),
        (1, 2, False),
        (None, None, True),
        (Vector(1, 2), Vector(1, 2), True),
        (Vector(1, 2), Vector(1, 3), False),
        (Vector(1, 1), Vector(1), False),  # `==` broadcasts
        (Vector(1, 2), Vector(1, 2, 3), False),  # and raises for shapes that do not fit
        (Vector(1, 2), None, False),
        (None, Vector(1, 2), False),
        ([Vector(1, 2)], [Vector(1, 2)], False),  # unknown, so it counts as changed
    ],
)
def test_same(old: t.Any, new: t.Any, is_same: bool) -> None:
    assert same(old, new) is is_same
