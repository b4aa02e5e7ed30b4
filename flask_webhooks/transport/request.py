"""One request to a receiver: what the caller gives, and the form in which it is sent.

The law of this room: only we set the headers of the connection (`_OURS`); a header that HTTP cannot carry is refused
here, before anything is sent.
"""

from __future__ import annotations

import functools
import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..outcome import Failure
from .certificates import ClientCertificate
from .connections import Prepared
from .dialer import ExchangeFailed
from .urls import Destination

__all__ = ["ACCEPT_ENCODING", "Outbound", "is_token", "prepare"]

ACCEPT_ENCODING: t.Final = "identity"
"""Sent with every request: answers are stored as received, and never decompressed."""

_TOKEN: t.Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT_VALUE: t.Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS: t.Final = frozenset(
    "accept-encoding connection content-length cookie expect host keep-alive proxy-authorization "
    "proxy-connection te trailer transfer-encoding upgrade".split()
)


# Not frozen: one is made for each request, and making a frozen instance takes three times as long.
@dataclass(slots=True)
class Outbound:
    """One request to make, by POST."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    """`Host`, `Content-Length` and the other headers in `_OURS` are ignored: we set them ourselves."""
    body: bytes = field(repr=False)
    identity: ClientCertificate | None = None
    """Our certificate for a receiver that requests one in the TLS handshake."""


def is_token(name: str) -> bool:
    """Whether `name` is a valid name of a header (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def prepare(destination: Destination, outbound: Outbound) -> Prepared:
    """Return the request in its final form.

    :raises ExchangeFailed: `protocol`: a header has a name or a value that HTTP cannot carry.
    """
    given = outbound.headers
    unfit, ours = _judged(tuple(given))
    values = "".join(given.values())
    # Most values are printable ASCII; testing that on all of them joined is faster than a search in each.
    if unfit is None and not (values.isascii() and values.isprintable()):
        unfit = next((name for name, value in given.items() if _UNFIT_VALUE.search(value)), None)
    if unfit is not None:
        detail = f"The header {unfit[:60]!r} cannot be sent: it is not a valid HTTP header."
        raise ExchangeFailed(Failure.PROTOCOL, detail, detail)
    if ours:
        given = {name: value for name, value in given.items() if name not in ours}
    headers = {
        "Host": destination.authority,
        "Accept-Encoding": ACCEPT_ENCODING,
        **given,
        "Content-Length": str(len(outbound.body)),
    }
    return Prepared(destination, headers, outbound.body, outbound.identity)


@functools.lru_cache(maxsize=1024)
def _judged(names: tuple[str, ...]) -> tuple[str | None, frozenset[str]]:
    """Return the first invalid header name, if any, and the names that only we set."""
    unfit = next((name for name in names if not is_token(name)), None)
    return unfit, frozenset(name for name in names if name.lower() in _OURS)
