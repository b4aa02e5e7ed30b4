"""Examples of bodies, rendered by the same formats as real bodies."""

from __future__ import annotations

import json
import typing as t
from types import SimpleNamespace

from .. import payload
from ..bindings import CHANGES
from ..ids import made_at
from ..messages import message_row, payload_message, size_of
from .json_schema import sample_data

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from ..catalog import EventType
    from ..state import AppState

__all__ = ["SAMPLE_ID", "bodies", "example_body", "example_data"]

SAMPLE_ID = "01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c"
"""The idempotency key of every example. The time of the examples is the one in it, so that they never change."""


def bodies(state: AppState, event: EventType) -> dict[str, t.Any]:
    """Return an example of the body of an event, by format; None where the format cannot make one."""
    data = sample_data(state.bound[event.channel], event)
    return {name: _body(state, event, name, data) for name in event.formats}


def _body(state: AppState, event: EventType, format: str, data: t.Any) -> t.Any:
    environment = state.settings.only_environment or "staging"
    try:
        return json.loads(example_body(state, event, format, environment, data))
    except Exception:  # a custom format is the host's code: one that fails on an example may work in earnest
        return None


def example_data(bound: BoundChannel, event: EventType, includes: t.Collection[str] = ()) -> dict[str, t.Any]:
    """Return an example of `data` as a listener with these includes gets it: without all other includes."""
    sample = sample_data(bound, event)
    data = {name: value for name, value in sample.items() if name not in bound.includes or name in includes}
    for name in includes:
        if name in bound.includes:
            data.setdefault(name, [] if bound.includes[name].many else {})
    if CHANGES in includes:
        data[CHANGES] = _changes(sample)
    return data


def _changes(sample: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return an example of `changes`: one field of `data`."""
    if isinstance(sample.get("status"), str):
        return {"status": {"from": "sent", "to": "paid"}}
    plain = [name for name, value in sample.items() if name != "id" and isinstance(value, str | int | float)]
    return {name: {"from": None, "to": sample[name]} for name in plain[:1]}


def example_body(state: AppState, event: EventType, format: str, environment: str, data: t.Any) -> bytes:
    """Return the bytes that a receiver would get for an example of `data`.

    :raises PayloadError: as `payload.render`. What a custom format itself raises passes through.
    """
    message = _message(state, event, environment, data)
    recipient = payload.Recipient(
        SAMPLE_ID, "https://example.com/hooks", "", {}, format, environment, message.owner
    )
    return payload.render(state.formats[format], message, recipient)


def _message(state: AppState, event: EventType, environment: str, data: t.Any) -> payload.Message:
    text = payload.encode(data)
    row = message_row(
        event,
        owner="1",
        environment=environment,
        occurred_at=made_at(SAMPLE_ID),
        clock=1,
        entity_id=str(data.get("id", 1)),
        status=_status(event, data),
        data=text,
        extras=None,
        size=size_of(text),
        dedupe_key=None,
    )
    recorded = SimpleNamespace(**{**row, "id": SAMPLE_ID, "sequence": row["clock"]})
    return payload_message(recorded, state.catalog.channels[event.channel].label, json.loads(text))


def _status(event: EventType, data: dict[str, t.Any]) -> str | None:
    """The value of the column after the event: by the event's condition if it has one, else that of the example."""
    for condition in event.when.values():
        if condition.enters:
            return str(condition.enters[0])
        break
    status = data.get("status")
    return status if isinstance(status, str) else None
