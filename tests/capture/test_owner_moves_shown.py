"""Rows without a channel that are shown with a row that moves: the old owner sees them as they were."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
S = db.session
TEXT = sa.String(30)
THEIRS = "of the new owner"

tagged = sa.Table(
    "desk_tagged",
    Base.metadata,
    sa.Column("doc_id", sa.ForeignKey("desk_doc.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("desk_tag.id"), primary_key=True),
)


class Tag(db.Model):  # type: ignore[name-defined]
    """Of many documents."""

    __tablename__ = "desk_tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(TEXT, default="")
    docs: Mapped[list[Doc]] = relationship(secondary=tagged, back_populates="tags")


class Person(db.Model):  # type: ignore[name-defined]
    """An author, or a reader."""

    __tablename__ = "desk_person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(TEXT, default="")


class Reading(db.Model):  # type: ignore[name-defined]
    """A link that is an object."""

    __tablename__ = "desk_reading"

    doc_id: Mapped[int] = mapped_column(sa.ForeignKey("desk_doc.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("desk_person.id"), primary_key=True)


class Remark(db.Model):  # type: ignore[name-defined]
    """On a document."""

    __tablename__ = "desk_remark"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(TEXT, default="")
    doc_id: Mapped[int | None] = mapped_column(sa.ForeignKey("desk_doc.id"))


class Doc(db.Model):  # type: ignore[name-defined]
    """The only one in a channel."""

    __tablename__ = "desk_doc"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int]
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("desk_person.id"))
    author: Mapped[Person | None] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, back_populates="docs", order_by=Tag.id)
    readers: Mapped[list[Person]] = relationship(secondary="desk_reading", viewonly=True)
    remarks: Mapped[list[Remark]] = relationship(order_by=Remark.id, cascade="all, delete-orphan")

    @property
    def author_name(self) -> str | None:
        """By a property."""
        return self.author and self.author.name


class RemarksSchema(ma.Schema):
    """Has a method that others inherit."""

    comments = ma.fields.Method("list_remarks")

    def list_remarks(self, doc: Doc) -> list[str]:
        return [remark.text for remark in doc.remarks]


class DocSchema(RemarksSchema):
    """Reads what it shows by code."""

    id = ma.fields.Integer()
    author_name = ma.fields.String()
    labels = ma.fields.Function(lambda doc: [tag.name for tag in doc.tags])
    seen_by = ma.fields.Function(lambda doc: [reader.name for reader in doc.readers])


CATALOG = f"""\
version: 1
defaults: {{owner: team_id}}
channels:
  docs:
    model: {__name__}:Doc
    events: [created, updated, deleted]
    includes: [author, tags, readers]
  coded: {{model: {__name__}:Doc, schema: {__name__}:DocSchema, events: [created, updated, deleted]}}
