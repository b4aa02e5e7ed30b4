"""A row that moves to another owner: deleted for the old, created for the new one; neither sees the other's values."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    deferred,
    mapped_column,
    relationship,
    synonym,
)

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting
from tests.capture.stock import upsert
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
S = db.session


class Doc(db.Model):  # type: ignore[name-defined]
    """Has its owner itself."""

    __tablename__ = "office_doc"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(default=None)
    tenant = synonym("team_id")
    status: Mapped[str] = mapped_column(sa.String(20), default="draft")
    note: Mapped[str] = mapped_column(sa.String(20), default="")
    body: Mapped[str] = deferred(mapped_column(sa.String(20), default=""))
    loud: Mapped[str] = column_property(sa.func.upper(note))
    lines: Mapped[list[Line]] = relationship(
        back_populates="doc", cascade="all, delete-orphan", order_by="Line.id"
    )

    @property
    def whose(self) -> str | None:
        """What a catalogue may name as well."""
        return None if self.team_id is None else f"{self.team_id}"


class Line(db.Model):  # type: ignore[name-defined]
    """Belongs to whom its document belongs to."""

    __tablename__ = "office_line"

    id: Mapped[int] = mapped_column(primary_key=True)
    doc_id: Mapped[int | None] = mapped_column(sa.ForeignKey("office_doc.id"))
    text: Mapped[str] = mapped_column(sa.String(20), default="")
    doc: Mapped[Doc | None] = relationship(back_populates="lines")


class Folder(db.Model):  # type: ignore[name-defined]
    """In no channel, and on the way to an owner."""

    __tablename__ = "office_folder"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(default=None)
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    files: Mapped[list[File]] = relationship(back_populates="folder")


class File(db.Model):  # type: ignore[name-defined]
    """Belongs to whom its folder belongs to."""

    __tablename__ = "office_file"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(sa.ForeignKey("office_folder.id"))
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    folder: Mapped[Folder | None] = relationship(back_populates="files")


class LineSchema(ma.Schema):
    """With what it belongs to."""

    id = ma.fields.Integer()
    text = ma.fields.String()
    doc = ma.fields.Nested(lambda: NoteSchema())


class NoteSchema(ma.Schema):
    """Of a document."""

    id = ma.fields.Integer()
    note = ma.fields.String()


CATALOG = """\
version: 1
channels:
  docs:
    model: tests.capture.test_owner_moves:Doc
    owner: team_id
    events:
      created:
      updated:
      deleted:
      paid: {on: updated, when: {status: {from: sent, to: paid}}}
      left: {on: updated, when: {status: {from: draft}}}
      dropped: {on: deleted, when: {status: draft}}
      opened: {on: [created, updated], when: {status: open}}
    includes: [lines]
  lines:
    model: tests.capture.test_owner_moves:Line
    schema: tests.capture.test_owner_moves:LineSchema
    owner: doc.team_id
    events: [created, updated, deleted]
  files:
    model: tests.capture.test_owner_moves:File
    owner: folder.team_id
    events: [created, updated, deleted]
    includes: [folder, folder.files]
  named:
    model: tests.capture.test_owner_moves:Doc
    owner: tenant
    events: {arrived: {on: moved_in}, gone: {on: moved_out, when: {status: draft}}, deleted: , created: }
  properties:
    model: tests.capture.test_owner_moves:Doc
    owner: whose
    events: [deleted]
  papers:
    model: tests.capture.test_owner_moves:Doc
    owner: team_id
    events:
      updated: {ignore: [status]}
      deleted: {on: [deleted, updated], when: {status: void}}
  births:
    model: tests.capture.test_owner_moves:Doc
    owner: team_id
    events: [created]
