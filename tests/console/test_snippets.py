"""The code that verifies a signature does so: run against our own signatures, in every language that is here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from flask import Flask
from standardwebhooks import Webhook

from flask_webhooks import signing
from flask_webhooks.console.snippets import snippets
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Subscription
from tests.conftest import release
from tests.host import make_host
from tests.receivers import Receiver
from tests.stage import wait_until

BODY = '{"event":"invoices.created","data":{"note":"\u0645\u0631\u062d\u0628\u0627"}}'.encode()
KINDS = ("v1", "v1a")
SERVERS: t.Mapping[str, tuple[str, list[str]]] = {
    "node": ("receiver.mjs", ["node", "{file}"]),
    "php": ("receiver.php", ["php", "-S", "127.0.0.1:{port}", "{file}"]),
    "go": ("receiver.go", ["go", "run", "{file}"]),
}
HERE = [name for name, (_file, words) in SERVERS.items() if shutil.which(words[0])]
"""Only what can be run."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    folder = tmp_path_factory.mktemp("snippets")
    app = make_host(f"sqlite:///{folder / 'app.sqlite'}", folder)
    yield app
    release(app)


def snippet(host: Flask, name: str, kind: str, url: str = "https://example.com/my/hooks?x=1") -> str:
    """Return what the page of a webhook shows."""
    row = Subscription(url=url, signature=kind)
    with host.test_request_context():
        return {each: text for each, _title, text in snippets(row)}[name]


def requests_to_judge(secret: signing.Secret) -> t.Iterator[tuple[int, dict[str, str], bytes]]:
    """Yield (status, headers, body): what must be taken, and what must be refused."""
    now, key = datetime.now(UTC), uuid7()
    good = signing.headers(key, BODY, now, [secret])
    other = signing.generate(secret.kind)
    yield 204, good, BODY
    yield 204, signing.headers(key, BODY, now, [other, secret]), BODY  # while a rotated secret overlaps
    yield 401, good, BODY + b" "
    yield 401, {**good, "webhook-id": uuid7()}, BODY
    yield 401, signing.headers(key, BODY, now, [other]), BODY
    yield 401, signing.headers(key, BODY, now - timedelta(minutes=6), [secret]), BODY
    yield 401, signing.headers(key, BODY, now + timedelta(minutes=6), [secret]), BODY
    yield 401, {**good, "webhook-signature": f"{secret.kind},AAAA"}, BODY
    yield 401, {**good, "webhook-timestamp": "soon"}, BODY
    yield 401, {}, BODY


def known(secret: signing.Secret) -> str:
    """Return what the receiver is given."""
    return secret.public or secret.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_python_one_verifies(host: Flask, monkeypatch: pytest.MonkeyPatch, kind: signing.Kind) -> None:
    secret = signing.generate(kind)
    monkeypatch.setenv("WEBHOOK_SECRET", known(secret))
    found: dict[str, t.Any] = {"__name__": "receiver"}
    exec(compile(snippet(host, "python", kind), "receiver.py", "exec"), found)
    client = found["app"].test_client()

    for status, headers, body in requests_to_judge(secret):
        answer = client.post("/my/hooks", data=body, headers=headers, content_type="application/json")

        assert answer.status_code == status, headers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", HERE)
def test_the_others_verify(host: Flask, tmp_path: Path, language: str, kind: signing.Kind) -> None:
    secret = signing.generate(kind)
    name, words = SERVERS[language]
    (tmp_path / name).write_text(snippet(host, language, kind))

    with running(words, tmp_path / name, known(secret)) as address, requests.Session() as session:
        for status, headers, body in requests_to_judge(secret):
            sent = {"Content-Type": "application/json", **headers}
            answer = session.post(f"{address}/my/hooks", data=body, headers=sent, timeout=20)

            assert answer.status_code == status, headers


@contextlib.contextmanager
def running(words: t.Sequence[str], file: Path, secret: str) -> t.Iterator[str]:
    """Run a receiver; yield its address when it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [word.format(file=file, port=port) for word in words]
    env = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    log = file.with_suffix(".log")
    with log.open("w") as output, subprocess.Popen(line, env=env, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), 90, about=file.name)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def test_the_curl_one_signs(host: Flask, inbox: Receiver) -> None:
    secret = signing.generate()
    env = {**os.environ, "WEBHOOK_SECRET": secret.text}

    subprocess.run(["bash", "-euc", snippet(host, "curl", "v1", inbox.url("/my/hooks"))], env=env, check=True)

    received = inbox.requests[0]
    event = Webhook(secret.text).verify(received.body, received.headers)
    assert event == json.loads(received.body)
    assert received.target == "/my/hooks"


def test_with_a_public_key_the_curl_one_is_a_forgery(host: Flask, inbox: Receiver) -> None:
    subprocess.run(["bash", "-euc", snippet(host, "curl", "v1a", inbox.url())], check=True)

    assert inbox.requests[0].headers["webhook-signature"].startswith("v1a,")


@pytest.mark.parametrize("language", ["python", "node", "go", "php"])
def test_a_path_cannot_leave_its_quotation_marks(host: Flask, language: str) -> None:
    text = snippet(host, language, "v1", "https://example.com/a\"b\\c`${d}?>\n'e")

    assert "/a%22b%5Cc%60$%7Bd%7D" in text
    assert "\n\n\n\n" not in text


@pytest.mark.parametrize("language", [each for each in HERE if each != "php"])
def test_without_a_secret_nothing_is_received(host: Flask, tmp_path: Path, language: str) -> None:
    name, words = SERVERS[language]
    (tmp_path / name).write_text(snippet(host, language, "v1"))
    line = [word.format(file=tmp_path / name, port=0) for word in words]

    found = subprocess.run(line, env={**os.environ, "WEBHOOK_SECRET": ""}, capture_output=True, check=False)

    assert found.returncode
    assert b"Set WEBHOOK_SECRET." in found.stderr
