"""Answers to refused requests, as problem details (RFC 9457). No message contains a secret."""

from __future__ import annotations

import json
import typing as t
from http import HTTPStatus

from flask import Response, request
from werkzeug.exceptions import HTTPException

from ..errors import (
    ExclusivityError,
    OtherEnvironmentError,
    SecretError,
    SubscriptionChangedError,
    SubscriptionError,
    SubscriptionMissingError,
    ThrottledError,
)
from ..state import current_webhooks
from ..web import CODES, Refused, headers_of, log_unreadable, seconds_to_wait
from .security import challenge

__all__ = ["answer", "not_allowed", "of_error", "of_http", "unauthenticated", "unknown"]

MOST_ERRORS = 200
LONGEST = 1000
LONGEST_FIELD = 150
"""The most field errors in one answer, and the most characters of a message and of the name of its field: an answer
must not be larger than the request."""


def details(problem: Refused) -> dict[str, t.Any]:
    """Return the JSON of a problem."""
    errors = [
        {"field": field[:LONGEST_FIELD], "message": message[:LONGEST]}
        for field, messages in problem.fields.items()
        for message in messages
    ][:MOST_ERRORS]
    found: dict[str, t.Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail[:LONGEST],
        "code": problem.code,
    }
    if errors:
        found["errors"] = errors
    return found


def of_error(error: Exception) -> Refused:
    """Return the problem for an error of the package; an error of another kind is raised again."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, SubscriptionMissingError):
        return Refused(404, str(error), code=error.code)
    if isinstance(error, SubscriptionChangedError):
        return Refused(412, str(error), code=error.code)
    if isinstance(error, ExclusivityError):
        return Refused(409, str(error), code=error.code, fields=error.fields)
    if isinstance(error, OtherEnvironmentError):
        return Refused(409, str(error), code=error.code)
    if isinstance(error, ThrottledError):
        wait = seconds_to_wait(error)
        detail = f"{error} Try again in {wait} seconds."
        return Refused(429, detail, code=error.code, headers={"Retry-After": str(wait)})
    if isinstance(error, SubscriptionError):
        return Refused(422, str(error), code=error.code, fields=error.fields)
    if isinstance(error, SecretError):
        log_unreadable(error)
        return Refused(
            500,
            "A stored secret cannot be decrypted. The operator can find the reason in the log.",
            code=error.code,
        )
    raise error


def answer(problem: Refused) -> Response:
    """Return the response for a problem."""
    response = Response(json.dumps(details(problem)), problem.status, mimetype="application/problem+json")
    response.headers.update(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_authenticated() -> bool:
    return current_webhooks.load_principal() is not None


def unauthenticated() -> Refused:
    """Return the problem of a request without a principal."""
    return Refused(
        401,
        "The request is not authenticated. Authenticate as you do for the rest of this app.",
        headers={"WWW-Authenticate": challenge(current_webhooks)},
    )


def of_http(error: HTTPException) -> Response | HTTPException:
    """Return the answer to a request that Flask, Werkzeug or the host's own code has aborted, also with a 500.

    An abort with a response of its own, such as a redirect to a login, passes unchanged.
    """
    status = error.code or 0
    # A status outside of `HTTPStatus` has no phrase, which problem details need as their title.
    if error.response is not None or status not in {each.value for each in HTTPStatus} or status < 400:
        return error
    detail = error.description or error.name
    if status == 500:  # the message of an exception belongs in the log
        detail = "The request failed on our side. The operator can find the reason in the log."
    code = CODES.get(status, error.name.lower().replace(" ", "_"))
    return answer(Refused(status, detail, code=code, headers=headers_of(error)))


def not_allowed(allowed: t.Sequence[str]) -> t.Callable[..., Response]:
    """Return the view of a path for methods that it does not have. It answers `OPTIONS` with the allowed ones."""
    names = ", ".join(sorted({*allowed, "HEAD", "OPTIONS"} if "GET" in allowed else {*allowed, "OPTIONS"}))

    def view(**_: t.Any) -> Response:
        # A browser sends OPTIONS before a cross-site request, without credentials: a 401 would end it.
        if request.method == "OPTIONS":
            every = Response(headers={"Allow": names})
            del every.headers["Content-Type"]
            return every
        if not _is_authenticated():
            return answer(unauthenticated())
        detail = f"The method {request.method[:20]} is not allowed here. Allowed are: {names}."
        return answer(Refused(405, detail, headers={"Allow": names}))

    return view


def unknown(path: str = "") -> Response:
    """Answer a request for a path below `/api` that no operation has."""
    return answer(
        Refused(404, "There is nothing at this address.") if _is_authenticated() else unauthenticated()
    )
