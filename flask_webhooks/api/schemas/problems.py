"""Errors: RFC 9457 problem details."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields

from .fields import described

__all__ = ["FieldProblem", "Problem"]


class FieldProblem(ma.Schema):
    """What is wrong with one field."""

    field = fields.String(
        required=True, metadata=described("Where: dotted, lists by number.", example="events.0.includes")
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
            "What happened, for programs: `invalid`, `exclusive`, `not_found`, …", example="invalid"
        ),
    )
    errors = fields.List(fields.Nested(FieldProblem), metadata=described("Every field that is wrong."))
