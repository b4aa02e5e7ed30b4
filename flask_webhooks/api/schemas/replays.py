"""Statistics and replays in JSON."""

from __future__ import annotations

import typing as t

import marshmallow as ma
from marshmallow import fields, validate, validates_schema

from .fields import Flag, Instant, Strict, Text, described, identifier

__all__ = ["NewReplay", "Replay", "Stats", "StatsQuery"]

REPLAYABLE = ("failed", "held", "delivered", "cancelled", "missed")


class NewReplay(Strict):
    """The deliveries to send again."""

    mode = fields.String(
        validate=validate.OneOf(("failed", "held", "all", "missed")),
        metadata=described("A short form of `states`; `failed` if neither is given."),
    )
    states = fields.List(
        fields.String(validate=validate.OneOf(REPLAYABLE)),
        validate=validate.Length(min=1, max=5),
        metadata=described(
            "States of deliveries; `missed`: events that this subscription listens to and has no delivery of. They "
            'are stored with `WEBHOOKS_RECORD = "all"`, or if another subscription matched them.'
        ),
    )
    events = fields.List(
        Text(validate=validate.Length(max=200)),
        validate=validate.Length(max=500),
        metadata=described("Event types or patterns; all without it.", example=["invoices.*"]),
    )
    since = Instant(
        metadata=described("Only events recorded at or after this instant; without it: the whole log.")
    )
    until = Instant(metadata=described("Only events recorded before this instant; without it: until now."))
    dry_run = Flag(load_default=False, metadata=described("Count the deliveries, and send nothing."))

    @validates_schema
    def _one_way(self, data: dict[str, t.Any], **_: t.Any) -> None:
        if "mode" in data and "states" in data:
            raise ma.ValidationError("Give mode or states, not both.", "mode")
        if "since" in data and "until" in data and data["since"] >= data["until"]:
            raise ma.ValidationError("It must be later than since.", "until")


class Replay(ma.Schema):
    """A replay and its progress."""

    id = identifier("", required=True, allow_none=True)
    subscription_id = identifier("", required=True)
    state = fields.String(required=True, validate=validate.OneOf(("dry_run", "running", "done", "cancelled")))
    states = fields.List(fields.String(), required=True)
    events = fields.List(fields.String(), required=True)
    since = Instant(required=True)
    until = Instant(required=True)
    total = fields.Integer(
        required=True,
        metadata=described("Deliveries that matched at its beginning; 100000 stands for that many or more."),
    )
    queued = fields.Integer(required=True, metadata=described("Deliveries made due so far."))
    created_at = Instant(required=True)
    finished_at = Instant(required=True, allow_none=True)


class StatsQuery(Strict):
    """Query for statistics: the window."""

    window = fields.String(
        load_default="24h",
        validate=validate.Regexp(
            r"^(?:[1-9][0-9]{0,2}h|[1-9][0-9]?d)$", error="Give hours or days: 24h, 7d."
        ),
        metadata=described("Hours or days back from now, in whole hours of the clock.", example="24h"),
    )


class Point(ma.Schema):
    """The figures of one hour."""

    at = Instant(required=True, metadata=described("When the hour begins."))
    attempts = fields.Integer(required=True)
    ok = fields.Integer(required=True, metadata=described("Attempts with a 2xx response."))
    redirected = fields.Integer(required=True, metadata=described("Attempts with a 3xx response."))
    refused = fields.Integer(required=True, metadata=described("Attempts with a 4xx response."))
    broken = fields.Integer(required=True, metadata=described("Attempts with a 5xx response."))
    unanswered = fields.Integer(required=True, metadata=described("Attempts without a complete response."))
    p50 = fields.Float(required=True, allow_none=True)
    p95 = fields.Float(required=True, allow_none=True)


class States(ma.Schema):
    """Deliveries by state."""

    delivered = fields.Integer(required=True, metadata=described("In the window."))
    failed = fields.Integer(required=True, metadata=described("In the window: the schedule was used up."))
    cancelled = fields.Integer(required=True, metadata=described("In the window; 10000: that many or more."))
    pending = fields.Integer(required=True, metadata=described("Now; 10000 stands for that many or more."))
    held = fields.Integer(required=True, metadata=described("Now; 10000 stands for that many or more."))
    broken = fields.Integer(
        required=True,
        metadata=described(
            "Now: their data could not be rendered. They wait for an operator's repair; 10000: or more."
        ),
    )


class Health(ma.Schema):
    """The health of the receiver."""

    failures = fields.Integer(required=True, metadata=described("Attempts in a row that failed."))
    failing_since = Instant(required=True, allow_none=True)
    succeeded_at = Instant(required=True, allow_none=True)
    paused_until = Instant(
        required=True, allow_none=True, metadata=described("Nothing is sent before; then one probe.")
    )
    paused_reason = fields.String(
        required=True,
        allow_none=True,
        metadata=described("Why, in one sentence; null while it is not paused."),
    )
    waits_for = fields.String(
        required=True,
        allow_none=True,
        metadata=described(
            "Why nothing is sent until `waits_until`: `receiver` (it asks to slow down: 429, or 503 with a wait) or "
            "`sender` (our side can reach no receiver); null: it does not wait."
        ),
    )
    waits_until = Instant(required=True, allow_none=True)
    paced_rate = fields.Float(
        required=True,
        allow_none=True,
        metadata=described(
            "Requests a second that are sent to it, learnt from its requests to slow down; null: none lately."
        ),
    )


class Stats(ma.Schema):
    """How a subscription performs. Durations are in seconds; percentiles are estimated from classes, within a fifth."""

    window = fields.String(required=True)
    since = Instant(required=True)
    until = Instant(required=True)
    states = fields.Nested(States, required=True)
    attempts = fields.Integer(required=True)
    success_rate = fields.Float(
        required=True,
        allow_none=True,
        metadata=described("Share of attempts with a 2xx response; null without attempts."),
    )
    p50 = fields.Float(required=True, allow_none=True)
    p95 = fields.Float(required=True, allow_none=True)
    health = fields.Nested(Health, required=True)
    series = fields.List(fields.Nested(Point), required=True, metadata=described("Every hour, oldest first."))
