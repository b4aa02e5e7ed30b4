"""Events as OpenAPI 3.1 knows them: its `webhooks` section, with JSON Schemas made from the marshmallow schemas."""

from __future__ import annotations

import typing as t

from .. import payload
from .examples import bodies
from .json_schema import data_schema, with_includes

if t.TYPE_CHECKING:
    from ..catalog import EventType
    from ..state import AppState

__all__ = ["document", "tags", "webhook"]

Json = dict[str, t.Any]


def document(state: AppState) -> Json:
    """Return an OpenAPI document that contains only the events."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{state.catalog.title}: webhooks",
            "version": "1",
            "description": "Requests that are sent to whoever subscribes to them, signed by Standard Webhooks 1.0.0.",
        },
        "tags": tags(state),
        "webhooks": {event.name: {"post": webhook(state, event)} for event in state.catalog.events.values()},
    }


def tags(state: AppState) -> list[Json]:
    """Return the channels as OpenAPI's tags."""
    return [
        {"name": channel.name, "description": channel.description or channel.title}
        for channel in state.catalog.channels.values()
        if channel.events
    ]


def webhook(state: AppState, event: EventType) -> Json:
    """Return the operation that a receiver of an event provides."""
    bound = state.bound[event.channel]
    data = data_schema(bound, event)
    data = with_includes(data, bound)
    shapes = [_envelope(name, data) for name in event.formats]
    found = bodies(state, event)
    return {
        "operationId": f"on.{event.name}",
        "summary": event.title,
        "description": event.description or event.message,
        "deprecated": event.deprecated is not None,
        "tags": [event.channel],
        "security": [],
        "parameters": [
            _sent("webhook-id", "The idempotency key: the same on every retry."),
            _sent("webhook-timestamp", "Of the attempt, in seconds since 1970."),
            _sent(
                "webhook-signature",
                "`v1,` and base64; several with spaces between (Standard Webhooks 1.0.0).",
            ),
            _sent("webhook-event", "The event type.", {"type": "string", "const": event.name}),
            _sent("webhook-occurred-at", "When it happened, with microseconds.", _MOMENT),
            _sent(
                "webhook-sequence",
                "Grows with each event about one object: the larger one is the newer.",
                {"type": "string", "pattern": "^[0-9]+$"},
            ),
            _sent("webhook-attempt", "Of this delivery, from 1.", {"type": "string", "pattern": "^[0-9]+$"}),
            _sent("webhook-delivery", "The id of the delivery in the log.", _KEY),
            _sent(
                "webhook-trigger",
                "Why it is sent.",
                {"type": "string", "enum": ["live", "replay", "backfill", "test"]},
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes},
                    "examples": {name: {"value": body} for name, body in found.items() if body is not None},
                }
            },
        },
        "responses": {
            "2XX": {"description": "Received."},
            "410": {"description": "Switch the subscription off."},
            "default": {"description": _otherwise(event)},
        },
    }


def _otherwise(event: EventType) -> str:
    return "A failure. It is not sent again." if event.retry == "none" else "Anything else is tried again."


def _sent(name: str, text: str, schema: Json | None = None) -> Json:
    """Describe a header of the request."""
    shape = schema or _TEXT
    return {"name": name, "in": "header", "required": True, "description": text, "schema": shape}


_TEXT = {"type": "string"}
_MOMENT = {"type": "string", "format": "date-time"}
_KEY = {"type": "string", "format": "uuid"}


def _envelope(format: str, data: Json) -> Json:
    """The JSON Schema of a body. Slack documents its own bodies, and the author of a custom format its own."""
    if format not in payload.ENVELOPES:
        return {"title": format, "type": "object"}
    properties, place = payload.ENVELOPES[format]
    return {
        "title": format,
        "type": "object",
        "properties": {**properties, place: data},
        "required": [*properties, place],
    }
