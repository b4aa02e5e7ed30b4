"""What there is to listen to."""

from __future__ import annotations

import typing as t

from .. import describing, schemas
from ..bindings import samples
from ..catalog import EventType
from ..state import AppState
from .operations import Call, operation
from .problems import Refused

__all__ = ["told"]


@operation("GET", "/catalog", "Show the catalogue", right="read", answer=schemas.Catalog)
def get_catalog(call: Call) -> t.Any:
    """Every channel and its events."""
    return describing.listing(call.state)


@operation("GET", "/catalog/<event>", "Show an event", right="read", answer=schemas.Event)
def get_event(call: Call, event: str) -> t.Any:
    """What a receiver of it gets: JSON Schema of `data`, and a body in every format."""
    found = call.state.catalog.events.get(event)
    if found is None:
        near = call.state.catalog.suggest(event[:200])
        raise Refused(
            404, f"There is no such event in the catalogue.{f' Did you mean {near}?' if near else ''}"
        )
    return told(call.state, found)


def told(state: AppState, event: EventType) -> dict[str, t.Any]:
    """Return what there is to say about an event, as the schema takes it."""
    return {
        **describing.event_values(event),
        "channel": event.channel,
        "includes": describing.includes(state, state.catalog.channels[event.channel]),
        "schema": samples.data_schema(state.bound[event.channel], event),
        "samples": describing.bodies(state, event),
    }