"""
INCLUDES = ("changes", "lines", "folder", "folder.files")


@pytest.fixture
def office(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> t.Iterator[AppState]:
    """Teams 1, 2 and 3 listen to everything, with all includes; a parameter is added to the catalogue."""
    with capturing(db, CATALOG + getattr(request, "param", ""), database_url, tmp_path) as state:
        for owner in "123":
            subscribe(state, NOWHERE, "*", owner=owner, includes=INCLUDES)
        yield state


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


class Told(t.NamedTuple):
    """One message."""

    event: str
    owner: str
    data: dict[str, t.Any]
    extras: dict[str, t.Any]


def commit_and_read(state: AppState, *channels: str) -> list[Told]:
    """Commit; return the new messages of some channels; by default those of documents."""
    before = len(recorded(state))
    S.commit()
    return [
        Told(each.event, each.owner, json.loads(each.data), json.loads(each.extras or "{}"))
        for each in recorded(state)[before:]
        if each.channel in (channels or ("docs",))
    ]


def names(found: t.Iterable[Told]) -> list[tuple[str, str]]:
    return sorted((each.event, each.owner) for each in found)


def only(found: t.Iterable[Told], event: str) -> Told:
    [one] = [each for each in found if each.event == event]
    return one


MOVED = [("docs.created", "2"), ("docs.deleted", "1")]


def a_doc(**columns: t.Any) -> Doc:
    """One of team 1, committed."""
    doc = Doc(**{"id": 1, "team_id": 1, "note": "ours", "body": "old", "status": "sent", **columns})
    save(doc)
    return doc


class TestAColumn:
    def test_each_hears_its_own_half(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id, doc.note, doc.body = 2, "n", "new"
        found = commit_and_read(office)

        assert names(found) == MOVED
        gone, here = only(found, "docs.deleted"), only(found, "docs.created")
        assert gone.data == {
            "id": 1,
            "team_id": 1,
            "status": "sent",
            "note": "ours",
            "body": "old",
            "loud": None,
        }
        assert here.data["note"] == "n"
        assert gone.extras == here.extras == {"lines": []}

    def test_it_alone_changes(self, office: AppState) -> None:
        a_doc().team_id = 2

        assert names(commit_and_read(office)) == MOVED

    def test_several_flushes(self, office: AppState) -> None:
        doc = a_doc()
        doc.note = "a"
        S.flush()
        doc.team_id = 2
        S.flush()
        doc.note = "b"
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["note"] == "ours"
        assert only(found, "docs.created").data["note"] == "b"

    def test_there_and_back_is_none(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id = 2
        S.flush()
        doc.team_id, doc.note = 1, "n"
        found = commit_and_read(office)

        assert names(found) == [("docs.updated", "1")]
        assert found[0].extras["changes"] == {"note": {"from": "ours", "to": "n"}}

    def test_by_way_of_a_third(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id, doc.note = 3, "third"
        S.flush()
        doc.team_id = 2
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["note"] == "ours"

    def test_to_no_owner(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id, doc.note = None, "n"
        found = commit_and_read(office)

        assert names(found) == [("docs.deleted", "1")]
        assert found[0].data["note"] == "ours"

    def test_from_no_owner(self, office: AppState) -> None:
        doc = a_doc(team_id=None)
        doc.team_id, doc.note = 2, "n"
        found = commit_and_read(office)

        assert names(found) == [("docs.created", "2")]
        assert "changes" not in found[0].extras

    def test_by_an_expression(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id, doc.note = Doc.team_id + 1, "n"
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["note"] == "ours"

    def test_no_step_of_the_other_owner_has_an_event(self, office: AppState) -> None:
        """`from` would say what the row was under its owner of before."""
        doc = a_doc(status="sent")
        doc.team_id, doc.status = 2, "paid"

        assert names(commit_and_read(office)) == MOVED

    def test_conditions_look_at_what_each_may_see(self, office: AppState) -> None:
        doc = a_doc(status="draft")
        doc.team_id, doc.status = 2, "open"

        assert names(commit_and_read(office)) == sorted([*MOVED, ("docs.dropped", "1"), ("docs.opened", "2")])

    def test_a_step_taken_before_it_moved(self, office: AppState) -> None:
        doc = a_doc(status="sent")
        doc.status = "paid"
        S.flush()
        doc.team_id = 2

        assert names(commit_and_read(office)) == MOVED

    def test_many_cost_no_more_statements(self, office: AppState) -> None:
        save(*(Doc(id=number, team_id=1, status="sent") for number in range(1, 21)))
        for doc in S.scalars(sa.select(Doc)).all():
            doc.team_id = 2
        with counting(office.engine) as sent:
            found = commit_and_read(office)

        assert len(found) == 40
        assert len([each for each in sent if "FROM office_doc" in each]) <= 3


class TestThenDeleted:
    @pytest.mark.parametrize("is_flushed", [True, False])
    def test_only_its_owner_of_before_hears(self, office: AppState, is_flushed: bool) -> None:
        doc = a_doc()
        doc.team_id = 2
        if is_flushed:
            doc.note = "n"
            S.flush()
        S.delete(doc)
        found = commit_and_read(office)

        assert names(found) == [("docs.deleted", "1")]
        assert found[0].data["note"] == "ours"

    def test_made_and_moved(self, office: AppState) -> None:
        doc = Doc(id=1, team_id=1)
        S.add(doc)
        S.flush()
        doc.team_id = 2

        assert names(commit_and_read(office)) == [("docs.created", "2")]

    def test_made_anew_for_another(self, office: AppState) -> None:
        doc = a_doc()
        S.delete(doc)
        S.flush()
        S.add(Doc(id=1, team_id=2, note="n"))
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["note"] == "ours"

    def test_in_a_savepoint_that_is_undone(self, office: AppState) -> None:
        doc = a_doc()
        nested = S.begin_nested()
        doc.team_id = 2
        S.flush()
        nested.rollback()
        doc.note = "n"

        assert names(commit_and_read(office)) == [("docs.updated", "1")]


class TestOddWays:
    def test_with_another_key(self, office: AppState) -> None:
        doc = a_doc()
        doc.id, doc.team_id, doc.note = 5, 2, "n"
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert [(each.data["id"], each.data["note"]) for each in found] == [(1, "ours"), (5, "n")]

    def test_two_that_change_places(self, office: AppState) -> None:
        save(Doc(id=1, team_id=1, note="a", status="sent"), Doc(id=2, team_id=2, note="b", status="sent"))
        one, two = S.get_one(Doc, 1), S.get_one(Doc, 2)
        one.team_id, one.note = 2, "x"
        two.team_id, two.note = 1, "y"
        found = commit_and_read(office)

        assert sorted((each.event, each.owner, each.data["note"]) for each in found) == [
            ("docs.created", "1", "y"),
            ("docs.created", "2", "x"),
            ("docs.deleted", "1", "a"),
            ("docs.deleted", "2", "b"),
        ]

    def test_expired_before_and_after(self, office: AppState) -> None:
        doc = a_doc()
        S.expire(doc)
        doc.team_id = 2
        S.flush()
        S.expire(doc)
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["body"] == "old"

    def test_merged(self, office: AppState) -> None:
        a_doc()
        S.expunge_all()
        S.merge(Doc(id=1, team_id=2, note="n"))
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert only(found, "docs.deleted").data["note"] == "ours"

    def test_in_a_savepoint(self, office: AppState) -> None:
        doc = a_doc()
        with S.begin_nested():
            doc.team_id = 2

        assert names(commit_and_read(office)) == MOVED


class TestBulk:
    def test_before_more_is_changed(self, office: AppState) -> None:
        doc = a_doc()
        S.execute(sa.update(Doc).values(team_id=3, note="third"))
        doc.team_id, doc.note = 2, "n"
        found = commit_and_read(office)

        assert names(found) == MOVED
        assert [each.data["note"] for each in found] == ["ours", "n"]

    @pytest.mark.parametrize("is_bulk", [True, False])
    def test_before_it_is_deleted_in_bulk(self, office: AppState, is_bulk: bool) -> None:
        doc = a_doc()
        if is_bulk:
            S.execute(sa.update(Doc).values(team_id=2, note="n"))
        else:
            doc.team_id, doc.note = 2, "n"
        S.execute(sa.delete(Doc))
        found = commit_and_read(office)

        assert names(found) == [("docs.deleted", "1")]
        assert found[0].data["note"] == "ours"

    @pytest.mark.parametrize("by_rows", [True, False])
    def test_of_the_owner(self, office: AppState, by_rows: bool) -> None:
        save(*(Doc(id=number, team_id=1, note="ours") for number in (1, 2)))
        if by_rows:
            S.execute(sa.update(Doc), [{"id": number, "team_id": 2, "note": "n"} for number in (1, 2)])
        else:
            S.execute(sa.update(Doc).values(team_id=2, note="n"))
        found = commit_and_read(office)

        assert names(found) == sorted(2 * MOVED + 2 * [("docs.dropped", "1")])
        assert {each.data["note"] for each in found if each.owner == "1"} == {"ours"}
        assert not any("changes" in each.extras for each in found)

    @pytest.mark.parametrize("team", [2, None])
    def test_of_a_channel_that_says_nothing_of_updates(self, office: AppState, team: int | None) -> None:
        a_doc()
        S.execute(sa.update(Doc).values({Doc.team_id: team}))

        assert names(commit_and_read(office, "births", "properties")) == [
            *([("births.created", "2")] if team else []),
            ("properties.deleted", "1"),
        ]

    def test_of_the_key_on_the_path(self, office: AppState) -> None:
        save(
            Folder(id=1, team_id=1, name="one"), Folder(id=2, team_id=2), File(id=1, folder_id=1, name="ours")
        )
        S.execute(sa.update(File).values(folder_id=2, name="n"))
        found = commit_and_read(office, "files")

        assert names(found) == [("files.created", "2"), ("files.deleted", "1")]
        gone = only(found, "files.deleted")
        assert (gone.data["name"], gone.data["folder_id"], gone.extras["folder"]["name"]) == (
            "ours",
            1,
            "one",
        )

    @pytest.mark.parametrize("form", ["update", "upsert"])
    def test_of_a_class_on_the_way(self, office: AppState, form: str) -> None:
        save(Folder(id=1, team_id=1), File(id=1, folder_id=1, name="ours"))
        moving: t.Any = sa.update(Folder).values(team_id=2)
        if form == "upsert":
            url = str(office.engine.url)
            moving = upsert(url, ["id"], lambda row: {"team_id": row.team_id}, model=Folder)
            moving = moving.values(id=1, team_id=2)
        S.execute(moving)
        S.get_one(File, 1).name = "n"
        found = commit_and_read(office, "files")

        assert names(found) == [("files.created", "2"), ("files.deleted", "1")]

    def test_a_class_on_the_way_is_not_refused(self, office: AppState) -> None:
        """It is in no channel: what the host does with it is its own."""
        save(Folder(id=1, team_id=1))
        S.execute(sa.update(Folder).values(id=7, team_id=2))
        S.execute(sa.update(Folder), [{"id": 7, "team_id": 1}], execution_options={"dml_strategy": "orm"})
        S.commit()

        assert S.get_one(Folder, 7).team_id == 1


class TestAPath:
    @pytest.fixture
    def file(self, office: AppState) -> File:
        save(
            Folder(id=1, team_id=1, name="one"),
            Folder(id=2, team_id=2, name="two"),
            File(id=1, folder_id=1, name="ours"),
            File(id=2, folder_id=2, name="theirs"),
        )
        return S.get_one(File, 1)

    @pytest.mark.parametrize("is_loaded", [True, False])
    @pytest.mark.parametrize("by_key", [True, False])
    def test_the_row_is_put_elsewhere(
        self, office: AppState, file: File, is_loaded: bool, by_key: bool
    ) -> None:
        if is_loaded:
            assert file.folder is not None
        if by_key:
            file.folder_id = 2
        else:
            file.folder = S.get_one(Folder, 2)
        file.name = "n"
        found = commit_and_read(office, "files")

        assert names(found) == [("files.created", "2"), ("files.deleted", "1")]
        gone, here = only(found, "files.deleted"), only(found, "files.created")
        assert gone.data == {"id": 1, "folder_id": 1, "name": "ours"}
        assert gone.extras == {
            "folder": {"id": 1, "team_id": 1, "name": "one"},
            "folder.files": [{"id": 1, "folder_id": 1, "name": "ours"}],
        }
        assert here.data["name"] == "n"
        assert here.extras["folder"]["name"] == "two"
        assert sorted(each["name"] for each in here.extras["folder.files"]) == ["n", "theirs"]

    def test_what_it_is_in_goes_to_another(self, office: AppState, file: File) -> None:
        folder = S.get_one(Folder, 1)
        folder.team_id, folder.name, file.name = 2, "secret", "n"
        found = commit_and_read(office, "files")

        assert names(found) == [("files.created", "2"), ("files.deleted", "1")]
        gone = only(found, "files.deleted")
        assert gone.data["name"] == "ours"
        assert gone.extras["folder"] == {"id": 1, "team_id": 1, "name": "one"}

    def test_an_unchanged_row_has_no_event(self, office: AppState, file: File) -> None:
        S.get_one(Folder, 1).team_id = 2

        assert commit_and_read(office, "files") == []

    def test_what_it_was_in_is_deleted(self, office: AppState, file: File) -> None:
        folder = S.get_one(Folder, 1)
        file.folder_id = 2
        S.flush()
        S.delete(folder)

        assert names(commit_and_read(office, "files")) == [("files.created", "2"), ("files.deleted", "1")]

    @pytest.mark.parametrize("is_bulk", [True, False])
    def test_it_goes_when_its_folder_has_moved(self, office: AppState, file: File, is_bulk: bool) -> None:
        folder = S.get_one(Folder, 1)
        folder.team_id, folder.name = 2, "secret"
        S.flush()
        if is_bulk:
            S.execute(sa.delete(File).where(File.id == 1))
        else:
            S.delete(file)
        found = commit_and_read(office, "files")

        assert names(found) == [("files.deleted", "1")]
        assert found[0].extras["folder"]["name"] == "one"

    def test_to_nothing(self, office: AppState, file: File) -> None:
        file.folder = None

        assert names(commit_and_read(office, "files")) == [("files.deleted", "1")]

    def test_within_one_owner_it_is_an_update(self, office: AppState, file: File) -> None:
        save(Folder(id=3, team_id=1))
        file.folder_id = 3

        assert names(commit_and_read(office, "files")) == [("files.updated", "1")]


TOUCHING = """\
  folders:
    model: tests.capture.test_owner_moves:Folder
    owner: team_id
    events: [created, updated, deleted]
    touches: [files]
