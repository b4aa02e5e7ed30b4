"""The curl command of an attempt, run in a terminal, sends the same bytes to the same URL and does nothing else."""

from __future__ import annotations

import contextlib
import html
import json
import os
import pty
import re
import signal
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_webhooks.console.snippets import LONGEST_INLINE, curl_command
from flask_webhooks.delivery.request import MASK
from flask_webhooks.models import Attempt
from flask_webhooks.state import AppState
from tests.console.conftest import Visitor
from tests.console.shells import ODD, SHELLS, pasted
from tests.receivers import Received, Receiver
from tests.stage import deliveries, fill, subscribe, wait_until
from tests.worker.answers import run

in_each_shell = pytest.mark.parametrize("shell", SHELLS)
HEADERS = {"Content-Type": "application/json", "User-Agent": "Flask-Webhooks/1", "webhook-id": "1"}
TARGETS = (
    "/hook",
    "/hook?f[a-c]=1&g={a,b}",
    "/a/../b/./c//d",
    "/my%20hooks/%2e%2e/%C3%BC",
    "/it's?!x=$(id)&`id`;id|id",
    "/?",
)
BODIES = {
    "plain": b'{"note": "It\'s 5 o\'clock"}',
    "odd": json.dumps({"note": ODD}, ensure_ascii=False).encode(),
    "escaped": json.dumps({"note": ODD}).encode(),
    "raw": ODD.encode() + b"\xff\xfe\x80",
    "every byte": bytes(range(256)),
    "empty": b"",
    "at": b"@/etc/hostname",
    "newline": b"\n",
    "word limit": b'{"x":"' + b"x" * (128 * 1024) + b'"}',
    "256 KiB": "ü\u200d".encode() * (256 * 1024 // 5),
}


def as_sent(target: str) -> str:
    """As it goes into the request line: no shell reads it there, but a copied URL may be of an older version."""
    return target.replace("{", "%7B").replace("}", "%7D").replace("`", "%60")


@in_each_shell
@pytest.mark.parametrize("name", BODIES)
def test_the_body_arrives_byte_for_byte(shell: str, name: str, inbox: Receiver, tmp_path: Path) -> None:
    pasted(shell, curl_command(inbox.url(), HEADERS, BODIES[name]), tmp_path)

    assert [each.body for each in inbox.requests] == [BODIES[name]]


@in_each_shell
@pytest.mark.parametrize("target", TARGETS)
def test_the_target_arrives_as_it_is(shell: str, target: str, inbox: Receiver, tmp_path: Path) -> None:
    pasted(shell, curl_command(inbox.url(target), HEADERS, b"{}"), tmp_path)

    assert [each.target for each in inbox.requests] == [as_sent(target)]


@in_each_shell
@pytest.mark.parametrize("body", [b"{}", BODIES["odd"]], ids=["plain", "odd"])
def test_no_header_more_and_none_less(shell: str, body: bytes, inbox: Receiver, tmp_path: Path) -> None:
    given = {**HEADERS, "webhook-signature": "v1,a+/= v1a,b'c", "X-Api-Key": MASK, "X-`id`'s": MASK}
    text = curl_command(inbox.url(), given, body)

    pasted(shell, text, tmp_path)

    [received] = inbox.requests
    assert received.headers == {
        "host": f"127.0.0.1:{inbox.port}",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "Flask-Webhooks/1",
        "webhook-id": "1",
        "webhook-signature": "v1,a+/= v1a,b'c",
        "content-length": str(len(body)),
    }
    assert "Left out, for their values are not kept: X-Api-Key, X-`id`" in text
    assert MASK not in text


@given(st.binary(max_size=3000), st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=100)
def test_whatever_was_sent_the_command_is_printable_ascii(body: bytes, url: str, value: str) -> None:
    text = curl_command(f"https://example.com/{url}", {"X-A": value, value: MASK}, body)

    assert re.fullmatch(r"[ -~\n]*", text)


# ---- typed at a prompt -----------------------------------------------------------------------------------


class Terminal:
    """A shell at a prompt, in a terminal."""

    def __init__(self, shell: str, folder: Path) -> None:
        words = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "PS1": "> ",
        }
        self.pid, self._file = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe(words[0], words, env)
        os.set_blocking(self._file, False)
        self.shown = b""

    def see(self) -> bytes:
        with contextlib.suppress(BlockingIOError, OSError):
            while part := os.read(self._file, 65536):
                self.shown += part
        return self.shown

    def paste(self, text: str, *, bracketed: bool) -> None:
        """Send what a terminal sends for a paste, and press Enter."""
        wait_until(lambda: b"> " in self.see(), about="a prompt")
        data = text.replace("\n", "\r").encode()
        rest = (b"\x1b[200~" + data + b"\x1b[201~" if bracketed else data) + b"\r"
        while rest:
            self.see()
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._file, rest[:512]) :]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._file)


