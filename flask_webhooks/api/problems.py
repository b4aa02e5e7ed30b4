"""What goes wrong, as problem details (RFC 9457). Messages never hold a secret: what they show has been checked."""

from __future__ import annotations

import json
import logging
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
from ..web import CODES, Refused, headers_of, seconds_to_wait
from .security import challenge

__all__ = ["answer", "nobody", "not_allowed", "of_error", "of_http", "unknown"]

logger = logging.getLogger("flask_webhooks.api")

MOST_ERRORS = 200
LONGEST = 1000
LONGEST_FIELD = 150
"""Field errors that one answer names, letters of each, and of the name of its field: an answer must not be larger than
what was asked."""


def details(problem: Refused) -> dict[str, t.Any]:
    """Return the problem details."""
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
    """Return the problem that an error of ours is."""
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
        logger.error("secret.unreadable", extra={"reason": str(error)})
        return Refused(500, "A stored secret cannot be opened. The operator has been told.", code=error.code)
    raise error


def answer(problem: Refused) -> Response:
    """Return the response of a problem."""
    response = Response(json.dumps(details(problem)), problem.status, mimetype="application/problem+json")
    response.headers.update(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_somebody() -> bool:
    return current_webhooks.load_principal() is not None


def nobody() -> Refused:
    """The answer to a request without a principal."""
    return Refused(
        401,
        "Nobody is signed in. Authenticate as you do for the rest of this app.",
        headers={"WWW-Authenticate": challenge(current_webhooks)},
    )


def of_http(error: HTTPException) -> Response | HTTPException:
    """Return the answer to what Flask, Werkzeug or the host's own code aborts with, a 500 among it.

    What comes with a response of its own, such as the way to a login, is left as it is.
    """
    status = error.code or 0
    if error.response is not None or status not in {each.value for each in HTTPStatus} or status < 400:
        return error
    detail = error.description or error.name
    if status == 500:  # what an exception says is for the log
        detail = "This went wrong on our side. The operator can find it in the log."
    code = CODES.get(status, error.name.lower().replace(" ", "_"))
    return answer(Refused(status, detail, code=code, headers=headers_of(error)))


def not_allowed(allowed: t.Sequence[str]) -> t.Callable[..., Response]:
    """Return the view of a path for methods that it has not; it tells `OPTIONS` those that it has."""
    told = ", ".join(sorted({*allowed, "HEAD", "OPTIONS"} if "GET" in allowed else {*allowed, "OPTIONS"}))

    def view(**_: t.Any) -> Response:
        if request.method == "OPTIONS":  # a browser asks it before a request to another site, as nobody
            told_all = Response(headers={"Allow": told})
            del told_all.headers["Content-Type"]
            return told_all
        if not _is_somebody():
            return answer(nobody())
        detail = f"{request.method[:20]} is not possible here. Possible: {told}."
        return answer(Refused(405, detail, headers={"Allow": told}))

    return view


def unknown(path: str = "") -> Response:
    """The view of every path that is none of ours."""
    return answer(Refused(404, "There is nothing at this address.") if _is_somebody() else nobody())
