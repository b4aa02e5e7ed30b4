"""What a receiver gets: the built-in formats, and the one JSON encoder for all of them.

The law of this room: the same input makes the same bytes, always. Keys keep the order they were given in;
no clock, no randomness, no look-up.

In the order of time: `encode` freezes an event's data at commit; at delivery a *format* makes the body out of
a `Message` for one `Recipient`, and `render` turns it into the bytes that are signed and sent.
"""

from __future__ import annotations

import base64
import enum
import functools
import ipaddress
import json
import logging
import pathlib
import typing as t
import uuid
import zoneinfo
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, Set, ValuesView
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import attrgetter, methodcaller

from .errors import PayloadError
from .visible import printable

__all__ = [
    "FORMATS",
    "Format",
    "Message",
    "Recipient",
    "encode",
    "failed",
    "is_writable",
    "ordered",
    "render",
    "timestamp",
]

logger = logging.getLogger("flask_webhooks.payload")


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


def failed(format: str, error: Exception) -> str:
    """Return what a customer is told of a format that failed; what the host's own code has said is for the log alone.

    Its words may hold anything: a statement with its values, the name of a machine, a key.
    """
    if isinstance(error, PayloadError):
        return str(error)
    logger.warning("format.failed", extra={"format": format}, exc_info=printable(error))
    return f"The format {format!r} failed within the sender: {type(error).__name__}."


def encode(data: object, *, root: str = "data") -> str:
    """Return data as JSON text: compact, keys in the order they were given, not escaped to ASCII.

    Beyond JSON's own types it takes what has one obvious form; docs/catalogue.md has the table. Text: `Decimal` (so
    that no cent is lost), dates and times (ISO 8601, with the offset they have), `UUID`, addresses, networks, paths.
    Numbers: durations, in seconds. `bytes` are base64, enums their value, sets sorted lists, ranges
    `{lower, upper, bounds}`. What is text like that may also be a key.

    :param root: what the error calls the outermost value.
    :raises PayloadError: for anything else, for NaN and infinities (JSON has none, RFC 8259, section 6), for
        values that contain themselves. It names the place: ``data.lines[3].photo is Image; …``.
    """
    try:
        try:
            text = _ENCODER.encode(data)
        except TypeError:  # perhaps for a key that is no text: these never come to `_default`
            text = _ENCODER.encode(_with_keys(data))
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PayloadError(_blame(data, root)) from error
    return text


_Writer = Callable[[t.Any], object]


def _default(value: object) -> object:
    """Called by the encoder for what JSON does not know; a TypeError sends us to look for the place."""
    kind: t.Any = type(value)
    write = _writer(kind)
    if write is None:
        raise TypeError
    return write(value)


@functools.lru_cache(256)
def _writer(kind: type) -> _Writer | None:
    """Return what writes the values of a class, in values that the encoder knows or that have a writer in turn."""
    for base, write in _WRITERS:
        if issubclass(kind, base):
            return write
    for base in kind.__mro__:
        foreign = _FOREIGN.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if foreign is not None:
            return foreign
    if all(hasattr(kind, name) for name in ("lower", "upper", "lower_inc", "upper_inc")):
        return _range
    for name in ("tolist", "to_list"):  # arrays and their scalars
        if hasattr(kind, name):
            return methodcaller(name)
    return next((write for base, write in _CONTAINERS if issubclass(kind, base)), None)


def is_writable(kind: t.Any) -> bool:
    """Say whether values of a class can be written as JSON; of containers, whether these can."""
    return issubclass(kind, str | int | float | dict | list | tuple | None) or _writer(kind) is not None


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise TypeError
    return str(value)


def ordered(values: Set[t.Any]) -> list[t.Any]:
    """Return a set as a list: numbers by size, anything else by its JSON, the same whatever the process's hashes are.

    :raises TypeError: it has something that JSON cannot hold.
    """
    if all(type(each) is int for each in values):
        return sorted(values)
    return sorted(values, key=lambda each: _ENCODER.encode(_with_keys(each)))


def _range(value: t.Any) -> dict[str, object]:
    """A range of PostgreSQL, by whichever library: `bounds` as PostgreSQL writes them, `empty` if it has none."""
    if getattr(value, "isempty", False) or getattr(value, "empty", False) is True:
        return {"lower": None, "upper": None, "bounds": "empty"}
    lower, upper = value.lower, value.upper
    opening = "[" if value.lower_inc and lower is not None else "("
    closing = "]" if value.upper_inc and upper is not None else ")"
    return {"lower": lower, "upper": upper, "bounds": opening + closing}


