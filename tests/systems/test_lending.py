"""Invoice financing (five-systems C): events are steps of a process, and carry the resource as its GET returns it."""

from __future__ import annotations

import json
import re
import typing as t
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest
from flask import Response, jsonify

from tests.receivers import Receiver, Talk, response
from tests.systems.conftest import System, opened

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"


def slack(talk: Talk) -> None:
    """An incoming webhook of Slack: takes text and blocks of its kinds, refuses anything else."""
    while True:
        message = json.loads(talk.read_request().body)
        kinds = {block["type"] for block in message.get("blocks", [])}
        fine = bool(message.get("text")) and kinds <= {"header", "section", "context", "divider"}
        talk.send(response(200, body=b"ok") if fine else response(400, body=b"invalid_payload"))


@pytest.fixture
def api(make_system: t.Callable[..., System]) -> System:
    """With one draft invoice, and `GET /invoices/<id>`."""
    system = make_system("lending")
    from lending import models as m  # type: ignore[import-not-found]
    from lending.schemas import InvoiceSchema  # type: ignore[import-not-found]

    @system.app.get("/invoices/<int:key>")
    def get_invoice(key: int) -> Response:
        return jsonify(InvoiceSchema().dump(system.db.session.get(m.Invoice, key)))

    system.save(
        m.Seller(id=11, partner_id="1", name="Accra Textiles", status="ACTIVE"),
        m.Buyer(id=12, partner_id="1", name="Rotterdam Imports", status="ACTIVE"),
        m.Invoice(
            id=7,
            seller_id=11,
            buyer_id=12,
            number="INV-7",
            amount=Decimal("12500.00"),
            due_on=date(2026, 12, 31),
        ),
    )
    return system


def become(api: System, *steps: str, **columns: t.Any) -> None:
    """Move the invoice on, each step in a commit of its own."""
    from lending.models import Invoice, InvoiceStatus

    for step in steps or ("",):
        invoice = api.db.session.get(Invoice, 7)
        if step:
            invoice.status = InvoiceStatus[step]
        for name, value in columns.items():
            setattr(invoice, name, value)
        api.db.session.commit()


def events(inbox: Receiver) -> Counter[tuple[str, str]]:
    """Where and what."""
    return Counter((request.target, json.loads(request.body)["event_type"]) for request in inbox.requests)


def test_submitted_has_exactly_these_keys(api: System, inbox: Receiver) -> None:
    made = api.call(
        "POST",
        "/subscriptions",
        {"to_url": inbox.url(), "event_types": ["Invoice.SUBMITTED"]},
        expect=201,
    )

    become(api, "SUBMITTED")
    api.deliver()

    [request] = inbox.requests
    body = opened(request, made["secret"])
    assert re.fullmatch(MOMENT, body["timestamp"])
    assert body == {
        "entity_type": "invoice",
        "transition_name": "SUBMIT",
        "status": "SUBMITTED",
        "timestamp": body["timestamp"],
        "id": "7",
        "event_type": "Invoice.SUBMITTED",
        "entity_state": {
            "id": 7,
            "number": "INV-7",
            "status": "SUBMITTED",
            "currency": "USD",
            "amount": "12500.00",
            "due_on": "2026-12-31",
            "seller": {"id": 11, "name": "Accra Textiles", "status": "ACTIVE"},
            "buyer": {"id": 12, "name": "Rotterdam Imports", "status": "ACTIVE"},
        },
    }


def test_the_state_is_what_the_api_returns(api: System, inbox: Receiver) -> None:
    api.subscribe(inbox.url(), "Invoice.*")

    become(api, "SUBMITTED")
    shown = api.client.get("/invoices/7").get_json()
    api.deliver()

    [request] = inbox.requests
    assert json.loads(request.body)["entity_state"] == shown


def test_subscriptions_are_listed(api: System, inbox: Receiver) -> None:
    made = {api.subscribe(inbox.url(), "Invoice.SUBMITTED")["id"] for _ in range(3)}

    assert {each["id"] for each in api.call("GET", "/subscriptions")["items"]} == made


