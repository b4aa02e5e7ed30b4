"""Whom the changes of a commit may concern, read from what is in memory.

Most transactions concern owners without subscriptions. With their names one query is enough to know it, and none of the
stages of `commit` has to run.
"""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

from ..catalog import Kind
from .change import SERVER_GENERATED, Change, stands_for
from .history import mistrusted
from .references import is_certainly_its_row, leads_elsewhere
from .sqlalchemy_internals import STATE, state_of
from .stored_values import owner_stored

if t.TYPE_CHECKING:
    from sqlalchemy.orm import InstanceState

    from ..bindings import BoundChannel
    from .registry import Registry

__all__ = ["Candidates"]


class Candidates:
    """Owners, and channels with events, that changes may concern."""

    def __init__(
        self, registry: Registry, session: Session, changes: t.Iterable[Change], emitted: t.Sized
    ) -> None:
        self._registry, self._bound, self._key = registry, registry.state.bound, session.hash_key
        self.owners: set[str] = set()
        self.channels: set[str] = set()
        self.consistent: set[InstanceState[t.Any]] = set()
        """Objects of which all that they touch is loaded, and is what their keys name."""
        self._seen: set[tuple[str, int]] = set()
        self.is_complete = not emitted and not mistrusted(session) and self._take(changes)
        """Nothing was left out: each change has its object, which is the session's and stands for its row."""

    def _take(self, changes: t.Iterable[Change]) -> bool:
        """Take in all changes; return False if the owner of one cannot be read from memory alone."""
        updated = Kind.UPDATED
        for item in changes:
            if item.obj is None:
                return False
            # An expired object would have to be loaded, one of another session may be out of date.
            bound, state = item.bound, state_of(item.obj)
            if state.session_id != self._key or state.expired_attributes or not stands_for(state, item):
                return False
            path = bound.owner_path
            if path is not None and not self._add_owner(item.obj, bound):
                return False
            if item.kind is updated and path and path[0] in item.values:
                self.owners.add(str(item.values[path[0]][0]))  # whose it was
            # An update may have moved a line from another invoice, which is not in memory.
            if bound.touches and (item.kind is updated or not self._add_touched(item)):
                return False
        return True

    def _add_touched(self, item: Change) -> bool:
        obj, is_consistent = item.obj, True
        cls, held = type(obj), obj.__dict__
        for touch in item.bound.touches:
            name = touch.relationship
            other = held.get(name)
            its = getattr(other, STATE, None)
            if its is None:
                return False
            if not is_certainly_its_row(cls, held, name, its):
                is_consistent = False
                if leads_elsewhere(state_of(obj), name):
                    return False
            if (touch.channel, id(other)) in self._seen:  # by another line of the same invoice, or itself
                continue
            bound = self._bound[touch.channel]
            if bound.touches or its.session_id != self._key or its.expired_attributes:
                return False
            if bound.owner_path is not None and not self._add_owner(other, bound):
                return False
        if is_consistent:
            self.consistent.add(state_of(obj))
        return True

    def _add_owner(self, obj: t.Any, bound: BoundChannel) -> bool:
        """Add the owner of a row of a channel with events; return False if only the database can tell it."""
        channel = bound.channel
        path = bound.owner_path
        if not channel.events or (channel.name, id(obj)) in self._seen:
            return True
        owner: t.Any = channel.sole_owner
        if path:
            plan = self._registry.plan(type(obj))
            owner = owner_stored(plan, obj, path[0]) if plan is not None else obj.__dict__.get(path[0])
            owner = owner if len(path) == 1 else None
        if owner is None or owner is SERVER_GENERATED:
            return False
        self.owners.add(str(owner))
        self.channels.add(channel.name)
        self._seen.add((channel.name, id(obj)))
        return True
