"""Random hostile URLs and headers: the API stores each exactly as given, or refuses it."""

from __future__ import annotations

import contextlib
import json
import typing as t

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.api.operations import OPERATIONS, Operation
from flask_webhooks.errors import SubscriptionError
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions import headers
from flask_webhooks.transport.addresses import parse_address, refusal

from .conftest import Customer, quick

MANY, SOME = quick(400), quick(60)
"""Many for a mere function, few where each is a request that may create a subscription."""
HOSTS = st.sampled_from(
    ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "example.com",
     "0", "017700000001", "[64:ff9b::7f00:1]", "metadata.google.internal", "\uff11\uff12\uff17.0.0.1", "example.com."]
)  # fmt: skip
URLS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}://{}{}{}{}".format,
        st.sampled_from(["http", "https", "HTTPS", "ftp", "file", "javascript", "https:"]),
        st.sampled_from(["", "user:pass@", "@", "\\@"]),
        HOSTS,
        st.sampled_from(["", ":22", ":443", ":65536", ":0", ":8080", ":6379"]),
        st.text(max_size=20).map(lambda text: f"/{text}"),
    ),
)


HOSTILE_URLS = [
    "https://127.0.0.1\t/",
    "https://example.com\r\nX: 1/",
    "https://example.com#@10.0.0.1/",
    "https://example.com\\@10.0.0.1/",
    "\x00",
    "\ud800",
]


def is_outside(kept: str) -> bool:
    """Whether an accepted URL is one that we may connect to."""
    host = kept.removeprefix("https://").partition("/")[0].rpartition(":")[0] or kept[8:].partition("/")[0]
    address = parse_address(host.strip("[]"))
    is_inside = address is not None and refusal(address) is not None
    return kept.startswith("https://") and kept.isascii() and not is_inside


@MANY
@given(url=URLS)
def test_no_url_that_is_taken_names_an_inside_address(strict: Flask, url: str) -> None:
    with contextlib.suppress(SubscriptionError):
        assert is_outside(state_of(strict).transport.check(url))


@SOME
@given(url=URLS | st.sampled_from(HOSTILE_URLS))
def test_no_url_breaks_the_api(strict: Flask, url: str) -> None:
    call = Customer(strict.test_client())

    made = call("POST", "/subscriptions", {"url": url, "events": ["*"]})

    if call.last.status_code == 201:
        assert is_outside(made["url"])
    else:
        assert call.last.status_code == 422, call.last.data
        assert made["errors"]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_misleading_urls_are_refused(strict: Flask, url: str) -> None:
    call = Customer(strict.test_client())

    call("POST", "/subscriptions", {"url": url, "events": ["*"]}, expect=422)


NAMES = st.one_of(st.text(max_size=20), st.from_regex(r"[A-Za-z-]{1,12}", fullmatch=True), st.sampled_from(
    ["Host", "content-length", "Transfer-Encoding", "WEBHOOK-ID", "webhook-signature", "Cookie", "Connection", "TE",
     "X-Forwarded-For", "Proxy-Authorization", "X-Api-Key", "Authorization"]
))  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20), st.from_regex(r"[ -~]{0,20}", fullmatch=True), st.just("a\r\nHost: b")
)
REFUSED = ("host", "content-length", "transfer-encoding", "cookie", "connection", "te", "proxy-authorization")


HEADERS = st.dictionaries(NAMES, VALUES, max_size=4)
HOSTILE_HEADERS = [
    {"X-A": "1", "x-a": "2"},
    {"X-A": "a\x00b"},
    {"X A": "1"},
    {"X-A": "\u0141"},
    {"X-A": "a\nHost: b"},
]


def are_harmless(given_headers: dict[str, str]) -> bool:
    return all(
        name.lower() not in REFUSED
        and not name.lower().startswith(("webhook-", "x-forwarded-"))
        and not set(name + value) & set("\r\n\0")
        and (name + value).isascii()
        for name, value in given_headers.items()
    )


@MANY
@given(given_headers=HEADERS)
def test_headers_are_taken_whole_or_refused(given_headers: dict[str, str]) -> None:
    taken, faults = headers.check(given_headers, 20)

    assert faults or (taken == given_headers and are_harmless(given_headers))


@SOME
@given(given_headers=HEADERS | st.sampled_from(HOSTILE_HEADERS))
def test_no_headers_break_the_api(strict: Flask, given_headers: dict[str, str]) -> None:
    call = Customer(strict.test_client())
    body = {"url": "https://example.com/", "events": ["*"], "headers": given_headers}

    made = call("POST", "/subscriptions", body)

    if call.last.status_code == 201:
        assert made["headers"] == sorted(given_headers)
        assert are_harmless(given_headers)
    else:
        assert call.last.status_code == 422, call.last.data
        assert {each["field"].partition(".")[0] for each in made["errors"]} == {"headers"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10) | st.sampled_from(["*", "invoices.*", "invoices.paid", "clients", "9999-12-31", "https://a.b/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["event", "includes", "a"]) | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
ROUTES = ["create_subscription", "change_subscription", "replay_subscription", "rotate_secret"]
TAKING = [operation for operation in OPERATIONS if operation.name in ROUTES]


@pytest.fixture(scope="module")
def mine(strict: Flask) -> str:
    """A subscription that gets the random bodies."""
    made = Customer(strict.test_client()).subscribe("*", url="https://example.com/")
    return str(made["id"])


@pytest.mark.parametrize("operation", TAKING, ids=lambda operation: operation.name)
def test_no_body_breaks_the_api(strict: Flask, mine: str, operation: Operation) -> None:
    assert operation.body is not None
    named = st.fixed_dictionaries({}, optional={name: ANYTHING for name in operation.body().load_fields})
    call = Customer(strict.test_client())

    @SOME
    @given(body=named | ANYTHING)
    def throw(body: t.Any) -> None:
        call(operation.method, operation.path.replace("<subscription_id>", mine), body)
        assert call.last.status_code < 500, (json.dumps(body), call.last.data)

    throw()


def test_values_never_reach_a_message() -> None:
    _, faults = headers.check({"Authorization": "Bearer sesame\n"}, 20)

    assert faults
    assert "sesame" not in str(faults)
