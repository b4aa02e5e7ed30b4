"""`flask webhooks repair`, and the count in `status`."""

from __future__ import annotations

import json
import typing as t

import pytest
from flask import Flask

from flask_webhooks.state import AppState
from tests.host import Invoice, InvoiceSchema, db
from tests.stage import deliveries, recorded, subscribe

from .conftest import Command

NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture
def app(make_app: t.Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Flask]:
    """Its schema of invoices reads what a test may break; schemas are copied when an app is made."""
    monkeypatch.setattr(InvoiceSchema._declared_fields["number"], "attribute", "rate")
    app = make_app(WEBHOOKS_ON_ERROR="record")
    with app.app_context():
        yield app


@pytest.fixture
def mend(state: AppState, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[], None]:
    """Two invoices whose schema fails; call it to mend that for the first."""
    faults = {7, 8}
    monkeypatch.setattr(Invoice, "rate", property(lambda row: str(1 / (row.id not in faults))), raising=False)
    subscribe(state, NOWHERE, "invoices.*")
    db.session.add_all([Invoice(id=7, owner="1"), Invoice(id=8, owner="1")])
    db.session.commit()
    return lambda: faults.discard(7)


def test_what_is_broken_is_counted_and_listed(mend: t.Any, flask_webhooks: Command) -> None:
    assert json.loads(flask_webhooks("status", "--json").output)["broken_messages"] == 2
    assert "flask webhooks repair" in flask_webhooks("status").output
    said = flask_webhooks("repair").output
    assert "invoices.created  7  invoices.created of Invoice 7 cannot be serialised" in said
    assert "2 broken" in said
    assert json.loads(flask_webhooks("repair", "--json").output)["broken"] == 2


def test_repairing_says_what_is_still_broken(
    state: AppState, mend: t.Callable[[], None], flask_webhooks: Command
) -> None:
    mend()
    tried = json.loads(flask_webhooks("repair", "--all", "--dry-run", "--json", expect=1).output)
    assert (tried["repaired"], [each["event"] for each in tried["still_broken"]]) == (1, ["invoices.created"])
    assert {row.state for row in deliveries(state)} == {"broken"}
    said = flask_webhooks("repair", "--channel", "invoices", expect=1).output

    assert "1 of 2 repaired." in said
    assert "ZeroDivisionError" in said
    assert sorted(row.state for row in deliveries(state)) == ["broken", "pending"]


def test_giving_up_cancels_with_the_reason(state: AppState, mend: t.Any, flask_webhooks: Command) -> None:
    first, second = (message.id for message in recorded(state))
    assert "1 of 1 given up." in flask_webhooks("repair", first, "--give-up", "test data").output
    assert "not broken" in flask_webhooks("repair", first, expect=1).output

    found = {row.message_id: (row.state, row.reason) for row in deliveries(state)}
    assert found == {first: ("cancelled", "test data"), second: ("broken", "broken")}
    assert json.loads(flask_webhooks("status", "--json").output)["broken_messages"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "is not the id of a message"),
        (["--channel", "nonsense"], "There is no channel"),
        (["--all", "--channel", "invoices"], "only one of"),
        (["--give-up", "x"], "Select the messages to give up"),
        (["--all", "--give-up", "x" * 65], "1 to 64 characters"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], said: str, state: AppState, flask_webhooks: Command
) -> None:
    assert said in flask_webhooks("repair", *words, expect=2).output
