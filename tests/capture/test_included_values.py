"""Includes that are more than a relationship or a plain value."""

from __future__ import annotations

import ipaddress
import json
import typing as t
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import DeclarativeBase, Mapped, attribute_keyed_dict, mapped_column, relationship

from flask_webhooks.bindings import open_catalog
from flask_webhooks.checks import rows
from flask_webhooks.errors import CatalogError
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import recorded, subscribe

HERE = __name__


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Author(db.Model):  # type: ignore[name-defined]
    """Has something private."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))
    api_token: Mapped[str] = mapped_column(sa.String(30), default="never to be sent")


class Tag(db.Model):  # type: ignore[name-defined]
    """Of a post."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))


class Tagging(db.Model):  # type: ignore[name-defined]
    """Ties them together."""

    post_id: Mapped[int] = mapped_column(sa.ForeignKey("post.id"), primary_key=True)
    tag_id: Mapped[int] = mapped_column(sa.ForeignKey("tag.id"), primary_key=True)
    place: Mapped[str] = mapped_column(sa.String(30), default="top")
    tag: Mapped[Tag] = relationship()


class Post(db.Model):  # type: ignore[name-defined]
    """With attributes that hold several."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("author.id"), default=None)
    author: Mapped[Author | None] = relationship()
    taggings: Mapped[list[Tagging]] = relationship(cascade="all, delete-orphan", order_by="Tagging.tag_id")
    by_place: Mapped[dict[str, Tagging]] = relationship(
        collection_class=attribute_keyed_dict("place"), viewonly=True
    )
    tags: AssociationProxy[list[Tag]] = association_proxy("taggings", "tag")
    tag_ids: AssociationProxy[list[int]] = association_proxy("taggings", "tag_id")
    names: AssociationProxy[list[str]] = association_proxy("tags", "name")
    placed: AssociationProxy[dict[str, int]] = association_proxy("by_place", "tag_id")
    author_name: AssociationProxy[str | None] = association_proxy("author", "name")

    @property
    def generated(self) -> t.Iterator[str]:
        return (tag.name for tag in self.tags)

    @property
    def keys(self) -> t.Any:
        return {"a": 1}.keys()

    @property
    def rows(self) -> list[Tag]:
        return [each.tag for each in self.taggings]

    @property
    def grouped(self) -> t.Any:
        return {
            "first": {"rows": (each.tag for each in self.taggings)},
            "net": ipaddress.ip_network("10.0.0.0/8"),
        }

    @property
    def links(self) -> t.Any:
        return map(lambda each: each, self.taggings)

    def to_dict(self) -> dict[str, t.Any]:
        return {"id": self.id, "tags": "as the API has them"}

    @property
    def authors(self) -> list[Author | None]:
        return [self.author]


class TagSchema(ma.Schema):
    """Shows the name alone."""

    name = ma.fields.String()


class PostSchema(ma.Schema):
    """Shows little, under another name."""

    id = ma.fields.Integer()
    owner = ma.fields.String(data_key="belongsTo")


INCLUDES = "tags tag_ids names placed author_name generated keys rows grouped links authors".split()
CATALOG = f"""\
version: 1
defaults: {{owner: owner}}
channels:
  posts:
    model: {HERE}:Post
    schema: {HERE}:PostSchema
    events: [created, deleted]
    includes:
      {{{", ".join(f"{name}: {name}" for name in INCLUDES)}, shown: {{path: rows, schema: {HERE}:TagSchema}}}}
  tags: {{model: {HERE}:Tag, schema: {HERE}:TagSchema, owner: name, events: [created]}}
