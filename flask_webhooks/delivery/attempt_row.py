"""The row of an attempt, which is made here only.

The law of this module: a receiver chooses its response, but cannot make our log grow beyond `MOST_ATTEMPT`. Sizes are
those of the stored text: in JSON one byte of a header can take six.
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
    "drop_response",
    "headers_excerpt",
]

Row = dict[str, t.Any]

MOST_HEADERS: t.Final = 8192
"""Bytes of JSON for the headers of a response."""

MOST_ATTEMPT: t.Final = 65_536
"""Bytes of a whole row, whatever `WEBHOOKS_RESPONSE_LIMIT` is."""

REST: t.Final = 2048
"""Bytes that are reserved for ids, instants, names and numbers."""

MOST_DETAIL: t.Final = 1_000
"""Characters of `detail`, the line for the owner."""

_MORE: t.Final = "\N{HORIZONTAL ELLIPSIS}"
"""Ends a value that was cut, and is the name of the entry that counts omitted headers. No receiver can send this name:
headers are read as Latin-1, which has no ellipsis."""


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
"""The reply of an attempt that made no request."""


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

    :param url: the destination, also if no request was made.
    :param failure: the class of the failure, or our reason for making no request.
    :param detail: one line for the owner.
    :param sent: None: no request was made.
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


def drop_response(row: Row) -> bool:
    """Remove from a row everything that the receiver sent; return False if nothing was left to remove.

    A database refuses some values, such as text that it cannot encode, and a receiver may send any of them. The caller
    writes the row again without them, so that the attempt itself is not lost.
    """
    if row.get("request_headers", "{}") == "{}":
        return False
    row.update(
        response_headers=None,
        response_body=None,
        request_headers="{}",
        address=None,
        detail="The response could not be recorded.",
    )
    return True


def clean(text: str) -> str:
    """Return a text of at most `MOST_DETAIL` characters without those that PostgreSQL refuses: NUL, lone surrogates."""
    text = text[:MOST_DETAIL]
    if text.isascii() and text.isprintable():  # the usual case, and the cheapest check
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


def headers_excerpt(headers: Mapping[str, str]) -> str | None:
    """Return headers as a JSON object of at most `MOST_HEADERS` bytes, all in ASCII; None if there are none.

    Long names and values are cut first. If that does not suffice, the last headers are omitted, and an entry named
    `_MORE` says how many.
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
    """Return headers as JSON, with the number of omitted ones: after the cut two of `count` may have the same name."""
    left_out = {_MORE: f"{count - len(short)} more"} if len(short) < count else {}
    return json.dumps(short | left_out)


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text whose JSON has at most about `most` bytes."""
    if len(json.dumps(text)) <= most:
        return text
    taken = size = 0
    for character in text[:most]:
        size += len(json.dumps(character)) - 2
        if size > most - 8:  # the two quotation marks, and the ellipsis, which JSON writes as \u2026
            break
        taken += 1
    return text[:taken] + _MORE


def body_excerpt(body: bytes, *texts: str | None) -> bytes:
    """Return as much of a response's body as fits into a row together with these texts."""
    # With the default `WEBHOOKS_RESPONSE_LIMIT` every body is that short, and the texts need no measuring.
    if len(body) <= MOST_ATTEMPT // 4:
        return body
    taken = sum(len(text.encode()) for text in texts if text is not None)
    return body[: max(0, MOST_ATTEMPT - REST - taken)]
