"""A freelancer platform (five-systems E): Standard Webhooks throughout, retried and logged."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Response, jsonify
from standardwebhooks import Webhook, WebhookVerificationError

from tests.receivers import Receiver, Talk, ok, response
from tests.systems.conftest import System, opened


@pytest.fixture
def platform(make_system: t.Callable[..., System]) -> System:
    """With an open offer that has one milestone and one sent invoice, and the GET of an offer."""
    system = make_system("procurement")
    from procurement import models as m  # type: ignore[import-not-found]
    from procurement.schemas import OfferSchema  # type: ignore[import-not-found]

    @system.app.get("/offers/<int:key>")
    def get_offer(key: int) -> Response:
        return jsonify(OfferSchema().dump(system.db.session.get(m.Offer, key)))

    system.save(
        m.Freelancer(id=1, company_id="1", name="Grace"),
        m.Offer(id=5, company_id="1", freelancer_id=1, title="Compiler"),
        m.Milestone(id=6, offer_id=5, title="Parser", amount=Decimal("900.00")),
        m.Invoice(id=7, milestone_id=6, number="R-7", amount=Decimal("900.00")),
    )
    return system


def put(platform: System, model: str, key: int, **columns: t.Any) -> None:
    from procurement import models

    row = platform.db.session.get(getattr(models, model), key)
    for name, value in columns.items():
        setattr(row, name, value)
    platform.db.session.commit()


def test_paid_has_exactly_these_keys(platform: System, inbox: Receiver) -> None:
    made = platform.subscribe(inbox.url(), "invoice.paid", description="Bookkeeping")
    assert made["description"] == "Bookkeeping"

    before = datetime.now(UTC)
    put(platform, "Invoice", 7, status="paid")
    platform.deliver()

    [request] = inbox.requests
    body = opened(request, made["secret"])
    assert before <= datetime.fromisoformat(body["timestamp"]) <= datetime.now(UTC)
    assert body == {
        "type": "invoice.paid",
        "timestamp": body["timestamp"],
        "data": {"id": 7, "number": "R-7", "amount": "900.00", "status": "paid", "milestone_id": 6},
    }


def test_data_is_what_the_api_returns(platform: System, inbox: Receiver) -> None:
    platform.subscribe(inbox.url(), "offer.accepted")

    put(platform, "Offer", 5, status="accepted")
    shown = platform.client.get("/offers/5").get_json()
    platform.deliver()

    [request] = inbox.requests
    assert json.loads(request.body)["data"] == shown


def test_each_webhook_has_its_own_secret(platform: System, inbox: Receiver) -> None:
    one = platform.subscribe(inbox.url(), "milestone.approved")
    with Receiver(ok()) as other_inbox:
        other = platform.subscribe(other_inbox.url(), "milestone.approved")
        put(platform, "Milestone", 6, status="approved")
        platform.deliver()
        [second] = other_inbox.requests
    [first] = inbox.requests

    opened(first, one["secret"])
    opened(second, other["secret"])
    with pytest.raises(WebhookVerificationError):
        Webhook(other["secret"]).verify(first.body, first.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(one["secret"]).verify(first.body + b" ", first.headers)


def test_an_approved_milestone_is_a_changed_offer(platform: System, inbox: Receiver) -> None:
    platform.subscribe(inbox.url(), "*")

    put(platform, "Milestone", 6, status="approved")
    platform.deliver()

    types = sorted(json.loads(request.body)["type"] for request in inbox.requests)
    assert types == ["milestone.approved", "offer.updated"]


def test_a_failure_is_retried_with_the_same_bytes_and_logged(platform: System) -> None:
    answers = iter([503, 200])

    def once_down(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.send(response(next(answers)))

    with Receiver(once_down) as receiver:
        made = platform.subscribe(receiver.url(), "invoice.paid")
        put(platform, "Invoice", 7, status="paid")
        assert platform.deliver().failed == 1
        # The event's own schedule says five seconds; a fifth more at most.
        later = datetime.now(UTC) + timedelta(seconds=7)
        assert platform.deliver(later).delivered == 1
        first, second = receiver.requests

    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    opened(first, made["secret"])
    [delivery] = platform.call("GET", f"/deliveries?subscription={made['id']}")["items"]
    shown = platform.call("GET", f"/deliveries/{delivery['id']}")
    assert [attempt["response"]["status"] for attempt in shown["attempt_log"]] == [503, 200]


def test_a_page_lists_every_event(platform: System) -> None:
    shown = platform.call("GET", "/catalog")

    names = [event["name"] for channel in shown["channels"] for event in channel["events"]]
    assert names == [
        *(f"offer.{event}" for event in ("created", "updated", "accepted", "declined", "withdrawn")),
        "milestone.delivered",
        "milestone.approved",
        *(f"invoice.{event}" for event in ("created", "paid", "cancelled")),
    ]
    assert all(event["description"] for channel in shown["channels"] for event in channel["events"])
    paid = platform.call("GET", "/catalog/invoice.paid")
    assert paid["samples"]["standard"]["type"] == "invoice.paid"
    assert paid["samples"]["standard"]["data"]["status"] == "paid"