_WRITERS: tuple[tuple[type | t.Any, _Writer], ...] = (
    (Decimal, _decimal),
    (date | time, methodcaller("isoformat")),
    (uuid.UUID, str),
    (enum.Enum, attrgetter("value")),
    (timedelta, timedelta.total_seconds),
    (bytes | bytearray | memoryview, lambda value: base64.b64encode(value).decode()),
    (
        ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network,
        str,
    ),
    (pathlib.PurePath, str),
    (zoneinfo.ZoneInfo, str),
)
"""The first that fits counts. Their classes never hold others, so most can be keys too."""
_CONTAINERS: tuple[tuple[type | t.Any, _Writer], ...] = (
    (Mapping, dict),
    (KeysView | ValuesView | ItemsView | Sequence, list),
    (Set, ordered),
)
_FOREIGN: t.Mapping[str, _Writer] = {
    "arrow.Arrow": methodcaller("isoformat"),
    "babel.Locale": str,
    "colour.Color": attrgetter("hex"),
    "furl.furl": str,
    "intervals.AbstractInterval": _range,
    "sqlalchemy_utils.Choice": attrgetter("code"),
    "sqlalchemy_utils.Country": attrgetter("code"),
    "sqlalchemy_utils.Currency": attrgetter("code"),
    "sqlalchemy_utils.Ltree": attrgetter("path"),
    "sqlalchemy_utils.PhoneNumber": attrgetter("e164"),
    "ulid.ULID": str,
    "yarl.URL": str,
}
"""Values of widespread column types, as their columns have them; by outermost package and class, to import none."""


# Built once: json.dumps with arguments builds an encoder on every call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)


def _with_keys(value: object) -> object:
    """Return the same with keys that the encoder takes, and everything that it does not know written."""
    if isinstance(value, dict):
        found = {_key(key): _with_keys(item) for key, item in value.items()}
        if len(found) < len(value):
            raise TypeError
        return found
    if isinstance(value, list | tuple):
        return [_with_keys(item) for item in value]
    return value if isinstance(value, str | int | float | None) else _with_keys(_default(value))


def _key(key: object) -> object:
    if isinstance(key, str | int | float | None):
        return key
    write = next((write for base, write in _WRITERS if isinstance(key, base)), None)
    if write is None or isinstance(key, bytes | bytearray | memoryview):
        raise TypeError
    return write(key)


_HALF = "it holds half of a surrogate pair, which UTF-8 cannot carry"
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((float, Decimal), "JSON has no such number, send None"),
    (int, "it has too many digits for Python to write, send it as text"),
    (str, _HALF),
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
    alive = []  # else what is made on the way could have the id of what is gone
    while places:
        value, path, above = places.pop()
        if id(value) in above:
            return f"{path} contains itself; send its key instead."
        if len(above) > DEEPEST:
            return f"{path[:80]}… is nested more than {DEEPEST} levels deep; send less of it."
        complaint = _bad_keys(value) if isinstance(value, dict) else ""
        if complaint:
            return f"{path} has {complaint}."
        inside = _inside(value, path)
        if inside is None:
            if complaint := _complaint(value):
                return f"{path} is {complaint}."
            continue
        alive.append(value)
        places.extend(_Place(item, step, (*above, id(value))) for step, item in reversed(inside))
    return f"{root} cannot be written as JSON; send less of it."


def _inside(value: object, path: str) -> list[tuple[str, object]] | None:
    """Return what a value holds, with the way to it; None for what holds nothing."""
    if isinstance(value, dict):
        return [(path + _step(key), item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    if isinstance(value, Set):  # as it is before it is sorted
        return [(f"{path}[]", item) for item in value]
    made = _made(value)
    return None if made is None else [(path, made)]


def _bad_keys(value: dict[t.Any, t.Any]) -> str:
    bad = next((key for key in value if not _is_key(key)), None)
    if bad is not None:
        return _bad_key(bad)
    if len({_key(key) for key in value}) < len(value):
        return "two keys that are the same when they are written; use text as keys"
    return ""


def _made(value: object) -> dict[str, t.Any] | list[t.Any] | None:
    """Return what a value is written as, if that has values of its own."""
    try:
        made = value if isinstance(value, str | int | float | None) else _default(value)
    except Exception:  # the host's class: whatever its methods raise
        return None
    return made if isinstance(made, dict | list) else None


def _is_key(key: object) -> bool:
    """Whether JSON can hold it as a key; numbers and None become text as in Python's own `json`."""
    try:
        return not _complaint(_key(key))
    except TypeError:
        return False


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
    except (TypeError, ValueError, AttributeError, RecursionError):
        kind = type(value)
        remedy = next((text for types, text in _REMEDIES if issubclass(kind, types)), None)
        name = repr(value) if isinstance(value, float | Decimal) else kind.__qualname__
        return f"{name}; {remedy or 'convert it, or give the channel a schema that does'}"
    return ""