def test_one_for_all_one_for_each_step_one_for_a_type(api: System, inbox: Receiver) -> None:
    from lending.models import Seller

    api.subscribe(inbox.url("/all"), "*")
    api.subscribe(inbox.url("/submitted"), "Invoice.SUBMITTED")
    api.subscribe(inbox.url("/verified"), "Invoice.VERIFIED")
    api.subscribe(inbox.url("/invoices"), "Invoice.*")
    api.subscribe(inbox.url("/sellers"), "Seller.*")

    become(api, "SUBMITTED", "VERIFIED")
    api.db.session.get(Seller, 11).status = "SUSPENDED"
    api.db.session.commit()
    api.deliver()

    assert events(inbox) == {
        ("/all", "Invoice.SUBMITTED"): 1,
        ("/all", "Invoice.VERIFIED"): 1,
        ("/all", "Seller.SUSPENDED"): 1,
        ("/submitted", "Invoice.SUBMITTED"): 1,
        ("/verified", "Invoice.VERIFIED"): 1,
        ("/invoices", "Invoice.SUBMITTED"): 1,
        ("/invoices", "Invoice.VERIFIED"): 1,
        ("/sellers", "Seller.SUSPENDED"): 1,
    }


def test_a_step_happens_only_when_it_is_taken(api: System, inbox: Receiver) -> None:
    api.subscribe(inbox.url(), "Invoice.*")

    become(api, currency="EUR")
    become(api, "SUBMITTED")
    become(api, "SUBMITTED")  # as it was
    become(api, amount=Decimal("1.00"))  # another column
    become(api, "VERIFIED", "DRAFT", "VERIFIED")  # the second does not come from SUBMITTED
    api.deliver()

    assert events(inbox) == {("/hook", "Invoice.SUBMITTED"): 1, ("/hook", "Invoice.VERIFIED"): 1}


def test_born_submitted_is_submitted(api: System, inbox: Receiver) -> None:
    from lending.models import Invoice, InvoiceStatus

    api.subscribe(inbox.url(), "Invoice.SUBMITTED")
    api.save(
        Invoice(
            seller_id=11,
            buyer_id=12,
            number="INV-8",
            amount=Decimal(1),
            status=InvoiceStatus.SUBMITTED,
        )
    )
    api.deliver()

    assert events(inbox) == {("/hook", "Invoice.SUBMITTED"): 1}


def test_the_same_event_goes_to_slack(api: System, inbox: Receiver) -> None:
    with Receiver(slack) as channel:
        api.subscribe(inbox.url(), "Invoice.SUBMITTED")
        made = api.subscribe(channel.url(), "Invoice.SUBMITTED", format="slack")
        become(api, "SUBMITTED")
        report = api.deliver()

        assert (report.delivered, report.failed) == (2, 0)
        [request] = channel.requests
    assert opened(request, made["secret"])["text"] == "Invoice submitted successfully."
    [other] = inbox.requests
    assert other.headers["webhook-id"] == request.headers["webhook-id"]


def test_a_slack_like_receiver_refuses_the_default_format(api: System) -> None:
    """The receiver of the test above can fail."""
    with Receiver(slack) as channel:
        api.subscribe(channel.url(), "Invoice.SUBMITTED")
        become(api, "SUBMITTED")

        assert api.deliver().failed == 1


def test_a_format_that_the_catalogue_does_not_offer_is_refused(api: System, inbox: Receiver) -> None:
    body = {"to_url": inbox.url(), "event_types": ["Invoice.SUBMITTED"], "format": "minimal"}

    answer = api.call("POST", "/subscriptions", body, expect=422)

    assert answer["errors"] == [
        {
            "field": "format",
            "message": "'minimal' is not offered for Invoice.SUBMITTED. Offered: entity, slack.",
        }
    ]
