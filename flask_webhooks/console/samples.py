"""Examples of bodies: an event's sample data in a format, as it would be sent."""

from __future__ import annotations

import typing as t

from .. import payload
from ..catalog import EventType
from ..reference import example_body, sample_data
from .formatting import pretty

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["body", "data"]


def data(state: AppState, event: EventType, includes: t.Collection[str] = ()) -> dict[str, t.Any]:
    """Return an example of `data` with the given includes only."""
    bound = state.bound[event.channel]
    found = sample_data(bound, event)
    shown = {name: value for name, value in found.items() if name not in bound.includes or name in includes}
    for name in includes:
        if name in bound.includes:
            shown.setdefault(name, [] if bound.includes[name].many else {})
    if "changes" in includes:
        shown["changes"] = _changes(found)
    return shown


def _changes(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return an example of `changes`: one field of `data`."""
    if isinstance(found.get("status"), str):
        return {"status": {"from": "sent", "to": "paid"}}
    plain = [name for name, value in found.items() if name != "id" and isinstance(value, str | int | float)]
    return {name: {"from": None, "to": found[name]} for name in plain[:1]}


def body(
    state: AppState, event: EventType, format: str, environment: str, includes: t.Collection[str] = ()
) -> str:
    """Return the body that a receiver would get, indented."""
    try:
        return pretty(example_body(state, event, format, environment, data(state, event, includes)))
    except Exception as error:  # a custom format is code of the host, and may raise any exception
        return payload.failed(format, error)
