"""What a changed object touches: a line that changed is an update of its invoice, once, however many lines."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..bindings.serializers import listed
from ..catalog import Kind
from .change import Change, Key
from .loading import agrees, attributes_of, is_astray, referred, value
from .sqlalchemy_internals import head_class, reverse_relationships, state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from ..state import AppState
    from .events import PendingEvent
    from .side_session import SideSession
    from .stored_values import Stored

__all__ = ["TouchedParents", "led_before"]


class TouchedParents:
    """Who touched whom in one transaction."""

    def __init__(
        self, state: AppState, session: Session, aside: SideSession, home: t.Container[t.Any] = ()
    ) -> None:
        """Begin with nobody.

        :param home: states of objects of which all that they touch is loaded, and is what their keys name.
        """
        self._state, self._session, self._aside, self._home = state, session, aside, home
        self._met: list[tuple[Change, str, t.Any]] = []

    def touch(self, nets: dict[Key, Change]) -> None:
        """Add the updates of what changed objects touch, and of what these touch in turn; mark what is there."""
        reached: set[tuple[str, int]] = set()
        waiting = [net for net in nets.values() if net.bound.touches]
        created = Kind.CREATED
        for net in waiting:
            held = net.obj.__dict__
            is_home = net.kind is created and state_of(net.obj) in self._home
            for touch in net.bound.touches:
                name = touch.relationship
                for other in (held[name],) if is_home else _others(self._session, net, name):
                    self._met.append((net, name, other))
                    contact = touch.channel, id(other)
                    if contact in reached:
                        continue
                    reached.add(contact)
                    made = self._touch(nets, self._state.bound[touch.channel], other)
                    if made is not None and made.bound.touches:
                        waiting.append(made)

    def _touch(self, nets: dict[Key, Change], bound: BoundChannel, obj: t.Any) -> Change | None:
        """Note that it was touched; return the change if there was none."""
        if bound.model is None or not isinstance(obj, bound.model):
            return None
        state: t.Any = inspect(obj)
        # Its row may be gone already: nothing may be loaded for it.
        identity = state.identity or state.mapper.primary_key_from_instance(obj)
        key = (bound.channel.name, head_class(state.mapper), *identity)
        net = nets.get(key)
        if net is None:
            net = nets[key] = Change(Kind.UPDATED, bound, key, obj, {}, is_touched=True)
            if state.deleted or state.detached:  # another object stands for the row now, or none does
                net.obj = None
                self._aside.fetch(nets)
            return nets.get(key)
        if net.kind is Kind.UPDATED and not net.is_touched:
            # Not in place: when a commit that failed is tried again, nothing may touch it any more.
            nets[key] = replace(net, is_touched=True)
        return None

    def agree(self, heard: t.Iterable[PendingEvent], stored: Stored) -> None:
        """See to it that loaded collections of touched objects hold what the database does, where they are read.

        `Line(invoice_id=7)` does not appear in `invoice.lines` if that was loaded before; the event would lack it.
        """
        if not self._met:
            return
        read = {
            (id(item.obj), path[0])
            for item in heard
            if item.bound is not None and item.obj is not None
            for path in item.paths()
            if path
        }
        held: dict[tuple[int, str], set[t.Any]] = {}
        for net, name, other in self._met if read else ():
            for back in reverse_relationships(inspect(net.obj).mapper.relationships[name]):
                if (id(other), back.key) in read and back.uselist:
                    _agree(held, net, name, other, back.key, stored)


def _agree(
    held: dict[tuple[int, str], set[int]], net: Change, name: str, other: t.Any, back: str, stored: Stored
) -> None:
    """Lay aside a collection that contradicts what happened to one of its members."""
    state = inspect(other)
    if back not in state.dict or not state.persistent:
        return
    if (id(other), back) not in held:
        held[id(other), back] = {inspect(each).key for each in listed(getattr(other, back))}
    belongs = net.kind is not Kind.DELETED and getattr(net.obj, name) is other
    if (inspect(net.obj).key in held[id(other), back]) != belongs:
        stored.lay_aside(other, back)


def _others(session: Session, net: Change, name: str) -> t.Sequence[t.Any]:
    """What it leads to, and what it led to before: a line that moves changes two invoices.

    What is gone has changed only what it led to before: where it was moved to meanwhile nothing is left of it.
    """
    try:
        reached = listed(value(net.obj, name))
    except orm.exc.ObjectDeletedError:  # by the database, along with what it belonged to
        return ()
    if reached is not None and not isinstance(reached, list):
        is_row = state_of(reached).key is not None
        if not is_row or is_astray(state_of(net.obj), name):
            reached = _row_behind(session, net, name) or (reached if is_row else None)
    found = reached if isinstance(reached, list) else () if reached is None else (reached,)
    if not net.values or net.kind is Kind.CREATED:
        return found
    relation: orm.RelationshipProperty[t.Any] = inspect(net.obj).mapper.relationships[name]
    if relation.direction is not orm.MANYTOONE:
        return found
    keys = attributes_of(relation.parent, relation.local_columns)
    held = net.obj.__dict__
    if net.kind is Kind.DELETED:
        # An orphan has lost its parent when it is deleted, but not yet its foreign key. And what was loaded may be
        # where it has been meanwhile.
        is_kept = all(net.values.get(key, (held.get(key),))[0] == held.get(key) for key in keys)
        if reached is not None and is_kept and agrees(inspect(net.obj), name):
            return found
        found = ()
    before = led_before(session, net, name)
    return found if before is None or any(before is each for each in found) else [*found, before]


def _row_behind(session: Session, net: Change, name: str) -> t.Any:
    """What the keys lead to, where the object that was loaded has become that of another row, or of none."""
    relation: orm.RelationshipProperty[t.Any] = inspect(net.obj).mapper.relationships[name]
    if relation.direction is not orm.MANYTOONE:
        return None
    return referred(object_session(net.obj) or session, relation, net.obj.__dict__)


def led_before(session: Session, net: Change, name: str) -> t.Any:
    """Return what a many-to-one relationship led to before the transaction, if its key was changed; else None."""
    relation: orm.RelationshipProperty[t.Any] | None = inspect(net.obj).mapper.relationships.get(name)
    if relation is None or relation.direction is not orm.MANYTOONE:
        return None
    keys = attributes_of(relation.parent, relation.local_columns)
    changed = {key: net.values[key] for key in keys if key in net.values}
    if all(old == new for old, new in changed.values()):
        return None
    olds = {key: old for key, (old, _) in changed.items()}
    kept = {key: net.obj.__dict__.get(key) for key in keys if key not in olds}
    return referred(object_session(net.obj) or session, relation, {**kept, **olds})
