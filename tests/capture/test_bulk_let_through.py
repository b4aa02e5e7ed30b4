"""Rows of a generator in a bulk statement that capture examines and then leaves to SQLAlchemy: each is inserted."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks import capture
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import subscribe


class Base(DeclarativeBase):
    """Of the models of this module alone."""


db = SQLAlchemy(model_class=Base)


class Parcel(db.Model):  # type: ignore[name-defined, misc, unused-ignore]
    """What the statements insert."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(20))


class Crate(db.Model):  # type: ignore[name-defined, misc, unused-ignore]
    """Its channel captures bulk statements: so capture examines each, whatever the channel of parcels says."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20))


CATALOG = """
version: 1
channels:
  parcels:
    model: {module}:Parcel
    owner: owner
    fields: [id, name]
    events: {events}
    bulk: {bulk}
  crates:
    model: {module}:Crate
    owner: owner
    fields: [id]
    events: [created, updated, deleted]
"""
ALL = "[created, updated, deleted]"
CHANNELS = {
    "captured": (ALL, "capture"),
    "warned of": (ALL, "warn"),
    "ignored": (ALL, "ignore"),
    "without creations": ("[deleted]", "capture"),
}


@pytest.mark.parametrize("is_muted", [True, False], ids=["muted", "not muted"])
@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "unheard"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_rows_of_a_generator_are_inserted_by_a_statement_that_is_let_through(
    database_url: str, tmp_path: Path, channel: str, is_heard: bool, is_muted: bool
) -> None:
    events, bulk = CHANNELS[channel]
    text = CATALOG.format(module=__name__, events=events, bulk=bulk)
    with capturing(db, text, database_url, tmp_path) as state:
        if is_heard:
            subscribe(state, NOWHERE, "*")
        muted: t.Any = capture.muted(db.session()) if is_muted else contextlib.nullcontext()
        with muted:
            rows: t.Any = ({"owner": "1", "name": name} for name in "ab")
            db.session.execute(sa.insert(Parcel), rows)
            db.session.commit()
        assert sorted(db.session.scalars(sa.select(Parcel.name))) == ["a", "b"]
