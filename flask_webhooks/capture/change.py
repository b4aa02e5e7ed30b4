"""What happened to objects in one transaction, all in all. Pure: nothing here touches a session.

A `Change` is what one flush, or one bulk statement, did to one object. `net_changes` makes one of all changes of an
object: created and then updated is created, created and then deleted is nothing, several updates are one with the first
old and the last new values, there and back is nothing, deleted and made again is updated. What happened in between is
kept in `steps`, so that a transition within the transaction is still seen.

The law of this room: a change is never altered, also not by the stages that come after. So a commit that fails can be
tried again with the same changes.
"""

from __future__ import annotations

import typing as t

from ..bindings.stored_values import SERVER_GENERATED
from ..catalog import EventType, Kind, same

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .mapper_plan import MapperPlan

__all__ = ["SERVER_GENERATED", "Change", "Key", "Values", "deleted_keys", "net_changes", "stands_for"]

Key = tuple[t.Any, ...]
"""Channel, the class that heads the inheritance, primary key."""
Values = dict[str, tuple[t.Any, t.Any]]
"""Column to (old, new); a new value that only the database knows yet is `SERVER_GENERATED`."""


_UNKNOWN = (None, SERVER_GENERATED)


class Change(t.NamedTuple):
    """What happened to one object: in one flush, or all in all.

    A named tuple and no frozen dataclass: one is made for each row, and a frozen dataclass takes three times as long.
    """

    kind: Kind
    bound: BoundChannel
    plan: MapperPlan
    """What is captured of its class."""
    key: Key
    obj: t.Any
    """The instance; of a deletion its snapshot, an object of our own. None after a bulk statement, when what instances
    say may be out of date."""
    values: Values
    """Of an update what changed, of a deletion everything, of a creation at least what conditions look at."""
    moved: Key | None = None
    """Its new key, when the update changed the primary key."""
    steps: tuple[Change, ...] = ()
    """What it was put together from; empty for a single one."""
    is_later: bool = False
    """Some of its new values are `SERVER_GENERATED`."""
    is_touched: bool = False
    """Something that touches it changed: an update, even if none of its own columns did."""
    is_remade: bool = False
    """It was deleted and made again."""

    def without_unchanged(self) -> Change:
        """Return an update without the columns that came back to their first value."""
        return self._replace(values={name: pair for name, pair in self.values.items() if not same(*pair)})

    def has_set(self, names: t.Collection[str]) -> bool:
        """Say whether any of these columns was set, even if it came back to its first value."""
        if not self.steps:
            return bool(self.values) and not self.values.keys().isdisjoint(names)
        return any(not each.values.keys().isdisjoint(names) for each in (self, *self.steps))

    def matches(self, event: EventType) -> bool:
        """Say whether `event` happened: all in all, or by a step whose columns stayed changed."""
        if event.matches(self.kind, self.values, touched=self.is_touched):
            return True
        if not self.steps or not event.when or self.kind is Kind.DELETED:
            return False
        return any(event.matches(step.kind, step.values) for step in self.steps) and self._stayed(event)

    def _stayed(self, event: EventType) -> bool:
        if self.kind is Kind.CREATED:
            return True
        return not any(same(*self.values.get(name, (None, None))) for name in event.when)


def stands_for(state: t.Any, change: Change) -> bool:
    """Say whether an instance is still about the row that changed: a clone (`make_transient`) is about another."""
    return state.key is not None and state.key[1] == change.key[2 : 2 + len(state.key[1])]


def deleted_keys(items: t.Iterable[object]) -> set[Key]:
    """Return the keys, without channels, of rows that were there in a transaction and are no more."""
    found: set[Key] = set()
    for item in items:
        if isinstance(item, Change):
            if item.kind is Kind.DELETED:
                found.add(item.key[1:])
            elif found:
                found.discard((item.moved or item.key)[1:])
    return found


def net_changes(changes: t.Iterable[Change]) -> list[Change]:
    """Return one change for each object, in the order in which the objects were first changed."""
    nets: dict[Key, Change] = {}
    for change in changes:
        key = change.key
        known = nets.get(key)
        if known is None:
            nets[key] = change
        elif known.kind is Kind.CREATED and change.kind is Kind.DELETED:
            # It was never there for anyone else, so there is nothing to tell.
            del nets[key]
        else:
            nets[key] = _merged(known, change)
        if change.moved is not None and key in nets:
            _move(nets, key, change.moved)
    # Only what was put together can have come back to where it began.
    updated = Kind.UPDATED
    found = [net.without_unchanged() if net.steps and net.kind is updated else net for net in nets.values()]
    return [net for net in found if net.values or not net.steps or net.kind is not updated]


def _merged(known: Change, change: Change) -> Change:
    kind, obj, is_remade = known.kind, change.obj, known.is_remade
    if known.kind is Kind.DELETED and change.kind is Kind.CREATED:
        kind, is_remade = Kind.UPDATED, True
        # The new row has no more of the old one than its key: every column counts as set.
        news = {name: (None, change.values.get(name, _UNKNOWN)[1]) for name in known.values}
    else:
        news = change.values
        if change.kind is Kind.DELETED:
            kind = Kind.DELETED
        elif known.obj is None:
            # A bulk statement changed the row before: what the instance has may be older than that.
            obj = None
    values = dict(known.values)
    for name, (old, new) in news.items():
        first = known.values[name][0] if name in known.values else old
        values[name] = (first, new)
    # Steps are flat, so that a transition is looked for in one loop.
    steps = (*(_known_since(step, change) for step in known.steps or (known,)), change)
    is_later = known.is_later or change.is_later or is_remade
    return known._replace(
        kind=kind,
        obj=obj,
        values=values,
        steps=steps,
        is_later=is_later,
        is_remade=is_remade,
    )


def _known_since(step: Change, then: Change) -> Change:
    """Take what a step left from what the next one found, where only the database knew it."""
    if not step.is_later:
        return step
    values = {
        name: (old, then.values[name][0] if new is SERVER_GENERATED and name in then.values else new)
        for name, (old, new) in step.values.items()
    }
    return step._replace(values=values)


def _move(nets: dict[Key, Change], old: Key, new: Key) -> None:
    """Go on under a new primary key; whoever had it before in this transaction keeps what happened to it."""
    before = nets.pop(new, None)
    if before is not None:
        nets[(*new, len(nets))] = before
    nets[new] = nets.pop(old)._replace(key=new)
