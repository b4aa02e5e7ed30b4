"""The accounting system (five-systems A) end to end: API, commit, worker, and the exact request."""

from __future__ import annotations

import json
import typing as t
import uuid

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook

from example_app.models import BusinessLoan, db
from example_app.seed import seed
from flask_webhooks.state import state_of
from flask_webhooks.worker import Coordinator
from tests.example_app.conftest import client_of
from tests.receivers import Receiver

API = "/webhooks/api/subscriptions"


@pytest.fixture
def app(database_url: str, tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Flask]:
    """The example app with its two businesses."""
    from example_app import create_app

    monkeypatch.setenv("EXAMPLE_INSTANCE_PATH", str(tmp_path))
    app = create_app(
        {
            "SECRET_KEY": "test",
            "SQLALCHEMY_DATABASE_URI": database_url,
            "WEBHOOKS_ALLOW_HTTP": True,
            "WEBHOOKS_ALLOWED_NETWORKS": ["127.0.0.0/8"],
        }
    )
    with app.app_context():
        seed(db)
        db.session.remove()
    yield app
    state_of(app).transport.close()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def acme(app: Flask) -> FlaskClient:
    """Acme's administrator."""
    return client_of(app, "ada@acme.example")


def deliver(app: Flask) -> None:
    with app.app_context():
        assert Coordinator(state_of(app), holder="test").run().failed == 0


def test_a_deleted_loan_has_exactly_these_keys(app: Flask, acme: FlaskClient, inbox: Receiver) -> None:
    made = acme.post(API, json={"url": inbox.url(), "channels": ["business_loans"]}).get_json()
    with app.app_context():
        loan = db.session.scalars(sa.select(BusinessLoan).where(BusinessLoan.business_id == 1)).first()
        assert loan is not None
        loan_id = loan.id
    shown = acme.get(f"/api/business_loans/{loan_id}").get_json()
    assert acme.delete(f"/api/business_loans/{loan_id}").status_code == 204

    deliver(app)

    [request] = inbox.requests
    body = json.loads(request.body)
    assert list(body) == ["event", "message", "idempotency_key", "environment", "data"]
    assert body["event"] == "business_loans.deleted"
    assert body["message"] == "Business Loan deleted successfully."
    assert str(uuid.UUID(body["idempotency_key"])) == request.headers["webhook-id"]
    assert body["environment"] == "staging"
    assert body["data"] == shown
    assert {"id", "tag"} <= body["data"].keys()
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Flask-Webhooks/")
    Webhook(made["secret"]).verify(request.body, request.headers)


def test_the_data_is_what_the_api_returns(app: Flask, acme: FlaskClient, inbox: Receiver) -> None:
    made = acme.post(API, json={"url": inbox.url(), "events": ["invoices.*"]}).get_json()
    client = acme.get("/api/clients").get_json()["items"][0]
    created = acme.post(
        "/api/invoices",
        json={
            "number": "2026-900",
            "client_id": client["id"],
            "currency": "EUR",
            "issued_on": "2026-11-21",
            "due_on": "2026-12-21",
            "line_items": [{"description": "Advice", "quantity": "2", "unit_price": "50.00"}],
        },
    )
    assert created.status_code == 201, created.get_json()

    deliver(app)

    [request] = inbox.requests
    Webhook(made["secret"]).verify(request.body, request.headers)
    body = json.loads(request.body)
    assert body["event"] == "invoices.created"
    assert body["data"] == acme.get(f"/api/invoices/{body['data']['id']}").get_json()


def test_no_business_gets_events_of_another(app: Flask, inbox: Receiver) -> None:
    globex = client_of(app, "bob@globex.example")
    assert globex.post(API, json={"url": inbox.url(), "events": ["*"]}).status_code == 201
    acme = client_of(app, "ada@acme.example")
    assert acme.post("/api/clients", json={"name": "Somebody", "currency": "EUR"}).status_code == 201

    deliver(app)

    assert inbox.requests == []


def test_without_signing_in_there_is_nothing(app: Flask) -> None:
    answer = app.test_client().get(API)

    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"


def test_another_owners_subscription_is_not_found(app: Flask, acme: FlaskClient, inbox: Receiver) -> None:
    made = acme.post(API, json={"url": inbox.url(), "events": ["*"]}).get_json()
    globex = client_of(app, "bob@globex.example")

    assert globex.get(f"{API}/{made['id']}").status_code == 404
    assert globex.patch(f"{API}/{made['id']}", json={"description": "mine"}).status_code == 404
    assert globex.delete(f"{API}/{made['id']}").status_code == 404


def test_ledgers_go_with_nothing_else(acme: FlaskClient, inbox: Receiver) -> None:
    answer = acme.post(API, json={"url": inbox.url(), "channels": ["ledgers", "invoices"]})

    assert answer.status_code == 409
    text = json.dumps(answer.get_json())
    assert "ledgers" in text
    assert "invoices" in text
