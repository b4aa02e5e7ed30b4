"""Malformed input at every page of the console: the answer is a readable page, never a 500."""

from __future__ import annotations

import io
import os
import re
import time
import typing as t
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.models import Subscription
from flask_webhooks.state import AppState
from tests.api.conftest import quick
from tests.console.conftest import Log, Visitor, on_one_database, places

VALUES = ["", "%00", "a%00b", "%ff", "%ed%a0%80", "-1", "9" * 30, "9" * 5000, "%C2%B2", "%D9%A3", "1_0", "nan", "inf",
          "1e999", "%5B%5D", "a.*", "*", "'%20OR%201=1--", "%F0%9F%8E%89", "http://%5B",
          "24h", "00000000-0000-7000-8000-000000000000"]  # fmt: skip
QUERY = ("q", "environment", "state", "before", "webhook", "event", "time", "status", "anchor", "newest", "seen",
         "window", "as", "notice", "mode", "x")  # fmt: skip
FORM = ("url", "description", "active", "environment", "format", "retry", "waits", "rate_limit", "signature", "event",
        "include", "header_name", "header_value", "known_header", "drop_header", "held", "version", "form_key",
        "overlap", "mode", "time", "preview_event", "place", "x")  # fmt: skip


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    from flask_webhooks import Webhooks
    from tests.console.conftest import load_principal

    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks, WEBHOOKS_MANUAL_RATE=100_000, WEBHOOKS_MANUAL_TIMEOUT=0.2)


def is_readable(answer: t.Any) -> bool:
    return answer.status_code < 500 and (answer.status_code < 400 or "wh" in answer.text)


def some(*what: str) -> list[str]:
    """Values to try at a place: all in deep runs, else others at each place."""
    if "WEBHOOKS_TEST_DEEP" in os.environ:
        return VALUES
    return VALUES[zlib.crc32(repr(what).encode()) % 20 :: 20]


def test_no_nul_reaches_a_database(visitor: Visitor, state: AppState, log: Log) -> None:
    for path in (
        "/",
        "/deliveries",
        f"/webhooks/{log.subscription.id}",
        f"/deliveries/{log.deliveries['failed']}",
    ):
        for name in ("q", "event", "environment", "before", "x"):
            assert visitor.get(f"{path}?{name}=a%00b").status_code == 400, (path, name)


@on_one_database
def test_nothing_in_an_address_breaks_a_page(visitor: Visitor, state: AppState, log: Log) -> None:
    for method, path in places(state, log):
        if method == "GET":
            for name in QUERY:
                for value in some(path, name):
                    assert is_readable(visitor.get(f"{path}?{name}={value}")), (path, name, value)
            for value in VALUES:
                answer = visitor.get(f"{path}?{'&'.join(f'{name}={value}' for name in QUERY)}")
                assert is_readable(answer), (path, value)
                assert answer.status_code in (400, 404) or "%00" not in value, (path, value)


@on_one_database
def test_nothing_in_a_form_breaks_a_page(visitor: Visitor, state: AppState, log: Log) -> None:
    base = {"url": "https://93.184.215.14/x", "environment": "staging", "event": "invoices.*", "retry": "own"}
    visitor.token()
    for method, path in places(state, log):
        if method == "POST" and not path.endswith(
            ("/remove", "/test", "/retry", "/probe", "/cancel", "/stop")
        ):
            for name in FORM:
                for value in some(path, name):
                    body = "&".join(
                        f"{key}={quote(each)}"
                        for key, each in {**base, "webhooks_token": visitor.token()}.items()
                    )
                    answer = visitor.client.post(
                        visitor.prefix + path,
                        data=re.sub(rf"\b{name}=[^&]*", "", body) + f"&{name}={value}",
                        content_type="application/x-www-form-urlencoded",
                        headers=visitor.headers,
                    )
                    assert is_readable(answer), (path, name, value)


@quick(60)
@given(text=st.text(max_size=12))
def test_numbers_of_a_form_are_digits(text: str) -> None:
    from flask_webhooks.console.form import Form

    given = Form(retry="own", waits=text, rate_limit=text).given()

    for number in (*given.retry, given.rate_limit):
        assert number is None or isinstance(number, str) or 0 <= number < 1e16


