"""How callers of the API say who they are: as the host's own API has it, by `WEBHOOKS_SECURITY_SCHEME`.

We never authenticate anybody; `principal_loader` does. This is what OpenAPI says of it, what a 401 asks for, and which
changes are let through without a token: those that no other site can make a signed-in browser send.
"""

from __future__ import annotations

import typing as t

from flask import Request

from ..state import AppState
from ..web import Initiator, Refused, initiator_of

__all__ = ["challenge", "check_origin", "schemes"]

Json = dict[str, t.Any]
AMBIENT = frozenset({"basic", "digest", "negotiate", "ntlm"})
"""Schemes whose credentials a browser repeats by itself."""


def schemes(state: AppState) -> dict[str, Json]:
    """Return the Security Scheme Objects of OpenAPI by their names; each of them is enough."""
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

    `Basic` and the like would make a browser ask for a password, which only the host can want.
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
    """Refuse a change that another site may have made a browser send.

    It passes if its credentials are none that a browser adds by itself, which is an `Authorization` header of a scheme
    like `Bearer`, or the header that the host's API keys are in. Any other must come from a page of this origin, and
    its body must be declared as JSON, which no HTML form can send. What is no browser of today passes without a cookie.

    :raises Refused: 403; or 415 where the body is not declared as JSON.
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
    """Say whether a request has the header that an API key is in: no other site can make a browser add one."""
    return any(
        scheme["type"] == "apiKey" and scheme.get("in") == "header" and scheme["name"] in request.headers
        for scheme in schemes(state).values()
    )
