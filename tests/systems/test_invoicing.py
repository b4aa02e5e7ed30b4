"""An ERP (five-systems B): listeners choose includes, and only active webhooks receive."""

from __future__ import annotations

import json
import typing as t
from decimal import Decimal

import pytest

from tests.receivers import Received, Receiver
from tests.systems.conftest import System, opened

INCLUDES = ["bank_account", "invoice_user", "invoice_prefix", "line_items"]
MAIN = {"id": 1, "number": "A-1", "status": "sent", "client_id": 1}


@pytest.fixture
def erp(make_system: t.Callable[..., System]) -> System:
    """With one draft invoice that has everything an invoice can have."""
    system = make_system("invoicing")
    from invoicing import models as m  # type: ignore[import-not-found]

    system.save(
        m.Client(id=1, account_id=1, name="Ada"),
        m.BankAccount(id=1, bank="First", iban="DE02"),
        m.User(id=1, account_id=1, name="Bob", email="bob@example.com", password_hash="pbkdf2"),
        m.InvoicePrefix(id=1, prefix="A", next_number=2),
    )
    invoice = m.Invoice(
        id=1,
        account_id=1,
        number="A-1",
        client_id=1,
        bank_account_id=1,
        invoice_user_id=1,
        invoice_prefix_id=1,
    )
    invoice.line_items = [m.LineItem(id=1, description="Advice", quantity=2, price=Decimal("50.00"))]
    system.save(invoice)
    return system


def body(request: Received) -> t.Any:
    return json.loads(request.body)


def send(erp: System) -> None:
    from invoicing.models import Invoice

    erp.db.session.get(Invoice, 1).status = "sent"
    erp.db.session.commit()


def test_without_includes_there_is_only_the_main_object(erp: System, inbox: Receiver) -> None:
    made = erp.subscribe(inbox.url(), "invoice.updated")

    send(erp)
    erp.deliver()

    [request] = inbox.requests
    assert opened(request, made["secret"]) == {
        "event": "invoice.updated",
        "message": "Invoice updated.",
        "idempotency_key": request.headers["webhook-id"],
        "environment": "staging",
        "data": MAIN,
    }


def test_a_listener_gets_what_it_asked_for(erp: System, inbox: Receiver) -> None:
    made = erp.subscribe(inbox.url(), {"event": "invoice.updated", "includes": [*INCLUDES, "changes"]})

    send(erp)
    erp.deliver()

    [request] = inbox.requests
    data = opened(request, made["secret"])["data"]
    assert data == {
        **MAIN,
        "bank_account": {"id": 1, "bank": "First", "iban": "DE02"},
        "invoice_user": {"id": 1, "name": "Bob", "email": "bob@example.com"},
        "invoice_prefix": {"id": 1, "prefix": "A", "next_number": 2},
        "line_items": [{"id": 1, "description": "Advice", "quantity": 2, "price": "50.00"}],
        "changes": {"status": {"from": "draft", "to": "sent"}},
    }


def test_two_listeners_each_get_their_own(erp: System, inbox: Receiver) -> None:
    erp.subscribe(inbox.url("/plain"), "invoice.updated")
    erp.subscribe(inbox.url("/lines"), {"event": "invoice.*", "includes": ["line_items"]})

    send(erp)
    erp.deliver()

    data = {request.target: body(request)["data"].keys() - MAIN.keys() for request in inbox.requests}
    assert data == {"/plain": set(), "/lines": {"line_items"}}


def test_an_include_that_the_channel_does_not_offer_is_refused(erp: System, inbox: Receiver) -> None:
    wrong = [{"event": "invoice.updated", "includes": ["password_hash"]}]

    answer = erp.call("POST", "/subscriptions", {"url": inbox.url(), "events": wrong}, expect=422)

    [error] = answer["errors"]
    assert error["field"] == "events.0.includes"
    assert "bank_account, invoice_prefix, invoice_user, line_items" in error["message"]


def test_a_changed_line_is_a_changed_invoice(erp: System, inbox: Receiver) -> None:
    from invoicing.models import LineItem

    erp.subscribe(inbox.url(), {"event": "invoice.updated", "includes": ["line_items"]})

    erp.db.session.get(LineItem, 1).quantity = 3
    erp.db.session.commit()
    erp.deliver()

    [request] = inbox.requests
    assert [line["quantity"] for line in body(request)["data"]["line_items"]] == [3]


def test_paid_comes_with_updated(erp: System, inbox: Receiver) -> None:
    from invoicing.models import Invoice

    erp.subscribe(inbox.url(), "invoice.*")
    erp.db.session.get(Invoice, 1).status = "paid"
    erp.db.session.commit()
    erp.deliver()

    assert sorted(body(request)["event"] for request in inbox.requests) == ["invoice.paid", "invoice.updated"]


def test_only_active_webhooks_receive(erp: System, inbox: Receiver) -> None:
    made = erp.subscribe(inbox.url(), "invoice.updated", active=False)
    path = f"/subscriptions/{made['id']}"

    send(erp)
    erp.deliver()
    assert inbox.requests == []

    erp.call("PATCH", path, {"active": True, "held": "send"})
    erp.deliver()
    [request] = inbox.requests
    assert opened(request, made["secret"])["data"] == MAIN


def test_the_dashboard_lists_edits_and_removes(erp: System, inbox: Receiver) -> None:
    made = erp.subscribe(inbox.url(), "invoice.updated")
    path = f"/subscriptions/{made['id']}"

    assert [each["id"] for each in erp.call("GET", "/subscriptions")["items"]] == [made["id"]]
    changed = erp.call("PATCH", path, {"events": ["payment.created"]})
    assert changed["events"] == [{"event": "payment.created", "includes": []}]
    send(erp)
    erp.call("DELETE", path, expect=204)
    erp.deliver()

    assert erp.call("GET", "/subscriptions")["items"] == []
    assert inbox.requests == []


def test_it_must_be_https(make_system: t.Callable[..., System]) -> None:
    erp = make_system("invoicing", WEBHOOKS_ALLOW_HTTP=False)

    answer = erp.call("POST", "/subscriptions", {"url": "http://example.com/x", "events": ["*"]}, expect=422)

    assert "https" in answer["errors"][0]["message"].lower()


def test_no_account_gets_events_of_another(erp: System, inbox: Receiver) -> None:
    erp.subscribe(inbox.url(), "*", owner="2")

    send(erp)
    erp.deliver()

    assert inbox.requests == []
