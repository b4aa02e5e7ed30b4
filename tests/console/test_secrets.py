"""Secrets in the console: a public key is labelled as such, and a secret as a secret."""

from __future__ import annotations

import html
import typing as t

import pytest
import sqlalchemy as sa

from flask_webhooks import signing
from flask_webhooks.models import Secret
from flask_webhooks.state import AppState
from tests.console.conftest import Visitor, on_one_database
from tests.stage import subscribe


def test_a_public_key_is_not_called_a_secret(app: t.Any, state: AppState, visitor: Visitor) -> None:
    row = subscribe(state, "https://example.com/hooks", "invoices.*", signature="v1a")
    pair = signing.generate("v1a")
    with state.engine.begin() as connection:
        connection.execute(sa.update(Secret).values(sealed=state.vault.seal(pair.text)))

    page = visitor.get(f"/webhooks/{row.id}").text
    shown = visitor.post(f"/webhooks/{row.id}/secret").text
    rotated = visitor.follow(visitor.post(f"/webhooks/{row.id}/rotate", {"overlap": "0"})).text

    assert "whpk_•" in page
    assert "Show the public key" in page
    assert pair.public in html.unescape(shown)
    for each in (page, shown, rotated):
        assert "it cannot be used to sign" in each
        assert "forge" not in each
        assert "whsec_" not in each.replace("whsec_...", "")
        assert pair.text not in html.unescape(each)
    assert "From now on requests are signed with a new key." in rotated


def test_while_a_scheme_changes_each_is_called_what_it_is(state: AppState, visitor: Visitor) -> None:
    row = subscribe(
        state, "https://example.com/hooks", "invoices.*", signature="v1a"
    )  # its secret is of before

    page = visitor.get(f"/webhooks/{row.id}").text
    assert "Show the secret" in page
    assert "whsec_•" in page
    assert "forge requests" in page
    both = visitor.follow(visitor.post(f"/webhooks/{row.id}/rotate", {"overlap": "86400"})).text

    assert "whsec_" in both
    assert both.count("it cannot be used to sign") == 1


def test_a_new_webhook_with_a_pair_shows_its_public_key(visitor: Visitor) -> None:
    form = {
        **{"url": "https://93.184.215.14/", "active": "on", "event": "invoices.created"},
        **{"environment": "staging", "signature": "v1a"},
    }
    page = visitor.follow(visitor.post("/webhooks/new", form)).text

    assert "whpk_" in page
    assert "Give your receiver this public key" in page
    assert "it cannot be used to sign" in page
    assert "forge" not in page


@on_one_database
def test_one_that_cannot_be_opened_is_logged_for_the_operator(
    state: AppState, visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    row = subscribe(state, "https://example.com/hooks", "invoices.*")
    with state.engine.begin() as connection:
        connection.execute(sa.update(Secret).values(sealed="of a key that is gone"))

    answer = visitor.post(f"/webhooks/{row.id}/secret")

    assert answer.status_code == 500
    assert "Tell the operator" in answer.text
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "secret.unreadable"
    ]
