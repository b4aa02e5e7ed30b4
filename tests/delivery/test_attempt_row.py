"""The size of an answer in the log is bounded in bytes, whatever its content and encoding."""

from __future__ import annotations

import json
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st

from flask_webhooks.delivery.attempt_row import MOST_ATTEMPT, MOST_HEADERS, body_excerpt, headers_excerpt
from flask_webhooks.models import Attempt
from flask_webhooks.state import AppState, state_of
from tests.receivers import Receiver, raw
from tests.stage import attempts, fill, subscribe
from tests.worker.answers import run

LATIN = st.text(st.characters(max_codepoint=255) | st.just("\ufffd"), max_size=200)


@given(st.dictionaries(LATIN.map(lambda text: text * 40), LATIN.map(lambda text: text * 90), max_size=100))
@example({"X-Odd": "\xe9" * 64_000})
@example({f"X-{number}": "\xe9" * 640 for number in range(100)})
@example({"\xe9" * 600 + str(number): "" for number in range(100)})
@example({f"{number}" * 300: "\x00\ufffd" * 150 for number in range(100)})
def test_headers_take_at_most_8_kib_in_json(headers: dict[str, str]) -> None:
    text = headers_excerpt(headers)
    if not headers:
        assert text is None
        return
    assert text is not None
    assert text.isascii()
    assert len(text) <= MOST_HEADERS
    kept = json.loads(text)

    assert list(kept)[:1] == [next(iter(headers))] or next(iter(kept)).endswith("…")
    if len(json.dumps(headers)) <= MOST_HEADERS:
        assert kept == headers


def test_one_long_value_leaves_the_others_whole() -> None:
    headers = {"X-Long": "\xe9" * 60_000, **{f"X-{number}": "value" for number in range(50)}}
    kept = json.loads(headers_excerpt(headers) or "")

    assert kept.pop("X-Long").endswith("\xe9…")
    assert kept == {f"X-{number}": "value" for number in range(50)}


def test_how_many_were_left_out_is_said() -> None:
    kept = json.loads(headers_excerpt({f"{number:03}" + "n" * 300: "v" * 100 for number in range(100)}) or "")

    assert kept["…"] == f"{100 - len(kept) + 1} more"


def test_names_that_are_one_when_they_are_cut_are_left_out_too() -> None:
    kept = json.loads(headers_excerpt({"n" * 2000 + f"{number}": "v" for number in range(5)}) or "")

    assert list(kept.values()) == ["v", "4 more"]


def test_a_body_has_what_room_is_left() -> None:
    assert body_excerpt(b"x" * 16_384, "u" * 70_000) == b"x" * 16_384
    assert len(body_excerpt(b"x" * 1_048_576, "u" * 2048, "h" * 8192, None)) == MOST_ATTEMPT - 2048 - 10_240
    assert body_excerpt(b"x" * 1_048_576, "ü" * 60_000) == b""


def stored(state: AppState) -> int:
    """Bytes of the attempt, as the database has them."""
    with state.engine.connect() as connection:
        row = connection.execute(sa.select(Attempt.__table__)).one()
    return sum(len(value if isinstance(value, bytes) else str(value).encode()) for value in row)


@pytest.mark.parametrize("limit", [16_384, 1_048_576])
def test_no_attempt_takes_more_than_64_kib(make_app: t.Callable[..., Flask], limit: int) -> None:
    """Without a bound, 64 KiB of headers took 381 KB of the log."""
    state = state_of(make_app(WEBHOOKS_RESPONSE_LIMIT=limit))
    head = b"HTTP/1.1 200 OK\r\n" + b"X-Odd: " + b"\xe9" * 63_000 + b"\r\nContent-Length: 900000\r\n\r\n"
    with Receiver(raw(head + b"\xff" * 900_000)) as receiver:
        fill(state, [subscribe(state, receiver.url("/" + "u" * 2000))], 1)
        assert run(state).delivered == 1
    [attempt] = attempts(state)

    assert len(attempt.response_headers or "") <= MOST_HEADERS
    assert stored(state) <= MOST_ATTEMPT
    assert attempt.response_truncated
    assert len(attempt.response_body or b"") >= 16_384