"""


@pytest.mark.parametrize("office", [TOUCHING], indirect=True, ids=["touching"])
@pytest.mark.parametrize("is_bulk", [True, False])
def test_what_it_touches_moves_along(office: AppState, is_bulk: bool) -> None:
    save(Folder(id=1, team_id=1, name="one"), *(File(id=number, folder_id=1) for number in (1, 2)))
    if is_bulk:
        S.execute(sa.update(Folder).values(team_id=2, name="secret"))
    else:
        folder = S.get_one(Folder, 1)
        folder.team_id, folder.name = 2, "secret"
    found = commit_and_read(office, "files", "folders")

    assert names(found) == [
        ("files.created", "2"),
        ("files.created", "2"),
        ("files.deleted", "1"),
        ("files.deleted", "1"),
        ("folders.created", "2"),
        ("folders.deleted", "1"),
    ]
    told_of = {(each.owner, each.extras["folder"]["name"]) for each in found if "folder" in each.extras}
    assert told_of == {("1", "one"), ("2", "secret")}


def test_what_hangs_on_it_is_shown_as_it_was(office: AppState) -> None:
    """A line that was changed, one that was added, and one that was taken away, by the commit that moves it all."""
    doc = a_doc(lines=[Line(id=1, text="a"), Line(id=2, text="b")])
    doc.lines[0].text = "changed"
    doc.lines.append(Line(id=3, text="added"))
    S.delete(doc.lines[1])
    doc.team_id, doc.note = 2, "n"
    found = commit_and_read(office, "docs", "lines")

    gone = only(found, "docs.deleted").extras["lines"]
    assert sorted((each["id"], each["text"], each["doc"]["note"]) for each in gone) == [
        (1, "a", "ours"),
        (2, "b", "ours"),
    ]
    assert [each.data for each in found if each.event == "lines.deleted" and each.data["id"] == 1] == [
        {"id": 1, "text": "a", "doc": {"id": 1, "note": "ours"}}
    ]
    assert names(each for each in found if each.event.startswith("lines.")) == [
        ("lines.created", "2"),
        ("lines.created", "2"),
        ("lines.deleted", "1"),
        ("lines.deleted", "1"),
    ]
    assert "n" not in {each.data.get("note") for each in found if each.owner == "1"}


class TestAsTheCatalogueSays:
    def test_moved_in_and_out_take_the_place_of_created_and_deleted(self, office: AppState) -> None:
        a_doc(status="draft").team_id = 2

        assert names(commit_and_read(office, "named")) == [("named.arrived", "2"), ("named.gone", "1")]

    def test_their_conditions_hold_for_what_each_may_see(self, office: AppState) -> None:
        a_doc(status="sent").team_id = 2

        assert names(commit_and_read(office, "named")) == [("named.arrived", "2")]

    def test_real_ones_are_none_of_these(self, office: AppState) -> None:
        doc = a_doc()
        S.delete(doc)

        assert names(commit_and_read(office, "named")) == [("named.deleted", "1")]

    def test_a_property_names_the_owner(self, office: AppState) -> None:
        doc = a_doc()
        doc.team_id, doc.note = 2, "n"
        found = commit_and_read(office, "properties")

        assert names(found) == [("properties.deleted", "1")]
        assert found[0].data["note"] == "ours"


class TestASoftDelete:
    def test_is_called_deleted(self, office: AppState) -> None:
        doc = a_doc()
        doc.status = "void"
        found = commit_and_read(office, "papers")

        assert names(found) == [("papers.deleted", "1")]
        assert found[0].data["status"] == "void"

    def test_has_one_event(self, office: AppState) -> None:
        doc = a_doc(status="void")
        S.delete(doc)

        assert commit_and_read(office, "papers") == []

    def test_a_row_that_was_not_and_goes(self, office: AppState) -> None:
        S.delete(a_doc())

        assert names(commit_and_read(office, "papers")) == [("papers.deleted", "1")]


@pytest.mark.parametrize("how", ["assigned", "bulk", "made anew"])
def test_what_hangs_on_it_leads_back_to_what_it_was(office: AppState, how: str) -> None:
    """A line that has not changed, and whose schema shows its document: that is another's by now."""
    save(Doc(id=1, team_id=1, note="old", lines=[Line(id=1, text="a")]))
    if how == "assigned":
        doc = S.get_one(Doc, 1)
        doc.team_id, doc.note = 2, "new"
    elif how == "bulk":
        S.execute(sa.update(Doc).values(team_id=2, note="new"))
    else:
        S.delete(S.get_one(Doc, 1))
        S.flush()
        S.add(Doc(id=1, team_id=2, note="new"))

    found = {each.event: each.extras.get("lines") for each in commit_and_read(office)}
    assert found["docs.deleted"] == [{"id": 1, "text": "a", "doc": {"id": 1, "note": "old"}}]
    assert "old" not in str(found["docs.created"])


