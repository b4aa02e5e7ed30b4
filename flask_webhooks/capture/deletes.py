"""Which rows a flush will delete, and what is loaded before it does: afterwards the database no longer has it.

An object that was taken from its parent is deleted if it cannot live without one (`delete-orphan`), and with it what
its deletion cascades to. The children of a deleted parent that can live without it lose their foreign key. SQLAlchemy
decides both inside the flush, when it is too late to load anything; here both are worked out before.
"""

from __future__ import annotations

import typing as t
import weakref
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session
from sqlalchemy.orm.base import (
    NO_RAISE,
    PASSIVE_NO_FETCH,
    PASSIVE_NO_INITIALIZE,
    PASSIVE_NO_RESULT,
    instance_state,
)

from .change import SERVER_GENERATED
from .history import FlushState, OldValues, State, is_assigned, mistrusted, select_old
from .loading import attributes_of, load, unreadable
from .owners import load_linked
from .references import referred
from .snapshots import is_unknown, written
from .sqlalchemy_internals import deleted_states, dirty_states, is_orphan, orphan_rules

if t.TYPE_CHECKING:
    from .mapper_plan import MapperPlan

__all__ = ["load_for_delete", "orphans", "reassigned"]

Paths = t.Collection[tuple[str, ...]]


def load_for_delete(
    session: Session,
    flush: FlushState,
    states: t.Iterable[tuple[State, MapperPlan]],
    is_matched: t.Callable[[], bool],
    new_session: t.Callable[[sa.Connection], Session],
) -> None:
    """Load what of objects would be gone after their DELETE: columns, and the relationships that are read.

    :param is_matched: whether a subscription matches their deletion: else only columns and touched rows are loaded.
    :param new_session: makes a session that no other statement reads with.
    """
    # An object that was added and deleted in one flush has no row.
    states = [(state, plan) for state, plan in states if state.persistent]
    # Columns first, in one statement for a class: relationships are loaded by them.
    bare = [(state, plan) for state, plan in states if plan.attributes - state.dict.keys()]
    _load(session, bare, lambda _: ())
    raw: dict[State, dict[str, t.Any]] = {}
    for state, plan in bare:
        missing = plan.attributes - state.dict.keys()
        found = _refreshed(session, state, missing) if missing else {}
        if found is None:
            # Another transaction has deleted it: its DELETE will find no row, so no event happens.
            flush.missing.add(state)
        else:
            raw[state] = found
    states = [(state, plan) for state, plan in states if state not in flush.missing]
    flush.prepared.update((state, raw.get(state, {})) for state, _ in states)
    _read_overwritten(session, flush, states)
    for state, plan in states:
        flush.prepared[state].update(_previous_parents(session, state, plan, flush.prepared[state]))
    _load(session, states, lambda plan: plan.touched)
    _keep_key_links(flush, [(state, plan) for state, plan in states if plan.is_linked])
    if (
        any(_missing(state, plan.read) or _missing(state, plan.along) for state, plan in states)
        and is_matched()
    ):
        _load(session, states, lambda plan: plan.read)
        _read_in_own_session(session, flush, states, new_session)


def _keep_key_links(flush: FlushState, states: t.Sequence[tuple[State, MapperPlan]]) -> None:
    """Keep what foreign keys without a relationship led to: it may be deleted along."""
    load_linked(
        (
            (
                bound,
                state.obj(),
                {name: (old, None) for name, old in {**written(state), **flush.prepared[state]}.items()},
            )
            for state, plan in states
            for bound in plan.bounds
        ),
        is_kept=True,
    )


def _refreshed(session: Session, state: State, missing: t.AbstractSet[str]) -> dict[str, t.Any] | None:
    """Load what a filter of the host's has hidden; None if the row is gone already: SQLAlchemy will warn of that.

    Returned is what could not be loaded, as the driver has it.
    """
    try:
        session.refresh(state.obj(), sorted(missing))
    except InvalidRequestError:
        return None
    except Exception as error:
        if unreadable(state.mapper, error) is None:
            raise
        old_values = {state: OldValues()}
        select_old(session, state.class_, [(state, set(missing))], old_values)
        return old_values[state]
    return {}


