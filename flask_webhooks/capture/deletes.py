"""What is loaded before rows are deleted: afterwards nobody can say any more what they were, and what hung on them."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session
from sqlalchemy.orm.base import NO_RAISE, PASSIVE_NO_FETCH, PASSIVE_NO_RESULT

from .change import LATER
from .history import FlushState, OldValues, State, ask, is_assigned, mistrusted
from .loading import load, load_linked, referred, unreadable
from .snapshots import is_unknown, written

if t.TYPE_CHECKING:
    from .registry import MapperPlan

__all__ = ["load_for_delete"]

Paths = t.Collection[tuple[str, ...]]


def load_for_delete(
    session: Session,
    before: FlushState,
    states: t.Iterable[tuple[State, MapperPlan]],
    is_heard: t.Callable[[], bool],
    another: t.Callable[[sa.Connection], Session],
) -> None:
    """Load what of objects would be gone after their DELETE: columns, and the relationships that are read.

    :param is_heard: whether anybody listens to their deletion: else only columns and touched rows are loaded.
    :param another: makes a session that nobody else reads with.
    """
    states = [(state, plan) for state, plan in states if state.persistent]
    bare = [(state, plan) for state, plan in states if plan.attributes - state.dict.keys()]
    _load(session, bare, lambda _: ())
    raw: dict[State, dict[str, t.Any]] = {}
    for state, plan in bare:
        missing = plan.attributes - state.dict.keys()
        found = _found(session, state, missing) if missing else {}
        if found is None:
            before.gone.add(state)
        else:
            raw[state] = found
    states = [(state, plan) for state, plan in states if state not in before.gone]
    before.shown.update((state, raw.get(state, {})) for state, _ in states)
    _look_under(session, before, states)
    for state, plan in states:
        before.shown[state].update(_led(session, state, plan, before.shown[state]))
    _load(session, states, lambda plan: plan.touched)
    _keep_linked(before, [(state, plan) for state, plan in states if plan.is_linked])
    if (
        any(_missing(state, plan.read) or _missing(state, plan.along) for state, plan in states)
        and is_heard()
    ):
        _load(session, states, lambda plan: plan.read)
        _read_beside(session, before, states, another)


def _keep_linked(before: FlushState, states: t.Sequence[tuple[State, MapperPlan]]) -> None:
    """Keep what foreign keys without a relationship led to: it may be deleted along."""
    load_linked(
        (
            (
                bound,
                state.obj(),
                {name: (old, None) for name, old in {**written(state), **before.shown[state]}.items()},
            )
            for state, plan in states
            for bound in plan.bounds
        ),
        is_kept=True,
    )


def _found(session: Session, state: State, missing: t.AbstractSet[str]) -> dict[str, t.Any] | None:
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
        olds = {state: OldValues()}
        ask(session, state.class_, [(state, set(missing))], olds)
        return olds[state]
    return {}


def _read_beside(
    session: Session,
    before: FlushState,
    states: t.Sequence[tuple[State, MapperPlan]],
    another: t.Callable[[sa.Connection], Session],
) -> None:
    """Read what the database deletes by itself (`passive_deletes`), to be shown by what remains.

    Were it loaded before into the host's objects, SQLAlchemy would clear its keys or delete it row by row: the host has
    asked for neither.
    """
    for cls, (paths, identities) in _groups(states, lambda plan: plan.along).items():
        beside = another(session.connection(bind_arguments={"mapper": inspect(cls)}))
        found = load(beside, cls, identities, paths)
        by_identity = {inspect(copy).identity: copy for copy in found}
        for state, plan in states:
            copy = by_identity.get(state.identity) if state.class_ is cls else None
            if copy is not None:
                names = {path[0] for path in _missing(state, plan.along)}
                before.shown[state].update((name, getattr(copy, name)) for name in names)


def _look_under(session: Session, before: FlushState, states: t.Iterable[tuple[State, MapperPlan]]) -> None:
    """Read columns that were set while they were expired: what was set is not flushed before the DELETE."""
    doubted = mistrusted(session)
    olds: dict[State, OldValues] = {}
    missing: dict[type, list[tuple[State, set[str]]]] = {}
    for state, plan in states:
        hidden = plan.attributes & state.committed_state.keys()
        unknown = {name for name in hidden if is_unknown(state.committed_state[name])}
        unknown |= _assigned(state, plan)
        if doubted and state in doubted:
            unknown |= plan.attributes
        if unknown:
            olds[state] = OldValues()
            missing.setdefault(state.class_, []).append((state, unknown))
    for cls, wanted in missing.items():
        ask(session, cls, wanted, olds)
    for state, found in olds.items():
        before.shown[state].update(found)


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
            else plan.stored(name, row[name]) is LATER
        )
    }


def _led(session: Session, state: State, plan: MapperPlan, columns: dict[str, t.Any]) -> dict[str, t.Any]:
    """What many-to-one relationships led to that were set to something else before anybody had loaded them."""
    if not state.committed_state:
        return {}
    read = {path[0] for path in (*plan.read, *plan.along, *plan.touched)}
    return {
        name: referred(session, state.mapper.relationships[name], {**state.dict, **written(state), **columns})
        for name in plan.references.keys() & read & state.committed_state.keys()
        if is_unknown(state.committed_state[name])
    }


def _missing(state: State, paths: Paths) -> set[tuple[str, ...]]:
    return {path for path in paths if path[0] not in state.dict and not _at_hand(state, path[0])}


def _at_hand(state: State, name: str) -> bool:
    """Whether a relationship can be had without a statement; it is loaded then."""
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
