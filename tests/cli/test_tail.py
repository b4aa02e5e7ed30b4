from __future__ import annotations

import json
import signal
import socket
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from flask_webhooks import queries
from flask_webhooks.ids import first_at, uuid7
from flask_webhooks.models import Attempt
from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.processes import Processes
from tests.receivers import Receiver
from tests.stage import attempts, fill, subscribe, wait_until

from .conftest import Command

pytestmark = pytest.mark.long

A = t.cast("sa.Table", Attempt.__table__)


def log(state: AppState, *ids: str) -> None:
    """Put attempts into the log."""
    row = {
        "delivery_id": uuid7(),
        "subscription_id": uuid7(),
        "number": 1,
        "trigger": "automatic",
        "started_at": datetime.now(UTC),
        "detail": "",
        "url": "http://127.0.0.1:1/",
        "request_headers": "{}",
        "body_sha256": "",
        "body_size": 0,
        "response_truncated": False,
        "total_seconds": 0.0,
        "worker": "test",
    }
    with state.engine.begin() as connection:
        connection.execute(A.insert(), [{**row, "id": key} for key in ids])


def look(state: AppState, seen: queries.Tail) -> list[str]:
    with state.engine.connect() as connection:
        return [row.id for row in seen.read_new(connection)]


class TestTail:
    def test_each_attempt_is_seen_once_and_nothing_from_before(self, state: AppState) -> None:
        log(state, first_at(datetime.now(UTC) - timedelta(minutes=1)))
        seen = queries.Tail()
        log(state, one := uuid7())
        first = look(state, seen)
        log(state, two := uuid7())

        assert (first, look(state, seen), look(state, seen)) == ([one], [two], [])

    def test_what_is_written_later_than_its_neighbours_is_seen(self, state: AppState) -> None:
        seen = queries.Tail(datetime.now(UTC) - timedelta(minutes=1))
        early, late = first_at(datetime.now(UTC) - timedelta(seconds=5)), uuid7()
        log(state, late)
        first = look(state, seen)
        log(state, early)

        assert (first, look(state, seen)) == ([late], [early])

    def test_a_clock_from_the_future_hides_no_delivery(self, state: AppState) -> None:
        seen = queries.Tail()
        log(state, ahead := first_at(datetime.now(UTC) + timedelta(hours=1)))
        first = look(state, seen)
        log(state, now := uuid7())

        assert (first, look(state, seen), look(state, seen)) == ([ahead], [now], [])

    def test_more_than_a_page_is_read_at_one_look(
        self, state: AppState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_webhooks.queries.tail.PAGE", 3)
        seen, ids = queries.Tail(), [uuid7() for _ in range(9)]
        log(state, *ids[:7])
        first = look(state, seen)
        log(state, *ids[7:])

        assert first + look(state, seen) == ids


def test_the_last_attempts_are_shown(state: AppState, inbox: Receiver, flask_webhooks: Command) -> None:
    row, other = subscribe(state, inbox.url()), subscribe(state, "http://127.0.0.1:1/")
    fill(state, [row, other], 6)
    Coordinator(state, holder="test").run()

    def shown(*words: str) -> list[dict[str, t.Any]]:
        lines = flask_webhooks("tail", "--no-follow", "--json", *words).stdout.splitlines()
        return [json.loads(line) for line in lines]

    every = [attempt.id for attempt in attempts(state)]
    assert [each["id"] for each in shown()] == every
    assert [each["id"] for each in shown("-n", "2")] == every[-2:]
    assert [each["subscription_id"] for each in shown("--subscription", row.id)] == [row.id] * 3
    assert [each["failure"] for each in shown("--failed")] == ["connect"] * 3
    assert shown()[0]["event"] == "reports.ready"
    assert "reports.ready" in flask_webhooks("tail", "--no-follow").output


def test_tail_goes_on_until_ctrl_c(state: AppState, inbox: Receiver, tmp_path: Path) -> None:
    row = subscribe(state, inbox.url())
    with Processes(state, tmp_path, None) as processes:
        process = processes.start("flask", "webhooks", "tail", "--json")
        for _ in range(2):
            fill(state, [row], 1)
            # It may not have begun yet: what it shows first are the last ten.
            Coordinator(state, holder="test").run()
            newest = attempts(state)[-1].id
            process.wait_for(newest)

        assert process.end(signal.SIGINT) == 0
    shown = [json.loads(line)["id"] for line in process.said.splitlines()]
    assert shown == [attempt.id for attempt in attempts(state)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestDev:
    @pytest.fixture
    def port(self) -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_runs_everything_and_stops_everything(
        self, state: AppState, inbox: Receiver, tmp_path: Path, port: int, number: int
    ) -> None:
        row = subscribe(state, inbox.url())
        url = f"http://127.0.0.1:{port}/webhooks/api/catalog"

        def answers() -> bool:
            try:
                return requests.get(url, headers={"X-Owner": "1"}, timeout=5).ok
            except requests.RequestException:
                return False

        nothing_allowed = {"WEBHOOKS_ALLOW_HTTP": False, "WEBHOOKS_ALLOWED_NETWORKS": []}
        with Processes(state, tmp_path, None, **nothing_allowed) as processes:
            process = processes.start("flask", "webhooks", "dev", "--port", str(port))
            process.wait_for("waits on queue")
            wait_until(answers, 30.0, about="the web server")
            fill(state, [row], 1)
            inbox.wait_for(1)  # over http to this machine, which only development allows
            assert "loopback.allowed" in process.said
            assert state.embedded.is_started()

            assert process.end(number) == 0, process.said

        assert "All stopped." in process.said
        assert "has stopped" in process.said  # the worker, in good order
        assert not answers()
        wait_until(lambda: not state.embedded.is_started(), about="the end of Valkey")

    def test_it_stops_the_worker_when_the_web_server_cannot_start(
        self, state: AppState, tmp_path: Path
    ) -> None:
        with socket.socket() as taken, Processes(state, tmp_path, None) as processes:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            process = processes.start("flask", "webhooks", "dev", "--no-debug", "--port", port)

            assert process.wait() == 1
            assert "The web server ended with exit code 1" in process.said
            assert "All stopped." not in process.said
