"""What a changed object touches: a line that changed is an update of its invoice, once, however many lines."""

from __future__ import annotations

import typing as t

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..bindings.dumping import listed
from ..catalog import Kind
from .changes import LATER, Net

if t.TYPE_CHECKING:
    from ..bindings import Bound
    from ..state import AppState
    from .writing import Occurrence

__all__ = ["Contacts"]


class Contacts:
    """Who touched whom in one transaction."""

    def __init__(self, state: AppState, session: Session) -> None:
        self._state, self._session = state, session
        self._met: list[tuple[Net, str, t.Any]] = []

    def touched(self, nets: t.Sequence[Net]) -> list[Net]:
        """Return the updates of what changed objects touch, and of what these touch in turn.

        One that has changed itself is marked, and not returned.
        """
        known = {net.key: net for net in nets}
        reached: set[tuple[str, int]] = set()
        more: list[Net] = []
        waiting = list(nets)
        for net in waiting:
            for touch in net.bound.touches:
                for other in _others(self._session, net, touch.relationship):
                    self._met.append((net, touch.relationship, other))
                    if (touch.channel, id(other)) in reached:
                        continue
                    reached.add((touch.channel, id(other)))
                    made = _touch(known, self._state.bound[touch.channel], other)
                    if made is not None:
                        more.append(made)
                        waiting.append(made)
        return more

    def agree(self, heard: t.Iterable[Occurrence]) -> None:
        """See to it that loaded collections of touched objects hold what the database does, where they are read.

        `Line(invoice_id=7)` does not appear in `invoice.lines` if that was loaded before; the event would lack it.
        """
        if not self._met:
            return
        read = {
            (id(item.obj), path[0])
            for item in heard
            if item.bound is not None and item.obj is not None
            for path in (*item.bound.trails, *(include.relationships for include in item.asked()))
            if path
        }
        held: dict[tuple[int, str], set[int]] = {}
        for net, name, other in self._met if read else ():
            for back in inspect(net.obj).mapper.relationships[name]._reverse_property:
                if (id(other), back.key) in read and back.uselist:
                    _agree(held, net, name, other, back.key)


def _agree(held: dict[tuple[int, str], set[int]], net: Net, name: str, other: t.Any, back: str) -> None:
    """Expire a collection that contradicts what happened to one of its members."""
    state = inspect(other)
    if back not in state.dict or not state.persistent:
        return
    if (id(other), back) not in held:
        held[id(other), back] = {id(each) for each in listed(getattr(other, back))}
    belongs = net.kind is not Kind.DELETED and getattr(net.obj, name) is other
    if (id(net.obj) in held[id(other), back]) != belongs:
        t.cast("Session", state.session).expire(other, [back])


def _touch(known: dict[t.Any, Net], bound: Bound, other: t.Any) -> Net | None:
    if bound.model is None or not isinstance(other, bound.model):
        return None
    state = inspect(other)
    key = (
        bound.channel.name,
        state.mapper.base_mapper.class_,
        *state.mapper.primary_key_from_instance(other),
    )
    net = known.get(key)
    if net is None:
        net = known[key] = Net(Kind.UPDATED, bound, key, other, {}, touched=True)
        return net
    if net.kind is Kind.UPDATED:
        net.touched = True
    return None


def _others(session: Session, net: Net, name: str) -> list[t.Any]:
    """What it leads to, and what it led to before: a line that moves changes two invoices."""
    value = listed(getattr(net.obj, name))
    found = list(value) if isinstance(value, list) else [] if value is None else [value]
    if net.kind is Kind.UPDATED and net.values:
        before = _before(session, net, name)
        if before is not None:
            found.append(before)
    return found


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
