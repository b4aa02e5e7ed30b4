"""A first glance at what happened: most transactions concern owners to whom nobody listens, and cost no more."""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

from ..catalog import Kind
from .change import LATER, Change, stands_for
from .connections import check_database, connections_of
from .history import mistrusted
from .loading import is_astray, leads_home
from .sqlalchemy_internals import STATE, state_of
from .stored_values import owner_stored

if t.TYPE_CHECKING:
    from sqlalchemy.orm import InstanceState

    from ..bindings import BoundChannel
    from .events import Emitted
    from .matching import SubscriptionLookup
    from .registry import Registry

__all__ = ["Glance"]


class Glance:
    """Everybody whom the changes may concern, and everything that they may be, read from what is in memory."""

    def __init__(self, watch: Registry, session: Session) -> None:
        self._watch, self._bound, self._key = watch, watch.state.bound, session.hash_key
        self._session = session
        self.owners: set[str] = set()
        self.channels: set[str] = set()
        self.is_whole = False
        """Nothing was left out: each change has its object, which is the session's and stands for its row."""
        self.home: set[InstanceState[t.Any]] = set()
        """Objects of which all that they touch is loaded, and is what their keys name."""
        self._reached: set[tuple[str, int]] = set()

    def is_nobody(self, hearing: SubscriptionLookup, items: t.Iterable[Change | Emitted]) -> bool:
        """Say whether certainly nobody listens to any of it; who was asked for need not be asked for again."""
        watch = self._watch
        self.is_whole = self._take(items)
        if not self.owners or not self.is_whole:
            return False
        connections = connections_of(self._session)
        if len(connections) != 1:  # what was written where is worked out with care
            return False
        connection = connections.pop()
        if not check_database(watch, connection.engine, self._bound[next(iter(self.channels))].model):
            hearing.why = "database"
            return True
        hearing.connection = connection
        hearing.ask(
            connection,
            self.owners,
            {event.name for channel in self.channels for event in watch.events[channel, None]},
            is_home=True,
        )
        return hearing.is_silent

    def _take(self, items: t.Iterable[Change | Emitted]) -> bool:
        """Look at all; return False if something cannot be told without loading or thinking."""
        updated = Kind.UPDATED
        if mistrusted(self._session):
            return False
        for item in items:
            if not isinstance(item, Change) or item.obj is None:
                return False
            bound, state = item.bound, state_of(item.obj)
            if state.session_id != self._key or state.expired_attributes or not stands_for(state, item):
                return False
            path = bound.owner_path
            if path is not None and not self._look(item.obj, bound):
                return False
            if item.kind is updated and path and path[0] in item.values:
                self.owners.add(str(item.values[path[0]][0]))  # whose it was
            if bound.touches and (item.kind is updated or not self._reach(item)):
                return False
        return True

    def _reach(self, item: Change) -> bool:
        obj, is_home = item.obj, True
        cls, held = type(obj), obj.__dict__
        for touch in item.bound.touches:
            name = touch.relationship
            other = held.get(name)
            its = getattr(other, STATE, None)
            if its is None:
                return False
            if not leads_home(cls, held, name, its):
                is_home = False
                if is_astray(state_of(obj), name):
                    return False
            if (touch.channel, id(other)) in self._reached:  # by another line of the same invoice, or itself
                continue
            bound = self._bound[touch.channel]
            if bound.touches or its.session_id != self._key or its.expired_attributes:
                return False
            if bound.owner_path is not None and not self._look(other, bound):
                return False
        if is_home:
            self.home.add(state_of(obj))
        return True

    def _look(self, obj: t.Any, bound: BoundChannel) -> bool:
        """Note whose a row of a channel with events is."""
        channel = bound.channel
        path = bound.owner_path
        if not channel.events or (channel.name, id(obj)) in self._reached:
            return True
        owner: t.Any = channel.sole_owner
        if path:
            plan = self._watch.plan(type(obj))
            owner = owner_stored(plan, obj, path[0]) if plan is not None else obj.__dict__.get(path[0])
            owner = owner if len(path) == 1 else None
        if owner is None or owner is LATER:
            return False
        self.owners.add(str(owner))
        self.channels.add(channel.name)
        self._reached.add((channel.name, id(obj)))
        return True
