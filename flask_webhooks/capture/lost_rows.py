"""What a flush deletes, and whose keys it clears, although nobody said so of these objects.

An object that was taken from its parent is deleted if it cannot live without one (`delete-orphan`), and with it what
its deletion cascades to. The children of a deleted parent that can live without it lose their foreign key. SQLAlchemy
decides both inside the flush, when it is too late to load anything.
"""

from __future__ import annotations

import typing as t
import weakref
from dataclasses import dataclass

from sqlalchemy import orm
from sqlalchemy.orm import Session
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE, instance_state

from .loading import attributes_of
from .sqlalchemy_internals import deleted_states, dirty_states, is_orphan, orphan_rules

__all__ = ["orphans", "reassigned"]

State = orm.InstanceState[t.Any]


@dataclass(frozen=True, slots=True)
class _Kin:
    """The relationships of a mapped class that matter here."""

    can_be_orphan: bool
    owning: tuple[str, ...]
    """Whose members are deleted when they are taken away."""
    keyed: tuple[tuple[str, tuple[str, ...]], ...]
    """Whose members get their key by being in it: the relationship, and the attributes of that key."""
    loose: frozenset[str]
    """Those of them whose members lose their key when the parent is deleted."""


_kin: weakref.WeakKeyDictionary[orm.Mapper[t.Any], _Kin] = weakref.WeakKeyDictionary()


def _kin_of(mapper: orm.Mapper[t.Any]) -> _Kin:
    found = _kin.get(mapper)
    if found is None:
        many = [
            each for each in mapper.relationships if each.direction is orm.ONETOMANY and not each.viewonly
        ]
        found = _kin[mapper] = _Kin(
            can_be_orphan=any(orphan_rules(base) for base in mapper.iterate_to_root()),
            owning=tuple(each.key for each in mapper.relationships if each.cascade.delete_orphan),
            keyed=tuple(
                (each.key, keys) for each in many if (keys := attributes_of(each.mapper, each.remote_side))
            ),
            loose=frozenset(
                each.key for each in many if not each.cascade.delete and not each.passive_deletes
            ),
        )
    return found


def orphans(session: Session) -> list[State]:
    """Return what the flush that begins will delete because it has lost its parent, with what hangs on it."""
    found: dict[State, None] = {}
    for state in dirty_states(session):
        kin = _kin_of(state.mapper)
        if kin.can_be_orphan and is_orphan(state):
            found[state] = None
        for name in kin.owning:
            if name in state.committed_state:
                found |= dict.fromkeys(_taken(state, name))
    for state in list(found):
        for _, _, below, _ in state.mapper.cascade_iterator("delete", state):
            found[below] = None
    here = session.hash_key
    return [
        state
        for state in found
        if state.key is not None and state.session_id == here and state not in deleted_states(session)
    ]


def _taken(state: State, name: str) -> t.Iterator[State]:
    for member in state.get_history(name, PASSIVE_NO_INITIALIZE).deleted or ():
        if member is not None:
            taken = instance_state(member)
            if is_orphan(taken):
                yield taken


def reassigned(doomed: t.Iterable[State], changed: t.Iterable[State]) -> dict[State, tuple[str, ...]]:
    """Return the loaded children whose keys the flush itself will set, each with the attributes of that key.

    :param doomed: deleted parents: the key of what can live without them is cleared.
    :param changed: parents that were given children, or had some taken away.
    """
    found: dict[State, tuple[str, ...]] = {}
    for state in doomed:
        kin = _kin_of(state.mapper)
        for name, keys in kin.keyed:
            if name in kin.loose and name in state.dict:
                for child, _ in state.manager[name].impl.get_all_pending(state, state.dict):
                    _add(found, child, keys)
    for state in changed:
        for name, keys in _kin_of(state.mapper).keyed:
            if name in state.committed_state:
                history = state.get_history(name, PASSIVE_NO_INITIALIZE)
                for member in (*(history.added or ()), *(history.deleted or ())):
                    _add(found, None if member is None else instance_state(member), keys)
    return found


def _add(found: dict[State, tuple[str, ...]], child: State | None, keys: tuple[str, ...]) -> None:
    if child is not None and child.key is not None:
        found[child] = (*found.get(child, ()), *keys)
