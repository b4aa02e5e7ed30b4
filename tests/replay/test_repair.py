"""A broken message's row is found by its key; one that fails again does not keep others from being repaired."""

from __future__ import annotations

import enum
import typing as t
from datetime import date
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks.replay import repair
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
faults: list[str] = []
BYTES = sa.LargeBinary(9).with_variant(mysql.VARBINARY(9), "mysql", "mariadb")


class Level(enum.Enum):
    """A part of a key."""

    LOW = "l"
    HIGH = "h"


class Stay(db.Model):  # type: ignore[name-defined]
    """What its key is as text is not what its columns take."""

    level: Mapped[Level] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    is_long: Mapped[bool] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(9), default="1")


class Seal(db.Model):  # type: ignore[name-defined]
    """Nobody makes its key of a text."""

    id: Mapped[bytes] = mapped_column(BYTES, primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(9), default="1")


class FailingSchema(ma.Schema):
    """Fails while there are faults."""

    owner = ma.fields.Function(lambda row: f"{row.owner}{1 / (not faults)}")


CATALOG = f"""\
version: 1
defaults: {{owner: owner}}
channels:
  stays: {{model: {__name__}:Stay, schema: {__name__}:FailingSchema, events: [created]}}
  seals: {{model: {__name__}:Seal, schema: {__name__}:FailingSchema, events: [created]}}
"""


@pytest.fixture
def broken(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """A row of each, whose message was broken; the fault is mended."""
    with capturing(db, CATALOG, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*")
        faults.append("the rate is missing")
        db.session.add_all([Stay(level=Level.HIGH, day=date(2026, 1, 2), is_long=False), Seal(id=b"a\xff")])
        db.session.commit()
        faults.clear()
        yield state


def repaired(state: AppState, event: str) -> repair.Repair:
    [message] = [each for each in recorded(state) if each.event == event]
    found = repair.repair_message(state, message.id)
    assert found is not None
    return found


def test_a_row_is_found_by_a_key_of_other_types(broken: AppState) -> None:
    assert repaired(broken, "stays.created").error is None


def test_a_key_that_no_text_holds_is_reported_and_the_message_stays_broken(broken: AppState) -> None:
    found = repaired(broken, "seals.created")

    assert found.error is not None
    assert "Give the message up." in found.error
    assert repaired(broken, "seals.created").error == found.error
