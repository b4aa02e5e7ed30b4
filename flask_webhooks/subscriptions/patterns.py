"""Checks the events and the envelope of a subscription against the catalogue."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ..bindings import CHANGES
from ..catalog import nearest, unknown_channel, unknown_event
from ..errors import ErrorText
from .input import Unset
from .validation_errors import ValidationErrors, short

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Patterns", "format_of", "patterns_of"]

MOST_INCLUDES = 100
"""Names that one listener may ask for."""

Patterns = dict[str, list[str]]
"""Listener pattern to its includes, in the order they were given."""


def patterns_of(state: AppState, events: object, channels: object, faults: ValidationErrors) -> Patterns:
    """Return the listeners that `events` and `channels` ask for together.

    :param events: a list of patterns and of ``{"event": pattern, "includes": [names]}``.
    :param channels: a list of channels, of each of which every event is wanted: ``invoices`` is ``invoices.*``.
    """
    found: Patterns = {}
    mistakes = len(faults.fields)
    some, whole = _list(events, "events", faults), _list(channels, "channels", faults)
    count, most = len(some) + len(whole), state.settings.listener_limit
    if count > most:  # before any is checked: the search for similar names takes milliseconds each
        faults.add("events", ErrorText("too_many_listeners", count=count, most=most))
        return found
    for at, given in enumerate(some):
        _listener(state, given, f"events.{at}", found, faults)
    for at, name in enumerate(whole):
        channel = state.catalog.channels.get(name) if isinstance(name, str) else None
        if channel is None or not channel.events:
            faults.add(f"channels.{at}", _unknown("channel", name, state.catalog.channels, faults))
        else:
            found.setdefault(f"{name}.*", [])
    if not found and len(faults.fields) == mistakes:
        faults.add("events", ErrorText("no_listeners"))
    return found


def _list(value: object, field: str, faults: ValidationErrors) -> Sequence[t.Any]:
    if value is None or isinstance(value, Unset):
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        faults.add(field, ErrorText("not_a_list"))
        return ()
    return value


def _listener(state: AppState, given: object, field: str, found: Patterns, faults: ValidationErrors) -> None:
    pattern, includes = (
        (given.get("event"), given.get("includes") or []) if isinstance(given, Mapping) else (given, [])
    )
    covered = state.catalog.expand(pattern) if isinstance(pattern, str) else ()
    if not isinstance(pattern, str) or not covered:
        faults.add(field, _unknown("event", pattern, _patterns(state), faults))
        return
    names = _list(includes, f"{field}.includes", faults)
    if len(names) > MOST_INCLUDES:
        text = ErrorText("too_many_includes", count=len(names), most=MOST_INCLUDES)
        faults.add(f"{field}.includes", text)
        return
    for channel in dict.fromkeys(event.channel for event in covered):
        known = [CHANGES, *state.bound[channel].includes]
        for name in names:
            if name not in known:
                text = ErrorText("unknown_include", name=short(name), channel=channel, known=", ".join(known))
                faults.add(f"{field}.includes", text)
    kept = found.setdefault(pattern, [])
    kept.extend(name for name in dict.fromkeys(names) if name not in kept)


def _patterns(state: AppState) -> list[str]:
    wild = [f"{name}.*" for name, channel in state.catalog.channels.items() if channel.events]
    return [*state.catalog.events, *wild]


def _unknown(
    what: t.Literal["event", "channel"], name: object, known: t.Iterable[str], faults: ValidationErrors
) -> ErrorText:
    if not isinstance(name, str):
        return ErrorText("event_not_text") if what == "event" else ErrorText("channel_not_text")
    near = None
    if faults.may_suggest():
        near = nearest(name[:200], known)
        if near is None and what == "event":
            near = nearest(f"{name[:200]}.*", known)
    return unknown_event(name[:80], near) if what == "event" else unknown_channel(name[:80], near)


def format_of(
    state: AppState, value: object, patterns: t.Iterable[str], faults: ValidationErrors
) -> str | None:
    """Return the envelope, which the catalogue must allow for every event that is listened to."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in state.formats:
        faults.add("format", ErrorText("unknown_format", name=short(value), known=", ".join(state.formats)))
        return None
    refusing = [
        event for pattern in patterns for event in state.catalog.expand(pattern) if value not in event.formats
    ]
    if refusing:
        allowed = set(refusing[0].formats).intersection(*(event.formats for event in refusing))
        names = ", ".join(event.name for event in refusing[:3]) + (", …" if len(refusing) > 3 else "")
        text = ErrorText("no_format_in_common", name=repr(value), events=names)
        if allowed:
            offered = ", ".join(sorted(allowed))
            text = ErrorText("format_not_offered", name=repr(value), events=names, allowed=offered)
        faults.add("format", text)
    return value
