"""For which rows `data` can be made without running the host's code: one exception for each case."""

from __future__ import annotations

import enum
import typing as t

import marshmallow as ma
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, deferred, mapped_column

from flask_webhooks.bindings.host_code import Quiet


class Base(DeclarativeBase):
    """Root of these models."""


class Mood(enum.Enum):
    """Of a parcel."""

    GOOD = "good"


class Loud(sa.types.TypeDecorator[str]):
    """A column type of the host's."""

    impl = sa.String
    cache_ok = True


class Parcel(Base):
    """Has a column of each kind."""

    __tablename__ = "parcel"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    mood: Mapped[Mood | None]
    notes: Mapped[dict[str, t.Any] | None] = mapped_column(sa.JSON)
    shout: Mapped[str | None] = mapped_column(Loud)
    text: Mapped[str | None] = deferred(mapped_column(sa.String))
    twice: Mapped[int] = column_property(sa.literal_column("2", sa.Integer))

    @property
    def title(self) -> str:
        return f"No. {self.id}"


class Listing(Parcel):
    """Is asked for its items first."""

    def __getitem__(self, name: str) -> t.Any:
        return getattr(self, name)


class Watching(Parcel):
    """Sees whatever is read of it."""

    def __getattribute__(self, name: str) -> t.Any:
        return super().__getattribute__(name)


class Covering(Parcel):
    """Has a property in the place of a column."""

    label = property(lambda self: "covered")  # type: ignore[assignment]


class Plain(ma.Schema):
    """Reads columns, by the library's own fields."""

    id = ma.fields.Integer()
    name = ma.fields.String(attribute="label", data_key="called")
    mood = ma.fields.Enum(Mood, by_value=True)
    twice = ma.fields.Integer()


class Upper(ma.fields.String):
    """A field of the host's."""


class Hooked(Plain):
    """Has something to say before."""

    @ma.pre_dump
    def prepare(self, row: Parcel, **_: t.Any) -> Parcel:
        return row


class Reaching(Plain):
    """Gets values in its own way."""

    def get_attribute(self, obj: t.Any, attr: str, default: t.Any) -> t.Any:
        return super().get_attribute(obj, attr, default)


def with_field(**fields: t.Any) -> ma.Schema:
    """A plain schema with one field more."""
    return type("More", (Plain,), fields)()


@pytest.fixture(scope="module")
def session() -> t.Iterator[Session]:
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def quiet(schema: ma.Schema | None, row: t.Any, columns: t.Iterable[str] = ()) -> bool:
    return Quiet.of(schema, columns)(row)


def test_plain_fields_over_plain_columns_are_quiet() -> None:
    assert quiet(Plain(), Parcel(id=1))
    assert quiet(None, Parcel(id=1), ["id", "label", "mood"])


LOUD: dict[str, ma.Schema] = {
    "a hook": Hooked(),
    "get_attribute": Reaching(),
    "a property": with_field(title=ma.fields.String()),
    "a container": with_field(notes=ma.fields.Raw()),
    "a type of the host's": with_field(shout=ma.fields.String()),
    "a deferred column": with_field(text=ma.fields.String()),
    "a field of the host's": with_field(name=Upper(attribute="label")),
    "a function": with_field(name=ma.fields.Function(lambda row: row.label)),
    "a default": with_field(name=ma.fields.String(attribute="label", dump_default=lambda: "none")),
    "an enum's text": with_field(mood=ma.fields.String()),
    "an enum by another field": with_field(mood=ma.fields.Enum(Mood, by_value=Upper)),
    "a path": with_field(deep=ma.fields.String(attribute="notes.deep")),
    "nothing there": with_field(gone=ma.fields.String()),
}


@pytest.mark.parametrize("what", LOUD)
def test_what_may_run_something_of_the_hosts_is_not(what: str) -> None:
    assert not quiet(LOUD[what], Parcel(id=1))


@pytest.mark.parametrize("name", ["notes", "shout", "text", "title"])
def test_nor_such_a_column_without_a_schema(name: str) -> None:
    assert not quiet(None, Parcel(id=1), ["id", name])


@pytest.mark.parametrize("cls", [Listing, Watching, Covering])
def test_nor_a_class_that_has_a_say_in_how_it_is_read(cls: type[Parcel]) -> None:
    assert not quiet(Plain(), cls(id=1))


def test_nor_what_has_to_be_loaded_first(session: Session) -> None:
    session.add(row := Parcel(id=1, label="a"))
    session.flush()
    session.refresh(row)
    plan = Quiet.of(Plain(), ())

    assert plan(row)
    session.expire(row, ["label"])
    assert not plan(row)


def test_nor_a_schema_that_was_given_another_method() -> None:
    schema = Plain()
    schema.dump = lambda *_, **__: {}  # type: ignore[method-assign]

    assert not quiet(schema, Parcel(id=1))
