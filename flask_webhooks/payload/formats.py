"""The built-in formats of bodies, what a format is given, and the bytes that it makes."""

from __future__ import annotations

import json
import logging
import typing as t
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ..errors import PayloadError
from ..visible import printable
from .encoder import encode

__all__ = ["ENVELOPES", "FORMATS", "Format", "Message", "Recipient", "failed", "render", "timestamp"]

logger = logging.getLogger("flask_webhooks.payload")


@dataclass(frozen=True, slots=True)
class Message:
    """One event, as a format gets it."""

    id: str
    """The idempotency key, a UUID: also the header `webhook-id`."""
    event: str
    """The event type as the catalogue has it: `invoices.paid`."""
    channel: str
    """`invoices`"""
    name: str
    """`paid`"""
    text: str
    """One sentence: "Invoice paid successfully."."""
    environment: str
    """`staging` or `production`."""
    occurred_at: datetime
    """When the transaction was committed: aware UTC, with microseconds."""
    sequence: int
    """Grows with every message; a larger one of the same entity is newer."""
    owner: str
    """The key of the owner."""
    entity_type: str
    """The channel's label in the singular, in snake case: `invoice`."""
    entity_id: str | None
    """Key of the record; `None` for events that have none."""
    transition: str | None
    """`SUBMIT`, where the catalogue names one."""
    status: str | None
    """`SUBMITTED`, where the event has one."""
    data: dict[str, t.Any] = field(repr=False)
    """The object, with the includes that the subscription has chosen under their names, and `changes`.
    It contains only JSON values, because it was encoded at the commit. Formats must not change it."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The subscription, as a format gets it: without secrets and state."""

    id: str
    """UUIDv7 of the subscription."""
    url: str
    """The URL that the body is sent to."""
    description: str
    """The owner's own words; may be empty."""
    metadata: dict[str, t.Any]
    """The owner's own keys and values."""
    format: str
    """The name under which the format is registered."""
    environment: str
    """`staging` or `production`."""
    owner: str
    """The key of the owner."""


Format = Callable[[Message, Recipient], Mapping[str, object]]
"""Makes the body of a delivery. Must return the same for the same arguments: a retry sends the same bytes."""


def timestamp(instant: datetime) -> str:
    """ISO 8601 with microseconds and offset, always 32 characters: 2026-03-01T12:00:00.000000+00:00."""
    return instant.isoformat(timespec="microseconds")


def channel(message: Message, recipient: Recipient) -> dict[str, object]:
    """The default: event, sentence, idempotency key, environment, data."""
    return {
        "event": message.event,
        "message": message.text,
        "idempotency_key": message.id,
        "environment": message.environment,
        "data": message.data,
    }


def standard(message: Message, recipient: Recipient) -> dict[str, object]:
    """The body that the Standard Webhooks specification recommends ("Payload structure")."""
    return {"type": message.event, "timestamp": timestamp(message.occurred_at), "data": message.data}


def entity(message: Message, recipient: Recipient) -> dict[str, object]:
    """For status transitions; `entity_state` is what the GET of that resource returns."""
    return {
        "entity_type": message.entity_type,
        "transition_name": message.transition,
        "status": message.status,
        "timestamp": timestamp(message.occurred_at),
        "id": message.entity_id,
        "event_type": message.event,
        "entity_state": message.data,
    }


def minimal(message: Message, recipient: Recipient) -> dict[str, object]:
    """Event and data, nothing else."""
    return {"event": message.event, "data": message.data}


SLACK_TEXT, SLACK_FIELDS, SLACK_FIELD = 3000, 10, 300
"""Slack's limits per section: characters of its text, number of fields. A field may have 2,000 characters; a
table stays readable with 300."""


