"""Examples of bodies, made by the very formats that make the real ones."""

from __future__ import annotations

import json
import typing as t

from .. import payload
from ..delivery.request import snake
from ..ids import made_at
from . import json_schema

if t.TYPE_CHECKING:
    from ..catalog import EventType
    from ..state import AppState

__all__ = ["SAMPLE_ID", "bodies"]

SAMPLE_ID = "01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c"
"""The idempotency key of every example. The time of the examples is the one in it, so that they never change."""


def bodies(state: AppState, event: EventType) -> dict[str, t.Any]:
    """Return an example of the body of an event, by format; None where the format cannot make one."""
    message = _message(state, event)
    return {name: _body(state, name, message) for name in event.formats}


def _message(state: AppState, event: EventType) -> payload.Message:
    channel = state.catalog.channels[event.channel]
    data = json.loads(payload.encode(json_schema.sample(state.bound[event.channel], event)))
    return payload.Message(
        id=SAMPLE_ID,
        event=event.name,
        channel=event.channel,
        name=event.event,
        text=event.message,
        environment=state.settings.only_environment or "staging",
        occurred_at=made_at(SAMPLE_ID),
        sequence=1,
        owner="1",
        entity_type=snake(channel.label),
        entity_id=str(data.get("id", 1)),
        transition=event.transition,
        status=_status(event, data),
        data=data,
    )


def _status(event: EventType, data: dict[str, t.Any]) -> str | None:
    """What the column would say after the event, by the event's own condition; else what the example says."""
    for condition in event.when.values():
        if condition.enters:
            return str(condition.enters[0])
        break
    status = data.get("status")
    return status if isinstance(status, str) else None


def _body(state: AppState, name: str, message: payload.Message) -> t.Any:
    recipient = payload.Recipient(
        SAMPLE_ID, "https://example.com/hooks", "", {}, name, message.environment, message.owner
    )
    try:
        return json.loads(payload.render(state.formats[name], message, recipient))
    except Exception:  # a custom format is the host's code: one that fails on an example may work in earnest
        return None
