"""On a developer's machine, plain http to loopback is allowed, and nothing else."""

from __future__ import annotations

import logging
import typing as t
from pathlib import Path

import pytest

from flask_webhooks.errors import AddressRefusedError, SubscriptionError
from flask_webhooks.outcome import Failure
from flask_webhooks.state import DEVELOPING, state_of
from tests.api.conftest import Customer, lasting
from tests.receivers import Receiver, ok
from tests.transport.conftest import Make, outbound

STRICT: dict[str, t.Any] = {"allow_http": False, "allowed_networks": ()}
HERE = ("http://127.0.0.1:{}/", "http://localhost:{}/", "http://shop.localhost:{}/")
ELSEWHERE = (
    "http://example.com/",
    "http://10.0.0.1/",
    "https://10.0.0.1/",
    "http://169.254.169.254/",
    "https://printer/",
    "http://0.0.0.0:5000/",
    "http://localhost.example.com/",
    "http://127.0.0.1:6379/",
    "http://localhost:22/",
    "http://user@localhost/",
)


@pytest.mark.parametrize("url", HERE)
def test_a_receiver_on_this_machine_is_reached(make: Make, url: str) -> None:
    transport = make(**STRICT, is_developing=lambda: True, resolver=_home)
    with Receiver(ok()) as receiver:
        where = url.format(receiver.port)

        assert transport.check(where) == where
        assert transport.send(outbound(where)).status == 200


def _home(host: str, port: int, **_: t.Any) -> list[t.Any]:
    return [(2, 1, 6, "", ("127.0.0.1", port))]


@pytest.mark.parametrize("url", [*(each.format(5000) for each in HERE), "http://[::1]:5000/"])
def test_and_never_outside_of_development(make: Make, url: str) -> None:
    transport = make(**STRICT, resolver=_home)

    with pytest.raises(SubscriptionError):
        transport.check(url)
    assert transport.send(outbound(url)).failure is Failure.BLOCKED_ADDRESS


def test_nor_by_way_of_a_proxy_which_is_somewhere_else(make: Make) -> None:
    transport = make(**STRICT, is_developing=lambda: True, proxy="http://127.0.0.1:9")

    with pytest.raises(SubscriptionError):
        transport.check(HERE[0].format(5000))


@pytest.mark.parametrize("url", ELSEWHERE)
def test_nothing_else_is_let_through(make: Make, url: str) -> None:
    with pytest.raises(SubscriptionError) as strict:
        make(**STRICT, resolver=_home).check(url)
    with pytest.raises(SubscriptionError) as developing:
        make(**STRICT, resolver=_home, is_developing=lambda: True).check(url)

    if "localhost" not in url and "6379" not in url:
        assert str(developing.value) == str(strict.value)


def test_a_name_that_leads_here_is_no_name_of_this_machine(make: Make) -> None:
    transport = make(**STRICT, is_developing=lambda: True, resolver=_home)

    with pytest.raises(AddressRefusedError):
        transport.check("https://rebound.example.com/")
    assert transport.send(outbound("https://rebound.example.com/")).failure is Failure.BLOCKED_ADDRESS


def test_localhost_that_leads_elsewhere_is_refused(make: Make) -> None:
    transport = make(
        **STRICT, is_developing=lambda: True, resolver=lambda *_, **__: [(2, 1, 6, "", ("10.0.0.1", 80))]
    )

    assert transport.send(outbound("http://localhost:5000/")).failure is Failure.BLOCKED_ADDRESS


def test_it_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    transport = make(**STRICT, is_developing=lambda: True)
    with caplog.at_level(logging.WARNING):
        for port in (5000, 5001):
            transport.check(f"http://127.0.0.1:{port}/")

    [told] = [record for record in caplog.records if record.getMessage().startswith("loopback.allowed")]
    assert "http://127.0.0.1:5000" in told.getMessage()
    assert "debug" in told.getMessage()


@pytest.mark.parametrize(("is_debug", "is_dev", "expected"), [
    (True, False, 201), (False, True, 201), (False, False, 422),
])  # fmt: skip
def test_an_app_develops_in_debug_mode_and_under_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_debug: bool, is_dev: bool, expected: int
) -> None:
    if is_dev:
        monkeypatch.setenv(DEVELOPING, "1")
    strict = {"WEBHOOKS_ALLOWED_NETWORKS": [], "WEBHOOKS_ALLOW_HTTP": False}
    with lasting(tmp_path, **strict) as app:
        app.debug = is_debug  # as `app.run(debug=True)` does, long after init_app
        call = Customer(app.test_client())

        call("POST", "/subscriptions", {"url": "http://127.0.0.1:5000/", "events": ["*"]}, expect=expected)
        assert state_of(app).is_developing is (expected == 201)
