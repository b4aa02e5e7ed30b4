"""How callers of the API say who they are: as the host's own API has it, told by `WEBHOOKS_SECURITY_SCHEME`.

We never authenticate anybody; `principal_loader` does. This is what OpenAPI says of it, what a 401 asks for, and
which header of a request a browser never sends by itself.
"""

from __future__ import annotations

import typing as t

from flask import Request

from ..state import AppState

__all__ = ["challenge", "has_key", "schemes"]

Json = dict[str, t.Any]


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


def has_key(request: Request, state: AppState) -> bool:
    """Say whether a request has the header that an API key is in: no other site can make a browser add one."""
    return any(
        scheme["type"] == "apiKey" and scheme.get("in") == "header" and scheme["name"] in request.headers
        for scheme in schemes(state).values()
    )
