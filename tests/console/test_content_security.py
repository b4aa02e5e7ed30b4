"""No script from outside runs: all values are escaped, and every page works under `default-src 'self'`."""

from __future__ import annotations

import html
import json
import re
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import Webhooks
from flask_webhooks.console.formatting import pretty, text_of
from flask_webhooks.console.rendering import POLICY
from flask_webhooks.models import Message, Subscription
from flask_webhooks.state import AppState, state_of
from tests.console.conftest import Log, Visitor, load_principal, places, write_log

STORED = ("no-store", "private, no-cache")
SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One database: all of this is about HTML and not about SQL."""
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


def test_no_page_has_inline_script_style_or_handler(app: Flask, state: AppState, log: Log) -> None:
    operator = Visitor(app, operator=True)
    for method, path in places(state, log):
        if method == "POST":
            continue
        answer = operator.get(path)

        assert answer.status_code == 200, path
        assert not re.search(
            r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:", answer.text
        ), path
        assert not re.search(r'(?:src|action)="(?:https?:)?//|<link[^>]*href="(?:https?:)?//', answer.text), (
            path
        )
        if answer.mimetype == "text/html":
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_scripts_in_every_field_stay_text(visitor: Visitor, app: Flask, state: AppState) -> None:
    log = write_log(
        state,
        url="https://example.com/?" + SCRIPT,
        response_body=SCRIPT.encode(),
        response_headers=json.dumps({SCRIPT: SCRIPT}),
        request_headers=json.dumps({SCRIPT: SCRIPT}),
        detail=SCRIPT,
        address=SCRIPT[:60],
        worker=SCRIPT,
    )
    with Session(state.engine) as session:
        row = session.get_one(Subscription, log.subscription.id)
        row.description = SCRIPT
        row.details = {SCRIPT: SCRIPT}
        for message in session.query(Message):
            message.text = message.entity_id = SCRIPT
            message.data = json.dumps({SCRIPT: SCRIPT})
            message.extras = json.dumps({"changes": {SCRIPT: {"from": SCRIPT, "to": [SCRIPT]}}})
        session.commit()

    shown = 0
    for each in (visitor, Visitor(app, operator=True)):
        for method, path in places(state, log):
            page = each.get(path).text if method == "GET" else ""
            assert "<script>alert" not in page, path
            assert "<img src=x" not in page, path
            shown += html.escape("<script>alert(1)", quote=False) in page
    assert shown > 6


def test_scripts_in_a_refused_form_stay_text(visitor: Visitor) -> None:
    names = (
        "url",
        "description",
        "environment",
        "format",
        "retry",
        "waits",
        "rate_limit",
        "header_name",
        "header_value",
        "event",
        "include",
    )

    answer = visitor.post("/webhooks/new", dict.fromkeys(names, SCRIPT))

    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text


QUERIES = (
    "q",
    "state",
    "environment",
    "before",
    "notice",
    "window",
    "event",
    "status",
    "webhook",
    "time",
    "anchor",
    "newest",
)


def test_scripts_in_the_address_stay_text(visitor: Visitor, log: Log) -> None:
    webhook = f"/webhooks/{log.subscription.id}"
    for path in ("/", "/deliveries", "/deliveries/live", webhook, "/webhooks/new"):
        for query in QUERIES:
            answer = visitor.get(path, query_string={query: SCRIPT})

            assert answer.status_code == 200
            assert "<script>alert" not in answer.text, query


def test_a_secret_is_on_no_page_that_was_not_asked_for_it(
    visitor: Visitor, state: AppState, log: Log
) -> None:
    for method, path in places(state, log):
        if method == "GET":
            assert not re.search(r"whsec_[A-Za-z0-9+/]", visitor.get(path).text), path


@pytest.mark.parametrize("proxy", [None, "http://10.11.12.13:3128"])
def test_the_address_of_our_proxy_is_for_operators(
    make_app: t.Callable[..., Flask], proxy: str | None
) -> None:
    """With a proxy the log has the proxy's address, which is an internal one of the operator."""
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    app = make_app(webhooks=hooks, WEBHOOKS_EGRESS_PROXY=proxy)
    log = write_log(state_of(app), address="10.11.12.13")

    pages = [
        Visitor(app, operator=operator).get(f"/deliveries/{log.deliveries['failed']}").text
        for operator in (False, True)
    ]

    assert ["from 10.11.12.13" in page for page in pages] == [proxy is None, True]


def test_every_answer_says_what_it_needs(visitor: Visitor, app: Flask, state: AppState, log: Log) -> None:
    """Pages, parts, files, problems and redirects; to strangers too."""
    missing = ("GET", "/static/nothing.js")
    others = [("GET", "/accent.css"), ("GET", "/static/console.css"), missing, ("GET", "/no/such/page")]
    for each in (Visitor(app, operator=True), visitor, Visitor(app, rights="read"), Visitor(app, owner=None)):
        for method, path in [*others, *places(state, log)]:
            answer = each.get(path) if method == "GET" else each.post(path)

            assert answer.headers["Content-Security-Policy"] == POLICY, path
            assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            if answer.mimetype == "text/html" and answer.status_code != 303 and "static" not in path:
                assert answer.headers["Cache-Control"] in STORED, path
            answer.close()


def test_the_policy_allows_nothing_inline_and_no_frame_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))

    assert rules == {
        "default-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
        "object-src": "'none'",
    }


def test_other_methods_find_nothing(app: Flask, visitor: Visitor, log: Log) -> None:
    path = f"/webhooks/console/webhooks/{log.subscription.id}"
    for method in ("PUT", "PATCH", "DELETE"):
        answer = app.test_client().open(path, method=method, headers=visitor.headers)

        assert answer.status_code == 404
        assert answer.headers["Content-Security-Policy"] == POLICY


def test_nothing_in_the_address_leads_away(visitor: Visitor, log: Log) -> None:
    away = "https://evil.example/"
    paths = (f"/webhooks/{log.subscription.id}/switch", f"/deliveries/{log.deliveries['failed']}/retry")
    for name in ("next", "url", "return_to", "redirect", "back"):
        for path in paths:
            answer = visitor.post(f"{path}?{name}={away}", {name: away})

            assert answer.status_code in (303, 409)
            assert "evil" not in answer.headers.get("Location", "")
        assert "evil.example" not in visitor.get(f"/?{name}={away}").text


def test_pages_with_a_secret_are_not_stored(visitor: Visitor, log: Log) -> None:
    for path in ("secret", "rotate"):
        assert visitor.post(f"/webhooks/{log.subscription.id}/{path}").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("مرحبا עולם".encode(), "مرحبا עולם"),
        ("a\u202eb".encode(), "a\\u202eb"),
        (b"\x00\x1b[31m", "\\u0000\\u001b[31m"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("日本語\t\n".encode(), "日本語\t\n"),
    ],
    ids=["right to left", "override", "control", "no utf-8", "cjk"],
)
def test_payloads_of_any_script_are_shown_and_marks_that_mislead_are_named(raw: bytes, shown: str) -> None:
    assert text_of(raw) == shown


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert pretty(b"down") == "down"
    assert pretty(b'{"a":1}') == '{\n  "a": 1\n}'
    assert pretty(b"[" * 100_000) == "[" * 100_000
