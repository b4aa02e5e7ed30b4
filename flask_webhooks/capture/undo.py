"""One object of the host's as it was, and how it is restored after code that may only read has changed it.

The law of this room: nothing here fires an attribute event, and only what cannot be known otherwise is read from the
database.
"""

from __future__ import annotations

import copy
import operator
import typing as t
import weakref

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import attributes
from sqlalchemy.orm.base import instance_state
from sqlalchemy.orm.collections import collection_adapter

from ..bindings.host_code import PLAIN
from .sqlalchemy_internals import (
    PENDING_COLLECTIONS,
    adapter_of,
    collection_names,
    forget_pending,
    modified_states,
    parents_of,
    set_strong_reference,
)

__all__ = [
    "Contents",
    "Held",
    "Snapshot",
    "contents_of",
    "holders",
    "is_overwritten",
    "put_back",
    "revert",
    "session_of",
]

State = orm.InstanceState[t.Any]

_FLAT = (*PLAIN, sa.LargeBinary)
"""Types whose values cannot be changed in place."""
_NOTHING: dict[str, Contents] = {}
_holders: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()


def holders(cls: type) -> tuple[str, ...]:
    """Return the columns of a class whose values may be dicts, lists or sets."""
    found = _holders.get(cls)
    if found is None:
        mapper: orm.Mapper[t.Any] = sa.inspect(cls)
        names = (attr.key for attr in mapper.column_attrs if not isinstance(attr.columns[0].type, _FLAT))
        found = _holders[cls] = tuple(names)
    return found


class Contents:
    """What a dict, list or set held, and what those inside it held; it is put back into the same containers."""

    __slots__ = ("_parts", "value")

    def __init__(self, value: t.Any) -> None:
        self.value = value
        self._parts: list[tuple[t.Any, t.Any]] = []
        self._take(value, set())

    def _take(self, value: t.Any, seen: set[int]) -> None:
        # Containers may hold themselves.
        if not isinstance(value, dict | list | set) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, dict):
            self._parts.append((value, dict(value.items())))
        else:
            self._parts.append((value, list(value)))
        for each in value.values() if isinstance(value, dict) else value:
            self._take(each, seen)

    def is_changed(self) -> bool:
        """Say whether something in it is another object, or elsewhere."""
        return any(_differs(value, before) for value, before in self._parts)

    def put_back(self) -> None:
        """Give all containers their members back, by the methods of the builtin: a `MutableDict` notices nothing."""
        for value, before in self._parts:
            if isinstance(value, dict):
                dict.clear(value)
                dict.update(value, before)
            elif isinstance(value, list):
                list.__setitem__(value, slice(None), before)
            else:
                set.clear(value)
                set.update(value, before)


def _differs(value: t.Any, before: t.Any) -> bool:
    if len(value) != len(before):
        return True
    if isinstance(value, dict):
        return any(key not in before or before[key] is not each for key, each in value.items())
    if isinstance(value, set):
        return any(each not in value for each in before)
    return any(one is not other for one, other in zip(value, before, strict=True))


def contents_of(state: State) -> dict[str, Contents]:
    """Return what the containers in an object's columns hold, by attribute."""
    names = holders(state.class_)
    if not names:
        return _NOTHING
    held = state.dict
    return {name: Contents(value) for name in names if isinstance(value := held.get(name), dict | list | set)}


Held = tuple[dict[str, Contents], dict[str, t.Any], dict[str, t.Any]]
"""Of an object: its containers, its `__dict__`, and how that was."""


def is_overwritten(values: dict[str, t.Any], before: dict[str, t.Any]) -> bool:
    """Whether something in a `__dict__` may be another, and not only more: what is loaded comes at its end."""
    return len(values) < len(before) or not all(map(operator.is_, values.values(), before.values()))


