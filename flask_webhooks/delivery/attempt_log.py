"""What the log keeps of an attempt: the one place where its row is made.

The law of this room: a receiver decides what it answers, and never how large our log grows. What counts is the text as
it is stored: in JSON one byte of a header can take six.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from collections.abc import Mapping
from datetime import datetime

from ..ids import uuid7
from ..transport import Reply, Timings
from .request import DeliveryTask, Request

__all__ = [
    "MOST_ATTEMPT",
    "MOST_HEADERS",
    "Row",
    "attempt_row",
    "body_excerpt",
    "drop_answer",
    "headers_excerpt",
]

Row = dict[str, t.Any]

MOST_HEADERS: t.Final = 8192
"""Bytes of JSON that the headers of an answer may take."""

MOST_ATTEMPT: t.Final = 65_536
"""Bytes that all of an attempt may take, whatever `WEBHOOKS_RESPONSE_LIMIT` says."""

REST: t.Final = 2048
"""Bytes for ids, instants, names and numbers."""

MOST_DETAIL: t.Final = 1_000
"""Characters of the line for the owner."""

_MORE: t.Final = "\N{HORIZONTAL ELLIPSIS}"
"""Ends a value that was cut. It cannot be a receiver's name: headers are read as Latin-1, which does not have it."""


NO_REPLY: t.Final = Reply(
    status=None,
    headers={},
    body=b"",
    truncated=False,
    failure=None,
    detail="",
    log="",
    address=None,
    timings=Timings(dns=None, connect=None, tls=None, first_byte=None, total=0.0),
)
"""What came back where no request could be made."""


def attempt_row(
    task: DeliveryTask,
    *,
    url: str,
    started: datetime,
    worker: str,
    failure: str | None,
    detail: str,
    sent: Request | None = None,
    reply: Reply = NO_REPLY,
) -> Row:
    """Return the row of an attempt: every column of `Attempt`.

    :param url: where it went, or would have gone.
    :param failure: the class of the failure, or our own reason for making no request.
    :param detail: one line for the owner.
    :param sent: None: no request could be made.
    """
    body = sent.outbound.body if sent is not None else None
    request_headers, detail = json.dumps(sent.logged) if sent is not None else "{}", clean(detail)
    response_headers, timings = headers_excerpt(reply.headers), reply.timings
    kept = body_excerpt(reply.body, url, request_headers, detail, response_headers)
    return {
        "id": uuid7(),
        "delivery_id": task.id,
        "subscription_id": task.subscription_id,
        "number": task.number,
        "trigger": task.trigger,
        "started_at": started,
        "status": reply.status,
        "failure": failure,
        "detail": detail,
        "url": url,
        "request_headers": request_headers,
        "body_sha256": hashlib.sha256(body).hexdigest() if body is not None else "",
        "body_size": len(body) if body is not None else 0,
        "response_headers": response_headers,
        "response_body": kept or None,
        "response_truncated": reply.truncated or len(kept) < len(reply.body),
        "address": reply.address,
        "dns_seconds": timings.dns,
        "connect_seconds": timings.connect,
        "tls_seconds": timings.tls,
        "first_byte_seconds": timings.first_byte,
        "total_seconds": timings.total,
        "worker": worker,
    }


def drop_answer(row: Row) -> bool:
    """Leave out of a row what came from the receiver; return False if it has nothing of it, or no longer.

    A database refuses some values, such as text that it cannot encode, and a receiver chooses its answer freely.
    """
    if row.get("request_headers", "{}") == "{}":
        return False
    row.update(
        response_headers=None,
        response_body=None,
        request_headers="{}",
        address=None,
        detail="What was answered could not be recorded.",
    )
    return True


def clean(text: str) -> str:
    """Without what a database does not take (PostgreSQL: NUL, halves of surrogate pairs), and not too long."""
    text = text[:MOST_DETAIL]
    if text.isascii() and text.isprintable():  # as nearly always
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


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
    """Return as much of a body as an attempt has room for, together with these texts."""
    if len(body) <= MOST_ATTEMPT // 4:  # as always, unless the operator wants more
        return body
    taken = sum(len(text.encode()) for text in texts if text is not None)
    return body[: max(0, MOST_ATTEMPT - REST - taken)]
