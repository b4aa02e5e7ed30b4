"""Fixtures for capture: subscriptions, the statements sent to the database, and apps with difficult models."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_webhooks import Webhooks
from flask_webhooks.models import Base, Message
from flask_webhooks.state import AppState, state_of
from tests.capture import valued_models
from tests.conftest import DATABASES, release
from tests.host import Invoice, db, make_host, make_tables
from tests.stage import recorded, subscribe

NOWHERE = "http://127.0.0.1:9/"
SERVERS = [name for name in DATABASES if name != "sqlite"] or ["postgresql"]
"""Databases with more than one writer at a time, and two-phase commits."""


class Doorless(Webhooks):
    """Without API and console: to compile their routes takes longer than most of these tests."""

    def _add_doors(self, *_: t.Any) -> None:
        pass


@pytest.fixture
def make_app(database_url: str, tmp_path: Path) -> t.Iterator[t.Callable[..., Flask]]:
    """Makes host apps that capture and do nothing else."""
    apps: list[Flask] = []

    def make(**config: t.Any) -> Flask:
        app = make_host(database_url, tmp_path, Doorless(), **config)
        apps.append(app)
        return app

    yield make
    for app in apps:
        release(app)


@pytest.fixture
def listening(state: AppState) -> None:
    """Somebody listens to all about invoices, and wants to know what changed."""
    subscribe(state, NOWHERE, "invoices.*", "clients.*", "reports.*", includes=["changes"])


@contextlib.contextmanager
def capturing(
    db: SQLAlchemy, catalog: str | Path, database_url: str, folder: Path, **config: t.Any
) -> t.Iterator[AppState]:
    """Yield the state of an app of models of one's own that captures and does nothing else, inside its context.

    :param catalog: the file, or what stands in it.
    :param folder: its instance folder is in there.
    :param config: further settings, such as `WEBHOOKS_ON_ERROR`.
    """
    if isinstance(catalog, str):
        text, catalog = catalog, folder / "webhooks.yaml"
        catalog.write_text(text)
    app = Flask(__name__, instance_path=str(folder / "instance"))
    app.config.update(SECRET_KEY="test", SQLALCHEMY_DATABASE_URI=database_url, WEBHOOKS_CATALOG=str(catalog))
    app.config.update(config)
    db.init_app(app)
    Doorless(app, db)
    make_tables(app, db)
    with app.app_context():
        try:
            yield state_of(app)
        finally:
            db.session.remove()
            for engine in db.engines.values():
                engine.dispose()
            state_of(app).transport.close()


@pytest.fixture
def valued(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """The app with difficult models, inside its context, and a subscription to all events."""
    with capturing(valued_models.db, valued_models.CATALOG, database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        yield state


@contextlib.contextmanager
def counting(engine: sa.Engine) -> t.Iterator[list[str]]:
    """Yield the statements that are sent meanwhile; an executemany is one."""
    sent: list[str] = []

    def note(_: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


RECORDING = ["SELECT webhook_listeners", "INSERT webhook_messages", "INSERT webhook_deliveries"]
"""All that we may do in one commit with listeners, however many objects changed: three statements, or two."""


def kinds(sent: t.Iterable[str]) -> list[str]:
    """Verb and table of statements, without those that only begin or end something.

    On PostgreSQL both INSERTs are parts of one statement: each is named.
    """
    found = []
    for statement in sent:
        verb, *words = statement.replace('"', "").replace("`", "").split()
        if verb == "WITH":
            found += [f"INSERT {words[at + 2]}" for at, word in enumerate(words) if word == "(INSERT"]
            continue
        table = next((word for word in words if word.split(".")[0] in TABLES), "")
        if table:
            found.append(f"{verb} {table.split('.')[0]}")
    return found


TABLES = {*valued_models.Base.metadata.tables, *db.metadata.tables, *Base.metadata.tables}


def events(state: AppState) -> list[str]:
    """Names of all messages, in the order they were recorded."""
    return [message.event for message in recorded(state)]


def recorded_data(state: AppState, event: str) -> list[dict[str, t.Any]]:
    """The data of all messages of an event."""
    return [json.loads(message.data) for message in recorded(state) if message.event == event]


def changes(message: Message) -> dict[str, t.Any]:
    """What an update changed: column to [old, new]."""
    extras = json.loads(message.extras or "{}")
    return {name: [pair["from"], pair["to"]] for name, pair in extras.get("changes", {}).items()}


def last_changes(state: AppState, event: str) -> dict[str, t.Any]:
    """What the last message of an event says was changed."""
    return changes([message for message in recorded(state) if message.event == event][-1])


def quietly(state: AppState, *objects: object) -> None:
    """Commit objects in another transaction, without events."""
    with Session(state.engine, info={"webhooks": False}) as session:
        session.add_all(objects)
        session.commit()


def invoices_left(state: AppState) -> list[int]:
    """The keys of the invoices that are in the table."""
    with Session(state.engine) as session:
        return list(session.scalars(sa.select(Invoice.id).order_by(Invoice.id)))