def test_a_property_of_what_hangs_on_it_leads_back_too(
    office: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "title", property(lambda line: line.doc.note), raising=False)
    monkeypatch.setattr(office.bound["docs"].includes["lines"].schema.fields["text"], "attribute", "title")
    save(Doc(id=1, team_id=1, note="old", lines=[Line(id=1, text="a")]))
    doc = S.get_one(Doc, 1)
    doc.team_id, doc.note = 2, "new"

    [line] = {each.event: each.extras["lines"] for each in commit_and_read(office)}["docs.deleted"]
    assert line["text"] == "old"


@pytest.mark.parametrize("is_bulk", [False, True])
def test_what_a_query_computes_of_a_moved_row_that_is_deleted_is_not_shown(
    office: AppState, is_bulk: bool
) -> None:
    save(Doc(id=1, team_id=1, note="old"))
    if is_bulk:
        S.execute(sa.update(Doc).values(team_id=2, note="new"))
        S.execute(sa.delete(Doc))
    else:
        doc = S.get_one(Doc, 1)
        doc.team_id, doc.note = 2, "new"
        S.flush()
        S.refresh(doc)
        S.delete(doc)

    found = {each.event: each for each in commit_and_read(office)}["docs.deleted"]
    assert (found.owner, found.data["note"], found.data["loud"]) == ("1", "old", None)


def test_only_the_old_owner_has_a_subscription(office: AppState) -> None:
    """The first glance, too, asks for both."""
    doc = a_doc()
    subscribe(office, NOWHERE, "docs.deleted", owner="8")
    save(Doc(id=9, team_id=8, note="theirs"))
    S.get_one(Doc, 9).team_id = 99

    assert names(commit_and_read(office)) == [("docs.deleted", "8")]
    assert doc.team_id == 1


def test_everything_is_recorded_where_that_is_wished(office: AppState) -> None:
    object.__setattr__(office.settings, "record", "all")
    a_doc().team_id = 77

    assert names(commit_and_read(office)) == [("docs.created", "77"), ("docs.deleted", "1")]


def test_the_hosts_object_stays_as_it_is(office: AppState) -> None:
    a_doc(lines=[Line(id=1)])
    S.expire_on_commit = False  # type: ignore[attr-defined]
    doc = S.get_one(Doc, 1)
    doc.team_id, doc.note = 2, "n"
    S.commit()

    assert (doc.team_id, doc.note) == (2, "n")
    assert "lines" not in doc.__dict__
