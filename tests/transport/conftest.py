"""Fixtures for the tests of the transport."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Callable, Iterator

import pytest

from flask_webhooks.transport import Outbound, Transport
from tests.receivers import Authority

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

Make = Callable[..., Transport]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a maker of transports that may talk to loopback; they are closed after the test."""
    made: list[Transport] = []

    def make_one(**options: t.Any) -> Transport:
        settings: dict[str, t.Any] = {
            "timeout": (20.0, 60.0),
            "allow_http": True,
            "allowed_networks": LOOPBACK,
            "response_limit": 1024,
            "pool_size": 32,
        }
        made.append(Transport(**{**settings, **options}))
        return made[-1]

    yield make_one
    for transport in made:
        transport.close()


@pytest.fixture
def transport(make: Make) -> Transport:
    return make()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def outbound(url: str, **headers: str) -> Outbound:
    return Outbound(url, {"Content-Type": "application/json", **headers}, b'{"event": "invoices.created"}')
