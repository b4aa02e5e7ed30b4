"""Characters of a receiver or customer have no effect in a terminal: they are escaped."""

from __future__ import annotations

import json
import logging
import re
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

import flask_webhooks
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.cli.worker import _Wide
from flask_webhooks.models import Attempt, Message, Subscription
from flask_webhooks.state import AppState
from flask_webhooks.visible import visible
from tests.receivers import Receiver, ok
from tests.stage import fill, subscribe

from .conftest import Command

EVIL = "\x1b[2J\x9b31m\x07\x7f\u202e\u2066\r\x85\u2028\ue000\U000e0041"
SHOWN = r"\u001b[2J\u009b31m\u0007\u007f\u202e\u2066\u000d\u0085\u2028\ue000\udb40\udc41"


def test_what_acts_is_shown_as_json_escapes_it() -> None:
    assert visible(EVIL) == SHOWN
    assert json.loads(f'"{SHOWN}"') == EVIL
    assert visible("Grüße 你好 العربية 🎉\n\t") == "Grüße 你好 العربية 🎉\n\t"
    assert visible("a\nb", keep="") == r"a\u000ab"


@given(st.text(st.characters()))
def test_nothing_that_acts_is_left(text: str) -> None:
    found = visible(text)

    assert all(mark.isprintable() or mark in "\n\t" for mark in found)
    assert (
        text.encode("utf-16", "surrogatepass")
        == re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), found).encode(
            "utf-16", "surrogatepass"
        )
        or "\\u" in text
    )


def test_no_command_lets_an_escape_through(state: AppState, app: Flask) -> None:
    def command(*words: str) -> str:
        return app.test_cli_runner().invoke(webhooks_cli, words).output

    body = b"\x1b]0;title\x07 \xc2\x9b31m \xe2\x80\xae \x9b"
    with Receiver(ok(body, 500, {"X-Evil": "31m"})) as receiver:
        row = subscribe(state, receiver.url(), "*", owner=EVIL, description=EVIL)
        fill(state, [row], 1)
        outputs = [command("send-test", row.id), command("send-test", row.id, "--json")]
    with state.engine.begin() as connection:
        connection.execute(sa.update(Subscription).values(url=EVIL))
        connection.execute(sa.update(Message).values(event=EVIL))
        connection.execute(sa.update(Attempt).values(url=EVIL, failure=EVIL[:20], detail=EVIL))
    for words in (
        *(
            ["subscriptions"],
            ["subscriptions", "--json"],
            ["status"],
            ["check"],
            ["catalog"],
            ["catalog", "--json"],
        ),
        *(["tail", "--no-follow"], ["tail", "--no-follow", "--json"], ["send-test", EVIL], ["replay", EVIL]),
        *(["backfill", EVIL, "--subscription", EVIL], ["replay", row.id, "--event", EVIL], ["deliver"]),
    ):
        outputs.append(command(*words))

    for found in outputs:
        assert all(mark.isprintable() or mark in "\n\t" for mark in found), ascii(found)
    assert any(SHOWN in found for found in outputs)


def test_the_log_on_a_terminal_lets_no_escape_through() -> None:
    record = logging.makeLogRecord({"msg": "attempt.failed", "levelname": "WARNING", "reason": EVIL})

    assert _Wide("%(message)s").format(record) == f"attempt.failed reason={SHOWN}"


def test_commands_print_in_one_place_alone() -> None:
    rooms = Path(t.cast("str", flask_webhooks.__file__)).parent / "cli"

    for path in rooms.glob("*.py"):
        if path.name != "output.py":
            assert not re.search(r"click\.(echo|secho|style)\(|\bprint\(", path.read_text()), path.name


@pytest.mark.parametrize("words", [["tail", "--no-follow"], ["subscriptions"]])
def test_one_line_stays_one_line(state: AppState, flask_webhooks: Command, words: list[str]) -> None:
    subscribe(state, "http://127.0.0.1:1/", "*", owner="1\n00000 forged")

    assert "\n00000" not in flask_webhooks(*words).output
