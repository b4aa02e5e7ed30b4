"""Channels and events as plain values for JSON, and as a table for a terminal."""

from __future__ import annotations

import json
import math
import typing as t

if t.TYPE_CHECKING:
    from ..catalog import Channel, EventType
    from ..state import AppState

__all__ = ["event_values", "includes", "listing", "table"]

Json = dict[str, t.Any]


def listing(state: AppState, after: str = "", most: float = math.inf) -> Json:
    """Return every channel that has events, with them, as far as there is room.

    Where there are more, `next_after` names the last event: the next part begins behind it.

    :param after: the event behind which to begin.
    :param most: bytes of JSON.
    """
    channels: list[Json] = []
    found: Json = {"title": state.catalog.title, "channels": channels}
    room = most - len(json.dumps(found))
    names = list(state.catalog.events)
    last = ""
    for name in names[names.index(after) + 1 if after else 0 :]:
        event = state.catalog.events[name]
        is_new = not channels or channels[-1]["name"] != event.channel
        values = event_values(event)
        channel = _channel_values(state, state.catalog.channels[event.channel]) if is_new else {}
        room -= len(json.dumps(values)) + len(json.dumps(channel))
        if room < 0 and last:
            found["next_after"] = last
            break
        if is_new:
            channels.append({**channel, "events": []})
        channels[-1]["events"].append(values)
        last = name
    return found


def _channel_values(state: AppState, channel: Channel) -> Json:
    return {
        **{name: getattr(channel, name) for name in ("name", "title", "label", "description")},
        "exclusive": channel.exclusive.value if channel.exclusive is not None else None,
        "includes": includes(state, channel),
    }


def event_values(event: EventType) -> Json:
    """Return the fields of an event that the API and the console show."""
    names = ("name", "title", "description", "message", "format", "formats", "transition")
    return {name: getattr(event, name) for name in names} | {"deprecated": event.deprecated is not None}


def includes(state: AppState, channel: Channel) -> list[str]:
    """Return the includes that a listener to a channel may name."""
    return ["changes", *state.bound[channel.name].includes]


def table(state: AppState) -> str:
    """Return a line for each event: its name, its cause, its formats and its includes."""
    head = ("EVENT", "HAPPENS", "FORMATS", "INCLUDES")
    rows = [head]
    for channel in state.catalog.channels.values():
        offered = ", ".join(state.bound[channel.name].includes) or "-"
        for event in channel.events.values():
            rows.append((event.name, _happens(event), ", ".join(event.formats), offered))
    # The last column is not padded: it may be long, and nothing follows it.
    widths = [max(len(row[at]) for row in rows) for at in range(len(head) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    return "\n".join([*lines, "", _summary(state)])


def _happens(event: EventType) -> str:
    if not event.on:
        words = "emitted"
    else:
        words = " or ".join(kind.value for kind in sorted(event.on))
    if event.when or event.changed:
        words += f" ({', '.join([*event.when, *sorted(event.changed)])})"
    return f"{words}, deprecated" if event.deprecated is not None else words


def _summary(state: AppState) -> str:
    channels = [channel for channel in state.catalog.channels.values() if channel.events]
    alone = [channel.name for channel in channels if channel.exclusive is not None]
    text = f"{_count(len(state.catalog.events), 'event')} in {_count(len(channels), 'channel')}."
    return f"{text} Exclusive: {', '.join(alone)}." if alone else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
