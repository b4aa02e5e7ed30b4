"""The body that the log shows is the one that was sent, or none."""

from __future__ import annotations

import hashlib
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks import Webhooks
from flask_webhooks.models import Message
from flask_webhooks.state import AppState, state_of
from tests.api.conftest import Customer
from tests.console.conftest import Visitor
from tests.host import CATALOG, load_principal
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, subscribe
from tests.worker.answers import run

MakeApp = t.Callable[..., Flask]


def make(make_app: MakeApp, word: str = "then", catalog: str = str(CATALOG)) -> AppState:
    """A host app whose custom format writes this word."""
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    hooks.payload_format("acme")(lambda message, subscription: {"said": word, "id": message.id})
    return state_of(make_app(webhooks=hooks, WEBHOOKS_CATALOG=catalog, WEBHOOKS_RETRY="none"))


def seen(state: AppState) -> tuple[str | None, str | None]:
    """The only delivery, as the API shows it."""
    [row] = deliveries(state)
    found = Customer(state.app.test_client())("GET", f"/deliveries/{row.id}", expect=200)
    if found["body"] is not None and found["attempt_log"]:
        digest = hashlib.sha256(found["body"].encode()).hexdigest()
        assert digest == found["attempt_log"][-1]["request"]["body_sha256"]
    return found["body"], found["body_reason"]


def deliver(state: AppState, inbox: Receiver, format: str, **columns: t.Any) -> str:
    """Deliver one event and return its body."""
    with state.app.app_context():
        fill(state, [subscribe(state, inbox.url(), "reports.*")], 1, format=format, **columns)
        run(state)
    [request] = inbox.requests
    return request.body.decode()


def edited(folder: Path, old: str, new: str) -> str:
    """Write a changed catalogue; return its path."""
    text = CATALOG.read_text()
    assert old in text
    (folder / "edited.yaml").write_text(text.replace(old, new))
    return str(folder / "edited.yaml")


def test_it_is_made_again_as_it_was_sent(make_app: MakeApp, inbox: Receiver) -> None:
    state = make(make_app)
    body = deliver(state, inbox, "acme")

    assert deliveries(state)[0].body is None
    assert seen(state) == seen(make(make_app)) == (body, None)


def test_it_is_not_shown_when_a_format_has_changed(make_app: MakeApp, inbox: Receiver) -> None:
    body = deliver(make(make_app), inbox, "acme")

    assert "then" in body
    assert seen(make(make_app, "now")) == (None, "changed")


def test_it_is_not_shown_when_a_label_has_changed(make_app: MakeApp, inbox: Receiver, tmp_path: Path) -> None:
    body = deliver(make(make_app), inbox, "entity")
    renamed = edited(tmp_path, "label: Report\n", "label: Account Report\n")

    assert '"entity_type":"report"' in body
    assert seen(make(make_app, catalog=renamed)) == (None, "changed")


def test_what_was_kept_is_shown_whatever_has_changed(make_app: MakeApp) -> None:
    with Receiver(ok(status=500)) as inbox:
        body = deliver(make(make_app), inbox, "acme")

    assert seen(make(make_app, "now")) == (body, None)


def test_what_was_not_sent_yet_is_shown_as_it_will_be(make_app: MakeApp) -> None:
    state = make(make_app)
    fill(state, [subscribe(state, "http://127.0.0.1:5999/", "reports.*")], 1, format="acme")

    body, reason = seen(make(make_app, "now"))

    assert reason is None
    assert '"said":"now"' in str(body)


@pytest.mark.parametrize("reason", ["purged", "unknown_event", "unknown_format"])
def test_what_cannot_be_made_again_has_its_reason(
    make_app: MakeApp, inbox: Receiver, tmp_path: Path, reason: str
) -> None:
    state = make(make_app)
    deliver(state, inbox, "acme")
    if reason == "purged":
        with state.engine.begin() as connection:
            connection.execute(sa.delete(Message))
    elif reason == "unknown_event":
        state = make(make_app, catalog=edited(tmp_path, "      ready:\n", ""))
    else:
        state = state_of(make_app())

    assert seen(state) == (None, reason)


def test_what_a_format_of_the_hosts_raises_is_shown_to_the_operator_alone(
    make_app: MakeApp, inbox: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Webhooks()
    hooks.principal_loader(load_principal)

    @hooks.payload_format("acme")
    def acme(message: t.Any, subscription: t.Any) -> t.Any:
        raise RuntimeError("db.internal refuses S3cret")

    state = state_of(make_app(webhooks=hooks))
    call, visitor = Customer(state.app.test_client()), Visitor(state.app)
    with state.app.app_context():
        row = subscribe(state, inbox.url(), "reports.*", format="acme")
        fill(state, [row], 1, format="acme")
        run(state)
    [delivery] = deliveries(state)
    form = {"preview_event": "reports.ready", "format": "acme"}
    texts = [
        call("GET", f"/deliveries/{delivery.id}", expect=200),
        call("POST", f"/subscriptions/{row.id}/test", {}, expect=422),
        visitor.get(f"/deliveries/{delivery.id}").text,
        visitor.post(f"/webhooks/{row.id}/test", {}).text,
        visitor.post("/preview", form).text,
    ]

    for each in map(str, texts):
        assert "failed within the sender: RuntimeError" in each
        assert "S3cret" not in each
    assert caplog.text.count("S3cret") >= len(texts) - 1
