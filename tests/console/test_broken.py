"""Broken messages in the console: operators see the error and repair them; owners see that their delivery waits."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_webhooks import Webhooks
from flask_webhooks.state import AppState, state_of
from tests.host import Invoice, InvoiceSchema, db
from tests.stage import deliveries, subscribe

from .conftest import Visitor, load_principal, on_one_database

pytestmark = on_one_database
SECRET = "the customer's own words"


@pytest.fixture
def app(make_app: t.Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(InvoiceSchema._declared_fields["number"], "attribute", "rate")
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks, WEBHOOKS_ON_ERROR="record")


@pytest.fixture
def mend(app: Flask, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[], None]:
    """An invoice whose schema fails until this is called."""
    faults = [SECRET]

    def rate(_: Invoice) -> str:
        if faults:
            raise ValueError(faults[0])
        return "well"

    monkeypatch.setattr(Invoice, "rate", property(rate), raising=False)
    with app.app_context():
        subscribe(state_of(app), "http://127.0.0.1:1/", "invoices.*")
        db.session.add(Invoice(id=7, owner="1"))
        db.session.commit()
        db.session.remove()
    return faults.clear


def test_an_operator_sees_why_and_repairs(app: Flask, state: AppState, mend: t.Callable[[], None]) -> None:
    operator = Visitor(app, owner="9", operator=True)
    [delivery] = deliveries(state)
    page = operator.get("/operator").text
    assert "Broken messages" in page
    assert "the customer&#39;s own words" in page

    still = operator.post("/operator/repair", {"id": delivery.message_id})
    assert "still_broken" in still.headers["Location"]
    mend()
    done = operator.post("/operator/repair", {"id": [delivery.message_id, "nonsense"]})
    assert "notice=repaired" in done.headers["Location"]

    assert [row.state for row in deliveries(state)] == ["pending"]
    assert "Broken messages" not in operator.get("/operator").text


def test_an_owner_sees_that_it_waits_and_not_why(app: Flask, state: AppState, mend: t.Any) -> None:
    [delivery] = deliveries(state)
    visitor = Visitor(app)
    page = visitor.get(f"/deliveries/{delivery.id}").text

    assert "Its data could not be rendered" in page
    assert "own words" not in page
    assert "Retry now" not in page
    assert visitor.post(f"/deliveries/{delivery.id}/retry", {}).status_code == 409
    assert visitor.post("/operator/repair", {"id": delivery.message_id}).status_code == 404
    assert "Broken" in visitor.get("/deliveries?state=broken").text


def test_the_api_says_that_it_is_broken_and_to_operators_why(
    app: Flask, state: AppState, mend: t.Any
) -> None:
    [delivery] = deliveries(state)
    client, headers = app.test_client(), {"X-Owner": "1"}
    message = f"/webhooks/api/messages/{delivery.message_id}"
    answer = client.get(message, headers=headers).get_json()
    assert (answer["broken"], answer["data"]) == (True, None)
    assert "error" not in answer
    assert [each["state"] for each in answer["subscriptions"]] == ["broken"]
    assert SECRET in client.get(message, headers={**headers, "X-Operator": "1"}).get_json()["error"]

    one = f"/webhooks/api/deliveries/{delivery.id}"
    shown = client.get(one, headers=headers).get_json()
    assert (shown["state"], shown["body"], shown["body_reason"]) == ("broken", None, "broken")
    refused = client.post(f"{one}/retry", headers=headers)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "broken")
    assert client.post(f"{one}/cancel", headers=headers).get_json()["state"] == "cancelled"
    assert client.post(f"{one}/retry", headers=headers).get_json()["code"] == "broken"
