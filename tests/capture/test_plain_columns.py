"""What the catalogue sends without a schema: some columns, all but some, or the result of a method."""

from __future__ import annotations

import functools
import json
import re
import typing as t
from pathlib import Path

import jsonschema
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_webhooks.bindings import describe
from flask_webhooks.capture import emit_many
from flask_webhooks.errors import PayloadError
from flask_webhooks.models import BrokenMessage
from flask_webhooks.reference import json_schema
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, last_changes, recorded_data
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Person(db.Model):  # type: ignore[name-defined]
    """Has columns that events must not show."""

    __tablename__ = "chosen_person"

    id: Mapped[int] = mapped_column(primary_key=True)
    studio: Mapped[str] = mapped_column(sa.String(20), default="s")
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    pin_hash: Mapped[str] = mapped_column(sa.String(20), default="h")
    token_colour: Mapped[str] = mapped_column(sa.String(20), default="red")
    shots: Mapped[list[Shot]] = relationship(back_populates="person", order_by="Shot.id")


class Shot(db.Model):  # type: ignore[name-defined]
    """Says itself what it is."""

    __tablename__ = "chosen_shot"

    id: Mapped[int] = mapped_column(primary_key=True)
    studio: Mapped[str] = mapped_column(sa.String(20), default="s")
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    frames: Mapped[int] = mapped_column(default=0)
    person_id: Mapped[int | None] = mapped_column(sa.ForeignKey("chosen_person.id"))
    person: Mapped[Person | None] = relationship(back_populates="shots")

    @property
    def anything(self) -> list[t.Any]:
        """Rows that are found only when it is read."""
        return [self.person]

    def to_dict(self, deep: bool = False) -> dict[str, t.Any]:
        """What the host's own API returns."""
        whose = self.person.name if self.person is not None else None
        return {"type": "Shot", "id": self.id, "name": self.name.upper(), "whose": whose}

    def to_nothing(self) -> list[int]:
        """No dict."""
        return [self.id]

    def to_database(self) -> dict[str, t.Any]:
        """Writes."""
        self.frames = 7
        return {}


CATALOG = f"""\
version: 1
defaults: {{owner: studio}}
channels:
  people:
    model: {__name__}:Person
    exclude: [pin_hash]
    public: [token_colour]
    events: [created, updated]
  shots:
    model: {__name__}:Shot
    data: to_dict
    events: [created, updated, deleted]
    includes: [person, anything]
  frames:
    model: {__name__}:Shot
    fields: [id, frames]
    events: [created, updated]
"""


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    with capturing(db, CATALOG, database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        subscribe(state, NOWHERE, "*", owner="s", includes=["changes", "person", "anything"])
        yield state


def save(*objects: t.Any) -> None:
    db.session.add_all(objects)
    db.session.commit()


ADA = {"id": 1, "studio": "s", "name": "Ada", "token_colour": "red"}


def test_each_channel_sends_what_it_chose(studio: AppState) -> None:
    save(Person(id=1, name="Ada"), Shot(id=2, name="a", frames=3, person_id=1))

    assert recorded_data(studio, "people.created") == [ADA]
    assert recorded_data(studio, "shots.created") == [{"type": "Shot", "id": 2, "name": "A", "whose": "Ada"}]
    assert recorded_data(studio, "frames.created") == [{"id": 2, "frames": 3}]


def test_related_rows_are_shown_as_their_channel_shows_them(studio: AppState) -> None:
    """Also types that are only known at run time: what a property returns."""
    save(Person(id=1, name="Ada"), Shot(id=2, person_id=1))

    [message] = [each for each in recorded(studio) if each.event == "shots.created"]
    assert json.loads(message.extras or "{}") == {"person": ADA, "anything": [ADA]}


def test_changes_tell_nothing_that_data_hides(studio: AppState) -> None:
    save(person := Person(id=1, name="Ada"), shot := Shot(id=2, name="a", frames=1))
    person.name, person.pin_hash, shot.frames, shot.name = "Eve", "new", 2, "b"
    db.session.commit()

    assert last_changes(studio, "people.updated") == {"name": ["Ada", "Eve"]}
    assert last_changes(studio, "frames.updated") == {"frames": [1, 2]}
    assert last_changes(studio, "shots.updated") == {"name": ["A", "B"]}


def test_a_deleted_row_has_what_its_method_reads(studio: AppState) -> None:
    save(Person(id=1, name="Ada"), Shot(id=2, name="a", person_id=1))
    db.session.expire_all()
    db.session.delete(db.session.get(Shot, 2))
    db.session.commit()

    assert recorded_data(studio, "shots.deleted") == [{"type": "Shot", "id": 2, "name": "A", "whose": "Ada"}]


def test_what_is_published_says_the_same(studio: AppState) -> None:
    save(Person(id=1, name="Ada"), Shot(id=2, name="a", frames=3, person_id=1))

    fields, includes = describe(studio.bound)
    assert fields["frames.created"].keys() == {"id", "frames"}
    assert "shots.created" not in fields, "what a method returns is no promise"
    assert "pin_hash" not in includes["shots"]["person"]
    for event, validated in (("frames.created", {"id", "frames"}), ("people.created", set(ADA))):
        bound = studio.bound[event.partition(".")[0]]
        schema = json_schema.data_schema(bound, studio.catalog.events[event])
        assert schema["properties"].keys() == validated
        assert json_schema.sample_data(bound, studio.catalog.events[event]).keys() == validated
        jsonschema.validate(recorded_data(studio, event)[0], schema)
    shots = json_schema.data_schema(studio.bound["shots"], studio.catalog.events["shots.created"])
    assert shots == {"type": "object", "properties": {}, "additionalProperties": True}


def test_emitted_data_passes_through_the_chosen_columns(studio: AppState) -> None:
    send = functools.partial(emit_many, studio, db.session(), owner="s")
    send("frames.created", [{"id": 1, "frames": 2}])
    send("shots.created", [{"whatever": [1]}])
    with pytest.raises(PayloadError, match="has the key 'name', which Shot does not send"):
        send("frames.created", [{"id": 1, "name": "x"}])
    db.session.commit()

    assert recorded_data(studio, "frames.created") == [{"id": 1, "frames": 2}]
    assert recorded_data(studio, "shots.created") == [{"whatever": [1]}]


@pytest.mark.parametrize(
    ("method", "said"),
    [("to_nothing", r"Shot.to_nothing\(\) returned list"), ("to_database", r"Shot.to_database\(\)")],
)
def test_a_method_that_does_not_do_is_named(
    method: str, said: str, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = CATALOG.replace("to_dict", method)
    with capturing(db, catalog, database_url, tmp_path, WEBHOOKS_ON_ERROR="record") as state:
        subscribe(state, NOWHERE, "shots.*", owner="s")
        save(Shot(id=2))

        recorded(state)
        found = db.session.scalar(sa.select(BrokenMessage))
        said_so = found.error if found is not None else caplog.text
        assert re.search(said, said_so)
        assert db.session.scalar(sa.select(Shot.frames)) == 0
