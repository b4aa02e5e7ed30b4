"""One request to a receiver: what is asked for, and the form in which it goes out.

The law of this room: the headers of the connection are ours; a header that HTTP cannot carry is refused here, before
anything is sent.
"""

from __future__ import annotations

import functools
import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..retry import Failure
from .certificates import ClientCertificate
from .connections import Prepared
from .dialer import ExchangeFailed
from .urls import Destination

__all__ = ["ACCEPT_ENCODING", "Outbound", "is_token", "prepare"]

ACCEPT_ENCODING: t.Final = "identity"
"""Sent with every request: answers are kept as they come."""

_TOKEN: t.Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT_VALUE: t.Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS: t.Final = frozenset(
    "accept-encoding connection content-length cookie expect host keep-alive proxy-authorization "
    "proxy-connection te trailer transfer-encoding upgrade".split()
)


# Not frozen: one is made for each request, and making a frozen one takes three times as long.
@dataclass(slots=True)
class Outbound:
    """One request to make, by POST."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    """Without `Host`, `Content-Length` and the other headers of the connection, which are ours and ignored."""
    body: bytes = field(repr=False)
    identity: ClientCertificate | None = None
    """The certificate that we show a receiver which asks for one."""


def is_token(name: str) -> bool:
    """Say whether a header can have a name (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def prepare(destination: Destination, outbound: Outbound) -> Prepared:
    given = outbound.headers
    unfit, ours = _judged(tuple(given))
    values = "".join(given.values())
    # Most values are plain, which is sooner seen of all at once than a pattern is searched for in each.
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
    """Return the first of a request's names of headers that none can have, and those that only we set."""
    unfit = next((name for name in names if not is_token(name)), None)
    return unfit, frozenset(name for name in names if name.lower() in _OURS)
