"""Twenty requests at once: what an owner may not hold together is not held together, and the limit holds.

Every request that has looked at the owner's other subscriptions waits for the other nineteen to have looked as well.
With the lock nobody else can look meanwhile, so the first goes on alone when it has waited long enough. Where the lock
is left out (each request locks a row that nobody else does) all twenty look before any of them writes: the same race,
lost. Both seams are SQLAlchemy's own events.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.ids import uuid7
from flask_webhooks.models import Listener, Subscription
from flask_webhooks.state import state_of

pytestmark = pytest.mark.long

MANY = 20
CATALOG = """\
version: 1
channels:
  ledgers: {events: [closed], exclusive: owner}
  invoices: {events: [created]}
"""
LOOKS, LOCKS = "SELECT DISTINCT webhook_listeners.event", "INSERT INTO webhook_owners"
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def make_busy(make_app: t.Callable[..., Flask], tmp_path: Path) -> t.Callable[..., Flask]:
    """Makes apps with a connection for each request, where ledgers are held by an owner who holds nothing else."""
    (tmp_path / "both.yaml").write_text(CATALOG)
    pool = {"pool_size": MANY + 5, "pool_timeout": 60}

    def make(**config: t.Any) -> Flask:
        catalog = str(tmp_path / "both.yaml")
        return make_app(WEBHOOKS_CATALOG=catalog, SQLALCHEMY_ENGINE_OPTIONS=pool, **config)

    return make


@pytest.fixture
def busy(make_busy: t.Callable[..., Flask]) -> Flask:
    """One of them."""
    return make_busy()


@contextlib.contextmanager
def meeting(app: Flask, *, locked: bool) -> t.Iterator[None]:
    """Let all requests look before any writes, if they can."""
    engine, together = state_of(app).engine, threading.Barrier(MANY)

    def wait(*args: t.Any) -> None:
        if args[2].startswith(LOOKS):
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(timeout=0.5 if locked else 30)

    def lock_another(*args: t.Any) -> tuple[str, t.Any]:
        statement, parameters = args[2:4]
        if statement.startswith(LOCKS):
            parameters = {**parameters, "owner": uuid7()}
        return statement, parameters

    sa.event.listen(engine, "after_cursor_execute", wait)
    if not locked:
        sa.event.listen(engine, "before_cursor_execute", lock_another, retval=True)
    yield
    sa.event.remove(engine, "after_cursor_execute", wait)
    if not locked:
        sa.event.remove(engine, "before_cursor_execute", lock_another)


def call(app: Flask, method: str, path: str, body: t.Any) -> tuple[int, t.Any]:
    """Call the API as owner 1."""
    answer = app.test_client().open(
        f"/webhooks/api{path}", method=method, json=body, headers={"X-Owner": "1"}
    )
    return answer.status_code, answer.get_json()


def half_of_each(number: int) -> dict[str, t.Any]:
    """Ledgers for one half of the requests, invoices for the other."""
    return {"url": "http://127.0.0.1:5999/", "events": ["ledgers.*" if number % 2 else "invoices.created"]}


def make_all(app: Flask) -> list[tuple[int, t.Any]]:
    """Subscribe, all at once."""
    with ThreadPoolExecutor(MANY) as threads:
        return list(
            threads.map(lambda at: call(app, "POST", "/subscriptions", half_of_each(at)), range(MANY))
        )


def switch_all_on(app: Flask) -> list[tuple[int, t.Any]]:
    """Subscribe one after the other, each switched off; then switch them on, all at once."""
    made = [call(app, "POST", "/subscriptions", {**half_of_each(at), "active": False}) for at in range(MANY)]
    paths = [f"/subscriptions/{body['id']}" for _, body in made]
    with ThreadPoolExecutor(MANY) as threads:
        return list(threads.map(lambda path: call(app, "PATCH", path, {"active": True}), paths))


def held(app: Flask) -> set[str]:
    """What the owner's active subscriptions listen to."""
    found = sa.select(Listener.event).join(Subscription).where(Subscription.active)
    with state_of(app).engine.connect() as connection:
        return set(connection.scalars(found))


@pytest.mark.parametrize("act", [make_all, switch_all_on])
def test_one_half_is_refused(busy: Flask, act: t.Callable[[Flask], list[tuple[int, t.Any]]]) -> None:
    with meeting(busy, locked=True):
        answers = act(busy)

    assert len(held(busy)) == 1, "an exclusive channel is held beside another"
    refused = [body for status, body in answers if status == 409]
    assert len(refused) == MANY // 2
    assert {status for status, _ in answers} <= {200, 201, 409}
    assert all("ledgers" in body["detail"] and "invoices" in body["detail"] for body in refused)


@on_postgresql
@pytest.mark.parametrize("act", [make_all, switch_all_on])
def test_without_the_lock_no_request_is(
    busy: Flask, act: t.Callable[[Flask], list[tuple[int, t.Any]]]
) -> None:
    """The test above can fail: to look and then to write is not enough."""
    with meeting(busy, locked=False):
        answers = act(busy)

    assert {status for status, _ in answers} <= {200, 201}
    assert held(busy) == {"ledgers.*", "invoices.created"}


def invoices_only(app: Flask) -> list[int]:
    """Subscribe to the same, all at once; return the status codes."""
    with ThreadPoolExecutor(MANY) as threads:
        answers = threads.map(lambda _: call(app, "POST", "/subscriptions", half_of_each(0)), range(MANY))
        return [status for status, _ in answers]


def test_the_limit_holds(make_busy: t.Callable[..., Flask]) -> None:
    app = make_busy(WEBHOOKS_SUBSCRIPTION_LIMIT=5)

    with meeting(app, locked=True):
        assert sorted(invoices_only(app)) == [201] * 5 + [422] * 15


@on_postgresql
def test_without_the_lock_it_does_not(make_busy: t.Callable[..., Flask]) -> None:
    """The test above can fail too."""
    app = make_busy(WEBHOOKS_SUBSCRIPTION_LIMIT=5)

    with meeting(app, locked=False):
        assert invoices_only(app) == [201] * MANY
