"""An invoice changes from draft to sent to paid, and never back."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from .bodies import body_of


@pytest.fixture
def draft(acme: FlaskClient) -> str:
    body = {**body_of(acme, "invoices"), "status": "draft"}
    return f"/api/invoices/{acme.post('/api/invoices', json=body).get_json()['id']}"


def test_an_invoice_is_sent_and_paid(acme: FlaskClient, draft: str) -> None:
    sent = acme.post(f"{draft}/send").get_json()
    paid = acme.post(f"{draft}/pay").get_json()

    payment = acme.get("/api/invoice_payments").get_json()["items"][0]
    assert (sent["status"], paid["status"]) == ("sent", "paid")
    assert sent["sent_at"] is not None
    assert paid["paid_at"] is not None
    assert (paid["amount_paid"], paid["amount_due"]) == (paid["total"], "0.00")
    assert (payment["invoice_id"], payment["amount"]) == (paid["id"], paid["total"])


def test_a_patch_of_the_status_follows_the_same_rules(acme: FlaskClient, draft: str) -> None:
    refused = acme.patch(draft, json={"status": "paid"})
    sent = acme.patch(draft, json={"status": "sent"})
    void = acme.patch(draft, json={"status": "void"})

    assert (refused.status_code, refused.get_json()["error"]) == (409, "wrong_status")
    assert sent.get_json()["sent_at"] is not None
    assert void.get_json()["status"] == "void"


@pytest.mark.parametrize("action", ["send", "pay", "void"])
def test_a_void_invoice_stays_void(acme: FlaskClient, draft: str, action: str) -> None:
    acme.post(f"{draft}/void")
    payments = acme.get("/api/invoice_payments").get_json()["total"]

    answer = acme.post(f"{draft}/{action}")

    assert answer.status_code == 409
    assert acme.get(draft).get_json()["status"] == "void"
    assert acme.get("/api/invoice_payments").get_json()["total"] == payments


def test_an_invoice_is_paid_once(acme: FlaskClient, draft: str) -> None:
    acme.post(f"{draft}/send")
    acme.post(f"{draft}/pay")
    payments = acme.get("/api/invoice_payments").get_json()["total"]

    again = acme.post(f"{draft}/pay")

    assert again.status_code == 409
    assert acme.get("/api/invoice_payments").get_json()["total"] == payments


def test_a_paid_invoice_keeps_its_total(acme: FlaskClient, draft: str) -> None:
    acme.post(f"{draft}/send")
    acme.post(f"{draft}/pay")

    answer = acme.patch(draft, json={"line_items": [{"description": "More", "unit_price": "1"}]})

    assert answer.status_code == 422
    assert acme.patch(draft, json={"notes": "Thanks"}).status_code == 200


def test_a_bill_is_paid_with_what_is_due(acme: FlaskClient) -> None:
    bill = acme.get("/api/bills").get_json()["items"][0]

    paid = acme.post(f"/api/bills/{bill['id']}/pay").get_json()

    payment = acme.get("/api/bill_payments").get_json()["items"][0]
    assert (paid["status"], paid["amount_due"]) == ("paid", "0.00")
    assert payment["amount"] == bill["amount_due"] != bill["total"]


def test_another_business_cannot_act(globex: FlaskClient, draft: str) -> None:
    assert globex.post(f"{draft}/send").status_code == 404
