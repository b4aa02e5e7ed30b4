"""The catalogue: channels and events, with their data, bodies, and the visitor's webhooks that get them."""

from __future__ import annotations

import json
import typing as t
from itertools import groupby

from .. import queries
from ..bindings import CHANGES
from ..queries.bounds import fit, html_size
from ..reference import data_schema
from .event_types import example_text, occasion
from .pages import Page, PageContext, page
from .rendering import nothing

__all__ = ["event", "events"]

DEEPEST = 6
"""Levels of nested properties that the table of `data` shows; the JSON Schema below it has all."""
PAGE = 300
"""Events on a page."""
SAID = 512
"""Bytes of HTML for the description of a channel on that page."""
MOST = 50
"""Webhooks that the page of an event lists: the newest ones."""


@page("GET", "/events", right="read")
def events(context: PageContext) -> Page:
    """Show every channel and its events."""
    listeners = queries.ids_by_pattern(context.session, owner=context.owner)
    known = list(context.state.catalog.events.values())
    # A page begins after a name and not at a number: the catalogue may change between two pages.
    first = next((at + 1 for at, each in enumerate(known) if each.name == context.query.get("after")), 0)
    listed = known[first : first + PAGE]
    by_channel = {name: list(some) for name, some in groupby(listed, key=lambda each: each.channel)}
    values = {
        "catalog": context.state.catalog,
        "channels": [
            (channel := context.state.catalog.channels[name], fit(channel.description, SAID, html_size), some)
            for name, some in by_channel.items()
        ],
        "count": sum(1 for channel in context.state.catalog.channels.values() if channel.events),
        "listening": {event.name: len(_listening(context, listeners, event.name)) for event in listed},
        "more": listed[-1].name if first + PAGE < len(known) else None,
    }
    return Page("events.html", values)


@page("GET", "/events/<event_name>", right="read")
def event(context: PageContext, event_name: str) -> Page:
    """Show one event: its data as a table, a body in each format, and the visitor's webhooks that get it."""
    found = context.state.catalog.events.get(event_name)
    if found is None:
        raise nothing()
    channel = context.state.catalog.channels[found.channel]
    bound = context.state.bound[found.channel]
    shared = context.state.settings.only_environment or "staging"
    schema = data_schema(bound, found)
    listeners = queries.ids_by_pattern(context.session, owner=context.owner)
    newest_first = sorted(_listening(context, listeners, found.name), reverse=True)
    values = {
        "event": found,
        "channel": channel,
        "occasion": occasion(bound, found),
        "rows": [
            row
            for row in _rows(schema, "", 0)
            if row["name"].partition(".")[0].rstrip("[]") not in bound.includes
        ],
        "schema": json.dumps(schema, indent=2, ensure_ascii=False),
        "includes": [*bound.includes, CHANGES],
        "samples": [(name, example_text(context.state, found, name, shared)) for name in found.formats],
        "subscriptions": queries.some_of(context.session, newest_first[:MOST]),
        "unlisted": len(newest_first[MOST:]),
    }
    return Page("event.html", values)


def _listening(context: PageContext, listeners: t.Mapping[str, set[str]], name: str) -> set[str]:
    return set().union(*(listeners.get(pattern, set()) for pattern in context.state.catalog.patterns(name)))


def _rows(schema: t.Mapping[str, t.Any], prefix: str, depth: int) -> t.Iterator[dict[str, t.Any]]:
    """Yield one line for each property of a JSON Schema, followed by its nested properties."""
    for name, inner in schema.get("properties", {}).items():
        kinds = inner.get("type", "any")
        several = kinds if isinstance(kinds, list) else [kinds]
        yield {
            "name": f"{prefix}{name}",
            "depth": depth,
            "kind": next((kind for kind in several if kind != "null"), "null"),
            "format": inner.get("format", ""),
            "is_nullable": "null" in several,
            "choices": [str(choice) for choice in inner.get("enum", []) if choice is not None],
            "description": inner.get("description", ""),
        }
        if depth < DEEPEST:
            below = inner.get("items", inner) if "array" in several else inner
            yield from _rows(below, f"{prefix}{name}{'[]' if 'array' in several else ''}.", depth + 1)