def slack(message: Message, recipient: Recipient) -> dict[str, object]:
    """For a Slack incoming webhook: the sentence, a table of the first ten plain fields, and where it is from.

    Three blocks at most, far below Slack's 50. `verbatim` keeps Slack from making mentions and links out of
    what a customer typed.
    """
    # Two characters less: the stars around it count too.
    title = _slack_text(message.text, SLACK_TEXT - 2)
    source = _slack_text(f"{message.event} · {message.environment} · {message.id}", SLACK_TEXT)
    blocks: list[dict[str, object]] = [{"type": "section", "text": _mrkdwn(f"*{title}*")}]
    rows = [
        _mrkdwn(f"*{_slack_text(name, SLACK_FIELD)}*\n{_slack_text(value, SLACK_FIELD)}")
        for name, value in _scalars(message.data)
    ]
    if rows:
        blocks.append({"type": "section", "fields": rows[:SLACK_FIELDS]})
    blocks.append({"type": "context", "elements": [_mrkdwn(source)]})
    return {"text": title, "blocks": blocks}


def _mrkdwn(text: str) -> dict[str, object]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _scalars(data: object) -> Iterator[tuple[str, str]]:
    for name, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, str) and value.strip():
            yield name, value
        elif isinstance(value, bool | int | float):
            yield name, json.dumps(value)


def _slack_text(text: str, most: int) -> str:
    """Escape by Slack's rules (`&`, `<` and `>` only) and cut to `most` characters, never inside an escape."""
    escaped = text[:most].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= most and len(text) <= most:
        return escaped
    cut = escaped[: most - 1]  # the ellipsis is one character
    start = cut.rfind("&")
    return (cut[:start] if start >= 0 and ";" not in cut[start:] else cut) + "…"


_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_MOMENT = {"type": "string", "format": "date-time"}
ENVELOPES: Mapping[str, tuple[dict[str, object], str]] = {
    "channel": (
        {
            "event": _TEXT,
            "message": _TEXT,
            "idempotency_key": {"type": "string", "format": "uuid"},
            "environment": _TEXT,
        },
        "data",
    ),
    "standard": ({"type": _TEXT, "timestamp": _MOMENT}, "data"),
    "minimal": ({"event": _TEXT}, "data"),
    "entity": (
        {
            "entity_type": _TEXT,
            "transition_name": _MAYBE,
            "status": _MAYBE,
            "timestamp": _MOMENT,
            "id": _MAYBE,
            "event_type": _TEXT,
        },
        "entity_state",
    ),
}
"""What the API's documentation says of a built-in format: JSON Schema of each key, and the key that holds the data.
The format of Slack is described by Slack."""

FORMATS: Mapping[str, Format] = {
    "channel": channel,
    "standard": standard,
    "entity": entity,
    "minimal": minimal,
    "slack": slack,
}
"""The built-in formats; the app adds its own with `Webhooks.payload_format`."""


def render(format: str | Format, message: Message, recipient: Recipient) -> bytes:
    """Return the bytes to sign and send: UTF-8 JSON, the same for the same arguments.

    :param format: a format, or the name of a built-in one.
    :raises PayloadError: when the name is unknown, or a format returns what is no JSON object. What a format
        itself raises passes through.
    """
    # The caller may have the host's own formats too, and passes what it has found there.
    make = FORMATS.get(format) if isinstance(format, str) else format
    if make is None:
        raise PayloadError(f"There is no built-in format {format!r}. There are: {', '.join(FORMATS)}.")
    body = make(message, recipient)
    if not isinstance(body, Mapping):
        raise PayloadError(
            f"The format {recipient.format!r} returned {type(body).__name__}. Return a dict: the body is an object."
        )
    return encode(body if isinstance(body, dict) else dict(body), root="body").encode()


def failed(format: str, error: Exception) -> str:
    """Return what a customer may read about a format that raised, and log the exception itself.

    Its message may contain anything: a statement with its values, the name of a machine, a key.
    """
    if isinstance(error, PayloadError):
        return str(error)
    logger.warning("format.failed", extra={"format": format}, exc_info=printable(error))
    return f"The format {format!r} failed within the sender: {type(error).__name__}."
