"""A first glance at what happened: most transactions concern owners to whom nobody listens, and cost no more."""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

from ..catalog import Kind
from .changes import Change

if t.TYPE_CHECKING:
    from .hearing import Hearing
    from .settling import Emitted
    from .watching import Watch

__all__ = ["Glance"]


class Glance:
    """Everybody whom the changes may concern, and everything that they may be, read from what is in memory."""

    def __init__(self, watch: Watch, session: Session) -> None:
        self._watch, self._session = watch, session
        self.owners: set[str] = set()
        self.channels: set[str] = set()

    def take(self, items: t.Iterable[Change | Emitted]) -> bool:
        """Look at all; return False if something cannot be told without loading or thinking."""
        key = self._session.hash_key
        for item in items:
            if not isinstance(item, Change) or item.obj is None:
                return False
            bound = item.bound
            if not self._look(item.obj, bound.channel.name, key):
                return False
            if bound.touches and (item.kind is Kind.UPDATED or not self._reach(item, key)):
                return False
        return bool(self.owners)

    def _reach(self, item: Change, key: int) -> bool:
        for touch in item.bound.touches:
            other = item.obj.__dict__.get(touch.relationship)
            if other is None or not hasattr(other, "_sa_instance_state"):
                return False
            if self._watch.state.bound[touch.channel].touches or not self._look(other, touch.channel, key):
                return False
        return True

    def _look(self, obj: t.Any, channel: str, key: int) -> bool:
        state = obj._sa_instance_state
        if state.session_id != key or state.expired_attributes:
            return False
        bound = self._watch.state.bound[channel]
        path = bound.channel.owner
        if not bound.channel.events or path is None:
            return True
        owner = obj.__dict__.get(path[0])
        if len(path) != 1 or owner is None:
            return False
        self.owners.add(str(owner))
        self.channels.add(channel)
        return True

    def is_nobody(self, hearing: Hearing, connection: t.Any) -> bool:
        """Ask who listens to any of it; what follows need not ask again."""
        names = {event.name for channel in self.channels for event in self._watch.events[channel, None]}
        hearing.ask(connection, self.owners, names)
        return hearing.is_silent
