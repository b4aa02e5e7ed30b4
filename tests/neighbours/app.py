"""A host app with another extension, and the steps that every such test runs in it."""

from __future__ import annotations

import contextlib
import re
import typing as t
from pathlib import Path

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from flask_webhooks import Webhooks
from flask_webhooks.console.rendering import POLICY
from flask_webhooks.receiving import Received as Delivered
from flask_webhooks.receiving import verify
from flask_webhooks.state import state_of
from tests.conftest import release
from tests.console.conftest import Visitor, load_principal
from tests.host import Invoice, db, make_host
from tests.receivers import EVENT_HEADERS, Received, Receiver, ok
from tests.worker.answers import run

API = "/webhooks/api/subscriptions"
HEADERS = {"X-Owner": "1", "Authorization": "Bearer t"}
CREDENTIAL = "open-sesame"
"""The value of a custom header."""
Add = t.Callable[[Flask], t.Any]
INLINE = re.compile(r"<script(?![^>]* src=)|<style|<[^>]+ (style|on[a-z]+)=")
"""What no Content-Security-Policy without `unsafe-inline` lets run."""
SENT = {
    *EVENT_HEADERS, "accept-encoding", "content-length", "content-type", "host", "user-agent", "webhook-id",
    "webhook-signature", "webhook-timestamp", "x-partner",
}  # fmt: skip
"""All headers of a delivery to `live`'s receiver."""


class _After(Webhooks):
    """Ours, initialised after another extension."""

    def __init__(self, before: Add) -> None:
        super().__init__()
        self._before = before

    def init_app(self, app: Flask, db: SQLAlchemy) -> None:
        self._before(app)
        super().init_app(app, db)


@contextlib.contextmanager
def beside(folder: Path, add: Add, *, is_first: bool = True, **config: t.Any) -> t.Iterator[Flask]:
    """A host app with another extension.

    :param add: initialises it.
    :param is_first: before ours.
    """
    hooks = _After(add) if is_first else Webhooks()
    hooks.principal_loader(load_principal)
    app = make_host(f"sqlite:///{folder / 'test.sqlite'}", folder, hooks, **config)
    if not is_first:
        add(app)
    try:
        yield app
    finally:
        release(app)


def live(
    app: Flask,
    commit: t.Callable[[], t.Any] | None = None,
    *,
    base: str = "http://localhost",
    policy: str = POLICY,
    adds_scripts: bool = False,
) -> str:
    """Manage a webhook by the API, look at the console, commit, and deliver; return the secret.

    :param commit: adds one invoice of the owner 1, if not as any view would.
    :param base: under which the app is reached.
    :param policy: the Content-Security-Policy of the console's pages.
    :param adds_scripts: whether somebody else puts some into every page.
    """
    client = app.test_client()
    options: dict[str, t.Any] = {"headers": HEADERS, "base_url": base}
    with Receiver(ok()) as receiver:
        body = {"url": receiver.url(), "events": ["invoices.*"], "headers": {"X-Partner": CREDENTIAL}}
        made = client.post(API, json=body, **options)
        assert made.status_code == 201, made.text
        key, secret = made.json["id"], made.json["secret"]
        changed = client.patch(f"{API}/{key}", json={"description": "Mine"}, **options)
        assert changed.status_code == 200, changed.text
        assert [each["description"] for each in client.get(API, **options).json["items"]] == ["Mine"]
        missing = client.get("/webhooks/api/nowhere", **options)
        assert (missing.status_code, missing.mimetype) == (404, "application/problem+json")
        _look(app, key, base, policy, adds_scripts)
        with app.app_context():
            (commit or _commit)()
            db.session.remove()
            assert run(state_of(app)).delivered == 1
        [request] = receiver.requests
    assert verified(request, secret).event == "invoices.created"
    assert request.headers["x-partner"] == CREDENTIAL
    assert set(request.headers) == SENT  # and none that another extension has added
    return str(secret)


def _look(app: Flask, key: str, base: str, policy: str, adds_scripts: bool) -> None:
    visitor = Visitor(app)
    for path in ("/", f"/webhooks/{key}", "/webhooks/new", "/deliveries"):
        page = visitor.get(path, base_url=base)
        assert page.status_code == 200, (path, page.text)
        assert page.headers.getlist("Content-Security-Policy") == [policy]
        assert adds_scripts or not INLINE.search(page.text)
        assert "Mine" in page.text or path in ("/webhooks/new", "/deliveries")
        links = re.findall(r'(?:src|href)="(/webhooks/console/static/[^"]+)"', page.text)
        assert links
        for link in links:
            with visitor.client.get(link, base_url=base) as file:
                assert file.status_code == 200


def _commit() -> None:
    db.session.add(Invoice(owner="1", number="A-1"))
    db.session.commit()


def verified(request: Received, secret: str) -> Delivered:
    """Return the body of a delivery as a receiver with our helper gets it."""
    builder = EnvironBuilder(method="POST", headers=list(request.headers.items()), data=request.body)
    return verify(Request(builder.get_environ()), secret)