@on_one_database
@pytest.mark.parametrize("waits", ["²", "5, ²", "٣", "1e3", "nan", "--", "9" * 400])
def test_waits_are_numbers(visitor: Visitor, waits: str) -> None:
    form = {
        "url": "https://93.184.215.14/",
        "environment": "staging",
        "event": "*",
        "retry": "own",
        "waits": waits,
    }

    assert visitor.post("/webhooks/new", form).status_code == 422


@on_one_database
@pytest.mark.parametrize("overlap", ["9" * 30, "٣", "-1", "1.5", "x", "604801", "9" * 5000])
def test_an_overlap_is_seconds(visitor: Visitor, log: Log, overlap: str) -> None:
    assert visitor.post(f"/webhooks/{log.subscription.id}/rotate", {"overlap": overlap}).status_code == 422


@on_one_database
@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "", "://", "http://\u2100.example"])
def test_an_origin_that_is_none_is_refused(visitor: Visitor, log: Log, origin: str) -> None:
    answer = visitor.post(
        f"/webhooks/{log.subscription.id}/switch", Origin=origin.encode("utf-8").decode("latin-1")
    )

    assert answer.status_code == 400


@on_one_database
@pytest.mark.parametrize("version", ["x", "9" * 30, "0", "-1", "²"])
def test_a_version_that_is_none_is_no_leave_to_overwrite(visitor: Visitor, log: Log, version: str) -> None:
    form = {"url": "https://93.184.215.14/", "environment": "staging", "event": "*", "version": version}

    assert visitor.post(f"/webhooks/{log.subscription.id}/edit", form).status_code == 409


@on_one_database
def test_a_form_that_is_too_large_is_refused_unread(visitor: Visitor, log: Log) -> None:
    large = visitor.post("/webhooks/new", {"description": "x" * 300_000})
    parts = {f"f{number}": "x" for number in range(1_100)}
    many = visitor.client.post(
        f"{visitor.prefix}/webhooks/new",
        data=parts,
        content_type="multipart/form-data",
        headers=visitor.headers,
    )
    chunks = visitor.post("/webhooks/new", {"description": "x"}, Transfer_Encoding="chunked")

    for answer in (large, many, chunks):
        assert answer.status_code == 413
        assert "wh-problem" in answer.text


@on_one_database
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_no_page_that_is_only_looked_at_reads_a_body(
    visitor: Visitor, state: AppState, log: Log, kind: str
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + b"x" * 300_000
    looked = [path for method, path in places(state, log) if method == "GET"]

    for path in looked:
        given = io.BytesIO(body)
        answer = visitor.get(path, input_stream=given, content_type=kind, content_length=len(body))
        assert answer.status_code < 500, path
        assert given.tell() == 0, path
    assert len(looked) > 10


@on_one_database
def test_a_refused_form_shows_no_value_of_a_header_again(visitor: Visitor, log: Log) -> None:
    form = {"url": "ftp://x/", "environment": "staging", "event": "*", "version": log.subscription.version,
            "header_name": ["X-Api-Key", "Host"], "header_value": ["open sesame", "sesame too"]}  # fmt: skip
    for path in ("/webhooks/new", f"/webhooks/{log.subscription.id}/edit"):
        answer = visitor.post(path, form)

        assert answer.status_code == 422
        assert 'value="X-Api-Key"' in answer.text
        assert "sesame" not in answer.text
        assert answer.text.count("Type the value again") == 2


@on_one_database
def test_many_misspelt_events_take_no_time(visitor: Visitor) -> None:
    """Only the first few are compared with all names: 500 of them may not cost a hundred times what 5 do."""
    used = {}
    for count in (1, 5, 500):  # the first compiles the template
        form = {"url": "https://93.184.215.14/", "environment": "staging",
                "event": [f"invoises.creatd{number}" for number in range(count)]}  # fmt: skip
        began = time.process_time()
        answer = visitor.post("/webhooks/new", form)
        used[count] = time.process_time() - began

        assert answer.status_code == 422
        assert 1 <= answer.text.count("Did you mean") <= 5

    assert used[500] < 20 * used[5]


def test_an_account_may_be_anything_but_nothing(app: Flask, state: AppState) -> None:
    """Owners with odd texts have a pace of their own, and one at a time."""
    visitors = [Visitor(app, owner=owner) for owner in ("a'b", "x" * 255, "é")]
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda each: each.post("/probe", {"url": "http://127.0.0.1:1/"}).status_code, visitors)
        )

    assert found == [200] * 3
    with state.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Subscription)) == 0
