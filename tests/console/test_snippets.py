"""The snippets of the console verify signatures, in every language that is installed here.

Each is started as its comment says, and gets our deliveries and malformed or forged requests. No request ends it, and
none is answered with a 5xx.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from standardwebhooks import Webhook

from flask_webhooks import signing
from flask_webhooks.console.snippets import snippets
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Secret, Subscription
from flask_webhooks.state import state_of
from tests.conftest import release
from tests.host import make_host
from tests.receivers import Receiver
from tests.stage import attempts, deliveries, fill, subscribe, wait_until
from tests.worker.answers import run

pytestmark = pytest.mark.long

BODY = (
    '{"event":"invoices.created","data":{"note":"\u0645\u0631\u062d\u0628\u0627 \u200d\U0001f469"}}'.encode()
)
FILES: t.Mapping[str, tuple[str, str]] = {
    "python": ("receiver.py", "flask"),
    "node": ("receiver.mjs", "node"),
    "go": ("receiver.go", "go"),
    "php": ("receiver.php", "php"),
}
"""The file name that a snippet gives itself, and the program that it needs."""
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
HERE = [name for name, (_file, tool) in FILES.items() if shutil.which(tool, path=PATH)]
"""The languages that are installed here; on CI `make system` has installed all."""
KINDS: tuple[signing.Kind, ...] = ("v1", "v1a")
LARGEST = 2**20
"""Bytes of a body that a snippet accepts."""


def test_on_ci_every_language_is_run() -> None:
    assert not os.environ.get("CI") or (HERE, SHELLS) == (list(FILES), ["bash", "zsh"])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    folder = tmp_path_factory.mktemp("snippets")
    app = make_host(f"sqlite:///{folder / 'app.sqlite'}", folder)
    yield app
    release(app)


def snippet(host: Flask, name: str, kind: str, url: str = "https://example.com/my/hooks?x=1") -> str:
    """Return the code that the page of a webhook shows."""
    row = Subscription(url=url, signature=kind)
    with host.test_request_context():
        return {each: text for each, _title, text in snippets(row)}[name]


def how_to_start(text: str) -> str:
    """Return the commands that a snippet names, one a line."""
    said = re.split(r"Start it[^\n]*:\n", text)[1]
    lines = []
    for line in said.splitlines():
        found = re.match(r"(?:#|//)   (\S.*)", line)
        if found is None:
            break
        lines.append(found[1])
    assert len(lines) == 2
    assert lines[0].startswith("export WEBHOOK_SECRET=wh")
    return "\n".join(lines)


@dataclass
class Running:
    """A snippet that was started by the command in its comment."""

    language: str
    secret: signing.Secret
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, raw: bytes, *, ends: bool = False) -> int | None:
        """Send bytes; return the status of the answer, None without one.

        :param ends: close the connection early, as a client does that is stopped.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            with contextlib.suppress(OSError):  # it may have answered and closed already
                sock.sendall(raw)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(sock)
            try:
                answer.begin()
            except (http.client.HTTPException, OSError):
                return None
            return answer.status

    def post(
        self,
        headers: t.Mapping[str, str | bytes],
        body: bytes,
        *,
        target: str = "/my/hooks",
        method: str = "POST",
        version: str = "1.1",
        length: int | None = None,
        ends: bool = False,
    ) -> int | None:
        """Send a request without changing a byte."""
        size = len(body) if length is None else length
        given: dict[str, str | bytes] = {
            "Host": "x",
            "Connection": "close",
            "Content-Type": "application/json",
        }
        given |= {"Content-Length": str(size), **headers}
        lines = [
            name.encode() + b": " + (value if isinstance(value, bytes) else value.encode())
            for name, value in given.items()
        ]
        head = b"\r\n".join([f"{method} {target} HTTP/{version}".encode(), *lines, b"", b""])
        return self.ask(head + body, ends=ends)

    def signed(
        self, body: bytes = BODY, *, seconds: float = 0, key: str = "", **changes: t.Any
    ) -> dict[str, t.Any]:
        """The headers of a delivery; changed ones, None for one that is missing, `_` for `-`."""
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        made: dict[str, t.Any] = dict(signing.headers(key or uuid7(), body, at, [self.secret]))
        made |= {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in made.items() if value is not None}

    def is_well(self) -> bool:
        """Whether it still runs, and accepts a valid request."""
        assert self.process.poll() is None, self.log.read_text()
        return self.post(self.signed(), BODY) == 204


