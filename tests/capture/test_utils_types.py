"""Columns with types of sqlalchemy-utils and no schema: commits succeed, and values are those of the columns."""

from __future__ import annotations

import enum
import json
import typing as t
from pathlib import Path

import jsonschema
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks.reference import json_schema
from tests.capture.conftest import NOWHERE, capturing, last_changes, recorded_data
from tests.stage import subscribe

utils = pytest.importorskip("sqlalchemy_utils")
pytest.importorskip("colour")
pytest.importorskip("phonenumbers")


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Size(enum.Enum):
    """A choice by number."""

    SMALL = 1
    LARGE = 2


Size.SMALL.label, Size.LARGE.label = "Small", "Large"  # type: ignore[attr-defined]


class Shop(db.Model):  # type: ignore[name-defined]
    """One column of each."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20), default="1")
    kind: Mapped[t.Any] = mapped_column(utils.ChoiceType([("a", "A"), ("b", "B")]), nullable=True)
    size: Mapped[t.Any] = mapped_column(utils.ChoiceType(Size, impl=sa.Integer()), nullable=True)
    phone: Mapped[t.Any] = mapped_column(utils.PhoneNumberType(), nullable=True)
    color: Mapped[t.Any] = mapped_column(utils.ColorType(), nullable=True)
    key: Mapped[t.Any] = mapped_column(utils.UUIDType(), nullable=True)
    address: Mapped[t.Any] = mapped_column(utils.IPAddressType(), nullable=True)
    email: Mapped[t.Any] = mapped_column(utils.EmailType(), nullable=True)
    words: Mapped[t.Any] = mapped_column(utils.ScalarListType(), nullable=True)
    facts: Mapped[t.Any] = mapped_column(utils.JSONType(), nullable=True)


WRITTEN = {
    "kind": ("a", "a"),
    "size": (2, 2),
    "phone": ("+491701234567", "+491701234567"),
    "color": ("red", "#f00"),
    "key": ("7b0a2c1e4f3d4c8a9a512f4f1a6d9c03", "7b0a2c1e-4f3d-4c8a-9a51-2f4f1a6d9c03"),
    "address": ("10.0.0.1", "10.0.0.1"),
    "email": ("Ada@example.com", "ada@example.com"),
    "words": (["x", "y"], ["x", "y"]),
    "facts": ({"a": [1]}, {"a": [1]}),
}


def test_values_are_as_their_columns_have_them(empty_database_url: str, tmp_path: Path) -> None:
    catalog = f"version: 1\nchannels:\n  shops: {{model: {__name__}:Shop, owner: owner, events: [created, updated]}}\n"
    with capturing(db, catalog, empty_database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        db.session.add(shop := Shop(id=1))
        db.session.commit()
        for name, (value, _) in WRITTEN.items():
            setattr(shop, name, value)
        db.session.commit()

        [data] = recorded_data(state, "shops.updated")
        expected = {name: text for name, (_, text) in WRITTEN.items()}
        assert data == {"id": 1, "owner": "1", **expected}
        assert last_changes(state, "shops.updated") == {name: [None, text] for name, text in expected.items()}
        event = state.catalog.events["shops.updated"]
        jsonschema.Draft202012Validator(json_schema.data_schema(state.bound["shops"], event)).validate(
            json.loads(json.dumps(data))
        )
        assert not state.bound["shops"].doubts
