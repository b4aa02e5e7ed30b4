"""Errors: RFC 9457 problem details, and every code that one may have."""

from __future__ import annotations

import typing as t

import marshmallow as ma
from marshmallow import fields

from .fields import described

__all__ = ["PROBLEM_CODES", "FieldProblem", "Problem", "ProblemCode"]


class ProblemCode(t.NamedTuple):
    """The status of a `code`, and what to do about it."""

    status: int
    """The status of every answer with this code."""
    remedy: str
    """What the caller can do about it."""


PROBLEM_CODES: t.Final[t.Mapping[str, ProblemCode]] = {
    "malformed": ProblemCode(400, "Send what HTTP, JSON in UTF-8 and this description allow."),
    "unauthenticated": ProblemCode(401, "Authenticate as you do for the rest of the app."),
    "forbidden": ProblemCode(403, "Ask your administrator for the right `read`, `write` or `secrets`."),
    "cross_site": ProblemCode(
        403, "Send it from a page of the same origin, or with an `Authorization` header instead of a cookie."
    ),
    "not_found": ProblemCode(
        404, "Check the id: objects of other owners are answered as if they did not exist."
    ),
    "method_not_allowed": ProblemCode(405, "Use a method that `Allow` names."),
    "conflict": ProblemCode(409, "Resolve the conflict that `detail` names, then repeat."),
    "exclusive": ProblemCode(
        409, "Leave out one of the channels that `detail` names, or unsubscribe from it."
    ),
    "broken": ProblemCode(409, "Wait until the operator has repaired the message; it is sent then."),
    "changed": ProblemCode(
        412, "Read the object again, repeat your change, and send the new `ETag` as `If-Match`."
    ),
    "too_large": ProblemCode(413, "Send a smaller body."),
    "unsupported_media_type": ProblemCode(415, "Send `Content-Type: application/json`."),
    "invalid": ProblemCode(422, "Correct each field in `errors`, then repeat."),
    "key_reused": ProblemCode(422, "Use a new `Idempotency-Key` for another request."),
    "too_many_requests": ProblemCode(429, "Wait as many seconds as `Retry-After` says, then repeat."),
    "failed": ProblemCode(
        500, "Repeat later with the same `Idempotency-Key`; the reason is in the operator's log."
    ),
    "unreadable": ProblemCode(
        500, "Ask the operator, or rotate the secret: the app has no key that decrypts the stored one."
    ),
}
"""In the order of their status."""


class FieldProblem(ma.Schema):
    """A mistake in one field."""

    field = fields.String(
        required=True,
        metadata=described(
            "The path of the field: dotted, elements of lists by number.", example="events.0.includes"
        ),
    )
    message = fields.String(
        required=True,
        metadata=described(
            "What is wrong and what to do.",
            example="'line_item' is no include of the channel invoices. There are: changes, line_items.",
        ),
    )


class Problem(ma.Schema):
    """Problem details (RFC 9457)."""

    type = fields.String(required=True, metadata=described("Always `about:blank`.", example="about:blank"))
    title = fields.String(
        required=True, metadata=described("The name of the status.", example="Unprocessable Content")
    )
    status = fields.Integer(required=True, metadata=described("The status code again.", example=422))
    detail = fields.String(
        required=True,
        metadata=described("What happened, in a sentence.", example="There is no event 'invoices.create'."),
    )
    code = fields.String(
        required=True,
        metadata=described(
            "What happened, for programs, and what to do about it. "
            + " ".join(f"`{code}` ({each.status}): {each.remedy}" for code, each in PROBLEM_CODES.items()),
            example="invalid",
        ),
    )
    errors = fields.List(fields.Nested(FieldProblem), metadata=described("Every field that is wrong."))
