"""Code that a visitor copies: receivers that verify a webhook's requests, and an attempt as a curl command.

The law of the receivers, `templates/webhooks/snippets`: one answers any malformed or forged request with a 4xx, and
goes on running. It says how to start it, and exits at start with one sentence if its secret is malformed; it never
contains the secret. `tests/console/test_snippets.py` runs them all.

The law of the curl command: pasted into bash or zsh, it sends the same bytes to the same URL and does nothing else,
whatever a customer has put into a body or a URL. So it is printable ASCII: no control character can end the paste, no
tab can complete a word, and no invisible character can get lost in a clipboard. Shells expand nothing inside single
quotation marks or a quoted here-document.
"""

from __future__ import annotations

import base64
import re
import shlex
import typing as t
from urllib.parse import quote

from flask import current_app

from ..delivery import MASK
from ..models import Subscription
from ..transport import ACCEPT_ENCODING, as_sent, is_token
from .formatting import path

__all__ = ["LANGUAGES", "LONGEST_INLINE", "curl_command", "snippets"]

LANGUAGES = (("python", "Python"), ("node", "Node.js"), ("go", "Go"), ("php", "PHP"), ("curl", "curl"))


def snippets(subscription: Subscription) -> list[tuple[str, str, str]]:
    """Return (name, title, code) for each language."""
    is_public = subscription.signature == "v1a"
    values = {
        # The path goes into a comment of the code: characters that could end the comment are percent-encoded.
        "path": quote(path(subscription.url).partition("?")[0], safe="/%:@!$&'()*+,;=~") or "/",
        "quoted_url": shlex.quote(as_sent(subscription.url)),
        "accept_encoding": ACCEPT_ENCODING,
        "is_public": is_public,
        "prefix": "whpk_" if is_public else "whsec_",
    }
    # Not `render_template`: the host's context processors may query the database while this page holds a connection.
    find = current_app.jinja_env.get_template
    texts = {name: find(f"webhooks/snippets/{name}.txt").render(values) for name, _title in LANGUAGES}
    return [(name, title, texts[name].strip() + "\n") for name, title in LANGUAGES]


# ---- an attempt as a curl command ------------------------------------------------------------------------

LONGEST_INLINE = 4096
"""Bytes of the largest body whose command is part of the delivery's page; a larger one is loaded on demand."""
LONGEST_READABLE = 2048
"""Bytes of the largest body that is written as an argument of curl; a larger one is a here-document in base64. Linux
limits an argument to 128 KiB, and does not limit a here-document."""
_READABLE = re.compile(rb"[ -~]*")
_UNSENT = ("Accept", "Expect")
"""Headers that curl adds by itself, and that we do not send."""


def curl_command(url: str, headers: t.Mapping[str, str], body: bytes) -> str:
    """Return the command. It omits custom headers, whose values the log masks, and names them in a note before it.

    :param headers: from the log.
    """
    # A name that is no token was never sent.
    known = {name: value for name, value in headers.items() if is_token(name)}
    sent = {"Accept-Encoding": ACCEPT_ENCODING, **{k: v for k, v in known.items() if v != MASK}}
    masked = [name for name, value in known.items() if value == MASK]
    # -g: no [ranges] or {lists} in the URL; --path-as-is: no /../ resolved.
    lines = [f"curl -i -X POST -g --path-as-is --http1.1 {_quoted(as_sent(url))}"]
    lines += [f"-H {_quoted(f'{name}: {value}')}" for name, value in sent.items()]
    lines += [f"-H {_quoted(f'{name}:')}" for name in _UNSENT]
    left_out = _quoted(f"Left out, for their values are not kept: {', '.join(masked)}")
    note = f": {left_out}\n" if masked else ""
    if len(body) <= LONGEST_READABLE and _READABLE.fullmatch(body):
        return note + _joined([*lines, f"--data-raw {_quoted(body.decode())}"])
    text = base64.encodebytes(body).decode()
    return f"{note}base64 -d <<'BODY' | {_joined([*lines, '--data-binary @-'])}\n{text}BODY"


def _joined(lines: t.Sequence[str]) -> str:
    return " \\\n  ".join(lines)


def _quoted(text: str) -> str:
    """Quote one word for a shell. Characters outside printable ASCII are never in a URL or header that was sent."""
    return shlex.quote("".join(mark if " " <= mark <= "~" else "?" for mark in text))
