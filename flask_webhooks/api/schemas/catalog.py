"""The catalogue in JSON."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields

from .fields import Strict, described

__all__ = ["Catalog", "CatalogQuery", "Event"]


class EventSummary(ma.Schema):
    """One event type."""

    name = fields.String(required=True, metadata=described("", example="invoices.created"))
    title = fields.String(required=True)
    description = fields.String(required=True)
    message = fields.String(required=True, metadata=described("", example="Invoice created successfully."))
    format = fields.String(
        required=True, metadata=described("The envelope of subscriptions that choose none.")
    )
    formats = fields.List(fields.String(), required=True, metadata=described("The envelopes to choose from."))
    transition = fields.String(required=True, allow_none=True)
    deprecated = fields.Boolean(required=True)


class Channel(ma.Schema):
    """A stream of events about one resource."""

    name = fields.String(required=True, metadata=described("", example="invoices"))
    title = fields.String(required=True)
    label = fields.String(required=True)
    description = fields.String(required=True)
    exclusive = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "`subscription` or `owner`: a subscription (or owner) that listens to it can listen to nothing else."
        ),
    )
    includes = fields.List(fields.String(), required=True, metadata=described("The includes to choose from."))
    events = fields.List(fields.Nested(EventSummary), required=True)


class Catalog(ma.Schema):
    """All channels."""

    title = fields.String(required=True)
    channels = fields.List(fields.Nested(Channel), required=True)
    next_after = fields.String(
        metadata=described("Only if there are more events than fit: send it as `after` to get them.")
    )


class CatalogQuery(Strict):
    """Query for a part of a catalogue that is too long for one answer."""

    after = fields.String(
        load_default="",
        metadata=described(
            "Only events after this one: `next_after` or `x-next-after` of the previous answer."
        ),
    )


class Event(EventSummary):
    """One event type with its JSON Schema and examples of bodies."""

    channel = fields.String(required=True)
    includes = fields.List(fields.String(), required=True)
    schema = fields.Dict(required=True, metadata=described("JSON Schema of `data`, without includes."))
    samples = fields.Dict(
        keys=fields.String(), required=True, metadata=described("An example of the body, by format.")
    )
