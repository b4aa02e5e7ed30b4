from __future__ import annotations

import json
import sys
import typing as t

import pytest

from flask_webhooks.ids import uuid7
from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.receivers import Receiver, ok
from tests.stage import attempts, fill, lane_of, subscribe

from .conftest import Command


def listed(flask_webhooks: Command, *words: str) -> list[dict[str, t.Any]]:
    found: list[dict[str, t.Any]] = json.loads(flask_webhooks("subscriptions", "--json", *words).stdout)
    return found


def test_subscriptions_are_listed_with_how_they_do(
    state: AppState, inbox: Receiver, flask_webhooks: Command
) -> None:
    row = subscribe(state, inbox.url(), "reports.ready", "invoices.*")
    fill(state, [row], 3)
    Coordinator(state, holder="test").run()

    [found] = listed(flask_webhooks)

    assert found["id"] == row.id
    assert found["events"] == ["invoices.*", "reports.ready"]
    assert (found["standing"], found["attempts"], found["success_rate"]) == ("on", 3, 1.0)
    text = flask_webhooks("subscriptions").output
    assert row.id in text
    assert "100.0%" in text
    assert "1 subscription." in text


def test_subscriptions_of_one_owner_and_environment(state: AppState, flask_webhooks: Command) -> None:
    mine = subscribe(state, "http://127.0.0.1:1/", owner="1")
    subscribe(state, "http://127.0.0.1:1/", owner="2")

    assert [row["id"] for row in listed(flask_webhooks, "--owner", "1")] == [mine.id]
    assert listed(flask_webhooks, "--environment", "production") == []


def test_subscriptions_go_on_after_the_first_page(
    state: AppState, flask_webhooks: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["flask_webhooks.cli.subscriptions"], "PAGE", 2)
    rows = [subscribe(state, "http://127.0.0.1:1/") for _ in range(5)]

    assert [row["id"] for row in listed(flask_webhooks)] == [row.id for row in reversed(rows)]


def test_a_test_request_is_sent_and_reported(
    state: AppState, inbox: Receiver, flask_webhooks: Command
) -> None:
    row = subscribe(state, inbox.url(), "reports.ready")

    said = flask_webhooks("send-test", row.id).output

    [request] = inbox.wait_for(1)
    assert json.loads(request.body)["event"] == "webhooks.test"
    assert "200 after" in said
    [attempt] = attempts(state)
    assert attempt.trigger == "test"


def test_a_sample_of_an_event_is_sent(state: AppState, inbox: Receiver, flask_webhooks: Command) -> None:
    row = subscribe(state, inbox.url(), "invoices.*")

    said = json.loads(flask_webhooks("send-test", row.id, "--event", "invoices.paid", "--json").stdout)

    [request] = inbox.wait_for(1)
    assert json.loads(request.body)["event"] == "invoices.paid"
    assert (said["status"], said["failure"]) == (200, None)


def test_a_test_that_fails_exits_1_and_leaves_the_health_alone(
    state: AppState, flask_webhooks: Command
) -> None:
    with Receiver(ok(status=500)) as receiver:
        row = subscribe(state, receiver.url(), "reports.ready")
        fill(state, [row], 1)
        Coordinator(state, holder="test").run()
        before = lane_of(state, row).failures

        said = flask_webhooks("send-test", row.id, expect=1).output

    assert "500" in said
    assert lane_of(state, row).failures == before == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--event", "invoices.payd"], "Did you mean invoices.paid?"), ([], "There is no such subscription.")],
)
def test_what_does_not_exist_is_said_in_one_line(
    state: AppState, flask_webhooks: Command, words: list[str], said: str
) -> None:
    key = subscribe(state, "http://127.0.0.1:1/", "invoices.*").id if words else uuid7()

    assert said in flask_webhooks("send-test", key, *words, expect=1).output


@pytest.mark.parametrize(
    "words",
    [["send-test", "{}"], ["replay", "{}"], ["backfill", "invoices", "--subscription", "{}"],
     ["client-certificates", "{}", "--remove"]],
)  # fmt: skip
@pytest.mark.parametrize("key", ["x", "", "9" * 300, "a\0b", "\udcff"], ids=ascii)
def test_what_is_no_id_is_one_sentence(flask_webhooks: Command, words: list[str], key: str) -> None:
    """PostgreSQL fails where it is asked for an id that is none."""
    output = flask_webhooks(*(word.format(key) for word in words), expect=1).output

    assert output == "Error: There is no such subscription.\n"


@pytest.mark.parametrize(
    "words", [["--owner", "a\0b"], ["--owner", "\udcff"], ["--environment", "x"]], ids=ascii
)
def test_what_no_subscription_has_is_one_sentence(flask_webhooks: Command, words: list[str]) -> None:
    assert "Error: Invalid value" in flask_webhooks("subscriptions", *words, expect=2).output
