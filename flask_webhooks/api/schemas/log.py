"""Messages, deliveries and attempts in JSON."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from .fields import UUID, Instant, PageQuery, Strict, Text, described, identifier, page
from .subscriptions import ENVIRONMENTS

__all__ = [
    "Attempt",
    "AttemptPage",
    "Delivery",
    "DeliveryPage",
    "DeliveryQuery",
    "Message",
    "MessageDetail",
    "MessagePage",
    "MessageQuery",
    "OneDelivery",
    "Trial",
]

STATES = ("pending", "delivered", "failed", "held", "cancelled", "broken")
TRIGGERS = ("automatic", "manual", "replay", "test")


class Message(ma.Schema):
    """One occurrence of an event."""

    id = identifier("The idempotency key, `webhook-id` of every request.", required=True)
    event = fields.String(required=True, metadata=described("", example="invoices.created"))
    owner = fields.String(metadata=described("Shown to operators only."))
    environment = fields.String(required=True, validate=validate.OneOf(ENVIRONMENTS))
    occurred_at = Instant(required=True)
    text = fields.String(required=True, metadata=described("", example="Invoice created successfully."))
    entity_id = fields.String(required=True, allow_none=True, metadata=described("Key of the record."))
    sequence = fields.Integer(
        required=True, metadata=described("Of two messages about one record, the larger one is newer.")
    )
    size = fields.Integer(required=True, metadata=described("Bytes of `data`."))
    is_test = fields.Boolean(required=True)


class Outcome(ma.Schema):
    """The delivery of a message to one subscription, or the reason why there is none."""

    subscription_id = identifier("", required=True)
    url = fields.String(required=True)
    delivery_id = fields.String(
        required=True, allow_none=True, metadata=described("Null: there is no delivery.")
    )
    state = fields.String(required=True, allow_none=True, validate=validate.OneOf(STATES))
    reason = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "Class of the last failure; or why there is no delivery: `not_listening`, `other_environment`, `newer` "
            "(the subscription is), `listened_later` (to this event), `exclusive` (`*` leaves out exclusive channels), "
            "`backfill` (made for another subscription), `test` (of another subscription)."
        ),
    )
    explanation = fields.String(required=True, metadata=described("The reason as a sentence."))


class MessageDetail(Message):
    """A message with its data and its outcome for each subscription."""

    data = fields.Raw(
        required=True, allow_none=True, metadata=described("The object, as it was at the commit.")
    )
    data_reason = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "`too_large`: this answer has neither `data` nor `includes`; `/data` returns both."
        ),
    )
    includes = fields.Dict(required=True, metadata=described("The includes that subscriptions have chosen."))
    broken = fields.Boolean(
        required=True,
        metadata=described(
            "Its data could not be rendered: `data` is null, and nothing is sent until that is repaired."
        ),
    )
    error = fields.String(metadata=described("Why it is broken. Shown to operators only."))
    subscriptions = fields.List(
        fields.Nested(Outcome),
        required=True,
        metadata=described("A page of subscriptions, in the order of their ids."),
    )
    next = fields.String(
        required=True,
        allow_none=True,
        metadata=described("Send it as `cursor` to get more subscriptions; null on the last page."),
    )


MessagePage = page(Message, "MessagePage")


class _Window(PageQuery):
    """Query for a list that can be limited to a period."""

    since = Instant(
        metadata=described("Only what was recorded at or after this instant.", example="2025-07-18T00:00:00Z")
    )
    until = Instant(
        metadata=described("Only what was recorded before this instant.", example="2025-07-19T00:00:00Z")
    )
    event = Text(
        validate=validate.Length(max=200),
        metadata=described("An event type, or a pattern such as `invoices.*`.", example="invoices.*"),
    )
    owner = Text(
        validate=validate.Length(min=1, max=255),
        metadata=described("Operators only: the rows of this owner."),
    )


class MessageQuery(_Window):
    """Query for messages."""

    environment = fields.String(validate=validate.OneOf(ENVIRONMENTS))


class Delivery(ma.Schema):
    """One message to one subscription."""

    id = identifier("", required=True)
    message_id = identifier("", required=True)
    subscription_id = identifier("", required=True)
    event = fields.String(
        required=True, allow_none=True, metadata=described("Null: the message has been purged.")
    )
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    reason = fields.String(
        required=True,
        allow_none=True,
        metadata=described("Class of the last failure, or why it waits or ended."),
    )
    attempts = fields.Integer(
        required=True, metadata=described("Attempts since it was recorded or last retried manually.")
    )
    due_at = Instant(
        required=True, allow_none=True, metadata=described("When the next attempt is due; null: none is.")
    )
    created_at = Instant(required=True)
    finished_at = Instant(required=True, allow_none=True)
    trigger = fields.String(required=True, validate=validate.OneOf(TRIGGERS))
    format = fields.String(required=True)


DeliveryPage = page(Delivery, "DeliveryPage")


class DeliveryQuery(_Window):
    """Query for deliveries."""

    cursor = fields.String(
        validate=validate.Regexp(
            rf"{UUID[:-1]}(_{UUID[1:-1]})?$",
            error="This is no cursor of this list. Send the `next` of the previous page.",
        ),
        metadata=described("`next` of the previous page; without it: the newest rows."),
    )
    subscription = identifier("Only deliveries to this subscription.")
    message = identifier("Only deliveries of this message.")
    state = fields.String(validate=validate.OneOf(STATES))


class ResponseQuery(Strict):
    """Query for the response of one attempt."""

    attempt = identifier("Id of the attempt; without it: the last one.")


class Request(ma.Schema):
    """The request of an attempt."""

    url = fields.String(required=True)
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata=described("Values of custom headers are masked."),
    )
    body_sha256 = fields.String(required=True)
    body_size = fields.Integer(required=True, metadata=described("Bytes."))


class Response(ma.Schema):
    """The receiver's response."""

    status = fields.Integer(required=True)
    headers = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    body = fields.String(
        required=True,
        metadata=described(
            "The beginning of the body, decompressed (gzip, deflate) and decoded as the headers say; `/response` "
            "returns the bytes."
        ),
    )
    body_note = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "What the text does not show, such as bytes that are invalid in its charset; else null."
        ),
    )
    truncated = fields.Boolean(required=True)


