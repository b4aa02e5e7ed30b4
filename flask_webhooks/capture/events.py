"""What a commit works on between a change and a message: events that happened, and those that the host emitted.

The law of this room: values only. Nothing here asks a database, and no stage changes what another has made.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..catalog import EventType
from .change import Values

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel, BoundInclude
    from ..outbox.recording import MatchedSubscription

__all__ = ["UNKNOWN", "UNREADABLE_OWNER", "Emitted", "PendingEvent", "Recorded"]

UNREADABLE_OWNER = ""
"""The owner of a broken message whose owner could not be read: no owner has that name."""
UNKNOWN = "unknown"
"""Likewise its environment."""
Recorded = dict[str, t.Any]


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that the host emitted: with data that is JSON already, or with an object to dump at commit."""

    event: EventType
    owner: str | None
    text: str | None = None
    """JSON of the data; None for an object. The data itself is not kept: the host may go on changing it."""
    entity_id: str | None = None
    status: str | None = None
    obj: t.Any = None
    bound: BoundChannel | None = None
    dedupe_key: str | None = None


class PendingEvent(t.NamedTuple):
    """An event that happened, on its way to becoming a message."""

    event: EventType
    owner: str
    bound: BoundChannel | None
    obj: t.Any
    values: Values
    text: str | None = None
    """JSON of emitted data; None for an object."""
    entity_id: str | None = None
    """Of emitted data; an object has its primary key."""
    status: str | None = None
    """Of emitted data; an object is asked for it at commit."""
    dedupe_key: str | None = None
    listeners: t.Sequence[MatchedSubscription] = ()
    error: Exception | None = None
    """Why it is not even known whose it is."""

    def includes_wanted(self) -> t.Sequence[BoundInclude]:
        """Return the includes that its listeners ask for."""
        if self.bound is None or not self.bound.includes or self.obj is None:
            return ()
        chosen = [listener.includes for listener in self.listeners if listener.includes]
        if not chosen:  # as mostly
            return ()
        names = frozenset().union(*chosen)
        return [include for name, include in self.bound.includes.items() if name in names]

    def paths(self) -> t.Sequence[tuple[str, ...]]:
        """Return the relationships that its data, and the includes that its listeners ask for, are read along."""
        bound = self.bound
        if bound is None:
            return ()
        # Asked several times for each event, and mostly no listener has includes.
        if not bound.includes or not any([listener.includes for listener in self.listeners]):
            return bound.read_paths
        return (*bound.read_paths, *[include.relationships for include in self.includes_wanted()])
