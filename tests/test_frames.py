"""An exception that reaches the host's error tracker has no secret in its frames, whose variables trackers show."""

from __future__ import annotations

import logging
import sys
import types
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask, got_request_exception, request

from flask_webhooks import jobs
from flask_webhooks.frames import emptied
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Subscription
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import headers
from tests.console.conftest import FORM, Visitor, on_one_database
from tests.stage import fill, subscribe
from tests.worker.answers import run

VALUE = "open-sesame"


def held(error: BaseException | None) -> str:
    """All that the frames of an exception, and of those behind it, hold below this test."""
    found = []
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if not frame.f_globals["__name__"].startswith("tests."):
                found.append(repr(frame.f_locals))
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__
    assert found
    return "\n".join(found)


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    app = make_app()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return app


@pytest.fixture
def state(app: Flask) -> AppState:
    return state_of(app)


def lose_secrets(state: AppState) -> None:
    """Have every new subscription fail in the database."""
    with state.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE webhook_secrets"))


@on_one_database
def test_of_a_request_of_the_api(app: Flask, state: AppState) -> None:
    lose_secrets(state)
    app.before_request(lambda: request.get_json(silent=True) and None)  # keeps it in the request
    raised: list[t.Any] = []

    def note(_: t.Any, exception: BaseException, **__: t.Any) -> None:
        raised.append(f"{held(exception)}{request.get_data(as_text=True)}{request.get_json(silent=True)}")

    body = {"url": "http://127.0.0.1:9/", "events": ["invoices.*"], "headers": {"X-Key": VALUE}}
    with got_request_exception.connected_to(note, app):
        answer = app.test_client().post("/webhooks/api/subscriptions", json=body, headers={"X-Owner": "1"})

    assert answer.status_code == 500
    assert len(raised) == 1
    assert VALUE not in raised[0]


@on_one_database
def test_of_a_form_of_the_console(app: Flask, state: AppState) -> None:
    raised: list[t.Any] = []

    def note(_: t.Any, exception: BaseException, **__: t.Any) -> None:
        raised.append((held(exception), dict(request.form.lists())))

    visitor = Visitor(app)
    visitor.token()
    lose_secrets(state)
    form = {**FORM, "header_name": "X-Key", "header_value": VALUE}
    with got_request_exception.connected_to(note, app):
        answer = visitor.post("/webhooks/new", form)

    assert answer.status_code == 500
    [(frames, sent)] = raised
    assert VALUE not in frames
    assert sent == {}


@on_one_database
def test_of_an_attempt(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    row = subscribe(state, "http://127.0.0.1:9/")
    sealed = headers.seal(state.vault, {"X-Key": VALUE, "X-Count": t.cast("t.Any", 5)}, row.id)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Subscription).values(headers=sealed))
    fill(state, [row], 1)

    with caplog.at_level(logging.ERROR):
        run(state)

    [record] = [each for each in caplog.records if each.message == "delivery.crashed"]
    assert record.exc_info is not None
    frames = held(record.exc_info[1])
    assert row.id in frames  # of the frame that runs
    assert VALUE not in frames
    with state.engine.connect() as connection:
        assert "TypeError" in connection.scalars(sa.select(Attempt.detail)).one()


@on_one_database
def test_of_a_job(app: Flask, state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(name := f"stock_{uuid7().replace('-', '')}")
    vars(module)["app"] = app
    monkeypatch.setitem(sys.modules, name, module)
    row = subscribe(state, "http://127.0.0.1:9/")
    with state.engine.begin() as connection:
        sealed = state.vault.seal(f'{{"key": "{VALUE}", "shape": 2}}')  # of some other version
        connection.execute(sa.update(Subscription).values(client_certificate=sealed))
    fill(state, [row], 1)

    with app.app_context(), pytest.raises(TypeError) as raised:
        jobs.deliver(name)

    assert VALUE not in held(raised.value)


def test_what_the_hosts_code_held_stays() -> None:
    theirs: dict[str, t.Any] = {"__name__": "shop.views"}
    ours: dict[str, t.Any] = {"__name__": "flask_webhooks.api", "theirs": theirs}
    exec("def load():\n    cart = 'pears'\n    return 1 / 0", theirs)
    exec("def view():\n    body = 'sesame'\n    return theirs['load']()", ours)

    with pytest.raises(ExceptionGroup) as raised:
        try:
            ours["view"]()
        except ZeroDivisionError as error:
            emptied(error)
            raise ExceptionGroup("several", [error]) from None

    frames = held(raised.value.exceptions[0])
    assert "pears" in frames
    assert "sesame" not in frames
