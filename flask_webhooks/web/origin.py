"""The origin of a request: which site made the browser send it. No other site may change anything with our cookies.

Browsers of today send `Sec-Fetch-Site` (Fetch Metadata Request Headers, section 2.4), older ones only `Origin` (RFC
6454, section 7). A page cannot set either of them. A client that sends neither is no browser, or a very old one.
"""

from __future__ import annotations

import enum
from urllib.parse import urlsplit

from flask import Request

__all__ = ["Initiator", "initiator_of"]


class Initiator(enum.Enum):
    """What made a client send a request."""

    SAME_ORIGIN = "a page of this origin"
    USER = "an address that was typed, or a bookmark"
    OTHER_ORIGIN = "a page of another origin"
    UNKNOWN = "the client does not say"


def initiator_of(request: Request) -> Initiator:
    """Return what made the client send a request."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        said = {"same-origin": Initiator.SAME_ORIGIN, "none": Initiator.USER}
        return said.get(site, Initiator.OTHER_ORIGIN)
    if origin is None:
        return Initiator.UNKNOWN
    return Initiator.SAME_ORIGIN if _is_ours(origin, request) else Initiator.OTHER_ORIGIN


def _is_ours(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:  # such as `http://[`
        return False
    # A page of http:// may be forged by anyone on the network, so it may not write to the same host by https://.
    is_downgraded = request.is_secure and parts.scheme != "https"
    return parts.netloc == request.host and not is_downgraded
