"""A request that was made, as a command for a terminal.

The law of this room: what is pasted into bash or zsh sends the same bytes to the same target, and does nothing else,
whatever a customer has put into a body or a URL. So the command is printable ASCII: no control character can end a
paste, no tab can complete a word, no invisible mark is lost in a clipboard, and no shell reads anything inside
single quotation marks or a quoted here-document.
"""

from __future__ import annotations

import base64
import re
import shlex
import typing as t

from ..delivery import MASK
from ..transport import ACCEPT_ENCODING, as_sent, is_token

__all__ = ["LONGEST_INLINE", "command"]

LONGEST_INLINE = 4096
"""Bytes of a body whose command stands in the page of its delivery; that of a larger one is fetched on demand."""
LONGEST_READABLE = 2048
"""Bytes of a body that is a word of the command: Linux takes 128 KiB for one, and a here-document any number."""
_READABLE = re.compile(rb"[ -~]*")
_UNSENT = ("Accept", "Expect")
"""Headers that curl adds by itself, and we do not send."""


def command(url: str, headers: t.Mapping[str, str], body: bytes) -> str:
    """Return the command. Custom headers are left out, because the log masks their values; it says which.

    :param headers: as the log has them.
    """
    known = {name: value for name, value in headers.items() if is_token(name)}  # anything else was never sent
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
    """One word for a shell. What is not printable ASCII cannot be part of a URL or header that was sent."""
    return shlex.quote("".join(mark if " " <= mark <= "~" else "?" for mark in text))
