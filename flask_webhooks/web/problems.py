"""A request that is refused, as a value: the API answers with problem details, the console with a page."""

from __future__ import annotations

import logging
import math
import typing as t
from collections.abc import Mapping

from flask import request
from werkzeug.exceptions import HTTPException

from ..errors import SecretError, ThrottledError
from ..frames import emptied

__all__ = ["CODES", "Refused", "forget_request", "headers_of", "log_unreadable", "seconds_to_wait"]

logger = logging.getLogger("flask_webhooks.api")
"""Hosts know it by this name; the console logs here too."""

CODES = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    412: "changed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "failed",
}
"""The `code` of a problem by its status, unless the problem has a more specific one."""


class Refused(Exception):
    """A request that is answered with a problem.

    :param detail: one or two sentences for the caller.
    :param code: for programs; by default that of the status.
    :param fields: the mistakes in each field of the input.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        fields: Mapping[str, t.Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.code = code or CODES.get(status, "refused")
        self.fields = fields or {}
        self.headers = dict(headers or {})


def seconds_to_wait(error: ThrottledError) -> int:
    """Return the whole seconds to wait before the next request, for `Retry-After` (RFC 9110, section 10.2.3)."""
    return max(1, math.ceil(error.wait))


def headers_of(error: HTTPException) -> dict[str, str]:
    """Return the headers of an abort of the host, such as `Retry-After` and `Allow`, for an answer of our own."""
    return {name: value for name, value in error.get_headers() if name != "Content-Type"}


def log_unreadable(error: SecretError) -> None:
    """Log that a stored secret cannot be decrypted. Only the operator can repair that, so the caller gets no reason."""
    logger.error("secret.unreadable", extra={"reason": str(error)})


def forget_request(error: Exception) -> None:
    """Remove the input of a request from its exception's frames and from `request`, before the exception leaves a door.

    Error trackers report both. Values of custom headers are credentials, which no tracker can recognise by their names.
    """
    emptied(error)
    kept = vars(getattr(request, "_get_current_object", lambda: request)())
    for name in ("form", "files", "values", "_cached_data", "_cached_json"):
        kept.pop(name, None)
