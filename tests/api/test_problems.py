"""Unusual HTTP: errors below the API, in Flask, Werkzeug and the server, are problem details too."""

from __future__ import annotations

import io
import json
import typing as t

import pytest
from flask import Flask, abort, request
from werkzeug.exceptions import TooManyRequests

from flask_webhooks import Principal
from flask_webhooks.state import state_of

from .conftest import URL, Customer, lasting

PATHS = [
    "",
    "/",
    "/nothing",
    "/subscriptions",
    "/subscriptions/x/test",
    "/openapi.json",
    "/catalog/invoices.paid",
]


def problem(answer: t.Any, status: int) -> t.Any:
    assert answer.status_code == status, answer.data
    assert answer.mimetype == "application/problem+json"
    body = answer.get_json(force=True)
    assert body["status"] == status
    assert body["detail"]
    return body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "CONNECT", "PUT", "X" * 3000])
def test_unknown_methods_are_problems(shared: Customer, method: str, path: str) -> None:
    shared(method, path)

    exists = path not in PATHS[:3]
    body = problem(shared.last, 405 if exists else 404)
    assert exists == ("Allow" in shared.last.headers)
    assert len(json.dumps(body)) < 500


def test_options_list_the_methods_without_a_principal(shared_app: Flask) -> None:
    for path, allowed in (
        ("/subscriptions", "GET, HEAD, OPTIONS, POST"),
        ("/subscriptions/x/test", "OPTIONS, POST"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ):
        answer = shared_app.test_client().options(f"/webhooks/api{path}")
        assert (answer.status_code, answer.headers["Allow"], answer.data) == (200, allowed, b"")
    assert shared_app.test_client().options("/webhooks/api/nothing").status_code == 401


def test_head_is_get_without_a_body(shared: Customer) -> None:
    shared("GET", "/subscriptions", expect=200)
    length = shared.last.headers["Content-Length"]
    shared("HEAD", "/subscriptions", expect=200)

    assert (shared.last.data, shared.last.headers["Content-Length"]) == (b"", length)
    shared("HEAD", "/subscriptions/x", expect=404)
    assert shared.last.mimetype == "application/problem+json"


class Broken(io.RawIOBase):
    """A body with malformed chunks, for which gunicorn raises an OSError."""

    def readable(self) -> bool:
        return True

    def readinto(self, into: t.Any) -> int:
        raise OSError("Invalid chunk size: 'zz'")


@pytest.mark.parametrize(
    "environ",
    [
        {"wsgi.input": Broken(), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        {
            "wsgi.input": io.BytesIO(b'{"overlap": 5}'),
            "HTTP_TRANSFER_ENCODING": "chunked",
        },  # taken for nothing
        {"wsgi.input": io.BytesIO(b'{"ov'), "CONTENT_LENGTH": "14"},
        {"wsgi.input": io.BytesIO(b'{"overlap": 5, "overlap": 6}'), "CONTENT_LENGTH": "28"},
    ],
    ids=["bad chunks", "chunks that the server leaves", "cut off", "a name twice"],
)
def test_a_broken_body_is_malformed(shared: Customer, environ: dict[str, t.Any]) -> None:
    path = f"/webhooks/api/subscriptions/{shared.subscribe()['id']}/secret/rotate"
    base = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": ""}

    answer = shared.client.post(path, headers=shared.headers, environ_overrides={**base, **environ})

    assert problem(answer, 400)["code"] == "malformed"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "latin-1"])
def test_json_is_utf_8(shared: Customer, encoding: str) -> None:
    body = f'{{"url": "{URL}", "events": ["*"], "description": "é"}}'
    kind = f"application/json; charset={encoding}"

    answer = shared.client.post(
        "/webhooks/api/subscriptions", headers=shared.headers, data=body.encode(encoding), content_type=kind
    )

    assert problem(answer, 400)["code"] == "malformed"


def test_no_answer_is_guessed_to_be_a_page(shared: Customer) -> None:
    for path in PATHS:
        shared("GET", path)
        assert shared.last.headers["X-Content-Type-Options"] == "nosniff", path


def test_chunks_that_the_server_puts_together_are_read(shared: Customer) -> None:
    body = json.dumps({"url": URL, "events": ["*"]}).encode()

    answer = shared.client.post(
        "/webhooks/api/subscriptions",
        headers=shared.headers,
        content_type="application/json",
        environ_overrides={
            "wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True, "CONTENT_LENGTH": "",
            "HTTP_TRANSFER_ENCODING": "chunked",
        },
    )  # fmt: skip

    assert answer.status_code == 201, answer.data


@pytest.fixture
def strange(tmp_path: t.Any) -> t.Iterator[Flask]:
    """A host whose own code aborts requests."""
    with lasting(tmp_path, MAX_CONTENT_LENGTH=100) as app:

        def load() -> Principal:
            wanted = request.headers["X-Wanted"]
            if wanted == "abort":
                abort(403)
            if wanted == "slower":
                raise TooManyRequests(retry_after=7)
            if wanted == "login":
                abort(app.redirect("/login"))
            if wanted == "bug":
                raise RuntimeError("the password is sesame")
            return Principal("1", frozenset({"read", "write"}))

        object.__setattr__(state_of(app), "load_principal", load)
        yield app


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [("abort", 403, "forbidden"), ("slower", 429, "too_many_requests"), ("bug", 500, "failed")],
)
def test_what_the_host_refuses_is_a_problem_too(strange: Flask, wanted: str, status: int, code: str) -> None:
    answer = strange.test_client().get("/webhooks/api/subscriptions", headers={"X-Wanted": wanted})

    assert problem(answer, status)["code"] == code
    assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert b"sesame" not in answer.data


def test_the_hosts_way_to_a_login_and_its_limit_are_its_own(strange: Flask) -> None:
    client = strange.test_client()

    assert client.get("/webhooks/api/catalog", headers={"X-Wanted": "login"}).status_code == 302
    large = client.post("/webhooks/api/subscriptions", headers={"X-Wanted": ""}, json={"url": "x" * 200})
    assert problem(large, 413)["code"] == "too_large"


def test_a_body_is_taken_that_the_host_has_looked_at_before(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_BODY_LIMIT=1000)
    app.before_request(lambda: request.get_json(silent=True) and None)  # as Flask-Security does, for a token
    call = Customer(app.test_client())

    assert call.subscribe()["events"]
    call("POST", "/subscriptions", {"url": "https://example.com/", "description": "a" * 1000}, expect=413)
    call("POST", "/subscriptions", expect=422)