def put_back(state: State, before: t.Mapping[str, t.Any]) -> list[str]:
    """Put what was behind the attributes there again; return those of whose change SQLAlchemy has noted nothing."""
    held, manager, found = state.dict, state.manager, []
    for name, value in before.items():
        now = held.get(name, _NONE)
        if now is value or name not in manager or _is_left(state, name, value):
            continue
        _put(state, name, value)
        if now is not _NONE and not _is_equal(now, value):
            found.append(name)
    return found


def _is_left(state: State, name: str, value: t.Any) -> bool:
    """Whether it is a collection that is its object's no more: `revert` has filled another."""
    if name not in collection_names(state.manager):
        return False
    adapter = adapter_of(value)
    return adapter is None or adapter.invalidated


def _is_equal(one: t.Any, other: t.Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # whatever the host's types make of it
        return False


class Snapshot:
    """All of an object: taken before a change that leaves no other trace, and of what the host has not flushed yet."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._obj = state.obj()  # must not be collected meanwhile
        self._known = {name: _copied(getattr(state, name)) for name in _KNOWN}
        self._waiting = {name: _copied(value) for name, value in vars(state).items() if name in _WAITING}
        self.key, self._modified = state.key, state.modified
        # The values themselves, not copies: an attribute that was set is found by identity.
        self._values = dict(state.dict)
        self._members = {name: list(collection_adapter(value)) for name, value in _collections(state)}
        self._contents = contents_of(state)

    def is_touched(self) -> bool:
        """Say whether the object may have changed since the snapshot was taken."""
        return self.state.modified or is_overwritten(self.state.dict, self._values)

    def names_changed(self) -> list[str]:
        """Return the attributes that are not what they were."""
        held, values = self.state.dict, self._values
        changed = {name for name, value in values.items() if held.get(name, _NONE) is not value}
        changed |= {
            name
            for name, value in _collections(self.state)
            if name in self._members and _differs(list(collection_adapter(value)), self._members[name])
        }
        changed |= {name for name, each in self._contents.items() if each.is_changed()}
        changed |= {name for name in self.state.committed_state if name in held and name not in values}
        return sorted(changed & self.state.manager.keys())

    def restore(self) -> None:
        """Restore the object, and what SQLAlchemy has noted of it."""
        state = self.state
        for name, value in _collections(state):
            if name in self._members:
                _keep_parents(state, name, self._members[name], list(collection_adapter(value)))
        held = state.dict
        # What was loaded meanwhile goes too: the host has not asked for it.
        for name in held.keys() - self._values.keys():
            del held[name]
        for name, value in self._values.items():
            _put(state, name, value)
        for name, members in self._members.items():
            _fill(state, name, members)
        for each in self._contents.values():
            each.put_back()
        # SQLAlchemy makes these attributes when there is something to note: absent means nothing.
        for name in _WAITING:
            vars(state).pop(name, None)
        for name, known in (self._known | self._waiting).items():
            setattr(state, name, _copied(known))
        state.key = self.key
        self._flag()

    def unmark(self) -> None:
        """Make the object look unchanged, so that SQLAlchemy marks it when it changes again; `restore` ends that."""
        self.state.modified = False
        if (session := session_of(self.state)) is not None:
            modified_states(session).discard(self.state)

    def _flag(self) -> None:
        state = self.state
        state.modified = self._modified
        session = session_of(state)
        if session is not None and state.key is not None:
            changed = modified_states(session)
            (changed.add if self._modified else changed.discard)(state)
        set_strong_reference(state, self._obj if self._modified else None)


_NONE = object()
_KNOWN = ("committed_state", "expired_attributes", "callables")
_WAITING = (PENDING_COLLECTIONS, "parents")
"""What an `InstanceState` keeps of changes; the latter only once there is something."""


def _copied(value: t.Any) -> t.Any:
    """A copy of one of them, with what waits for collections that are not loaded."""
    found = copy.copy(value)
    for name, pending in found.items() if isinstance(found, dict) else ():
        if hasattr(pending, "added_items"):
            twin = found[name] = copy.copy(pending)
            twin.added_items, twin.deleted_items = (
                copy.copy(pending.added_items),
                copy.copy(pending.deleted_items),
            )
    return found


def _put(state: State, name: str, value: t.Any) -> None:
    """Restore an attribute. What tracks its own changes (`MutableDict`) belongs to it again."""
    state.dict[name] = value
    parents = parents_of(value)
    if parents is not None and name in state.manager:
        parents[state] = name


def session_of(state: State) -> t.Any:
    """Return the session that an object is in, if any."""
    return state.session


def _collections(state: State) -> t.Iterator[tuple[str, t.Any]]:
    held = state.dict
    for name in collection_names(state.manager).intersection(held):
        if adapter_of(held[name]) is not None:
            yield name, held[name]


def _fill(state: State, name: str, members: list[t.Any]) -> None:
    """Give a collection these members: the same collection where it is still the object's."""
    held = state.dict
    adapter = adapter_of(held.get(name))
    # SQLAlchemy has detached the collection from its object: a new one is filled without events.
    if adapter is None or adapter.invalidated:
        held.pop(name, None)
        attributes.set_committed_value(state.obj(), name, members)
    elif _differs(list(adapter), members):
        adapter.clear_without_event()
        adapter.append_multiple_without_event(members)


def _keep_parents(state: State, name: str, before: list[t.Any], now: list[t.Any]) -> None:
    """Note again which parent each member has: one that seems to have none would be deleted as an orphan."""
    impl: t.Any = state.manager[name].impl
    # Only what `delete-orphan` or a viewing parent cares about is tracked.
    if not impl.trackparent:
        return
    were, are = ({id(each): each for each in some if each is not None} for some in (before, now))
    # By id, because objects of the host may not be hashable.
    for key in are.keys() - were.keys():
        impl.sethasparent(instance_state(are[key]), state, False)
    for key in were.keys() - are.keys():
        impl.sethasparent(instance_state(were[key]), state, True)


def revert(state: State, contents: t.Mapping[str, Contents]) -> None:
    """Undo all changes of an object that had none before, as far as is known; what is not is read when it is asked for.

    :param contents: what its containers held, where that was looked at.
    """
    held, unknown = state.dict, []
    for name, old in list(state.committed_state.items()):
        impl: t.Any = state.manager[name].impl
        if not impl.supports_population:
            held.pop(name, None)  # a query in the place of a collection keeps only what was added and removed
        elif impl.collection and isinstance(old, list):
            _restore_collection(state, name, old)
        elif name in contents:
            _put(state, name, contents[name].value)
        elif _is_unknown(old) or impl.collection:
            unknown.append(name)
        else:
            if impl.uses_objects:
                _keep_parents(state, name, [old], [held.get(name)])
            _put(state, name, old)
    for each in contents.values():
        each.put_back()
    # A composite is made of its columns when it is read next.
    for composite in state.mapper.composites:
        held.pop(composite.key, None)
    _forget(state)
    if unknown:
        _read_again(state, unknown)


def _restore_collection(state: State, name: str, members: list[t.Any]) -> None:
    now = state.dict.get(name)
    _keep_parents(state, name, members, list(collection_adapter(now)) if now is not None else [])
    _fill(state, name, members)


def _is_unknown(old: t.Any) -> bool:
    return isinstance(old, orm.base.LoaderCallableStatus)


def _forget(state: State) -> None:
    """Drop what SQLAlchemy has noted of changes."""
    state.committed_state.clear()
    forget_pending(state)
    session = session_of(state)
    if session is not None:
        modified_states(session).discard(state)
    state.modified = False
    set_strong_reference(state, None)


def _read_again(state: State, names: list[str]) -> None:
    """Expire attributes; where the host goes on without expiring, what it had is read at once."""
    # An object that is not in the database has no row to read from.
    if not state.persistent:
        for name in names:
            state.dict.pop(name, None)
        return
    obj = state.obj()
    # Relationships load themselves when they are read.
    had = [name for name in names if name in state.dict and not state.manager[name].impl.uses_objects]
    session = session_of(state)
    session.expire(obj, names)
    if not session.expire_on_commit:
        for name in had:
            getattr(obj, name)
