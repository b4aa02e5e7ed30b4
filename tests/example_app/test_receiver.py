"""The demo's receiver accepts our requests; no malformed request ends it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import typing as t
from datetime import UTC, datetime

import pytest

from flask_webhooks import signing
from flask_webhooks.ids import uuid7

SECRET = signing.generate()
BODY = b'{"event": "invoices.created"}'


@pytest.fixture(scope="module")
def port() -> t.Iterator[int]:
    words = [sys.executable, "-m", "example_app.receiver"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, text=True, **pipes) as process:  # type: ignore[call-overload]
        number = json.loads(process.stdout.readline())["port"]
        process.stdin.write(json.dumps({"/acme": SECRET.text}) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        yield number
        process.stdin.close()
        process.terminate()


def post(port: int, headers: t.Mapping[str, str], body: bytes = BODY) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/acme", body, dict(headers))
        return connection.getresponse().status


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *({"webhook-signature": value} for value in ("v1", "v1,", "v1,%", "é", "v1,é", "")),
        {"webhook-timestamp": "soon"},
        {"Content-Length": "abc"},
        {"Content-Length": "-1"},
        {"Content-Length": "99999999"},
    ],
)
def test_odd_requests_are_refused(port: int, changes: dict[str, str]) -> None:
    good = signing.headers(uuid7(), BODY, datetime.now(UTC), [SECRET])

    assert post(port, {**good, **changes} if changes else {}) == 401
    assert post(port, good) == 204


@pytest.mark.parametrize("body", [b"{", b"\xff", b""])
def test_what_is_no_json_is_refused_though_it_is_signed(port: int, body: bytes) -> None:
    assert post(port, signing.headers(uuid7(), body, datetime.now(UTC), [SECRET]), body) == 401