"""


@pytest.fixture
def desk(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """Teams 1 and 2 listen to everything; a document of team 1 with one of each."""
    with capturing(db, CATALOG, empty_database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        for owner in "12":
            subscribe(state, NOWHERE, "*", owner=owner, includes=["author", "tags", "readers"])
        S.add_all([Person(id=1, name="author"), Person(id=2, name=THEIRS), Tag(id=2, name=THEIRS)])
        S.flush()
        S.add(
            Doc(
                id=1,
                team_id=1,
                author_id=1,
                tags=[Tag(id=1, name="tag")],
                remarks=[Remark(id=1, text="remark")],
            )
        )
        S.flush()
        S.add(Reading(doc_id=1, person_id=1))
        S.commit()
        yield state


def commit_and_read(state: AppState, owner: str) -> dict[str, dict[str, t.Any]]:
    """Commit; return the new messages of one owner, by event."""
    before = len(recorded(state))
    S.commit()
    return {
        each.event: {**json.loads(each.data), **json.loads(each.extras or "{}")}
        for each in recorded(state)[before:]
        if each.owner == owner
    }


AS_IT_WAS = {"author_name": "author", "labels": ["tag"], "seen_by": ["author"], "comments": ["remark"]}


def change_rows(doc: Doc) -> None:
    doc.tags[0].name = doc.remarks[0].text = THEIRS
    t.cast("Person", doc.author).name = THEIRS


def add_rows(doc: Doc) -> None:
    doc.tags.append(S.get_one(Tag, 2))
    doc.tags.append(Tag(id=3, name=THEIRS))
    doc.remarks.append(Remark(id=2, text=THEIRS))
    S.add(Reading(doc_id=1, person_id=2))


def take_rows(doc: Doc) -> None:
    doc.tags.clear()
    doc.author = S.get_one(Person, 2)


def link_from_the_other_end(doc: Doc) -> None:
    S.flush()
    tag, other = S.get_one(Tag, 1), S.get_one(Tag, 2)
    other.docs.append(doc)
    S.flush()
    tag.docs.remove(doc)


def release_a_savepoint(doc: Doc) -> None:
    with S.begin_nested():
        add_rows(doc)


@pytest.mark.parametrize(
    "change", [change_rows, add_rows, take_rows, link_from_the_other_end, release_a_savepoint]
)
@pytest.mark.parametrize("is_bulk", [False, True])
def test_rows_are_shown_as_they_were(desk: AppState, change: t.Callable[[Doc], None], is_bulk: bool) -> None:
    doc = S.get_one(Doc, 1)
    if is_bulk:
        S.execute(sa.update(Doc).values(team_id=2))
    else:
        doc.team_id = 2
    change(doc)
    found = commit_and_read(desk, "1")

    assert found["coded.deleted"] == {"id": 1, **AS_IT_WAS}
    assert THEIRS not in str(found)
    shown = found["docs.deleted"]
    assert (shown["author"]["name"], [each["name"] for each in shown["tags"]]) == ("author", ["tag"])


def test_the_new_owner_is_shown_how_they_are(desk: AppState) -> None:
    doc = S.get_one(Doc, 1)
    doc.team_id = 2
    add_rows(doc)

    assert commit_and_read(desk, "2")["coded.created"]["labels"] == ["tag", THEIRS, THEIRS]


def test_what_a_savepoint_undid_was_never_there(desk: AppState) -> None:
    doc = S.get_one(Doc, 1)
    nested = S.begin_nested()
    take_rows(doc)
    S.flush()
    nested.rollback()
    doc.team_id = 2

    assert commit_and_read(desk, "1")["coded.deleted"] == {"id": 1, **AS_IT_WAS}


def test_of_rows_that_a_bulk_statement_changed_nothing_is_shown(desk: AppState) -> None:
    """They were not read before: how they were is not known."""
    S.get_one(Doc, 1).team_id = 2
    S.execute(sa.update(Person).values(name=THEIRS))
    S.execute(sa.insert(Remark).values(id=2, text=THEIRS, doc_id=1))
    found = commit_and_read(desk, "1")

    assert THEIRS not in str(found)
    assert found["coded.deleted"] == {
        "id": 1,
        "author_name": None,
        "labels": ["tag"],
        "seen_by": [],
        "comments": [],
    }


def test_a_row_that_is_deleted_after_it_moved(desk: AppState) -> None:
    doc = S.get_one(Doc, 1)
    doc.team_id = 2
    S.flush()
    add_rows(doc)
    S.flush()
    for reading in S.scalars(sa.select(Reading)):
        S.delete(reading)
    S.flush()
    S.delete(doc)
    found = commit_and_read(desk, "1")

    assert THEIRS not in str(found)
    assert found["coded.deleted"]["labels"] == ["tag"]


def test_they_are_no_event_by_themselves(desk: AppState) -> None:
    doc = S.get_one(Doc, 1)
    change_rows(doc)
    add_rows(doc)

    assert commit_and_read(desk, "1") == {}
