"""A request of API or console holds one pooled connection at most: with two, requests could wait for each other."""

from __future__ import annotations

import json
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask_babel import Babel

from flask_webhooks import Principal, Webhooks, signals
from flask_webhooks.state import AppState, state_of
from tests import host
from tests.console.conftest import Visitor, places, write_log
from tests.host import Client, Invoice, Note, db
from tests.receivers import Receiver, Talk, response
from tests.stage import subscribe

from .conftest import Customer
from .test_rights import BODIES, filled, possessions, routes

ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
BODIES_OF: dict[str, t.Any] = {
    **BODIES,
    "rotate_secret": {},
    "replay_subscription": {"mode": "failed"},
    "change_subscription": {"description": "changed"},
}


class AskingSchema(host.InvoiceSchema):
    """A schema of the host that queries the host's session."""

    clients = ma.fields.Method("count")

    def count(self, row: Invoice) -> int:
        return db.session.scalar(sa.select(sa.func.count()).select_from(Client)) or 0


def load_principal() -> Principal | None:
    """Load the caller from the database and leave the transaction open, as hosts do."""
    db.session.scalars(sa.select(Note)).all()
    owner = request.headers.get("X-Owner")
    if owner is None:
        return None
    return Principal(owner, {"read", "write", "secrets"}, operator="X-Operator" in request.headers)


def make_narrow(
    make_app: t.Callable[..., Flask], pool: t.Mapping[str, t.Any] = ONE, **config: t.Any
) -> Flask:
    """Make an app with such a pool, whose own code needs the database wherever it is called."""
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    app = make_app(webhooks=hooks, SQLALCHEMY_ENGINE_OPTIONS=dict(pool), **config)

    def language() -> str:
        db.session.scalars(sa.select(Note.id)).all()
        return "de"

    Babel(app, locale_selector=language)

    @app.context_processor
    def unread() -> dict[str, int]:
        return {"unread": len(db.session.scalars(sa.select(Note)).all())}

    @app.url_defaults
    def ask(endpoint: str, values: dict[str, t.Any]) -> None:
        db.session.scalars(sa.select(Note.id)).all()

    @app.after_request
    def ask_afterwards(response: t.Any) -> t.Any:
        db.session.scalars(sa.select(Note.id)).all()
        return response

    return app


@pytest.fixture
def narrow(make_app: t.Callable[..., Flask], tmp_path: Path) -> Flask:
    """An app with one connection for all."""
    text = host.CATALOG.read_text().replace("tests.host:InvoiceSchema", f"{__name__}:AskingSchema")
    catalog = tmp_path / "asking.yaml"
    catalog.write_text(text)
    return make_narrow(make_app, WEBHOOKS_CATALOG=str(catalog))


@pytest.fixture
def narrow_state(narrow: Flask) -> AppState:
    return state_of(narrow)


def test_every_route_of_the_api_does_with_one(narrow: Flask, narrow_state: AppState) -> None:
    call = Customer(narrow.test_client())
    mine = possessions(narrow_state, call)

    for method, path, operation in routes(narrow):
        if method == "DELETE" and (operation is None or operation.name == "delete_subscription"):
            continue
        body = BODIES_OF.get(operation.name, {}) if operation and operation.writes else None
        call(method, filled(path, mine), body, idempotency_key=f"{method} {path}")
        assert call.last.status_code < 500, (method, path, call.last.data)
    call("DELETE", f"/subscriptions/{mine['subscription_id']}", expect=204)


@pytest.mark.parametrize(("operator", "partial"), [(False, False), (True, True)], ids=["pages", "parts"])
def test_every_page_of_the_console_does_with_one(
    narrow: Flask, narrow_state: AppState, operator: bool, partial: bool
) -> None:
    log = write_log(narrow_state)
    visitor = Visitor(narrow, operator=operator)
    headers = {"HX-Request": "true"} if partial else {}
    form = {"url": "http://127.0.0.1:5999/", "event": "invoices.created", "environment": "staging"}

    for method, path in sorted(places(narrow_state, log), key=lambda place: place[1].endswith("/remove")):
        if method == "GET":
            answer = visitor.get(path, headers=headers)
        else:
            answer = visitor.post(path, {**form, "preview_event": "invoices.created"}, **headers)
        assert answer.status_code < 500, (method, path)
    assert visitor.get("/no/such/page").status_code == 404
    assert visitor.get("/webhooks/00000000-0000-7000-8000-000000000000").status_code == 404


