"""What happened to objects in one transaction, and what it comes to. Pure: nothing here touches a session.

A `Change` is one object in one flush. `coalesce` makes one `Net` of all changes of an object: created and then
updated is created, created and then deleted is nothing, several updates are one with the first old and the last new
values, there and back is nothing, deleted and made again is updated. What happened in between is kept in `steps`, so
that a transition within the transaction is still seen.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..catalog import EventType, Kind

if t.TYPE_CHECKING:
    from ..bindings import Bound

__all__ = ["Change", "Key", "Net", "Values", "coalesce"]

Key = tuple[t.Any, ...]
Values = dict[str, tuple[t.Any, t.Any]]
"""Column to (old, new)."""


@dataclass(slots=True)
class Change:
    """One object in one flush."""

    kind: Kind
    bound: Bound
    key: Key
    """The class that heads its inheritance and its primary key."""
    obj: t.Any
    """The instance; None after a bulk statement, when only its key is known."""
    values: Values
    moved: Key | None = None
    """Its new key, when the update changed the primary key."""


@dataclass(slots=True)
class Net:
    """What all changes of one object come to."""

    kind: Kind
    bound: Bound
    key: Key
    obj: t.Any
    values: Values
    steps: list[tuple[Kind, Values]] = field(default_factory=list)
    touched: bool = False
    """Something that touches it changed: an update, even if none of its own columns did."""

    def matches(self, event: EventType) -> bool:
        """Say whether `event` happened: by what it comes to, or by a step whose columns stayed changed."""
        if event.matches(self.kind, self.values, touched=self.touched):
            return True
        if not event.when or self.kind is Kind.DELETED:
            return False
        return any(event.matches(kind, values) for kind, values in self.steps) and self._stayed(event)

    def _stayed(self, event: EventType) -> bool:
        if self.kind is Kind.CREATED:
            return True
        return all(old != new for old, new in (self.values.get(name, (None, None)) for name in event.when))


def coalesce(changes: t.Iterable[Change]) -> list[Net]:
    """Return what the changes of each object come to, in the order in which the objects were first changed."""
    nets: dict[Key, Net] = {}
    for change in changes:
        known = nets.get(change.key)
        if known is None:
            nets[change.key] = Net(
                change.kind,
                change.bound,
                change.key,
                change.obj,
                dict(change.values),
                [(change.kind, change.values)],
            )
        elif known.kind is Kind.CREATED and change.kind is Kind.DELETED:
            del nets[change.key]
        else:
            _merge(known, change)
        if change.moved is not None and change.key in nets:
            net = nets.pop(change.key)
            net.key = change.moved
            nets[change.moved] = net
    return [net for net in nets.values() if _is_something(net)]


def _merge(known: Net, change: Change) -> None:
    known.steps.append((change.kind, change.values))
    known.obj = change.obj
    if known.kind is Kind.DELETED and change.kind is Kind.CREATED:
        known.kind = Kind.UPDATED
    elif change.kind is Kind.DELETED:
        known.kind = Kind.DELETED
    for name, (old, new) in change.values.items():
        first = known.values[name][0] if name in known.values else old
        known.values[name] = (first, new)


def _is_something(net: Net) -> bool:
    if net.kind is not Kind.UPDATED:
        return True
    net.values = {name: pair for name, pair in net.values.items() if pair[0] != pair[1]}
    return bool(net.values)
