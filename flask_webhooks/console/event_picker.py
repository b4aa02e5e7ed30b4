"""The picker of channels and events: all boxes, or those that fit on a page and a search for the others."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ..bindings import CHANGES, BoundChannel
from ..catalog import Catalog, Channel, EventType
from ..queries.bounds import fit, html_size
from .event_types import occasion
from .i18n import _

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["ChannelChoice", "Choice", "Names", "Picker", "few", "picker"]

BOXES, TYPED, NAMES = 192 * 1024, 128 * 1024, 32 * 1024
"""Bytes of HTML on a page for boxes, for chosen patterns without a box, and for a list of names."""
SAID, TITLE = 1_024, 256
"""Bytes of HTML for a description and a title from the catalogue on a form; the page of the event shows them whole."""


@dataclass(frozen=True)
class Choice:
    """One box to tick."""

    pattern: str
    """`invoices.paid`, `invoices.*`"""
    title: str
    occasion: str
    """A sentence on when the event happens."""
    is_picked: bool
    includes: tuple[tuple[str, bool], ...]
    """Names, and whether they are picked."""
    deprecated: str
    """Why it is deprecated; empty if it is not."""


@dataclass(frozen=True)
class ChannelChoice:
    """A channel with its boxes."""

    channel: Channel
    whole: Choice
    """The box for every event of the channel, including future ones."""
    events: tuple[Choice, ...]
    """The boxes that are shown."""
    title: str
    description: str
    picked: int
    """Number of picked events, shown or not."""


@dataclass(frozen=True)
class Names:
    """Names of events to choose from."""

    shown: tuple[str, ...]
    is_cut: bool
    """Whether there are more; the page then has a field to type a name."""


@dataclass(frozen=True)
class Picker:
    """The boxes that fit: first those of chosen events, then those that match the search."""

    channels: tuple[ChannelChoice, ...]
    is_cut: bool
    """Whether there are more; the page then has a search, and a text field that accepts any pattern."""
    typed: str
    """Chosen patterns without a box: one per line, followed by its includes."""


def few(names: t.Iterable[str], *first: str) -> Names:
    """Return as many names as fit into `NAMES` bytes of HTML.

    :param first: names that are shown in any case, such as the chosen one.
    """
    every = list(names)
    known = dict.fromkeys([*filter(None, first), *every])
    shown, room = [], NAMES
    for name in known:
        room -= html_size(name) + len("<option></option>")
        if room >= 0:
            shown.append(name)
    is_cut = len(shown) < len(known)
    return Names(tuple(shown if is_cut else every), is_cut)


def picker(state: AppState, wanted: t.Mapping[str, t.Sequence[str]], query: str = "") -> Picker:
    """Return the channels with events; all of them if they fit.

    :param wanted: the chosen patterns, with their includes.
    :param query: if not all fit, the text to search in patterns and titles.
    """
    every = [
        _channel(state, channel, wanted) for channel in state.catalog.channels.values() if channel.events
    ]
    if sum(_size(each.whole, each) + sum(map(_size, each.events)) for each in every) <= BOXES:
        return Picker(tuple(every), False, "")
    query = query.strip().lower()
    shown: dict[str, set[str]] = {}
    room = BOXES
    # Chosen events first: those without a box have to be listed as text.
    by_rank = sorted(
        ((_rank(choice, query), each, choice) for each in every for choice in (each.whole, *each.events)),
        key=lambda found: found[0],
    )
    for rank, each, choice in by_rank:
        name = each.channel.name
        cost = 0 if choice is each.whole else _size(choice)
        cost += 0 if name in shown else _size(each.whole, each)
        if rank < 2 and cost <= room:
            room -= cost
            shown.setdefault(name, set()).update({choice.pattern, each.whole.pattern})
    cut = tuple(
        replace(each, events=tuple(choice for choice in each.events if choice.pattern in shown[name]))
        for each in every
        if (name := each.channel.name) in shown
    )
    has_box = {"*"}.union(*shown.values())
    typed = [" ".join((pattern, *names)) for pattern, names in wanted.items() if pattern not in has_box]
    return Picker(cut, True, "\n".join(typed))


def _rank(choice: Choice, query: str) -> int:
    if choice.is_picked:
        return 0
    return 1 if query in choice.pattern.lower() or query in choice.title.lower() else 2


def _size(choice: Choice, channel: ChannelChoice | None = None) -> int:
    """Return an upper bound for the bytes of HTML of a box, and of its channel's heading if one is given."""
    # The constants are the markup of `form.html`, rounded up: rendering a box to measure it would cost too much for a
    # catalogue of thousands of events.
    size = 700 + 4 * len(choice.pattern)
    size += html_size(choice.title) + html_size(choice.occasion) + html_size(choice.deprecated)
    size += sum(120 + len(choice.pattern) + 2 * len(name) for name, _picked in choice.includes)
    if channel is not None:
        size += 1_400 + 4 * len(channel.channel.name)
        size += 3 * html_size(channel.title) + html_size(channel.description)
    return size


def _channel(state: AppState, channel: Channel, wanted: t.Mapping[str, t.Sequence[str]]) -> ChannelChoice:
    bound = state.bound[channel.name]
    names = [*bound.includes, CHANGES]
    pattern = f"{channel.name}.*"
    whole = Choice(
        pattern=pattern,
        title=_("All events"),
        occasion=_("Including events that are added to this channel later."),
        is_picked=pattern in wanted,
        includes=_includes(names, wanted.get(pattern, ())),
        deprecated="",
    )
    events = tuple(_event(bound, event, names, wanted) for event in channel.events.values())
    return ChannelChoice(
        channel,
        whole,
        events,
        title=fit(channel.title, TITLE, html_size),
        description=fit(channel.description, SAID, html_size),
        picked=len(events) if whole.is_picked else sum(choice.is_picked for choice in events),
    )


def _event(
    bound: BoundChannel, event: EventType, names: list[str], wanted: t.Mapping[str, t.Sequence[str]]
) -> Choice:
    return Choice(
        pattern=event.name,
        title=fit(event.title, TITLE, html_size),
        occasion=fit(" ".join(filter(None, (event.description, occasion(bound, event)))), SAID, html_size),
        is_picked=event.name in wanted,
        includes=_includes(names, wanted.get(event.name, ())),
        deprecated=fit(event.deprecated.reason, SAID, html_size) if event.deprecated is not None else "",
    )


def _includes(names: t.Iterable[str], picked: t.Collection[str]) -> tuple[tuple[str, bool], ...]:
    return tuple((name, name in picked) for name in names)


def count_events(catalog: Catalog, patterns: t.Iterable[str]) -> int:
    """Return the number of event types that match at least one of the patterns."""
    return len({event.name for pattern in patterns for event in catalog.expand(pattern)})