def known(secret: signing.Secret) -> str:
    """Return the secret or public key that the receiver is started with."""
    return secret.public or secret.text


@contextlib.contextmanager
def running(
    language: str, text: str, secret: str, folder: Path
) -> t.Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    """Run a snippet in the way it says, with another port and secret; yield port, process and log."""
    name, _tool = FILES[language]
    (folder / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = re.sub("=wh[a-z]+_[.]{3}", '="$GIVEN"', how_to_start(text)).replace("3000", str(port))
    env = {**os.environ, "PATH": PATH, "GIVEN": secret, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PORT", None)
    log = folder / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["bash", "-c", script], env=env, cwd=folder, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), 120, about=name)
            yield port, process, log
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=[(name, kind) for name in HERE for kind in KINDS], ids="-".join)
def receiver(
    request: pytest.FixtureRequest, host: Flask, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Running]:
    language, kind = request.param
    secret = signing.generate(kind)
    text = snippet(host, language, kind)
    with running(language, text, known(secret), tmp_path_factory.mktemp(language)) as (port, process, log):
        assert process.poll() is None, log.read_text()
        yield Running(language, secret, port, process, log)


# ---- real deliveries -------------------------------------------------------------------------------------

TARGETS = (
    "/my/hooks",
    "/my/hooks?x=1&y[a]=%20",
    "/",
    "?only=query",
    "/a//b",
    "//a/b",
    "/a/../b/./c",
    "/%7Ea/%2e%2e/b%2Fc%0Ad/%C3%BC/%ff",
    "/it's;a=(b),$c!*",
)


