"""How callers of the API authenticate: as for the host's own API, described by `WEBHOOKS_SECURITY_SCHEME`.

The host authenticates, in its `principal_loader`; we never do. This module makes the security schemes of OpenAPI and
the challenge of a 401. It refuses writing requests that another site may have caused in a signed-in browser (CSRF).
"""

from __future__ import annotations

import typing as t

from flask import Request

from ..state import AppState
from ..web import Initiator, Refused, initiator_of

__all__ = ["challenge", "check_origin", "schemes"]

Json = dict[str, t.Any]
AMBIENT = frozenset({"basic", "digest", "negotiate", "ntlm"})
"""HTTP authentication schemes whose credentials a browser sends by itself."""


def schemes(state: AppState) -> dict[str, Json]:
    """Return the Security Scheme Objects of OpenAPI by their names; a caller needs one of them."""
    found = [_scheme(state, each) for each in state.settings.security_scheme]
    return {f"host{number or ''}": scheme for number, scheme in enumerate(found)}


def _scheme(state: AppState, given: str | t.Mapping[str, t.Any]) -> Json:
    if given == "bearer":
        found: Json = {"type": "http", "scheme": "bearer"}
    elif given == "cookie":
        name = state.app.config.get("SESSION_COOKIE_NAME") or "session"
        found = {"type": "apiKey", "in": "cookie", "name": name}
    else:
        found = dict(t.cast("t.Mapping[str, t.Any]", given))
    return {**found, "description": found.get("description", "As for the rest of this app.")}


def challenge(state: AppState) -> str:
    """Return the `WWW-Authenticate` of a 401 (RFC 9110, section 11.6.1).

    Never `Basic` or a similar scheme: a browser would ask for a password, which is the host's decision.
    """
    for scheme in schemes(state).values():
        if scheme["type"] == "http" and scheme.get("scheme", "").lower() == "bearer":
            return 'Bearer realm="webhooks"'
        if scheme["type"] == "apiKey" and scheme.get("in") == "header":
            return f'ApiKey realm="webhooks", header="{scheme["name"]}"'
        if scheme["type"] == "apiKey":
            return 'Cookie realm="webhooks"'
    return 'Bearer realm="webhooks"'


def check_origin(request: Request, state: AppState) -> None:
    """Refuse a writing request that another site may have made a browser send (CSRF).

    A request passes if a browser would not have added its credentials by itself: an `Authorization` header of a scheme
    such as `Bearer`, or the header of the host's API keys. Any other request must come from a page of this origin, and
    declare its body as JSON, which no HTML form can send. A client that is no current browser passes if it sends
    neither a cookie nor an `Authorization` header.

    :raises Refused: 403; or 415 if the body is not declared as JSON.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    if (scheme and scheme not in AMBIENT) or _has_key(request, state):
        return
    initiator = initiator_of(request)
    if initiator is Initiator.UNKNOWN and not scheme and "Cookie" not in request.headers:
        return
    if initiator is not Initiator.SAME_ORIGIN:
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


def _has_key(request: Request, state: AppState) -> bool:
    """Whether a request has the header of the host's API keys, which another site cannot make a browser send."""
    return any(
        scheme["type"] == "apiKey" and scheme.get("in") == "header" and scheme["name"] in request.headers
        for scheme in schemes(state).values()
    )