class Timings(ma.Schema):
    """Seconds of each phase; null for one that did not happen, such as connecting on a kept connection."""

    dns = fields.Float(required=True, allow_none=True)
    connect = fields.Float(required=True, allow_none=True)
    tls = fields.Float(required=True, allow_none=True)
    first_byte = fields.Float(required=True, allow_none=True)
    total = fields.Float(required=True)


class Attempt(ma.Schema):
    """One request to the receiver, and its outcome."""

    id = identifier("", required=True)
    number = fields.Integer(required=True)
    trigger = fields.String(required=True, validate=validate.OneOf(TRIGGERS))
    started_at = Instant(required=True)
    failure = fields.String(
        required=True, allow_none=True, metadata=described("Class of the failure; null: it succeeded.")
    )
    detail = fields.String(required=True, metadata=described("One line.", example="Answered 200."))
    hint = fields.String(required=True, allow_none=True, metadata=described("What the owner can check."))
    request = fields.Nested(Request, required=True)
    response = fields.Nested(Response, required=True, allow_none=True)
    timings = fields.Nested(Timings, required=True)
    worker = fields.String(required=True)


AttemptPage = page(Attempt, "AttemptPage")


class OneDelivery(Delivery):
    """A delivery with its body and its newest attempts."""

    body = fields.String(
        required=True,
        allow_none=True,
        metadata=described("The body, as it was sent last or will be sent; null if it is no longer known."),
    )
    body_reason = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "Why there is no body: `changed` (it was not stored, and rendering it again gives other bytes), `purged`, "
            "`unknown_event`, `unknown_format` or `poison` (it cannot be rendered again), `broken` (its data could not "
            "be rendered); `too_large`: `/body` returns it."
        ),
    )
    attempt_log = fields.List(
        fields.Nested(Attempt), required=True, metadata=described("The newest ones, oldest first.")
    )
    attempts_next = fields.String(
        required=True,
        allow_none=True,
        metadata=described("Send it as `cursor` to `/attempts` to get older ones; null: there are none."),
    )


class Trial(Strict):
    """The event of a test request."""

    event = Text(
        validate=validate.Length(max=200),
        metadata=described(
            "An event type, of which an example is sent; without it `webhooks.test`.",
            example="invoices.created",
        ),
    )
    entity_id = Text(
        validate=validate.Length(min=1, max=255),
        metadata=described("With `event`: send this record as it is now, instead of an example."),
    )
