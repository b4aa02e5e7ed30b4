"""Fixtures for the management API: a client that sends the headers of a customer."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from flask_webhooks.state import state_of
from tests.host import db, make_host

URL = "http://127.0.0.1:5999/hooks"


def quick(examples: int, **more: t.Any) -> settings:
    """So many examples, the same in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


class Customer:
    """Calls the API as one owner; `last` is the last response."""

    def __init__(self, client: FlaskClient, owner: str = "1", rights: str = "") -> None:
        self.client, self.headers = client, {"X-Owner": owner}
        if rights:
            self.headers["X-Rights"] = rights
        self.last: t.Any = None

    def __call__(
        self, method: str, path: str, body: t.Any = None, *, expect: int | None = None, **headers: str
    ) -> t.Any:
        """Call, and return the JSON; `if_match="…"` becomes the header `If-Match`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.last = self.client.open(
            f"/webhooks/api{path}", method=method, json=body, headers={**self.headers, **named}
        )
        if expect is not None:
            assert self.last.status_code == expect, self.last.get_data(as_text=True)
        return self.last.get_json(silent=True)

    def subscribe(self, *events: str, **values: t.Any) -> t.Any:
        """Make a subscription."""
        body = {"url": URL, "events": list(events) or ["invoices.*"], **values}
        return self("POST", "/subscriptions", body, expect=201)


@pytest.fixture
def call(app: Flask) -> Customer:
    """The owner 1."""
    return Customer(app.test_client())


@pytest.fixture
def other(app: Flask) -> Customer:
    """The owner 2."""
    return Customer(app.test_client(), "2")


@contextlib.contextmanager
def lasting(folder: Path, **config: t.Any) -> t.Iterator[Flask]:
    """A host app that many tests share, because they do not affect each other; on SQLite by default."""
    url = f"sqlite:///{folder / 'test.sqlite'}"
    limits = "SUBSCRIPTION_LIMIT", "CREATION_LIMIT", "MANUAL_RATE", "MANUAL_UNFINISHED"
    many = {f"WEBHOOKS_{name}": 100_000 for name in limits}
    app = make_host(url, folder, **{**many, **config})
    yield app
    state_of(app).transport.close()
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    """One app for a whole module: for tests that write no row, or rows of an owner of their own."""
    with lasting(tmp_path_factory.mktemp("shared")) as app:
        yield app


@pytest.fixture
def shared(shared_app: Flask) -> Customer:
    """The owner 1 of that app."""
    return Customer(shared_app.test_client())


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    """An app that allows no internal address, and never asks a name server."""
    config = {"WEBHOOKS_ALLOWED_NETWORKS": [], "WEBHOOKS_ALLOW_HTTP": False}
    with lasting(tmp_path_factory.mktemp("strict"), **config) as app:
        state_of(app).transport._names._resolver = lambda *_, **__: []
        yield app


@pytest.fixture(scope="module")
def document(shared_app: Flask) -> t.Any:
    """The OpenAPI document."""
    return Customer(shared_app.test_client())("GET", "/openapi.json", expect=200)