@in_each_shell
@pytest.mark.parametrize("bracketed", [True, False], ids=["bracketed", "typed"])
@pytest.mark.parametrize("name", ["plain", "odd", "escaped"])
def test_it_can_be_pasted_at_a_prompt(
    shell: str, bracketed: bool, name: str, inbox: Receiver, tmp_path: Path
) -> None:
    terminal = Terminal(shell, tmp_path)
    try:
        given = {**HEADERS, "X-Api-Key!": MASK}
        terminal.paste(curl_command(inbox.url(TARGETS[4]), given, BODIES[name]), bracketed=bracketed)
        wait_until(lambda: terminal.see() and inbox.requests, about="the request")
        inbox.wait_for_end()
    finally:
        terminal.close()

    assert [(each.target, each.body) for each in inbox.requests] == [(as_sent(TARGETS[4]), BODIES[name])]


# ---- in the console --------------------------------------------------------------------------------------


def sent(state: AppState, inbox: Receiver, data: t.Any, **columns: t.Any) -> Received:
    """Deliver an event for real."""
    row = subscribe(state, inbox.url(TARGETS[1]), "reports.*", **columns)
    fill(state, [row], 1, data=json.dumps(data, ensure_ascii=False))
    run(state)
    return inbox.requests[0]


def shown(page: str) -> str:
    """The command in a page, as the button copies it."""
    [text] = re.findall(r'id="wh-curl-[^"]*"[^>]*>(.*?)</code>', page, flags=re.DOTALL)
    return html.unescape(text)


@in_each_shell
def test_a_delivery_can_be_copied_and_made_again(
    shell: str, state: AppState, visitor: Visitor, inbox: Receiver, tmp_path: Path
) -> None:
    custom = state.vault.seal(json.dumps({"Authorization": "Bearer 1"}))
    first = sent(state, inbox, {"note": ODD.replace("\x00", "")}, headers=custom)
    page = visitor.get(f"/deliveries/{deliveries(state)[0].id}").text

    folder = tmp_path / "home"
    folder.mkdir()
    pasted(shell, shown(page), folder)

    again = inbox.requests[1]
    assert (again.target, again.body) == (first.target, first.body)
    assert again.headers == {k: v for k, v in first.headers.items() if k != "authorization"}
    assert "leaves out custom headers, because their values are not stored: Authorization" in page


@in_each_shell
def test_what_is_long_is_fetched(
    shell: str, state: AppState, visitor: Visitor, inbox: Receiver, tmp_path: Path
) -> None:
    first = sent(state, inbox, {"note": "ü\u200d" * 40_000})
    [row] = deliveries(state)
    page = visitor.get(f"/deliveries/{row.id}").text
    [link] = re.findall(r'href="/webhooks/console([^"]*/curl[^"]*)" data-copy-from', page)
    answer = visitor.get(link)

    assert "wh-curl-" not in page
    assert answer.mimetype == "text/plain"
    assert len(first.body) > 128 * 1024 > LONGEST_INLINE
    folder = tmp_path / "home"
    folder.mkdir()
    pasted(shell, answer.text, folder)

    assert inbox.requests[1].body == first.body
    assert inbox.requests[1].headers == first.headers


def test_another_owners_command_does_not_exist(
    app: t.Any, state: AppState, visitor: Visitor, inbox: Receiver
) -> None:
    sent(state, inbox, {"a": 1})
    [row] = deliveries(state)
    with state.engine.connect() as connection:
        attempt = connection.scalar(sa.select(Attempt.id))
    path = f"/deliveries/{row.id}/curl?attempt={attempt}"

    assert visitor.get(path).status_code == 200
    assert visitor.get(f"/deliveries/{row.id}/curl").text == visitor.get(path).text
    assert visitor.get(f"/deliveries/{row.id}/curl?attempt=%00").status_code == 400
    assert visitor.get(f"/deliveries/{row.id}/curl?attempt=x").status_code == 200  # the last
    assert visitor.get(f"/deliveries/{row.id}/curl?attempt={row.id}").status_code == 404
    assert Visitor(app, "2").get(path).status_code == 404
