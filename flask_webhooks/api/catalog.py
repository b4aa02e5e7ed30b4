"""The catalogue: channels and events that a customer can subscribe to."""

from __future__ import annotations

import typing as t

from .. import reference
from ..catalog import EventType, suggestion
from ..reference import data_schema
from ..state import AppState
from ..web import Refused
from . import schemas
from .operations import Call, operation

__all__ = ["after_of", "event_detail"]


MOST = 500 * 1024
"""Bytes of JSON of one answer; a longer catalogue needs several requests."""


@operation(
    "GET", "/catalog", "Show the catalogue", right="read", query=schemas.CatalogQuery, answer=schemas.Catalog
)
def get_catalog(call: Call) -> t.Any:
    """Every channel and its events. A long catalogue comes in parts: send `next_after` as `after` to get more."""
    return reference.listing(call.state, after_of(call), MOST)


def after_of(call: Call) -> str:
    """Return the event after which this part of a long answer begins; empty for the first part.

    :raises Refused: the catalogue has no such event.
    """
    after: str = call.query["after"]
    if after and after not in call.state.catalog.events:
        raise Refused(422, message := "There is no such event in the catalogue.", fields={"after": [message]})
    return after


@operation("GET", "/catalog/<event>", "Show an event", right="read", answer=schemas.Event)
def get_event(call: Call, event: str) -> t.Any:
    """What its receivers get: the JSON Schema of `data`, and an example of the body in every format."""
    found = call.state.catalog.events.get(event)
    if found is None:
        # Cut, because the search for similar names takes longer for a longer text.
        hint = suggestion(call.state.catalog.suggest(event[:200]), mark="")
        raise Refused(404, f"There is no such event in the catalogue. {hint}".rstrip())
    return event_detail(call.state, found)


def event_detail(state: AppState, event: EventType) -> dict[str, t.Any]:
    """Return the values of `schemas.Event` for an event."""
    return {
        **reference.event_values(event),
        "channel": event.channel,
        "includes": reference.includes(state, state.catalog.channels[event.channel]),
        "schema": data_schema(state.bound[event.channel], event),
        "samples": reference.bodies(state, event),
    }
