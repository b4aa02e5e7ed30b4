"""Subscriptions and their secrets in JSON. The examples in OpenAPI never hold a working secret."""

from __future__ import annotations

import typing as t

import marshmallow as ma
from marshmallow import fields, pre_load, validate

from .fields import Flag, Instant, Number, PageQuery, Strict, Text, described, identifier, page

__all__ = [
    "CreatedSubscription",
    "Listener",
    "NewSubscription",
    "Rotation",
    "Secret",
    "Secrets",
    "Subscription",
    "SubscriptionChange",
    "SubscriptionPage",
    "SubscriptionQuery",
]

ENVIRONMENTS = ("staging", "production")
SIGNATURES = ("v1", "v1a")


class Listener(Strict):
    """One event type, or a pattern for several, with the includes to add to `data`."""

    event = Text(
        required=True,
        metadata=described("`invoices.created`, `invoices.*` or `*`.", example="invoices.updated"),
    )
    includes = fields.List(
        Text(),
        load_default=list,
        metadata=described(
            "Attributes of the channel to add to `data`; `changes` is there for all.", example=["changes"]
        ),
    )


if t.TYPE_CHECKING:
    AnyField = fields.Field[t.Any]
else:  # marshmallow 3 has no generic fields
    AnyField = fields.Field


class Event(AnyField):
    """A listener; as plain text it is the event of one without includes."""

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        if isinstance(value, str):
            return {"event": Text().deserialize(value), "includes": []}
        return Listener().load(value)

    def _serialize(self, value: t.Any, attr: str | None, obj: t.Any, **kwargs: t.Any) -> t.Any:
        return Listener().dump(value)


class _Shared(Strict):
    """The fields that can be set when a subscription is created, and changed later."""

    url = Text(
        metadata=described(
            "The URL of the receiver: HTTPS, reachable from the public internet.",
            example="https://example.com/hooks",
        )
    )
    description = Text(
        validate=validate.Length(max=1024), metadata=described("A description in your own words.")
    )
    active = Flag(metadata=described("False: new deliveries are held, not sent."))
    events = fields.List(
        Event(), metadata=described("The events to listen to.", example=["invoices.created"])
    )
    channels = fields.List(
        Text(), metadata=described("Channels whose events are all wanted: `invoices` means `invoices.*`.")
    )
    format = Text(
        allow_none=True,
        metadata=described("The envelope; null: the one that the catalogue gives each event."),
    )
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(allow_none=True),
        allow_none=True,
        metadata=described(
            "Headers to send along. Merged by name when changed: null removes one. Values are never shown again.",
            example={"X-Api-Key": "…"},
        ),
    )
    retry = fields.Raw(
        allow_none=True,
        metadata=described(
            "`standard`, `none`, or seconds to wait before each further attempt, from the eleventh on at least 60; "
            "null: the schedule of the event or of the app.",
            oneOf=[
                {"type": "string", "enum": ["standard", "none"]},
                {
                    "type": "array",
                    "items": {"type": "number", "minimum": 1, "maximum": 604800},
                    "maxItems": 50,
                },
                {"type": "null"},
            ],
        ),
    )
    rate_limit = Number(
        allow_none=True,
        validate=validate.Range(min=0.001, max=1000),
        metadata=described("Requests a second at most; null: no limit."),
    )
    metadata = fields.Dict(
        allow_none=True,
        metadata=described(
            "Your own notes. Merged by name when changed: null removes one.", additionalProperties=True
        ),
    )
    signature = fields.String(
        validate=validate.OneOf(SIGNATURES),
        metadata=described("Scheme of new secrets: `v1` (HMAC-SHA256) or `v1a` (ed25519)."),
    )

    @pre_load
    def _aliases(self, data: t.Any, **_: t.Any) -> t.Any:
        """`to_url` and `event_types` are other names for `url` and `events`."""
        if not isinstance(data, dict):
            return data
        renamed = dict(data)
        for alias, name in (("to_url", "url"), ("event_types", "events")):
            if alias in renamed:
                if name in renamed:
                    raise ma.ValidationError(f"Another name for {name}: give one of the two.", alias)
                renamed[name] = renamed.pop(alias)
        return renamed


