"""What a body looks like: an event's example in a format, as it would be sent."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from .. import payload
from ..catalog import EventType
from ..delivery.request import snake
from ..reference import json_schema
from .formatting import pretty

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["body", "data"]

KEY = "01920a4c-6f2e-7c3a-9d1b-5e8f7a6b4c2d"
MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def data(state: AppState, event: EventType, includes: t.Collection[str] = ()) -> dict[str, t.Any]:
    """Return an example of `data`, with the includes that are asked for and no others."""
    bound = state.bound[event.channel]
    found = json_schema.sample(bound, event)
    shown = {name: value for name, value in found.items() if name not in bound.includes or name in includes}
    for name in includes:
        if name in bound.includes:
            shown.setdefault(name, [] if bound.includes[name].many else {})
    if "changes" in includes:
        shown["changes"] = _changes(found)
    return shown


def _changes(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return an example of what an update changed: a field that `data` has."""
    if isinstance(found.get("status"), str):
        return {"status": {"from": "sent", "to": "paid"}}
    plain = [name for name, value in found.items() if name != "id" and isinstance(value, str | int | float)]
    return {name: {"from": None, "to": found[name]} for name in plain[:1]}


def body(
    state: AppState, event: EventType, format: str, environment: str, includes: t.Collection[str] = ()
) -> str:
    """Return the body that a receiver would get, indented."""
    channel = state.catalog.channels[event.channel]
    shown = data(state, event, includes)
    status = shown.get("status")
    message = payload.Message(
        id=KEY,
        event=event.name,
        channel=event.channel,
        name=event.event,
        text=event.message,
        environment=environment,
        occurred_at=MOMENT,
        sequence=1,
        owner="1",
        entity_type=snake(channel.label),
        entity_id=str(shown.get("id", "1")),
        transition=event.transition,
        status=status if isinstance(status, str) else None,
        data=shown,
    )
    recipient = payload.Recipient(
        id=KEY,
        url="https://example.com/",
        description="",
        metadata={},
        format=format,
        environment=environment,
        owner="1",
    )
    try:
        return pretty(payload.render(state.formats[format], message, recipient))
    except Exception as error:  # a custom format is the host's code and may raise anything
        return payload.failed(format, error)
