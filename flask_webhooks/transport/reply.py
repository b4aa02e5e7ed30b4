"""The outcome of a request: an answer, or the class of a failure, with a line for the owner and one for the operator.

The law of this room: the line for the owner reveals nothing about the network behind us.
"""

from __future__ import annotations

import errno
import ssl
import time
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests
import urllib3

from ..retry import Failure
from .certificates import tls_detail
from .dialer import ExchangeFailed
from .exchange import Exchange
from .response import AnswerTooLarge, Broken, Malformed

__all__ = ["ERRORS", "Reply", "Timings", "answered", "classified", "failed", "is_lost", "overdue"]

ERRORS: t.Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ExchangeFailed,
    AnswerTooLarge,
    Broken,
    Malformed,
)
"""All that a receiver can cause; anything else is a mistake of ours and is raised."""

_LOST: t.Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(slots=True)
class Timings:
    """Seconds; `None` where the phase did not happen, such as all of connecting on a kept connection."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    """From the start of the attempt to the first byte of the answer."""
    total: float


@dataclass(slots=True)
class Reply:
    """What came back, or why nothing did."""

    status: int | None
    """`None` unless the answer came in whole: a 200 whose body never ended is no answer."""
    headers: Mapping[str, str] = field(repr=False)
    """At most 100, names as sent; values of repeated ones joined by a comma."""
    body: bytes = field(repr=False)
    """At most `response_limit` bytes as they came: never decompressed."""
    truncated: bool
    """Whether there was more of the body."""
    failure: Failure | None
    """`None` only for a complete 2xx."""
    detail: str
    """One line for the owner; tells nothing of the network behind us."""
    log: str
    """One line for the operator: name, address, rule, exception."""
    address: str | None
    """The address connected to; the proxy's, where there is one."""
    timings: Timings
    is_ours: bool = False
    """Whether it failed by a fault of our side, whatever its class, and says nothing about the receiver."""


def failed(exchange: Exchange, failure: Failure, detail: str, log: str) -> Reply:
    return Reply(
        status=None,
        headers={},
        body=b"",
        truncated=False,
        failure=failure,
        detail=detail,
        log=log,
        address=exchange.address,
        timings=_timings(exchange),
    )


def overdue(exchange: Exchange) -> Reply:
    limit = exchange.deadline - exchange.started
    detail = f"No complete answer within {limit:g} seconds."
    return failed(exchange, Failure.TIMEOUT, detail, f"{exchange.address}: {detail}")


def classified(exchange: Exchange, error: Exception) -> Reply:
    log = f"{exchange.address}: {error!r}"[:500]
    if exchange.expired:
        return overdue(exchange)
    if is_lost(error) and exchange.first_byte is None:
        detail = "The connection was lost: nothing of the receiver's side answered any more."
        return failed(exchange, Failure.TIMEOUT, detail, log)
    if isinstance(error, ExchangeFailed):
        return failed(exchange, error.failure, error.detail, error.log)
    if isinstance(error, AnswerTooLarge):
        return failed(exchange, Failure.TOO_LARGE, "The headers of the answer are too large.", log)
    if isinstance(error, Malformed):
        return failed(exchange, Failure.PROTOCOL, "The answer is not valid HTTP.", log)
    cause = _cause(error)
    if exchange.first_byte is None and _is_alert(cause):
        return failed(exchange, Failure.TLS, tls_detail(cause), log)
    if exchange.first_byte is None:
        return failed(exchange, Failure.CONNECT, "The connection was closed before an answer.", log)
    return failed(exchange, Failure.PROTOCOL, "The connection was closed within the answer.", log)


def answered(exchange: Exchange, response: requests.Response, body: bytes, truncated: bool) -> Reply:
    failure = Failure.of_status(response.status_code)
    detail = f"Answered {response.status_code}."
    if failure is not None and failure is Failure.REDIRECT:
        detail = f"Answered {response.status_code} with a redirect to {_shown(response)}; update the URL."
    return Reply(
        status=response.status_code,
        headers=response.headers,
        body=body,
        truncated=truncated,
        failure=failure,
        detail=detail,
        log=f"{exchange.address}: {response.status_code}",
        address=exchange.address,
        timings=_timings(exchange),
    )


def is_lost(error: Exception) -> bool:
    """Whether nobody answers any more, down to the kernel; a connection that was closed is something else."""
    cause = _cause(error)
    return isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno in _LOST


def _is_alert(cause: object) -> t.TypeGuard[ssl.SSLError]:
    """Whether TLS broke it off, and not the connection below.

    With TLS 1.3 our side of the handshake is done before the receiver has looked at our certificate: what it says of
    that, or of the lack of one, comes in the place of its answer (RFC 8446, section 4.4.2.4).
    """
    return isinstance(cause, ssl.SSLError) and not isinstance(
        cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    )


def _cause(error: Exception) -> object:
    """Return what requests has wrapped."""
    return error.args[0] if isinstance(error, requests.ConnectionError) and error.args else error


def _timings(exchange: Exchange) -> Timings:
    first = None if exchange.first_byte is None else exchange.first_byte - exchange.started
    return Timings(exchange.dns, exchange.connect, exchange.tls, first, time.monotonic() - exchange.started)


def _shown(response: requests.Response) -> str:
    """Return the `Location` without user name, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(next((v for n, v in response.headers.items() if n.lower() == "location"), ""))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an unreadable address"
    return (f"{parts.scheme}://{host}" if host else "")[:200] + parts.path[:200] or "nowhere"
