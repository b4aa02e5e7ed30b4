"""Proof that a change was meant: no other site may make a signed-in browser send it.

A request passes if its credentials are none that a browser adds by itself, which is an `Authorization` header of a
scheme like `Bearer`, or the header that the host's API keys are in. Any other must come from the same origin as the
browser tells (`Sec-Fetch-Site`, else `Origin`), and its body must be declared as JSON, which no HTML form can send.
Without either header it is no browser of today, and passes unless it carries a cookie.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request

from ..state import AppState
from .problems import Refused
from .security import has_key

__all__ = ["check_origin"]

_AMBIENT = frozenset({"basic", "digest", "negotiate", "ntlm"})
"""Schemes whose credentials a browser repeats by itself."""


def check_origin(request: Request, state: AppState) -> None:
    """Refuse a change that another site may have made a browser send.

    :raises Refused: 403; or 415 where the body is not declared as JSON.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    if (scheme and scheme not in _AMBIENT) or has_key(request, state):
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    has_ambient = bool(scheme) or "Cookie" in request.headers
    if site is None and origin is None and not has_ambient:
        return
    is_same = site == "same-origin" if site is not None else origin is not None and _is_ours(origin, request)
    if not is_same:
        raise Refused(
            403,
            "This request does not prove that it comes from this site. Send it from a page of the same origin, or "
            "authenticate with an Authorization header instead of a cookie.",
            code="cross_site",
        )
    if request.mimetype != "application/json":
        raise Refused(
            415, "With a cookie, send the header Content-Type: application/json, even without a body."
        )


def _is_ours(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    is_downgraded = request.is_secure and parts.scheme != "https"
    return parts.netloc == request.host and not is_downgraded