def _read_in_own_session(
    session: Session,
    flush: FlushState,
    states: t.Sequence[tuple[State, MapperPlan]],
    new_session: t.Callable[[sa.Connection], Session],
) -> None:
    """Read what the database deletes by itself (`passive_deletes`), to be shown by what remains.

    Were it loaded before into the host's objects, SQLAlchemy would clear its keys or delete it row by row: the host has
    asked for neither.
    """
    for cls, (paths, identities) in _groups(states, lambda plan: plan.along).items():
        own_session = new_session(session.connection(bind_arguments={"mapper": inspect(cls)}))
        found = load(own_session, cls, identities, paths)
        by_identity = {inspect(copy).identity: copy for copy in found}
        for state, plan in states:
            copy = by_identity.get(state.identity) if state.class_ is cls else None
            if copy is not None:
                names = {path[0] for path in _missing(state, plan.along)}
                flush.prepared[state].update((name, getattr(copy, name)) for name in names)


def _read_overwritten(
    session: Session, flush: FlushState, states: t.Iterable[tuple[State, MapperPlan]]
) -> None:
    """Read columns that were set while they were expired: what was set is not flushed before the DELETE."""
    untrusted = mistrusted(session)
    old_values: dict[State, OldValues] = {}
    missing: dict[type, list[tuple[State, set[str]]]] = {}
    for state, plan in states:
        hidden = plan.attributes & state.committed_state.keys()
        unknown = {name for name in hidden if is_unknown(state.committed_state[name])}
        unknown |= _assigned(state, plan)
        # After the rollback of a savepoint objects may hold values that no row has.
        if untrusted and state in untrusted:
            unknown |= plan.attributes
        if unknown:
            old_values[state] = OldValues()
            missing.setdefault(state.class_, []).append((state, unknown))
    for cls, wanted in missing.items():
        select_old(session, cls, wanted, old_values)
    for state, found in old_values.items():
        flush.prepared[state].update(found)


def _assigned(state: State, plan: MapperPlan) -> set[str]:
    """Columns that were flushed as they were assigned, and of which only the row can tell what they are."""
    row = {**state.dict, **written(state)}
    return {
        name
        for name in plan.forms
        if name in row
        and (
            is_assigned(state, name, row[name])
            if name in plan.opaque
            else plan.stored(name, row[name]) is SERVER_GENERATED
        )
    }


def _previous_parents(
    session: Session, state: State, plan: MapperPlan, columns: dict[str, t.Any]
) -> dict[str, t.Any]:
    """What many-to-one relationships led to that were set to something else before they were loaded."""
    # Nothing was set, so what is loaded is what the row leads to.
    if not state.committed_state:
        return {}
    read = {path[0] for path in (*plan.read, *plan.along, *plan.touched)}
    return {
        name: referred(session, state.mapper.relationships[name], {**state.dict, **written(state), **columns})
        for name in plan.references.keys() & read & state.committed_state.keys()
        if is_unknown(state.committed_state[name])
    }


def _missing(state: State, paths: Paths) -> set[tuple[str, ...]]:
    return {path for path in paths if path[0] not in state.dict and not _is_in_memory(state, path[0])}


def _is_in_memory(state: State, name: str) -> bool:
    """Whether a relationship can be had without a statement; it is loaded then."""
    # What a many-to-one relationship leads to may be in the identity map.
    got = state.manager[name].impl.get(state, state.dict, PASSIVE_NO_FETCH | NO_RAISE)
    return got is not PASSIVE_NO_RESULT and name in state.dict


def _load(
    session: Session, states: t.Sequence[tuple[State, MapperPlan]], paths_of: t.Callable[[MapperPlan], Paths]
) -> None:
    for cls, (wanted, identities) in _groups(states, paths_of).items():
        load(session, cls, identities, wanted, columns=True)


def _groups(
    states: t.Sequence[tuple[State, MapperPlan]], paths_of: t.Callable[[MapperPlan], Paths]
) -> dict[type, tuple[set[tuple[str, ...]], list[t.Any]]]:
    """By class: the paths of which some object lacks the first step, and the objects; without paths, columns."""
    groups: dict[type, tuple[set[tuple[str, ...]], list[t.Any]]] = {}
    for state, plan in states:
        paths = paths_of(plan)
        missing = _missing(state, paths)
        if missing or (not paths and plan.attributes - state.dict.keys()):
            wanted, identities = groups.setdefault(state.class_, (set(), []))
            wanted |= missing
            identities.append(state.identity)
    return groups


