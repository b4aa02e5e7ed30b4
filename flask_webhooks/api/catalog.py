"""What there is to listen to."""

from __future__ import annotations

import json
import typing as t

from .. import payload, schemas
from ..bindings import samples
from ..catalog import Channel, EventType
from ..delivering.parcels import snake
from ..errors import PayloadError
from ..ids import made_at
from ..state import AppState
from .operations import Call, operation
from .problems import Refused

__all__ = ["bodies"]

SAMPLE_ID = "01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c"


def _event(event: EventType) -> dict[str, t.Any]:
    names = ("name", "title", "description", "message", "format", "formats", "transition")
    return {name: getattr(event, name) for name in names} | {"deprecated": event.deprecated is not None}


def _includes(state: AppState, channel: Channel) -> list[str]:
    return ["changes", *state.bound[channel.name].includes]


@operation("GET", "/catalog", "Show the catalogue", right="read", answer=schemas.Catalog)
def get_catalog(call: Call) -> t.Any:
    """Every channel and its events."""
    catalog = call.state.catalog
    return {
        "title": catalog.title,
        "channels": [
            {
                **{name: getattr(channel, name) for name in ("name", "title", "label", "description")},
                "exclusive": channel.exclusive.value if channel.exclusive is not None else None,
                "includes": _includes(call.state, channel),
                "events": [_event(event) for event in channel.events.values()],
            }
            for channel in catalog.channels.values()
            if channel.events
        ],
    }


@operation("GET", "/catalog/<event>", "Show an event", right="read", answer=schemas.Event)
def get_event(call: Call, event: str) -> t.Any:
    """What a receiver of it gets: JSON Schema of `data`, and a body in every format."""
    found = call.state.catalog.events.get(event)
    if found is None:
        near = call.state.catalog.suggest(event[:200])
        raise Refused(
            404, f"There is no such event in the catalogue.{f' Did you mean {near}?' if near else ''}"
        )
    channel = call.state.catalog.channels[found.channel]
    return {
        **_event(found),
        "channel": found.channel,
        "includes": _includes(call.state, channel),
        "schema": samples.data_schema(call.state.bound[found.channel], found),
        "samples": bodies(call.state, found),
    }


def bodies(state: AppState, event: EventType) -> dict[str, t.Any]:
    """Return an example of the body of an event, by format."""
    channel = state.catalog.channels[event.channel]
    environment = state.settings.environment
    shared = environment if isinstance(environment, str) else "staging"
    data = json.loads(payload.encode(samples.sample(state.bound[event.channel], event)))
    status = data.get("status")
    message = payload.Message(
        id=SAMPLE_ID,
        event=event.name,
        channel=event.channel,
        name=event.event,
        text=event.message,
        environment=shared,
        occurred_at=made_at(SAMPLE_ID),
        sequence=1,
        owner="1",
        entity_type=snake(channel.label),
        entity_id=str(data.get("id", 1)),
        transition=event.transition,
        status=status if isinstance(status, str) else None,
        data=data,
    )
    found = {}
    for name in event.formats:
        recipient = payload.Recipient(
            SAMPLE_ID, "https://example.com/hooks", "", {}, name, shared, message.owner
        )
        try:
            found[name] = json.loads(payload.render(state.formats[name], message, recipient))
        except PayloadError:
            found[name] = None
    return found
