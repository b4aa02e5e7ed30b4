"""Each refusal of the guard is logged for the operator, and its text reveals nothing to the owner."""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Iterator

import pytest

from flask_webhooks import replay
from flask_webhooks.errors import AddressRefusedError
from flask_webhooks.outcome import Failure
from flask_webhooks.state import AppState
from flask_webhooks.transport import REFUSED, Transport
from flask_webhooks.transport.refusal_log import MOST_NAMES, QUIET, Refusals
from tests.api.conftest import Customer
from tests.receivers import Receiver
from tests.stage import attempts, fill, subscribe
from tests.transport.conftest import Make, outbound
from tests.transport.nameserver import NameServer
from tests.worker.answers import run

HOST, ADDRESS, RULE = "moved.example.com", "10.0.0.7", "10.0.0.0/8 private (RFC 1918)"
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Zone:
    """Where `HOST` leads to."""

    address = ADDRESS


@pytest.fixture
def zone(state: AppState) -> Iterator[Zone]:
    zone = Zone()
    with NameServer(lambda name, times: [zone.address]) as server:
        state.transport._names._resolver = server.getaddrinfo
        yield zone


@pytest.fixture
def call(state: AppState) -> Customer:
    return Customer(state.app.test_client())


def logged_refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, t.Any]]:
    return [
        {name: getattr(record, name) for name in ("levelname", "host", "address", "rule")}
        for record in caplog.records
        if record.message == "address.refused"
    ]


ONCE = [{"levelname": "WARNING", "host": HOST, "address": ADDRESS, "rule": RULE}]


@on_one_database
def test_saving_is_logged(zone: Zone, call: Customer, caplog: pytest.LogCaptureFixture) -> None:
    body = {"url": f"https://{HOST}/", "events": ["reports.ready"]}
    answers = [call("POST", "/subscriptions", body, expect=422) for _ in range(2)]

    assert [answer["errors"] for answer in answers] == [[{"field": "url", "message": REFUSED}]] * 2
    assert logged_refusals(caplog) == ONCE


@on_one_database
def test_a_change_is_logged(zone: Zone, call: Customer, caplog: pytest.LogCaptureFixture) -> None:
    made = call.subscribe("reports.ready")

    call("PATCH", f"/subscriptions/{made['id']}", {"url": f"https://{HOST}/"}, expect=422)

    assert logged_refusals(caplog) == ONCE


@on_one_database
def test_a_test_request_is_logged(
    state: AppState, zone: Zone, call: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = subscribe(state, f"https://{HOST}/", "reports.ready")

    answer = call("POST", f"/subscriptions/{subscription.id}/test", {}, expect=200)

    assert (answer["reason"], answer["attempt_log"][0]["detail"]) == ("blocked_address", REFUSED)
    assert ADDRESS not in call.last.text
    assert logged_refusals(caplog) == ONCE


@on_one_database
def test_a_delivery_is_logged(state: AppState, zone: Zone, caplog: pytest.LogCaptureFixture) -> None:
    fill(state, [subscribe(state, f"https://{HOST}/", "reports.ready")], 5)

    run(state)

    assert [(row.failure, row.detail) for row in attempts(state)] == [("blocked_address", REFUSED)] * 5
    assert logged_refusals(caplog) == ONCE


@on_one_database
def test_a_replay_is_guarded_and_logged(
    state: AppState, zone: Zone, call: Customer, inbox: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = subscribe(state, inbox.url(host=HOST), "reports.ready")
    zone.address = "127.0.0.1"
    fill(state, [subscription], 1)
    assert run(state).delivered == 1
    assert logged_refusals(caplog) == []

    zone.address = ADDRESS  # the name has moved inside since
    state.transport._running.adapter.idle.abandon()
    asked = {"states": ["delivered"], "since": "2020-01-01T00:00:00Z"}
    call("POST", f"/subscriptions/{subscription.id}/replay", asked, expect=202)
    replay.enqueue_batches(state)
    run(state)

    assert [row.failure for row in attempts(state) if row.trigger == "replay"] == ["blocked_address"]
    assert len(inbox.requests) == 1
    assert logged_refusals(caplog) == ONCE


@pytest.mark.parametrize(
    ("url", "host", "rule"),
    [
        ("https://10.0.0.1/", "10.0.0.1", RULE),
        ("https://localhost/", "localhost", "name of this host (RFC 6761)"),
        ("https://example.com:22/", "example.com", "port 22"),
    ],
)
def test_what_needs_no_lookup_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture, url: str, host: str, rule: str
) -> None:
    with pytest.raises(AddressRefusedError):
        make(allowed_networks=()).check(url)
    make(allowed_networks=()).send(outbound(url))

    assert [(each["host"], each["rule"]) for each in logged_refusals(caplog)] == [(host, rule)] * 2


def test_a_url_that_may_no_longer_be_used_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    reply = make(allow_http=False).send(outbound("http://user:secret@example.com/"))

    assert reply.failure is Failure.BLOCKED_ADDRESS
    [each] = logged_refusals(caplog)
    assert (each["host"], each["address"]) == ("example.com", None)
    assert "plain http is switched off" in each["rule"]


def test_a_malformed_url_is_the_owners_mistake_and_not_logged(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Exception, match="fragment"):
        transport.check("https://example.com/#a")

    assert logged_refusals(caplog) == []


def test_a_name_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    refusals = Refusals(clock=lambda: now)

    def refuse(host: str) -> int:
        before = len(logged_refusals(caplog))
        refusals.log(AddressRefusedError(REFUSED, host=host, address=ADDRESS, rule=RULE))
        return len(logged_refusals(caplog)) - before

    assert [refuse("a"), refuse("a"), refuse("b")] == [1, 0, 1]
    now += QUIET - 1
    assert refuse("a") == 0
    now += 1
    assert [refuse("a"), refuse("a")] == [1, 0]
    for number in range(MOST_NAMES):
        refuse(f"{number}")
    assert refuse("a") == 1  # forgotten, for so many came between
    assert len(refusals._logged_at) == MOST_NAMES


@pytest.fixture(autouse=True)
def _at_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flask_webhooks.transport")
