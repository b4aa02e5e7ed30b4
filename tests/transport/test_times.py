"""The timings of an attempt in its row of the log: name look-up over a wire, connection, and TLS."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import threading
import typing as t

import pytest

from flask_webhooks.state import AppState
from tests.api.conftest import Customer
from tests.receivers import Authority, Receiver, ok
from tests.stage import attempts, deliveries, fill, subscribe
from tests.transport.conftest import Make
from tests.transport.nameserver import NameServer
from tests.worker.answers import run

NAME = "hooks.example.com"
SLOW = 0.2
"""Seconds that the name server takes, so that its time cannot be mistaken for another."""


def slow(name: str, times: int) -> list[str]:
    threading.Event().wait(SLOW / 2)  # it is asked for both families
    return ["127.0.0.1"] if name == NAME else []


def test_the_row_has_the_times_of_name_connection_and_tls(
    state: AppState, make: Make, authority: Authority
) -> None:
    with (
        NameServer(slow) as server,
        Receiver(ok(), tls=authority.context(NAME)) as receiver,
    ):
        transport = make(verify=authority.path, resolver=server.getaddrinfo)
        sender = dataclasses.replace(state, transport=transport)
        subscription = subscribe(state, receiver.url(host=NAME), "reports.ready")
        for _ in range(2):
            fill(state, [subscription], 1)
            assert run(sender).delivered == 1
        assert receiver.connections == 1

    first, second = attempts(state)
    assert (first.url, first.address) == (receiver.url(host=NAME), "127.0.0.1")
    dns, connect, tls = first.dns_seconds, first.connect_seconds, first.tls_seconds
    assert dns is not None and connect is not None and tls is not None  # noqa: PT018
    assert first.first_byte_seconds is not None
    assert dns >= SLOW * 0.9
    assert 0 < connect < first.total_seconds - dns
    assert 0 < tls < first.total_seconds - dns
    assert dns + connect + tls <= first.first_byte_seconds <= first.total_seconds
    # On a kept connection there is nothing to look up, to connect or to shake hands about.
    assert (second.dns_seconds, second.connect_seconds, second.tls_seconds) == (None, None, None)
    assert 0 < t.cast("float", second.first_byte_seconds) <= second.total_seconds < SLOW

    shown = Customer(state.app.test_client())("GET", f"/deliveries/{first.delivery_id}", expect=200)
    [attempt] = shown["attempt_log"]
    assert attempt["timings"] == {
        name: getattr(first, f"{name}_seconds") for name in ("dns", "connect", "tls", "first_byte", "total")
    }


@pytest.mark.parametrize("status", [429, 503])
def test_a_date_to_come_back_at_is_when_it_is_due(state: AppState, status: int) -> None:
    soon = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(hours=2)
    headers = {"Retry-After": email.utils.format_datetime(soon, usegmt=True)}
    with Receiver(ok(status=status, headers=headers)) as receiver:
        fill(state, [subscribe(state, receiver.url(), retry=[60.0, 60.0])], 1)
        run(state)

    [row], [attempt] = deliveries(state), attempts(state)
    assert (row.state, row.due_at) == ("pending", soon)
    assert attempt.response_headers is not None
    assert headers["Retry-After"] in attempt.response_headers


def test_a_date_after_another_status_is_not_obeyed(state: AppState) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    headers = {"Retry-After": email.utils.format_datetime(later, usegmt=True)}
    with Receiver(ok(status=500, headers=headers)) as receiver:
        fill(state, [subscribe(state, receiver.url(), retry=[60.0])], 1)
        run(state)

    [row] = deliveries(state)
    assert row.due_at is not None
    assert row.due_at < later - datetime.timedelta(hours=1)
