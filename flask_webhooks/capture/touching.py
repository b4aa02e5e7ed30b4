"""What a changed object touches: a line that changed is an update of its invoice, once, however many lines."""

from __future__ import annotations

import typing as t

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..bindings import BoundTouch
from ..catalog import Kind
from .changes import LATER, Net

if t.TYPE_CHECKING:
    from ..bindings import Bound
    from ..state import AppState

__all__ = ["touched"]


def touched(state: AppState, session: Session, nets: t.Sequence[Net]) -> list[Net]:
    """Return the updates of what changed objects touch, and of what these touch in turn.

    One that has changed itself is marked, and not returned.
    """
    known = {net.key: net for net in nets}
    more: list[Net] = []
    agreed = _Agreement()
    waiting = list(nets)
    for net in waiting:
        for touch in net.bound.touches:
            bound = state.bound[touch.channel]
            for other in _others(session, net, touch):
                if bound.model is None or not isinstance(other, bound.model):
                    continue
                agreed.check(net, touch, other)
                made = _touch(known, bound, other)
                if made is not None:
                    more.append(made)
                    waiting.append(made)
    return more


def _touch(known: dict[t.Any, Net], bound: Bound, other: t.Any) -> Net | None:
    mapper = inspect(other).mapper
    key = (bound.channel.name, mapper.base_mapper.class_, *mapper.primary_key_from_instance(other))
    net = known.get(key)
    if net is None:
        net = known[key] = Net(Kind.UPDATED, bound, key, other, {}, touched=True)
        return net
    if net.kind is Kind.UPDATED:
        net.touched = True
    return None


def _others(session: Session, net: Net, touch: BoundTouch) -> t.Iterator[t.Any]:
    """What it leads to, and what it led to before: a line that moves changes two invoices."""
    value = getattr(net.obj, touch.relationship)
    if isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif value is not None:
        yield value
    if net.kind is Kind.UPDATED:
        before = _before(session, net, touch.relationship)
        if before is not None:
            yield before


def _before(session: Session, net: Net, name: str) -> t.Any:
    relation: orm.RelationshipProperty[t.Any] = inspect(net.obj).mapper.relationships[name]
    if relation.direction is not orm.MANYTOONE or len(relation.local_remote_pairs or ()) != 1:
        return None
    [(local, remote)] = relation.local_remote_pairs or ()
    old, new = net.values.get(inspect(net.obj).mapper.get_property_by_column(local).key, (None, None))
    if old is None or old == new or new is LATER:
        return None
    target = relation.mapper
    if tuple(target.primary_key) != (remote,):
        return None
    return (object_session(net.obj) or session).get(target.class_, old)


class _Agreement:
    """Sees to it that a loaded collection of a touched object holds what the database does.

    `Line(invoice_id=7)` does not appear in `invoice.lines` if that was loaded before; the event would lack it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], set[int]] = {}

    def check(self, net: Net, touch: BoundTouch, other: t.Any) -> None:
        """Expire the collection on the other side if it contradicts what happened to one of its members."""
        relation = inspect(net.obj).mapper.relationships[touch.relationship]
        state = inspect(other)
        if not state.persistent:
            return
        for back in relation._reverse_property:
            if back.key not in state.dict or not back.uselist:
                continue
            held = self._held.get((id(other), back.key))
            if held is None:
                held = self._held[id(other), back.key] = {id(each) for each in getattr(other, back.key)}
            belongs = net.kind is not Kind.DELETED and getattr(net.obj, touch.relationship) is other
            if (id(net.obj) in held) != belongs:
                t.cast("Session", state.session).expire(other, [back.key])
                self._held.pop((id(other), back.key), None)
                held.clear()