def test_it_takes_what_we_deliver(receiver: Running, host: Flask) -> None:
    """To every form of a URL; plain, with any text, large, while a secret is rotated; once each."""
    state = state_of(host)
    with state.engine.begin() as connection:
        for table in ("webhook_deliveries", "webhook_messages", "webhook_attempts"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    large = json.dumps({"note": "ü\u200d" * 40_000, "odd": "\x9b\x7f</script>\u2028"}, ensure_ascii=False)
    for number, target in enumerate(TARGETS):
        row = subscribe(state, f"http://127.0.0.1:{receiver.port}{target}", signature=receiver.secret.kind)
        secrets = [receiver.secret.text]
        if number % 2:  # a rotated one that signs as well, before or after it
            secrets.insert(number % 4 // 2, signing.generate(receiver.secret.kind).text)
        with state.engine.begin() as connection:
            connection.execute(sa.delete(Secret).where(Secret.subscription_id == row.id))
            kept = [{"subscription_id": row.id, "sealed": state.vault.seal(each)} for each in secrets]
            connection.execute(
                sa.insert(Secret), [{**each, "created_at": datetime.now(UTC)} for each in kept]
            )
        fill(state, [row], 1, data='{"note": "it\'s \\"5\\" o\'clock"}')
        if not number:
            fill(state, [row], 1, data=large)
            fill(state, [row], 1, data=json.dumps({"note": BODY.decode()}, ensure_ascii=False))

    with host.app_context():
        run(state)

    made = {row.url.partition(str(receiver.port))[2]: row.status for row in attempts(state)}
    assert made == dict.fromkeys(TARGETS, 204)
    assert {row.state for row in deliveries(state)} == {"delivered"}
    assert len(attempts(state)) == len(TARGETS) + 2
    assert max(row.body_size for row in attempts(state)) > 200_000 * 0.98


# ---- what must be refused --------------------------------------------------------------------------------

Forge = t.Callable[[Running], tuple[dict[str, t.Any], bytes]]
FORGED: dict[str, Forge] = {
    "another body": lambda it: (it.signed(), BODY + b" "),
    "another id": lambda it: (it.signed(webhook_id=uuid7()), BODY),
    "another time": lambda it: (it.signed(webhook_timestamp=str(int(time.time()) + 1)), BODY),
    "another secret": lambda it: (
        dict(signing.headers(uuid7(), BODY, datetime.now(UTC), [signing.generate(it.secret.kind)])),
        BODY,
    ),
    "old": lambda it: (it.signed(seconds=-360), BODY),
    "ten minutes old": lambda it: (it.signed(seconds=-600), BODY),
    "ahead": lambda it: (it.signed(seconds=360), BODY),
    "no headers": lambda it: ({}, BODY),
    "no id": lambda it: (it.signed(webhook_id=None), BODY),
    "no time": lambda it: (it.signed(webhook_timestamp=None), BODY),
    "no signature": lambda it: (it.signed(webhook_signature=None), BODY),
    **{
        f"signature {value[:12]!r}": lambda it, value=value: (it.signed(webhook_signature=value), BODY)
        for value in (
            *("", " ", ",", "v1", "v1,", "v1a", "v1a,", "v1,AAAA", "v1a,AAAA", "v1,%%%", "v2,AAAA", "v1,é"),
            b"v1,\xff\xfe",
            b"\xe2\x98\x95",
            "v1a," + "A" * 86 + "==",
            "v1," + "A" * 43 + "=",
            " ".join(["v1,AAAA", "v1a," + "A" * 86 + "=="] * 60),
            " ".join(["v1,A"] * 1500),
        )
    },
    **{
        f"time {value[:12]!r}": lambda it, value=value: (it.signed(webhook_timestamp=value), BODY)
        for value in (
            "",
            "soon",
            "-1",
            "1e9",
            "0x10",
            "²",
            "٣",
            "NaN",
            "Infinity",
            "9" * 12,
            "9" * 400,
            "1 2",
        )
    },
    **{
        f"id {value[:12]!r}": lambda it, value=value: (it.signed(webhook_id=value), BODY)
        for value in ("", "a.b", "é", b"\xff", "x" * 5000, "a b", "%s%n")
    },
    "empty body": lambda it: ({}, b""),
    "no utf-8": lambda it: ({}, b"\xff\xfe"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_we_did_not_sign_is_refused(receiver: Running, name: str) -> None:
    headers, body = FORGED[name](receiver)

    # Some servers refuse a header that is none before the snippet sees it.
    assert receiver.post(headers, body) in (401, 400, 431)
    assert receiver.is_well()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"no json",
        b'{"a": "caf\xe9"}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":1}{"b":2}',
        b"\x00",
        b'"\xed\xa0\x80"',
    ],
    ids=["empty", "cut", "text", "latin-1", "byte", "deep", "two", "nul", "half a pair"],
)
def test_what_we_signed_and_is_no_json_is_refused(receiver: Running, body: bytes) -> None:
    assert receiver.post(receiver.signed(body), body) == 400
    assert receiver.is_well()


@pytest.mark.parametrize(
    "body",
    [b"[]", b"5", b'"\\ud800 \\u0000 %s \\u009b"', b"1" * 5000, b'{"": {"\\u0000a": 1e999}}', b" {} \n"],
)
def test_odd_json_is_taken_or_refused(receiver: Running, body: bytes) -> None:
    assert receiver.post(receiver.signed(body), body) in (204, 400)
    assert receiver.is_well()


def test_what_is_too_large_is_refused(receiver: Running) -> None:
    fits, more = b'"' + b"x" * (LARGEST - 2) + b'"', b'"' + b"x" * (LARGEST - 1) + b'"'

    assert receiver.post(receiver.signed(fits), fits) == 204
    # One that goes on sending may see that the connection is closed before it sees the answer.
    assert receiver.post(receiver.signed(more), more) in (413, None)
    assert receiver.post(receiver.signed(), b"", length=10**12, ends=True) in (413, 400, None)
    wait_until(lambda: _listens(receiver.port))  # PHP's own server has ended, and is started again
    assert receiver.is_well()


def test_what_comes_in_chunks_is_bounded_too(receiver: Running) -> None:
    head = b"POST /my/hooks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"

    assert receiver.ask(head + chunk * 40 + b"0\r\n\r\n") in (413, 401, None)
    assert receiver.is_well()


def test_what_breaks_off_ends_nothing(receiver: Running) -> None:
    for length, ends in ((1000, True), (1000, False), (len(BODY) + 1, True)):
        with contextlib.ExitStack() as stack:
            if not ends:  # without a word, as a process that is killed
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=20))
                sock.sendall(b"POST /my/hooks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                continue
            status = receiver.post(receiver.signed(), BODY, length=length, ends=True)
            assert status is None or 400 <= status < 500
    for raw in (b"POST", b"POST / HTTP/1.1\r\nHost: x\r\nwebhook-id", b"\x16\x03\x01\x00", b"\r\n\r\n"):
        status = receiver.ask(raw, ends=True)
        assert status is None or 400 <= status < 500
    for chunks in (b"zz\r\n", b"5\r\nab", b"-1\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n"):
        head = (
            b"POST /my/hooks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        status = receiver.ask(head + chunks, ends=True)
        assert status is None or 400 <= status < 500
    assert receiver.is_well()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_is_taken(receiver: Running, method: str) -> None:
    assert receiver.post(receiver.signed(), BODY, method=method) == 405
    assert receiver.is_well()


def test_http_1_0_is_taken(receiver: Running) -> None:
    assert receiver.post(receiver.signed(), BODY, version="1.0") == 204


def test_what_was_done_is_not_done_again(receiver: Running) -> None:
    key = uuid7()

    assert receiver.post(receiver.signed(key=key), BODY) == 204
    assert receiver.post(receiver.signed(key=key), BODY) == 200
    assert receiver.post(receiver.signed(b"{}", key=key), b"{}") == 200
    assert receiver.post(receiver.signed(key=key, webhook_signature="v1,AAAA"), BODY) == 401
    wait_until(lambda: key in receiver.log.read_text())
    assert receiver.log.read_text().count(key) == 1
    assert receiver.is_well()


def test_what_was_refused_may_come_again(receiver: Running) -> None:
    key = uuid7()

    assert receiver.post(receiver.signed(key=key), BODY + b" ") == 401
    assert receiver.post(receiver.signed(key=key), BODY) == 204


def test_one_of_several_signatures_is_enough(receiver: Running) -> None:
    made = receiver.signed()
    odd = " ".join(["v9,AAAA", "broken", "v1,%%", "v1a,%%", "v1", made["webhook-signature"], "v1,AAAA"])

    assert receiver.post({**made, "webhook-signature": odd}, BODY) == 204


def test_nothing_is_printed_that_a_terminal_would_obey(receiver: Running) -> None:
    body = '{"note":"\u009b31m\u202e red"}'.encode()

    assert receiver.post(receiver.signed(body), body) == 204
    wait_until(lambda: b" red" in receiver.log.read_bytes())
    [line] = [line for line in receiver.log.read_bytes().splitlines() if b" red" in line]
    assert b"\xc2\x9b" not in line
    assert b"\x1b" not in line


# ---- how it is started -----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", HERE)
def test_without_a_right_secret_it_says_so_at_the_start(host: Flask, tmp_path: Path, language: str) -> None:
    good = {kind: known(signing.generate(kind)) for kind in KINDS}
    garbage = ("whsec_", "whpk_", "x", "é", "whsec_é", "whpk_AAAA", "whsec_AAAA")
    for kind in KINDS:
        other = good["v1" if kind == "v1a" else "v1a"]
        given = ("", good[kind][:20], other, *garbage, good[kind][:-1], good[kind] + "A")
        text = snippet(host, language, kind)
        # Two take a second to start.
        for number, secret in enumerate(given[:2] if language in ("python", "go") else given):
            folder = tmp_path / f"{kind}{number}"
            folder.mkdir()
            with running(language, text, secret, folder) as (_port, process, log):
                assert process.wait(60), secret
                assert "Set WEBHOOK_SECRET." in log.read_text(), secret
                assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("language", ["python", "node", "go", "php"])
def test_a_path_cannot_leave_its_comment(host: Flask, language: str) -> None:
    text = snippet(host, language, "v1", "https://example.com/a\"b\\c`${d}?>\n'e")

    assert "/a%22b%5Cc%60$%7Bd%7D" in text
    assert "\n\n\n\n" not in text


# ---- with curl -------------------------------------------------------------------------------------------

SHELLS = [name for name in ("bash", "zsh") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("target", ["/my/hooks", "/it's/../$x?f[a-c]=(1)"])
def test_the_curl_one_signs(host: Flask, inbox: Receiver, shell: str, target: str) -> None:
    secret = signing.generate()
    env = {**os.environ, "WEBHOOK_SECRET": secret.text}

    subprocess.run([shell, "-euc", snippet(host, "curl", "v1", inbox.url(target))], env=env, check=True)

    received = inbox.requests[0]
    event = Webhook(secret.text).verify(received.body, received.headers)
    assert event == json.loads(received.body)
    assert received.target == target
    names = ("event", "occurred-at", "sequence", "attempt", "delivery", "trigger")
    assert {f"webhook-{name}" for name in names} <= received.headers.keys()
    datetime.fromisoformat(received.headers["webhook-occurred-at"])


@pytest.mark.parametrize("shell", SHELLS)
def test_with_a_public_key_the_curl_one_is_a_forgery(host: Flask, inbox: Receiver, shell: str) -> None:
    subprocess.run([shell, "-euc", snippet(host, "curl", "v1a", inbox.url())], check=True)

    assert inbox.requests[0].headers["webhook-signature"].startswith("v1a,")
