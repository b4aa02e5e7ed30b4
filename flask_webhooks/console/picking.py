"""What the picker of channels and events shows."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..catalog import Catalog, Channel, EventType
from .occasions import occasion
from .words import _

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["ChannelChoice", "Choice", "choices"]

CHANGES = "changes"


@dataclass(frozen=True)
class Choice:
    """One box to tick."""

    pattern: str
    """`invoices.paid`, `invoices.*`"""
    title: str
    occasion: str
    """When it happens."""
    is_picked: bool
    includes: tuple[tuple[str, bool], ...]
    """Names, and whether they are picked."""
    deprecated: str
    """Why, if it is."""


@dataclass(frozen=True)
class ChannelChoice:
    """A channel with its boxes."""

    channel: Channel
    whole: Choice
    """Every event of it, those to come among them."""
    events: tuple[Choice, ...]

    @property
    def picked(self) -> int:
        """How many events are picked."""
        return len(self.events) if self.whole.is_picked else sum(choice.is_picked for choice in self.events)


def choices(state: AppState, wanted: t.Mapping[str, t.Sequence[str]]) -> list[ChannelChoice]:
    """Return every channel that has events.

    :param wanted: pattern to includes.
    """
    return [_channel(state, channel, wanted) for channel in state.catalog.channels.values() if channel.events]


def _channel(state: AppState, channel: Channel, wanted: t.Mapping[str, t.Sequence[str]]) -> ChannelChoice:
    names = [*state.bound[channel.name].includes, CHANGES]
    pattern = f"{channel.name}.*"
    whole = Choice(
        pattern=pattern,
        title=_("All events"),
        occasion=_("Also those that are added to this channel later."),
        is_picked=pattern in wanted,
        includes=_includes(names, wanted.get(pattern, ())),
        deprecated="",
    )
    events = tuple(_event(channel, event, names, wanted) for event in channel.events.values())
    return ChannelChoice(channel, whole, events)


def _event(
    channel: Channel, event: EventType, names: list[str], wanted: t.Mapping[str, t.Sequence[str]]
) -> Choice:
    return Choice(
        pattern=event.name,
        title=event.title,
        occasion=" ".join(filter(None, (event.description, occasion(channel, event)))),
        is_picked=event.name in wanted,
        includes=_includes(names, wanted.get(event.name, ())),
        deprecated=event.deprecated.reason if event.deprecated is not None else "",
    )


def _includes(names: t.Iterable[str], picked: t.Collection[str]) -> tuple[tuple[str, bool], ...]:
    return tuple((name, name in picked) for name in names)


def count_events(catalog: Catalog, patterns: t.Iterable[str]) -> int:
    """Return how many event types some patterns stand for together."""
    return len({event.name for pattern in patterns for event in catalog.expand(pattern)})
