"""Hostile URLs and headers: whatever is thrown at a subscription, it is taken as it is or refused, never half."""

from __future__ import annotations

import json
import typing as t

from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_webhooks.subscribing import headers
from flask_webhooks.transport.addresses import parse_address, refusal

from .conftest import Customer

FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
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


@FUZZ
@given(url=URLS)
@example(url="https://127.0.0.1\t/")
@example(url="https://example.com\r\nX: 1/")
@example(url="https://example.com#@10.0.0.1/")
@example(url="\x00")
@example(url="\ud800")
def test_no_url_breaks_the_api_or_names_an_inside_address(strict: Flask, url: str) -> None:
    call = Customer(strict.test_client())

    made = call("POST", "/subscriptions", {"url": url, "events": ["*"]})

    assert call.last.status_code in (201, 422), call.last.data
    if call.last.status_code == 201:
        kept = made["url"]
        assert kept.startswith("https://")
        assert kept.isascii()
        host = (
            kept.removeprefix("https://").partition("/")[0].rpartition(":")[0] or kept[8:].partition("/")[0]
        )
        address = parse_address(host.strip("[]"))
        assert address is None or refusal(address) is None
    else:
        assert made["errors"]


NAMES = st.one_of(st.text(max_size=20), st.from_regex(r"[A-Za-z-]{1,12}", fullmatch=True), st.sampled_from(
    ["Host", "content-length", "Transfer-Encoding", "WEBHOOK-ID", "webhook-signature", "Cookie", "Connection", "TE",
     "X-Forwarded-For", "Proxy-Authorization", "X-Api-Key", "Authorization"]
))  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20), st.from_regex(r"[ -~]{0,20}", fullmatch=True), st.just("a\r\nHost: b")
)
REFUSED = ("host", "content-length", "transfer-encoding", "cookie", "connection", "te", "proxy-authorization")


@FUZZ
@given(given_headers=st.dictionaries(NAMES, VALUES, max_size=4))
@example(given_headers={"X-A": "1", "x-a": "2"})
@example(given_headers={"X-A": "a\x00b"})
@example(given_headers={"X A": "1"})
@example(given_headers={"X-A": "\u0141"})
def test_headers_are_taken_whole_or_refused(strict: Flask, given_headers: dict[str, str]) -> None:
    call = Customer(strict.test_client())

    made = call(
        "POST", "/subscriptions", {"url": "https://example.com/", "events": ["*"], "headers": given_headers}
    )

    if call.last.status_code == 201:
        assert made["headers"] == sorted(given_headers)
        for name, value in given_headers.items():
            assert name.lower() not in REFUSED
            assert not name.lower().startswith(("webhook-", "x-forwarded-"))
            assert not set(name + value) & set("\r\n\0")
            assert (name + value).isascii()
    else:
        assert call.last.status_code == 422, call.last.data
        assert {each["field"].partition(".")[0] for each in made["errors"]} == {"headers"}


@FUZZ
@given(body=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["url", "events", "channels", "event", "includes", "headers", "retry", "metadata", "rate_limit",
                         "active", "format", "signature", "secret", "description", "owner"]) | st.text(max_size=5),
        inner, max_size=5),
    max_leaves=15,
))  # fmt: skip
def test_no_body_breaks_the_api(strict: Flask, body: t.Any) -> None:
    call = Customer(strict.test_client())
    mine = call.subscribe("*", url="https://example.com/")["id"]

    for method, path in (
        ("POST", "/subscriptions"),
        ("PATCH", f"/subscriptions/{mine}"),
        ("POST", f"/subscriptions/{mine}/replay"),
        ("POST", f"/subscriptions/{mine}/secret/rotate"),
    ):
        call(method, path, body)
        assert call.last.status_code < 500, (method, path, json.dumps(body), call.last.data)


def test_values_never_reach_a_message() -> None:
    _, faults = headers.check({"Authorization": "Bearer sesame\n"}, 20)

    assert faults
    assert "sesame" not in str(faults)