def test_a_test_of_a_record_does_with_one(narrow: Flask, inbox: Receiver) -> None:
    """The schema queries the host's session, whose connection is the only one."""
    with narrow.app_context():
        db.session.add(Invoice(id=7, owner="1", number="seven"))
        db.session.commit()
    call = Customer(narrow.test_client())
    made = call("POST", "/subscriptions", {"url": inbox.url(), "events": ["invoices.*"]}, expect=201)

    path = f"/subscriptions/{made['id']}/test"
    call("POST", path, {"event": "invoices.created", "entity_id": "7"}, expect=200)

    assert json.loads(inbox.requests[0].body)["data"]["clients"] == 0


def test_no_connection_is_held_while_a_test_is_under_way(narrow: Flask, narrow_state: AppState) -> None:
    held: list[int] = []
    pool: t.Any = narrow_state.engine.pool

    def look(talk: Talk) -> None:
        talk.read_request()
        held.append(pool.checkedout())
        talk.send(response())

    with Receiver(look) as receiver:
        call = Customer(narrow.test_client())
        made = call("POST", "/subscriptions", {"url": receiver.url(), "events": ["*"]}, expect=201)
        call("POST", f"/subscriptions/{made['id']}/test", {}, expect=200, idempotency_key="k")
        Visitor(narrow).post(f"/webhooks/{made['id']}/test")

    assert held == [0, 0]


def test_receivers_of_signals_find_a_connection(narrow: Flask) -> None:
    seen: list[t.Any] = []

    def ask(sender: t.Any, **facts: t.Any) -> None:
        seen.append((facts["action"], len(db.session.scalars(sa.select(Note)).all())))

    call = Customer(narrow.test_client())
    with signals.subscription_changed.connected_to(ask):
        made = call("POST", "/subscriptions", {"url": "http://127.0.0.1:5999/", "events": ["*"]}, expect=201)
        call("DELETE", f"/subscriptions/{made['id']}", expect=204)
        Visitor(narrow).post("/webhooks/new", {"url": "http://127.0.0.1:5999/", "event": "invoices.created"})

    assert [action for action, _ in seen][:2] == ["created", "removed"]


def test_what_the_host_wrote_is_kept(make_app: t.Callable[..., Flask]) -> None:
    """A loader that updates the user's last visit without a commit: no later code of the request commits either."""
    hooks = Webhooks()
    app = make_app(webhooks=hooks, SQLALCHEMY_ENGINE_OPTIONS=ONE)

    @hooks.principal_loader
    def load() -> Principal:
        db.session.add(Note(text=request.path))
        return Principal("1", {"read", "write"})

    client = app.test_client()
    for path in ("/webhooks/api/subscriptions", "/webhooks/console/"):
        assert client.get(path).status_code == 200

    with app.app_context():
        assert sorted(db.session.scalars(sa.select(Note.text))) == [
            "/webhooks/api/subscriptions",
            "/webhooks/console/",
        ]


def test_a_session_of_the_host_that_has_failed_is_let_go_of(make_app: t.Callable[..., Flask]) -> None:
    hooks = Webhooks()
    app = make_app(webhooks=hooks, SQLALCHEMY_ENGINE_OPTIONS=ONE)

    @hooks.principal_loader
    def load() -> Principal:
        db.session.add_all([Note(id=1, text="one"), Note(id=1, text="other")])
        try:
            db.session.flush()
        except sa.exc.IntegrityError:
            pass
        return Principal("1", {"read"})

    for _ in range(2):
        assert app.test_client().get("/webhooks/api/subscriptions").status_code == 200


def test_twenty_threads_do_with_the_pool_as_it_is(make_app: t.Callable[..., Flask]) -> None:
    app = make_narrow(make_app, {"pool_size": 3, "max_overflow": 0, "pool_timeout": 20})
    state = state_of(app)
    subscribe(state, "http://127.0.0.1:5999/", "*")
    together = threading.Barrier(20)

    def ask(number: int) -> int:
        together.wait(30)
        path = "/webhooks/console/" if number % 2 else "/webhooks/api/subscriptions"
        return app.test_client().get(path, headers={"X-Owner": "1"}).status_code

    began = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(ask, range(60))) == {200}
    assert time.monotonic() - began < 20
