"""What a receiver gets: the built-in formats, and the one JSON encoder for all of them.

The law of this room: the same input makes the same bytes, always. Keys keep the order they were given in;
no clock, no randomness, no look-up.

In the order of time: `encode` freezes an event's data at commit; at delivery a *format* makes the body out of
a `Message` for one `Recipient`, and `render` turns it into the bytes that are signed and sent.
"""

from __future__ import annotations

import enum
import json
import typing as t
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from .errors import PayloadError

__all__ = ["FORMATS", "Format", "Message", "Recipient", "encode", "render", "timestamp"]


@dataclass(frozen=True, slots=True)
class Message:
    """One event as a format sees it."""

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
    """The tenant's key."""
    entity_type: str
    """The channel's label in the singular, in snake case: `invoice`."""
    entity_id: str | None
    """Key of the record; `None` for events that have none."""
    transition: str | None
    """`SUBMIT`, where the catalogue names one."""
    status: str | None
    """`SUBMITTED`, where the event has one."""
    data: dict[str, t.Any] = field(repr=False)
    """The main object, with the includes this listener asked for under their own names, and `changes`.
    Only JSON values: it has been through `encode`. Formats must not change it."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The subscription as a format sees it: no secret, no state."""

    id: str
    """UUIDv7 of the subscription."""
    url: str
    """Where the body will be sent."""
    description: str
    """The owner's own words; may be empty."""
    metadata: dict[str, t.Any]
    """The owner's own keys and values."""
    format: str
    """The name under which the format is registered."""
    environment: str
    """`staging` or `production`."""
    owner: str
    """The tenant's key."""


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
    cut = escaped[: most - 1]
    start = cut.rfind("&")
    return (cut[:start] if start >= 0 and ";" not in cut[start:] else cut) + "…"


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
    make = FORMATS.get(format) if isinstance(format, str) else format
    if make is None:
        raise PayloadError(f"There is no built-in format {format!r}. There are: {', '.join(FORMATS)}.")
    body = make(message, recipient)
    if not isinstance(body, Mapping):
        raise PayloadError(
            f"The format {recipient.format!r} returned {type(body).__name__}. Return a dict: the body is an object."
        )
    return encode(body if isinstance(body, dict) else dict(body), root="body").encode()


def encode(data: object, *, root: str = "data") -> str:
    """Return data as JSON text: compact, keys in the order they were given, not escaped to ASCII.

    Beyond JSON's own types it takes `Decimal` (as text, so that no cent is lost), `date`, `time` and `datetime`
    (ISO 8601, with the offset they have), `UUID`, and enums (their value).

    :param root: what the error calls the outermost value.
    :raises PayloadError: for anything else, for NaN and infinities (JSON has none, RFC 8259, section 6), for
        values that contain themselves. It names the place: ``data.lines[3].photo is bytes; …``.
    """
    try:
        text = _ENCODER.encode(data)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(_blame(data, root)) from error
    return text


def _default(value: object) -> object:
    """Called by the encoder for what JSON does not know; a TypeError sends us to look for the place."""
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError


# Built once: json.dumps with arguments builds an encoder on every call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)

_HALF = "it holds half of a surrogate pair, which UTF-8 cannot carry"
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), "send a link to it, or base64 text"),
    ((set, frozenset), "make it a sorted list"),
    ((float, Decimal), "JSON has no such number, send None"),
    (int, "it has too many digits for Python to write, send it as text"),
    (timedelta, "send .total_seconds()"),
    (str, _HALF),
    (Mapping, "make it a dict"),
)

DEEPEST = 500
"""Levels that the search for a mistake follows; the encoder itself gives up at Python's recursion limit."""


class _Place(t.NamedTuple):
    """A value inside the data, with the way to it."""

    value: object
    path: str
    above: tuple[int, ...]
    """`id()` of each container around it."""


def _blame(data: object, root: str) -> str:
    """Say what in the data cannot be encoded. Slow, and only called when the fast way has failed."""
    places = [_Place(data, root, ())]
    while places:
        value, path, above = places.pop()
        if id(value) in above:
            return f"{path} contains itself; send its key instead."
        if len(above) > DEEPEST:
            return f"{path[:80]}… is nested more than {DEEPEST} levels deep; send less of it."
        if isinstance(value, dict):
            bad = next((key for key in value if not _is_key(key)), None)
            if bad is not None:
                return f"{path} has {_bad_key(bad)}."
            inside = [_Place(item, path + _step(key), (*above, id(value))) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            inside = [_Place(item, f"{path}[{i}]", (*above, id(value))) for i, item in enumerate(value)]
        elif complaint := _complaint(value):
            return f"{path} is {complaint}."
        else:
            continue
        places.extend(reversed(inside))
    return f"{root} cannot be written as JSON; send less of it."


def _is_key(key: object) -> bool:
    """Whether JSON can hold it as a key; numbers and None become text as in Python's own `json`."""
    return isinstance(key, str | int | float | None) and not _complaint(key)


def _bad_key(key: object) -> str:
    if isinstance(key, str):
        return f"the key {key!r}; {_HALF}"
    try:
        shown = repr(key)
    except ValueError:  # an int with too many digits
        shown = "…"
    return f"the key {shown} of type {type(key).__name__}; use text as keys"


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _complaint(value: object) -> str:
    try:
        _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        kind = type(value)
        remedy = next((text for types, text in _REMEDIES if isinstance(value, types)), None)
        name = repr(value) if isinstance(value, float | Decimal) else kind.__qualname__
        return f"{name}; {remedy or 'convert it, or give the channel a schema that does'}"
    return ""
