"""From the console's URL to the first webhook: the steps on the way, and the secret that is shown once."""

from __future__ import annotations

import html
import re
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask
from standardwebhooks import Webhook, WebhookVerificationError

from flask_webhooks.bindings import BoundChannel
from flask_webhooks.console.event_types import occasion
from flask_webhooks.models import IdempotentReply, Secret
from flask_webhooks.signing import parse, place_of
from flask_webhooks.state import AppState
from tests.console.conftest import FORM, SECRET, Log, Visitor, on_one_database, only, write_log
from tests.receivers import Receiver
from tests.stage import subscribe

pytestmark = on_one_database


def steps(page: str) -> dict[str, bool]:
    """The steps on a page, and which of them are done."""
    return {
        name: "is-done" in classes
        for classes, name in re.findall(r'class="wh-step( is-done)?" data-step="(\w+)"', page)
    }


def test_there_are_three_steps_and_what_is_done_is_ticked(
    visitor: Visitor, state: AppState, inbox: Receiver
) -> None:
    first = visitor.follow(visitor.post("/webhooks/new", {**FORM, "url": inbox.url()})).text
    path = f"/webhooks/{only(state).id}"
    again = visitor.get(f"{path}/set-up").text
    visitor.post(f"{path}/test")
    tested = visitor.get(f"{path}/set-up").text

    assert steps(first) == {"secret": False, "verify": False, "test": False}
    assert steps(again) == {"secret": True, "verify": False, "test": False}
    assert steps(tested) == {"secret": True, "verify": False, "test": True}
    for text in ("Add your address", "Choose events", "Verify the signature", "receiver.py", "receiver.mjs"):
        assert text in first
    assert len(inbox.requests) == 1


def test_a_test_that_fails_ticks_nothing(visitor: Visitor, state: AppState) -> None:
    row = subscribe(state, "http://127.0.0.1:9/", "invoices.*")
    visitor.post(f"/webhooks/{row.id}/test")

    assert not steps(visitor.get(f"/webhooks/{row.id}/set-up").text)["test"]


def test_steps_are_for_those_who_may_write(app: Flask, state: AppState, log: Log) -> None:
    path = f"/webhooks/{log.subscription.id}/set-up"

    assert Visitor(app, rights="read").get(path).status_code == 403
    assert Visitor(app, owner="2").get(path).status_code == 404
    assert "You are not allowed to see secrets" in Visitor(app, rights="read,write").get(path).text


def test_who_may_not_see_secrets_sees_the_one_they_make(app: Flask) -> None:
    writer = Visitor(app, rights="read,write")

    assert re.search(SECRET, writer.follow(writer.post("/webhooks/new", FORM)).text)


def test_an_address_shows_nothing_after_a_while_nor_to_another(
    app: Flask, visitor: Visitor, state: AppState
) -> None:
    answer = visitor.post("/webhooks/new", FORM)
    theirs = write_log(state, owner="2").subscription.id
    token = answer.location.partition("?")[2]

    assert not re.search(SECRET, Visitor(app, owner="2").get(f"/webhooks/{theirs}/set-up?{token}").text)
    with state.engine.begin() as connection:
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        connection.execute(sa.update(IdempotentReply).values(created_at=long_ago))
    assert not re.search(SECRET, visitor.follow(answer).text)


def test_a_reload_after_a_rotation_rotates_nothing(visitor: Visitor, state: AppState, log: Log) -> None:
    def count() -> int | None:
        with state.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(Secret))

    answer = visitor.post(f"/webhooks/{log.subscription.id}/rotate", {"overlap": "3600"})
    before = count()
    pages = [visitor.follow(answer) for _ in range(2)]

    assert answer.location.startswith(f"/webhooks/console/webhooks/{log.subscription.id}/renewed?once=")
    assert [len(re.findall(SECRET, page.text)) for page in pages] == [2, 0]
    assert "From now on requests are signed with the new secret." in pages[0].text
    assert "From now on requests are signed with the new secret." not in pages[1].text
    assert count() == before


# ---- trying an address -----------------------------------------------------------------------------------


def tried(visitor: Visitor, url: str, **more: str) -> str:
    answer = visitor.post("/probe", {"url": url, **more}, HX_Request="true")
    assert answer.status_code == 200
    return html.unescape(answer.text)


def test_trying_an_address_sends_what_a_delivery_would_and_says_what(
    visitor: Visitor, inbox: Receiver
) -> None:
    page = tried(visitor, inbox.url("/hooks"))
    [sent] = inbox.requests

    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-event", "webhook-trigger"):
        assert sent.headers[name]
        assert f"{name}: {sent.headers[name]}" in page
    assert sent.headers["user-agent"].startswith("Flask-Webhooks/")
    assert f"as {sent.headers['user-agent']}" in page
    assert sent.body.decode() in page
    assert "a secret that was made for this request only" in page


def test_that_of_a_webhook_is_signed_with_its_own_secret(
    app: Flask, visitor: Visitor, state: AppState, inbox: Receiver
) -> None:
    row = subscribe(state, "https://example.com/", "invoices.*")
    page = tried(visitor, inbox.url(), subscription=row.id)
    other = tried(Visitor(app, owner="2"), inbox.url(), subscription=row.id)
    with state.engine.connect() as connection:
        kept = connection.execute(sa.select(Secret)).one()
    secret = parse(state.vault.open(kept.sealed, place_of("secret", row.id, kept.id))).text
    first, second = inbox.requests

    assert Webhook(secret).verify(first.body, first.headers)
    assert "Signed with the secret of this webhook" in page
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(second.body, second.headers)
    assert "made for this request only" in other


# ---- what does not count ---------------------------------------------------------------------------------


def words(state: AppState, event: str, **changes: t.Any) -> str:
    import dataclasses

    found = state.catalog.events[event]
    bound: BoundChannel = state.bound[found.channel]
    with state.app.test_request_context():
        return occasion(bound, dataclasses.replace(found, **changes))


def test_only_columns_that_are_there_and_shown_are_named(state: AppState) -> None:
    ignored = frozenset({"last_seen", "updated_at", "number"})  # no such column; hidden by the schema; shown

    sentences = words(state, "invoices.updated", ignore=ignored)

    assert "A change of number alone does not count." in sentences
    assert "last_seen" not in sentences
    assert "updated_at" not in sentences
    assert "does not count" not in words(
        state, "invoices.updated", ignore=frozenset({"last_seen", "updated_at"})
    )


def test_nor_is_a_hidden_column_named_where_it_counts(state: AppState) -> None:
    whole = words(state, "invoices.updated", ignore=frozenset(), changed=frozenset({"number", "status"}))
    some = words(state, "invoices.updated", ignore=frozenset(), changed=frozenset({"number", "extra"}))

    assert "Only if one of these changes: number, status." in whole
    assert "extra" not in some
    assert "number" not in some
    assert "Only if certain values change." in some


def test_filters_need_no_button(visitor: Visitor, log: Log) -> None:
    page = visitor.get("/deliveries").text

    assert re.search(r'<form class="wh-filters[^>]* hx-get="/webhooks/console/deliveries"', page)
    assert '<button class="wh-button wh-nojs">Filter</button>' in page
    part = visitor.get("/deliveries?state=failed", headers={"HX-Request": "true"}).text
    assert 'id="wh-log"' in part
    assert 'id="wh-clear"' in part
    assert log.deliveries["failed"] in part
    assert log.deliveries["held"] not in part
