"""`gunicorn --preload -k gevent`: the app is loaded in a parent process, before gevent replaces threads."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import redis
from rq import Queue

from flask_webhooks.state import AppState
from tests.receivers import Authority, Receiver, ok
from tests.stage import subscribe, wait_until
from tests.worker.answers import Gate, run

ROOT = Path(__file__).parents[2]
API = "/webhooks/api/subscriptions"


def post(port: int, path: str, owner: str = "1") -> tuple[int, t.Any]:
    """Ask for something, and return status and JSON."""
    headers = {"Content-Type": "application/json", "X-Owner": owner}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b"{}", headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port(state: AppState, tmp_path: Path, authority: Authority, valkey: str) -> t.Iterator[int]:
    """The port of a server that has loaded the app before its worker was forked and patched."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
    settings = {"WEBHOOKS_CA_BUNDLE": authority.path, "WEBHOOKS_REDIS_URL": valkey}
    url = state.engine.url.render_as_string(hide_password=False)
    env = {
        **os.environ,
        "HOME": str(tmp_path),  # gunicorn puts a socket there
        "TEST_DATABASE": url,
        "TEST_FOLDER": str(tmp_path),
        "TEST_SETTINGS": json.dumps(settings),
    }
    words = ["-m", "gunicorn", "--preload", "-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{number}"]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, *words, "tests.served:create_app()"],
        cwd=ROOT,
        env=env,
        stdout=log,
        stderr=log,
    )
    try:
        wait_until(lambda: "Booting worker" in (tmp_path / "log").read_text(), about="gunicorn")
        yield number
    finally:
        server.terminate()
        server.wait(30)
        log.close()


pytestmark = [pytest.mark.long, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]


def test_the_first_test_and_those_next_to_one_that_hangs_are_answered(
    state: AppState, port: int, authority: Authority
) -> None:
    gate = Gate()
    tls = authority.context("127.0.0.1")
    with Receiver(ok(), tls=tls) as quick, Receiver(gate, tls=tls) as slow:
        rows = {
            owner: subscribe(state, receiver.url(), owner=owner)
            for owner, receiver in (("1", quick), ("2", slow))
        }
        found = post(port, f"{API}/{rows['1'].id}/test", "1")
        assert (found[0], found[1]["state"]) == (200, "delivered"), found

        hanging: list[tuple[int, t.Any]] = []
        thread = threading.Thread(
            target=lambda: hanging.append(post(port, f"{API}/{rows['2'].id}/test", "2"))
        )
        thread.start()
        wait_until(lambda: gate.held, about="the receiver that hangs")
        began = time.monotonic()
        for _ in range(3):
            found = post(port, f"{API}/{rows['1'].id}/test", "1")
            assert (found[0], found[1]["state"]) == (200, "delivered"), found
        assert gate.held, f"the others were held up for {time.monotonic() - began:.1f} s"
        thread.join(30)

    assert hanging[0][0] == 200
    assert hanging[0][1]["reason"] == "timeout"


def test_what_a_request_commits_rings_and_arrives(
    state: AppState, port: int, valkey: str, inbox: Receiver
) -> None:
    subscribe(state, inbox.url(), "invoices.created")

    assert post(port, "/invoices") == (201, {"number": "A-1"})

    queue = Queue("webhooks", connection=redis.Redis.from_url(valkey))
    wait_until(lambda: queue.count, about="the bell")
    assert run(state).delivered == 1
    [request] = inbox.requests
    assert json.loads(request.body)["data"]["number"] == "A-1"
