"""Secrets in JSON. The examples in OpenAPI never hold a working one."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from .fields import Instant, Strict, Text, described

__all__ = ["Rotation", "Secret", "Secrets"]


class Secret(ma.Schema):
    """One valid secret."""

    secret = fields.String(
        required=True,
        metadata=described("`whsec_…`, or for `v1a` the public key `whpk_…`.", example="whsec_…"),
    )
    created_at = Instant(required=True)
    expires_at = Instant(
        required=True, allow_none=True, metadata=described("When it stops signing; null for the current one.")
    )


class Secrets(ma.Schema):
    """The valid secrets."""

    secret = fields.String(required=True, metadata=described("The current one.", example="whsec_…"))
    secrets = fields.List(
        fields.Nested(Secret), required=True, metadata=described("All that sign now, the current one first.")
    )


class Rotation(Strict):
    """Request to rotate the secret."""

    overlap = fields.Integer(
        strict=True,
        load_default=86_400,
        validate=validate.Range(min=0, max=604_800),
        metadata=described("Seconds for which the old secrets go on signing too."),
    )
    secret = Text(
        metadata=described(
            "A secret of your own: `whsec_` and base64 of 24 to 64 bytes. One is made without it."
        )
    )
