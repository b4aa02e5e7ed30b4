"""The four systems that need only a catalogue and models: one app each, on a real database."""

from __future__ import annotations

import importlib
import json
import sys
import typing as t
from datetime import datetime
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from standardwebhooks import Webhook

from flask_webhooks import Webhooks
from flask_webhooks.state import state_of
from flask_webhooks.worker import Coordinator, Report
from tests.host import load_principal, make_transactional
from tests.receivers import EVENT_HEADERS, Received

HERE = Path(__file__).parent
CATALOGS = HERE.parents[1] / "catalog"


class System:
    """One app with one catalogue, and a customer of it."""

    def __init__(self, app: Flask, db: SQLAlchemy, webhooks: Webhooks) -> None:
        self.app, self.db, self.webhooks, self.state = app, db, webhooks, state_of(app)
        self.client = app.test_client()

    def call(
        self, method: str, path: str, body: t.Any = None, *, owner: str = "1", expect: int = 200
    ) -> t.Any:
        """Call the management API."""
        answer = self.client.open(
            f"/webhooks/api{path}", method=method, json=body, headers={"X-Owner": owner}
        )
        assert answer.status_code == expect, answer.get_data(as_text=True)
        return answer.get_json(silent=True)

    def subscribe(self, url: str, *events: t.Any, owner: str = "1", **values: t.Any) -> t.Any:
        """Make a subscription through the API; it has the secret."""
        body = {"url": url, "events": list(events), **values}
        return self.call("POST", "/subscriptions", body, owner=owner, expect=201)

    def save(self, *rows: t.Any) -> None:
        """Add rows and commit."""
        self.db.session.add_all(rows)
        self.db.session.commit()

    def deliver(self, now: datetime | None = None) -> Report:
        """Work through what is due, or would be at another time."""
        clock = {} if now is None else {"clock": lambda: now}
        return Coordinator(self.state, holder="test", **clock).run()  # type: ignore[arg-type]


@pytest.fixture
def make_system(empty_database_url: str, tmp_path: Path) -> t.Iterator[t.Callable[..., System]]:
    """Makes the system of a catalogue in `catalog/`, inside its context; takes settings."""
    sys.path.insert(0, str(HERE))
    made: list[tuple[System, t.Any]] = []

    def make(name: str, **config: t.Any) -> System:
        # The banking portal has no models that matter: its events come from jobs.
        db = SQLAlchemy() if name == "banking" else importlib.import_module(f"{name}.models").db
        app = Flask(name, instance_path=str(tmp_path / "instance"))
        app.config.update(
            SECRET_KEY="test",
            SQLALCHEMY_DATABASE_URI=empty_database_url,
            WEBHOOKS_CATALOG=str(CATALOGS / f"{name}.yaml"),
            WEBHOOKS_ALLOW_HTTP=True,
            WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"],
        )
        app.config.update(config)
        db.init_app(app)
        webhooks = Webhooks()
        webhooks.principal_loader(load_principal)
        webhooks.init_app(app, db)
        context = app.app_context()
        context.push()
        if db.engine.dialect.name == "sqlite":
            make_transactional(db.engine)
        db.create_all()
        made.append((System(app, db, webhooks), context))
        return made[-1][0]

    yield make
    for system, context in made:
        system.state.transport.close()
        system.db.session.remove()
        system.db.engine.dispose()
        context.pop()
    sys.path.remove(str(HERE))


def opened(request: Received, secret: str) -> dict[str, t.Any]:
    """Check all of a request but its body, the signature by the official library; return the body."""
    assert (request.method, request.target) == ("POST", "/hook")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Flask-Webhooks/")
    assert {name for name in request.headers if name.startswith("webhook-")} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        *EVENT_HEADERS,
    }
    assert not {"cookie", "authorization"} & request.headers.keys()
    Webhook(secret).verify(request.body, request.headers)
    return t.cast("dict[str, t.Any]", json.loads(request.body))
