"""A first glance at what happened: most transactions concern owners to whom nobody listens, and cost no more."""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

from ..catalog import Kind
from .changes import LATER, Change, stands_for
from .hearing import check_database, only_connection
from .loading import is_astray
from .stored import owner_stored

if t.TYPE_CHECKING:
    from ..bindings import Bound
    from .hearing import Hearing
    from .settling import Emitted
    from .watching import Watch

__all__ = ["is_nobody"]


def is_nobody(watch: Watch, session: Session, hearing: Hearing, items: t.Iterable[Change | Emitted]) -> bool:
    """Say whether certainly nobody listens to any of it; who was asked for need not be asked for again."""
    glance = _Glance(watch, session)
    if not glance.take(items):
        return False
    connection = only_connection(watch, session)
    if connection is None:
        return False
    check_database(watch, connection.engine, watch.state.bound[next(iter(glance.channels))].model)
    hearing.connection = connection
    hearing.ask(
        connection,
        glance.owners,
        {event.name for channel in glance.channels for event in watch.events[channel, None]},
    )
    return hearing.is_silent


class _Glance:
    """Everybody whom the changes may concern, and everything that they may be, read from what is in memory."""

    def __init__(self, watch: Watch, session: Session) -> None:
        self._watch, self._bound, self._key = watch, watch.state.bound, session.hash_key
        self.owners: set[str] = set()
        self.channels: set[str] = set()
        self._reached: set[tuple[str, int]] = set()

    def take(self, items: t.Iterable[Change | Emitted]) -> bool:
        """Look at all; return False if something cannot be told without loading or thinking."""
        for item in items:
            if not isinstance(item, Change) or item.obj is None:
                return False
            bound = item.bound
            if not stands_for(item.obj._sa_instance_state, item) or not self._look(item.obj, bound):
                return False
            path = bound.channel.owner
            if path is not None and path[0] in item.values and item.kind is Kind.UPDATED:
                self.owners.add(str(item.values[path[0]][0]))  # whose it was
            if bound.touches and (item.kind is Kind.UPDATED or not self._reach(item)):
                return False
        return bool(self.owners)

    def _reach(self, item: Change) -> bool:
        for touch in item.bound.touches:
            other = item.obj.__dict__.get(touch.relationship)
            if other is None or not hasattr(other, "_sa_instance_state"):
                return False
            if is_astray(item.obj._sa_instance_state, touch.relationship):
                return False
            contact = touch.channel, id(other)
            if contact in self._reached:  # by another line of the same invoice
                continue
            bound = self._bound[touch.channel]
            if bound.touches or not self._look(other, bound):
                return False
            self._reached.add(contact)
        return True

    def _look(self, obj: t.Any, bound: Bound) -> bool:
        state = obj._sa_instance_state
        if state.session_id != self._key or state.expired_attributes:
            return False
        channel = bound.channel
        path = channel.owner
        if not channel.events or path is None:
            return True
        plan = self._watch.plan(type(obj))
        owner = owner_stored(plan, obj, path[0]) if plan is not None else obj.__dict__.get(path[0])
        if len(path) != 1 or owner is None or owner is LATER:
            return False
        self.owners.add(str(owner))
        self.channels.add(channel.name)
        return True
