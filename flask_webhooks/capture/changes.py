"""What happened to objects in one transaction, and what it comes to. Pure: nothing here touches a session.

A `Change` is one object in one flush. `coalesce` makes one `Net` of all changes of an object: created and then
updated is created, created and then deleted is nothing, several updates are one with the first old and the last new
values, there and back is nothing, deleted and made again is updated. What happened in between is kept in `steps`, so
that a transition within the transaction is still seen.
"""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass, field

from ..catalog import EventType, Kind

if t.TYPE_CHECKING:
    from ..bindings import Bound

__all__ = ["LATER", "Change", "Key", "Net", "Values", "coalesce"]

Key = tuple[t.Any, ...]
"""Channel, the class that heads the inheritance, primary key."""
Values = dict[str, tuple[t.Any, t.Any]]
"""Column to (old, new); a new value that only the database knows yet is `LATER`."""


class _Later(enum.Enum):
    LATER = enum.auto()


LATER = _Later.LATER
_UNKNOWN = (None, LATER)


@dataclass(slots=True)
class Change:
    """One object in one flush."""

    kind: Kind
    bound: Bound
    key: Key
    obj: t.Any
    """The instance; None after a bulk statement, when what instances say may be out of date."""
    values: Values
    """Of an update what changed, of a deletion everything, of a creation at least what conditions look at."""
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
    remade: bool = False
    """It was deleted and made again: some of its new values may be `LATER`."""

    def is_changed(self) -> bool:
        """Say whether an update changed anything after all; what came back to its first value is dropped."""
        self.values = {name: pair for name, pair in self.values.items() if pair[0] != pair[1]}
        return bool(self.values)

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
            nets[change.key] = _first(change)
        elif known.kind is Kind.CREATED and change.kind is Kind.DELETED:
            del nets[change.key]
        else:
            _merge(known, change)
        if change.moved is not None and change.key in nets:
            _move(nets, change.key, change.moved)
    return [net for net in nets.values() if net.kind is not Kind.UPDATED or net.is_changed()]


def _first(change: Change) -> Net:
    return Net(
        change.kind, change.bound, change.key, change.obj, change.values, [(change.kind, change.values)]
    )


def _merge(known: Net, change: Change) -> None:
    known.steps.append((change.kind, change.values))
    if known.kind is Kind.DELETED and change.kind is Kind.CREATED:
        known.kind, known.obj, known.remade = Kind.UPDATED, change.obj, True
        known.values = {
            name: (old, change.values.get(name, _UNKNOWN)[1]) for name, (old, _) in known.values.items()
        }
        return
    elif change.kind is Kind.DELETED:
        known.kind, known.obj = Kind.DELETED, change.obj
    elif known.obj is not None:
        known.obj = change.obj
    values = dict(known.values)
    for name, (old, new) in change.values.items():
        first = known.values[name][0] if name in known.values else old
        values[name] = (first, new)
    known.values = values


def _move(nets: dict[Key, Net], old: Key, new: Key) -> None:
    """Go on under a new primary key; whoever had it before in this transaction keeps what happened to it."""
    before = nets.pop(new, None)
    if before is not None:
        nets[*new, len(nets)] = before
    net = nets.pop(old)
    net.key = new
    nets[new] = net