# ---- what a flush deletes, and whose keys it clears, by itself -------------------------------------------


@dataclass(frozen=True, slots=True)
class _ParentRules:
    """The relationships of a mapped class that matter here."""

    can_be_orphan: bool
    owning: tuple[str, ...]
    """Whose members are deleted when they are taken away."""
    keyed: tuple[tuple[str, tuple[str, ...]], ...]
    """Whose members get their key by being in it: the relationship, and the attributes of that key."""
    key_cleared: frozenset[str]
    """Those of them whose members lose their key when the parent is deleted."""


_rules: weakref.WeakKeyDictionary[orm.Mapper[t.Any], _ParentRules] = weakref.WeakKeyDictionary()


def _rules_of(mapper: orm.Mapper[t.Any]) -> _ParentRules:
    found = _rules.get(mapper)
    if found is None:
        many = [
            each for each in mapper.relationships if each.direction is orm.ONETOMANY and not each.viewonly
        ]
        found = _rules[mapper] = _ParentRules(
            can_be_orphan=any(orphan_rules(base) for base in mapper.iterate_to_root()),
            owning=tuple(each.key for each in mapper.relationships if each.cascade.delete_orphan),
            keyed=tuple(
                (each.key, keys) for each in many if (keys := attributes_of(each.mapper, each.remote_side))
            ),
            key_cleared=frozenset(
                each.key for each in many if not each.cascade.delete and not each.passive_deletes
            ),
        )
    return found


def orphans(session: Session) -> list[State]:
    """Return what the flush that begins will delete because it has lost its parent, with what hangs on it."""
    found: dict[State, None] = {}
    for state in dirty_states(session):
        # Asked by mapper: for most classes there is no such relationship, and this is all that they cost.
        rules = _rules_of(state.mapper)
        if rules.can_be_orphan and is_orphan(state):
            found[state] = None
        for name in rules.owning:
            if name in state.committed_state:
                found |= dict.fromkeys(_orphaned_members(state, name))
    # A child of an orphan is deleted with it, as SQLAlchemy will do.
    for state in list(found):
        for _, _, below, _ in state.mapper.cascade_iterator("delete", state):
            found[below] = None
    # A cascade may reach objects of other sessions, which this flush leaves alone.
    here = session.hash_key
    return [
        state
        for state in found
        if state.key is not None and state.session_id == here and state not in deleted_states(session)
    ]


def _orphaned_members(state: State, name: str) -> t.Iterator[State]:
    for member in state.get_history(name, PASSIVE_NO_INITIALIZE).deleted or ():
        if member is not None:
            taken = instance_state(member)
            if is_orphan(taken):
                yield taken


def reassigned(to_delete: t.Iterable[State], changed: t.Iterable[State]) -> dict[State, tuple[str, ...]]:
    """Return the loaded children whose keys the flush itself will set, each with the attributes of that key.

    :param to_delete: deleted parents: the key of what can live without them is cleared.
    :param changed: parents that were given children, or had some taken away.
    """
    found: dict[State, tuple[str, ...]] = {}
    for state in to_delete:
        rules = _rules_of(state.mapper)
        for name, keys in rules.keyed:
            if name in rules.key_cleared and name in state.dict:
                for child, _ in state.manager[name].impl.get_all_pending(state, state.dict):
                    _add(found, child, keys)
    for state in changed:
        for name, keys in _rules_of(state.mapper).keyed:
            if name in state.committed_state:
                history = state.get_history(name, PASSIVE_NO_INITIALIZE)
                for member in (*(history.added or ()), *(history.deleted or ())):
                    _add(found, None if member is None else instance_state(member), keys)
    return found


def _add(found: dict[State, tuple[str, ...]], child: State | None, keys: tuple[str, ...]) -> None:
    if child is not None and child.key is not None:
        found[child] = (*found.get(child, ()), *keys)
