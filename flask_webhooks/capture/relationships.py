"""Touched parents: a line that changed is an update of its invoice, one for any number of lines."""

from __future__ import annotations

import typing as t

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..bindings.serializers import listed
from ..catalog import Kind
from .change import Change, Key
from .loading import attributes_of, value
from .references import follows_keys, leads_elsewhere, previous_parent, referred
from .sqlalchemy_internals import head_class, reverse_relationships, state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .events import PendingEvent
    from .registry import Registry
    from .side_session import SideSession
    from .stored_values import StoredValues

__all__ = ["TouchedParents"]


class TouchedParents:
    """What was touched by what in one transaction."""

    def __init__(
        self,
        registry: Registry,
        session: Session,
        side_session: SideSession,
        consistent: t.Container[t.Any] = (),
    ) -> None:
        """Begin with nothing.

        :param consistent: states of objects of which all that they touch is loaded, and is what their keys name.
        """
        self._registry, self._session, self._side_session = registry, session, side_session
        self._consistent = consistent
        self._touches: list[tuple[Change, str, t.Any]] = []

    def with_touched(self, changes: t.Sequence[Change]) -> t.Sequence[Change]:
        """Add the updates of what changed objects touch, and of what these touch in turn; mark those that are there."""
        waiting = [change for change in changes if change.bound.touches]
        if not waiting:
            return changes
        found = list(changes)
        places = {change.key: place for place, change in enumerate(found)}
        seen: set[tuple[str, int]] = set()
        created = Kind.CREATED
        for change in waiting:
            held = change.obj.__dict__
            is_consistent = change.kind is created and state_of(change.obj) in self._consistent
            for touch in change.bound.touches:
                name = touch.relationship
                for other in (held[name],) if is_consistent else _parents(self._session, change, name):
                    self._touches.append((change, name, other))
                    # By id: an object of the host may compare as it likes.
                    mark = touch.channel, id(other)
                    if mark in seen:
                        continue
                    seen.add(mark)
                    made = self._touch(found, places, self._registry.state.bound[touch.channel], other)
                    if made is not None and made.bound.touches:
                        waiting.append(made)
        return found

    def _touch(
        self, found: list[Change], places: dict[Key, int], bound: BoundChannel, obj: t.Any
    ) -> Change | None:
        """Mark the change of an object as touched; make one if there is none, and return that."""
        if (
            bound.model is None
            or not isinstance(obj, bound.model)
            or (plan := self._registry.plan(type(obj))) is None
        ):
            return None
        state: t.Any = inspect(obj)
        # Its row may be gone already: nothing may be loaded for it.
        identity = state.identity or state.mapper.primary_key_from_instance(obj)
        key = (bound.channel.name, head_class(state.mapper), *identity)
        place = places.get(key)
        if place is not None:
            if found[place].kind is Kind.UPDATED and not found[place].is_touched:
                found[place] = found[place]._replace(is_touched=True)
            return None
        made = [Change(Kind.UPDATED, bound, plan, key, obj, {}, is_touched=True)]
        if state.deleted or state.detached:  # another object stands for the row now, or none does
            made = self._side_session.fetch([made[0]._replace(obj=None)])
        if not made:
            return None
        places[key] = len(found)
        found += made
        return made[0]

    def expire_stale(self, events: t.Iterable[PendingEvent], stored: StoredValues) -> None:
        """See to it that loaded collections of touched objects hold what the database does, where they are read.

        `Line(invoice_id=7)` does not appear in `invoice.lines` if that was loaded before; the event would lack it.
        """
        if not self._touches:
            return
        read = {
            (id(item.obj), path[0])
            for item in events
            if item.bound is not None and item.obj is not None
            for path in item.paths()
            if path
        }
        held: dict[tuple[int, str], set[t.Any]] = {}
        for change, name, other in self._touches if read else ():
            for back in reverse_relationships(inspect(change.obj).mapper.relationships[name]):
                if (id(other), back.key) in read and back.uselist:
                    _expire_stale(held, change, name, other, back.key, stored)


def _expire_stale(
    held: dict[tuple[int, str], set[int]],
    change: Change,
    name: str,
    other: t.Any,
    back: str,
    stored: StoredValues,
) -> None:
    """Hide a loaded collection that contradicts what happened to one of its members."""
    state = inspect(other)
    if back not in state.dict or not state.persistent:
        return
    if (id(other), back) not in held:
        held[id(other), back] = {inspect(each).key for each in listed(getattr(other, back))}
    belongs = change.kind is not Kind.DELETED and getattr(change.obj, name) is other
    if (inspect(change.obj).key in held[id(other), back]) != belongs:
        stored.hide(other, back)


def _parents(session: Session, change: Change, name: str) -> t.Sequence[t.Any]:
    """What it leads to, and what it led to before: a line that moves changes two invoices.

    A deleted row has changed only what it led to before: where it was moved to meanwhile it was never seen.
    """
    try:
        reached = listed(value(change.obj, name))
    except orm.exc.ObjectDeletedError:  # by the database, along with what it belonged to
        return ()
    if reached is not None and not isinstance(reached, list):
        is_row = state_of(reached).key is not None
        if not is_row or leads_elsewhere(state_of(change.obj), name):
            reached = _row_referred_to(session, change, name) or (reached if is_row else None)
    found = reached if isinstance(reached, list) else () if reached is None else (reached,)
    if not change.values or change.kind is Kind.CREATED:
        return found
    relation: orm.RelationshipProperty[t.Any] = inspect(change.obj).mapper.relationships[name]
    if relation.direction is not orm.MANYTOONE:
        return found
    keys = attributes_of(relation.parent, relation.local_columns)
    held = change.obj.__dict__
    if change.kind is Kind.DELETED:
        # An orphan has lost its parent when it is deleted, but not yet its foreign key. And what was loaded may be
        # where it has been meanwhile.
        is_kept = all(change.values.get(key, (held.get(key),))[0] == held.get(key) for key in keys)
        if reached is not None and is_kept and follows_keys(inspect(change.obj), name):
            return found
        found = ()
    before = previous_parent(session, change, name)
    return found if before is None or any(before is each for each in found) else [*found, before]


def _row_referred_to(session: Session, change: Change, name: str) -> t.Any:
    """What the keys lead to, where the object that was loaded has become that of another row, or of none."""
    relation: orm.RelationshipProperty[t.Any] = inspect(change.obj).mapper.relationships[name]
    if relation.direction is not orm.MANYTOONE:
        return None
    return referred(object_session(change.obj) or session, relation, change.obj.__dict__)
