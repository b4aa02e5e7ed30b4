"""A host with versioned models (SQLAlchemy-Continuum) and types of sqlalchemy-utils."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import sqlalchemy as sa
import sqlalchemy_continuum
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import configure_mappers
from sqlalchemy_utils import ChoiceType, EmailType, StringEncryptedType

from flask_webhooks import Webhooks
from flask_webhooks.state import state_of
from tests.host import make_tables

CATALOG = """
version: 1
channels:
  orders:
    title: Orders
    label: Order
    model: tests.neighbours.archive:Order
    owner: owner
    exclude: [pin]
    events: [created, updated, deleted]
"""
db = SQLAlchemy()
sqlalchemy_continuum.make_versioned(user_cls=None)


class Order(db.Model):  # type: ignore[name-defined]
    """With a version for each change."""

    __tablename__ = "order"
    __versioned__: t.ClassVar[dict[str, t.Any]] = {}
    id = sa.Column(sa.Integer, primary_key=True)
    owner = sa.Column(sa.String, nullable=False)
    state = sa.Column(ChoiceType([("new", "New"), ("paid", "Paid")]))
    mail = sa.Column(EmailType)
    pin = sa.Column(StringEncryptedType(sa.String, "key"))


configure_mappers()


@contextlib.contextmanager
def opened(folder: Path) -> t.Iterator[Flask]:
    """The host on an empty database."""
    catalog = folder / "webhooks.yaml"
    catalog.write_text(CATALOG)
    app = Flask(__name__, instance_path=str(folder / "instance"))
    app.config.update(
        SECRET_KEY="test",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder / 'test.sqlite'}",
        WEBHOOKS_CATALOG=str(catalog),
        WEBHOOKS_ALLOW_HTTP=True,
        WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"],
        WEBHOOKS_REDIS_URL="embedded",
        WEBHOOKS_ON_ERROR="raise",
    )
    db.init_app(app)
    Webhooks(app, db)
    make_tables(app, db)
    try:
        yield app
    finally:
        state_of(app).transport.close()
        with app.app_context():
            db.session.remove()
            for engine in db.engines.values():
                engine.dispose()