class NewSubscription(_Shared):
    """A subscription to create. `to_url` is another name for `url`, `event_types` for `events`."""

    url = Text(
        required=True,
        metadata=described(
            "The URL of the receiver: HTTPS, reachable from the public internet.",
            example="https://example.com/hooks",
        ),
    )
    environment = fields.String(
        validate=validate.OneOf(ENVIRONMENTS),
        metadata=described(
            "Only messages of this environment are sent; by default that of the app. It cannot be changed later."
        ),
    )
    secret = Text(
        metadata=described(
            "A secret of your own: `whsec_` and base64 of 24 to 64 bytes. Without it one is generated."
        )
    )
    owner = Text(
        validate=validate.Length(min=1, max=255),
        metadata=described("Operators only: the owner of the subscription."),
    )


class SubscriptionChange(_Shared):
    """The fields to change; the others keep their values."""

    environment = fields.String(
        validate=validate.OneOf(ENVIRONMENTS),
        metadata=described("It cannot be changed; the present value may be sent."),
    )
    held = fields.String(
        validate=validate.OneOf(("send", "discard")),
        metadata=described(
            "With `active: true`: whether to send or discard the deliveries that were held while it was off."
        ),
    )


class Subscription(ma.Schema):
    """A subscription: a destination, and the events that it gets."""

    id = identifier("Its id.", required=True)
    owner = fields.String(metadata=described("Shown to operators only."))
    url = fields.String(
        required=True, metadata=described("The URL in its normal form.", example="https://example.com/hooks")
    )
    description = fields.String(required=True)
    environment = fields.String(required=True, validate=validate.OneOf(ENVIRONMENTS))
    active = fields.Boolean(required=True)
    format = fields.String(required=True, allow_none=True)
    events = fields.List(fields.Nested(Listener), required=True)
    channels = fields.List(
        fields.String(), required=True, metadata=described("Channels whose events are all listened to.")
    )
    headers = fields.List(
        fields.String(), required=True, metadata=described("Names only.", example=["X-Api-Key"])
    )
    retry = fields.Raw(
        required=True,
        allow_none=True,
        metadata=described(
            "Its own schedule.",
            oneOf=[
                {"type": "string"},
                {"type": "array", "items": {"type": "number"}},
                {"type": "null"},
            ],
        ),
    )
    rate_limit = fields.Float(required=True, allow_none=True)
    metadata = fields.Dict(required=True, metadata={"additionalProperties": True})
    signature = fields.String(required=True, validate=validate.OneOf(SIGNATURES))
    disabled_reason = fields.String(
        required=True, allow_none=True, metadata=described("Why we switched it off: `gone` or `failing`.")
    )
    disabled_at = Instant(required=True, allow_none=True)
    created_at = Instant(required=True)
    updated_at = Instant(required=True)
    note = fields.String(
        required=True,
        allow_none=True,
        metadata=described("Why it gets nothing from this application: it is for another environment."),
    )


class CreatedSubscription(Subscription):
    """A new subscription with its secret, which is only shown here and after a rotation."""

    secret = fields.String(
        required=True,
        metadata=described(
            "The key to verify requests with: `whsec_…`, or for `v1a` the public key `whpk_…`."
        ),
    )


SubscriptionPage = page(Subscription, "SubscriptionPage")


class SubscriptionQuery(PageQuery):
    """Query for subscriptions."""

    environment = fields.String(validate=validate.OneOf(ENVIRONMENTS))
    active = fields.Boolean(metadata=described("Only subscriptions that are on (`true`) or off (`false`)."))
    owner = Text(
        validate=validate.Length(min=1, max=255),
        metadata=described("Operators only: the rows of this owner."),
    )


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
        fields.Nested(Secret),
        required=True,
        metadata=described("All that requests are signed with, the current one first."),
    )


class Rotation(Strict):
    """Request to rotate the secret."""

    overlap = fields.Integer(
        strict=True,
        load_default=86_400,
        validate=validate.Range(min=0, max=604_800),
        metadata=described("Seconds during which requests are signed with the old secrets as well."),
    )
    secret = Text(
        metadata=described(
            "A secret of your own: `whsec_` and base64 of 24 to 64 bytes. Without it one is generated."
        )
    )
