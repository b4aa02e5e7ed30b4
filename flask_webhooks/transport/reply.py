"""The outcome of a request: an answer, or the class of a failure, with a line for the owner and one for the operator.

The law of this room: the line for the owner reveals nothing about our network.
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

from ..outcome import Failure
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
"""All errors that a receiver can cause; any other exception is a bug of ours, and is not caught."""

_LOST: t.Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(slots=True)
class Timings:
    """Seconds of each phase; `None` for one that did not happen, such as `connect` on a kept connection."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    """From the start of the attempt to the first byte of the answer."""
    total: float


@dataclass(slots=True)
class Reply:
    """The receiver's answer, or the reason why there is none."""

    status: int | None
    """`None` unless the answer was complete: a 200 whose body never ended is no answer."""
    headers: Mapping[str, str] = field(repr=False)
    """At most 100, names as sent; the values of repeated headers are joined by a comma."""
    body: bytes = field(repr=False)
    """At most `response_limit` bytes as received, never decompressed."""
    truncated: bool
    """Whether the body was longer than `body`."""
    failure: Failure | None
    """`None` only for a complete 2xx."""
    detail: str
    """One line for the owner; reveals nothing about our network."""
    log: str
    """One line for the operator: name, address, rule, exception."""
    address: str | None
    """The address that we connected to; the proxy's, if there is one."""
    timings: Timings
    is_ours: bool = False
    """Whether the failure is a fault of our side, whatever its class: it then says nothing about the receiver."""


def failed(exchange: Exchange, failure: Failure, detail: str, log: str) -> Reply:
    """Return the reply for an attempt without a complete answer."""
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
    """Return the reply for an attempt that reached its deadline."""
    limit = exchange.deadline - exchange.started
    detail = f"No complete answer within {limit:g} seconds."
    return failed(exchange, Failure.TIMEOUT, detail, f"{exchange.address}: {detail}")


def classified(exchange: Exchange, error: Exception) -> Reply:
    """Return the reply for one of `ERRORS`, with the class that it stands for at this point of the exchange."""
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
    """Return the reply for a complete answer, of whatever status."""
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
    """Whether the connection was lost: not even the receiver's kernel answers. A closed connection is not lost."""
    cause = _cause(error)
    return isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno in _LOST


def _is_alert(cause: object) -> t.TypeGuard[ssl.SSLError]:
    """Whether the receiver ended the exchange by a TLS alert, and not by closing the connection below TLS.

    With TLS 1.3 our side completes the handshake before the receiver checks our certificate: an alert about a bad or
    missing certificate arrives where the answer should be (RFC 8446, section 4.4.2.4).
    """
    return isinstance(cause, ssl.SSLError) and not isinstance(
        cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    )


def _cause(error: Exception) -> object:
    """Return the exception that requests wrapped, or the error itself."""
    return error.args[0] if isinstance(error, requests.ConnectionError) and error.args else error


def _timings(exchange: Exchange) -> Timings:
    first = None if exchange.first_byte is None else exchange.first_byte - exchange.started
    return Timings(exchange.dns, exchange.connect, exchange.tls, first, time.monotonic() - exchange.started)


def _shown(response: requests.Response) -> str:
    """Return the `Location` header without user name, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(next((v for n, v in response.headers.items() if n.lower() == "location"), ""))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an unreadable address"
    return (f"{parts.scheme}://{host}" if host else "")[:200] + parts.path[:200] or "nowhere"