"""


@pytest.fixture
def blog(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with two tags."""
    with capturing(db, CATALOG, empty_database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        db.session.add_all([Tag(id=1, name="one"), Tag(id=2, name="two"), Author(id=1, name="Ada")])
        db.session.commit()
        yield state


def included(state: AppState, event: str) -> dict[str, t.Any]:
    """The includes of the last message of an event."""
    found = [message for message in recorded(state) if message.event == event]
    return t.cast("dict[str, t.Any]", json.loads(found[-1].extras or "{}"))


def test_whatever_holds_several_is_a_list(blog: AppState) -> None:
    subscribe(blog, NOWHERE, "posts.*", includes=[*(set(INCLUDES) - {"authors"}), "shown"])
    taggings = [Tagging(tag_id=1, place="top"), Tagging(tag_id=2, place="end")]
    db.session.add(post := Post(id=1, author_id=1, taggings=taggings))
    db.session.commit()

    tags = [{"name": "one"}, {"name": "two"}]
    links = [
        {"post_id": 1, "tag_id": 1, "place": "top"},
        {"post_id": 1, "tag_id": 2, "place": "end"},
    ]
    expected = {
        "tags": tags,
        "tag_ids": [1, 2],
        "names": ["one", "two"],
        "placed": [1, 2],
        "author_name": "Ada",
        "generated": ["one", "two"],
        "keys": ["a"],
        "rows": tags,
        "shown": tags,
        "grouped": {"first": {"rows": tags}, "net": "10.0.0.0/8"},
        "links": links,
    }
    assert included(blog, "posts.created") == expected
    assert not any(
        found.many for found in blog.bound["posts"].includes.values() if found.name == "author_name"
    )
    db.session.expire_all()
    db.session.delete(post)
    db.session.commit()

    assert {name: included(blog, "posts.deleted")[name] for name in ("tags", "names", "tag_ids")} == {
        name: expected[name] for name in ("tags", "names", "tag_ids")
    }


def test_what_looks_private_is_left_out_of_rows_that_a_property_returns(blog: AppState) -> None:
    subscribe(blog, NOWHERE, "posts.*", includes=["authors"])
    db.session.add(Post(id=1, author_id=1))
    db.session.commit()

    assert included(blog, "posts.created") == {"authors": [{"id": 1, "name": "Ada"}]}


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("id: author_id", '"id" is a field of PostSchema already'),
        ("belongsTo: author_name", '"belongsTo" is a field of PostSchema already'),
        ("name: author_name", '"name" is a field of TagSchema already'),
    ],
)
def test_a_name_of_a_field_is_refused(tmp_path: Path, include: str, said: str) -> None:
    """Of the channel's schema, and of that of any event."""
    (tmp_path / "blog.yaml").write_text(
        f"version: 1\nchannels:\n  posts:\n    model: {HERE}:Post\n    schema: {HERE}:PostSchema\n    owner: owner\n"
        f"    includes: {{{include}}}\n    events:\n      created:\n      deleted: {{schema: {HERE}:TagSchema}}\n"
    )

    with pytest.raises(CatalogError, match=said):
        open_catalog("blog.yaml", root=tmp_path)


def test_a_column_of_a_channel_without_a_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blog.yaml").write_text(
        f"version: 1\nchannels:\n  tags: {{model: {HERE}:Tag, owner: name, includes: {{name: id}}, "
        "events: [created]}\n"
    )

    with pytest.raises(CatalogError, match=r'"name" is a field of Tag already.*name_included: id'):
        open_catalog("blog.yaml", root=tmp_path)


class HookedSchema(PostSchema):
    """Its hook adds a key that is not declared."""

    @ma.post_dump
    def add(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        return {**data, "tags": "as the API has them"}


@pytest.mark.parametrize("made", [f"schema: {HERE}:HookedSchema", "data: to_dict"])
def test_a_key_that_only_a_hook_or_a_method_makes_is_named(
    empty_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, made: str
) -> None:
    catalog = (
        f"version: 1\nchannels:\n  posts: {{model: {HERE}:Post, {made}, owner: owner, includes: [tags, names], "
        "events: [created]}\n"
    )
    with capturing(db, catalog, empty_database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        subscribe(state, NOWHERE, "posts.*", includes=["names"])
        db.session.add(Post(id=1))
        db.session.commit()
        assert caplog.records == []
        [row] = rows.check_rows(state, list(state.bound.values()))
        assert any("'tags', which the include of that name replaces" in each for each in row.warnings)
        subscribe(state, NOWHERE, "posts.*", includes=["tags"])
        db.session.add(Post(id=2))
        db.session.commit()

        [said] = [each for each in caplog.records if each.levelname == "WARNING"]
        assert said.getMessage().startswith(
            "include.hides: the data of posts.created of Post 2 has 'tags' already"
        )


class LogSchema(ma.Schema):
    """Has a field that is called like the include that is built in."""

    changes = ma.fields.String(attribute="name")


def test_a_field_called_changes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blog.yaml").write_text(
        f"version: 1\nchannels:\n  tags: {{model: {HERE}:Tag, schema: {HERE}:LogSchema, owner: name, "
        "events: [created]}\n"
    )

    with pytest.raises(CatalogError, match='LogSchema has a field "changes"'):
        open_catalog("blog.yaml", root=tmp_path)
