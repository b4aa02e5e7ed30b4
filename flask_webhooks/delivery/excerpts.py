"""What the log keeps of an answer: an excerpt, bounded in the bytes that the database gets.

The law of this room: a receiver decides what it answers, and never how large our log grows. What counts is the text as
it is stored: in JSON one byte of a header can take six.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping

__all__ = ["MOST_ATTEMPT", "MOST_HEADERS", "body_excerpt", "headers_excerpt"]

MOST_HEADERS: t.Final = 8192
"""Bytes of JSON that the headers of an answer may take."""

MOST_ATTEMPT: t.Final = 65_536
"""Bytes that all of an attempt may take, whatever `WEBHOOKS_RESPONSE_LIMIT` says."""

REST: t.Final = 2048
"""Bytes for ids, instants, names and numbers."""

_MORE: t.Final = "\N{HORIZONTAL ELLIPSIS}"
"""Ends a value that was cut. It cannot be a receiver's name: headers are read as Latin-1, which does not have it."""


def headers_excerpt(headers: Mapping[str, str]) -> str | None:
    """Return headers as a JSON object of at most `MOST_HEADERS` bytes, all in ASCII; None if there are none.

    Values are cut before any header is left out, the longest first; how many are left out is said.
    """
    if not headers:
        return None
    text = json.dumps(dict(headers))
    if len(text) <= MOST_HEADERS:
        return text
    for longest in (1024, 256, 64):
        short = {_cut(name, longest): _cut(value, longest) for name, value in headers.items()}
        if len(text := _written(short, len(headers))) <= MOST_HEADERS:
            return text
    while len(text) > MOST_HEADERS:
        short.popitem()
        text = _written(short, len(headers))
    return text


def _written(short: dict[str, str], count: int) -> str:
    """Return headers as JSON, and how many of `count` are left out: two names may be one when they are cut."""
    left_out = {_MORE: f"{count - len(short)} more"} if len(short) < count else {}
    return json.dumps(short | left_out)


def _cut(text: str, most: int) -> str:
    """Return a text whose JSON has at most about so many bytes."""
    if len(json.dumps(text)) <= most:
        return text
    taken = size = 0
    for character in text[:most]:
        size += len(json.dumps(character)) - 2
        if size > most - 8:
            break
        taken += 1
    return text[:taken] + _MORE


def body_excerpt(body: bytes, *texts: str | None) -> bytes:
    """Return as much of a body as an attempt has room for beside these texts."""
    if len(body) <= MOST_ATTEMPT // 4:  # as always, unless the operator wants more
        return body
    taken = sum(len(text.encode()) for text in texts if text is not None)
    return body[: max(0, MOST_ATTEMPT - REST - taken)]
