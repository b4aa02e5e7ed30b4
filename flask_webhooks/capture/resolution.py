"""Net changes to resolved ones: each has an object that stands for its row, and every value that decides its events.

The law of this room: a stage takes changes and returns new ones. What it does to objects of the host's is undone at the
end of the commit (`StoredValues`); what it does to snapshots of deleted rows stays, for they are ours.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session

from ..catalog import Kind, same
from .change import SERVER_GENERATED, Change, Values, stands_for
from .loading import Path, follows_keys, leads_elsewhere, load, referred, refresh
from .relationships import TouchedParents, previous_parent
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .context import CommitContext
    from .mapper_plan import MapperPlan
    from .registry import Registry
    from .side_session import SideSession
    from .stored_values import StoredValues

__all__ = ["resolve"]

State = orm.InstanceState[t.Any]


class Resolved(t.NamedTuple):
    """The changes, and what of them touched what: the collections of touched objects may be out of date."""

    changes: t.Sequence[Change]
    parents: TouchedParents


def resolve(context: CommitContext, changes: t.Sequence[Change]) -> Resolved:
    """Give net changes their objects and values, and add the updates of what they touch."""
    registry, session, stored = context.registry, context.session, context.stored
    if not context.candidates.is_complete:
        changes = _with_objects(session, context.side_session, changes)
    changes = _with_values(registry, stored, changes)
    # Owners and parents are read along relationships: these must lead where the rows do, now and, of what was deleted,
    # when the transaction began.
    consistent = _expire_stale_references(registry, stored, changes, context.candidates.consistent)
    _restore_snapshots(registry, session, changes)
    parents = TouchedParents(registry, session, context.side_session, consistent)
    changes = parents.with_touched(changes)
    touched = [change for change in changes if change.is_touched]
    if touched:
        stored.show_deciding(touched, ())
    return Resolved(changes, parents)


def _with_objects(
    session: Session, side_session: SideSession, changes: t.Sequence[Change]
) -> t.Sequence[Change]:
    """Give an object to each change that has none, or whose object is about another row by now."""
    key = session.hash_key
    lost = {id(change) for change in changes if change.obj is None or _is_lost(change, key)}
    if not lost:
        return changes
    return side_session.fetch(
        [change._replace(obj=None) if id(change) in lost else change for change in changes]
    )


def _is_lost(change: Change, session_key: int) -> bool:
    """Whether it was expunged, so that nothing can be loaded for it, or stands for another row by now."""
    if change.kind is Kind.DELETED:
        return False
    state = state_of(change.obj)
    return state.session_id != session_key or not stands_for(state, change)


# ---- values ------------------------------------------------------------------------------------------------


def _with_values(registry: Registry, stored: StoredValues, changes: t.Sequence[Change]) -> t.Sequence[Change]:
    """Read the new values that only the database knew, where a condition or a path to an owner looks at them.

    Left out is what came back to its first value, and what a statement that nothing could follow has deleted.
    """
    open_ones = [change for change in changes if change.is_later and _is_open(registry, change)]
    # Owners and conditions see what the row has, not what was assigned.
    stored.show_deciding(changes, open_ones)
    if not open_ones:
        return changes
    # SQLAlchemy expires what the database made; without this each object would load alone.
    refresh([change.obj for change in open_ones])
    read = {id(change): _read(change) for change in open_ones}
    found = [read.get(id(change), change) for change in changes]
    return [change for change in found if change is not None]


def _is_open(registry: Registry, change: Change) -> bool:
    """Whether it takes the database to say what happened, or whether anything did."""
    if change.kind is Kind.DELETED:
        return False
    later = [name for name, (_, new) in change.values.items() if new is SERVER_GENERATED]
    if not later:
        return False
    if change.is_remade or len(later) == len(change.values) or not change.bound.watch.isdisjoint(later):
        return True
    plan = registry.plan(type(change.obj))
    return plan is not None and not plan.leading.isdisjoint(later)


def _read(change: Change) -> Change | None:
    """Return a change with the values that its row has now; None if nothing happened after all."""
    obj = change.obj
    try:
        values = _values_read(obj, change.values)
        steps = tuple(step._replace(values=_values_read(obj, step.values)) for step in change.steps)
    except orm.exc.ObjectDeletedError:
        return None
    found = change._replace(values=values, steps=steps)
    if change.kind is not Kind.UPDATED:
        return found
    found = found.without_unchanged()
    return found if found.values else None


def _values_read(obj: t.Any, values: Values) -> Values:
    return {
        name: (old, getattr(obj, name) if new is SERVER_GENERATED else new)
        for name, (old, new) in values.items()
    }


# ---- references --------------------------------------------------------------------------------------------


def _expire_stale_references(
    registry: Registry, stored: StoredValues, changes: t.Sequence[Change], consistent: set[State]
) -> set[State]:
    """Load relationships anew whose keys were set since they were loaded: `line.invoice_id = 7`.

    SQLAlchemy does that only after the commit. Until then owner, includes and touches would be those of before. It does
    so neither when the object that was loaded becomes that of another row.

    :param consistent: states of objects that touch others, of which all that they touch is loaded and is what their
        keys name: looked at only if the keys were set.
    :return: those of them of which that is still true.
    """
    stale: dict[tuple[Session, type], tuple[set[Path], list[t.Any]]] = {}
    moved: set[State] = set()
    deleted = Kind.DELETED
    last: tuple[type, BoundChannel] | None = None
    followed: t.Sequence[tuple[str, tuple[str, ...], bool]] = ()
    for change in changes:
        if change.kind is deleted:
            continue
        cls, bound = type(change.obj), change.bound
        if last is None or cls is not last[0] or bound is not last[1]:  # they come class by class
            last, plan = (cls, bound), registry.plan(cls)
            # What no event reads stays as it is: the host may read it after the session is closed.
            followed = plan.followed.get(bound.channel.name, ()) if plan is not None else ()
        if not followed:
            continue
        state: t.Any = state_of(change.obj)
        may_have_set = bool(change.values or change.steps)
        for name, keys, is_touched in followed:
            if name not in change.obj.__dict__:
                continue
            is_sure = is_touched and state in consistent
            is_set = may_have_set and change.has_set(keys)
            if (not is_sure and leads_elsewhere(state, name)) or (is_set and not follows_keys(state, name)):
                moved.add(state)
                stored.hide(change.obj, name)
                paths, identities = stale.setdefault((state.session, cls), (set(), []))
                paths.add((name,))
                identities.append(state.identity)
    # Loaded together, and after all were hidden: a row may be the parent of another.
    for (session, model), (paths, identities) in stale.items():
        load(session, model, identities, paths)
    return consistent - moved if moved else consistent


# ---- snapshots ---------------------------------------------------------------------------------------------


def _restore_snapshots(registry: Registry, session: Session, changes: t.Sequence[Change]) -> None:
    """Restore the owner and foreign keys that each deleted row had when the transaction began.

    The snapshot was taken when the DELETE was sent. Whoever owned the row before has not seen what became of it since.
    It is changed in place, because snapshots lead to each other; doing it twice changes nothing more.
    """
    for change in changes:
        if change.kind is not Kind.DELETED:
            continue
        plan = registry.plan(type(change.obj))
        if plan is None:
            continue
        for name in plan.references:
            _restore_reference(session, state_of(change.obj), name)
        if change.steps:
            _restore_columns(session, change, plan)


def _restore_columns(session: Session, change: Change, plan: MapperPlan) -> None:
    shown = change.obj.__dict__
    for name in plan.references:
        before = previous_parent(session, change, name)
        if before is not None:
            shown[name] = before
    names = plan.deciding & change.values.keys()
    if any(not same(change.values[name][0], shown.get(name)) for name in plan.leading & names):
        # It was another owner's in between, who alone may see what it was then.
        names |= plan.columns & change.values.keys()
        shown.update(dict.fromkeys(_computed(inspect(change.obj).mapper)))
    for name in names:
        shown[name] = change.values[name][0]


def _restore_reference(session: Session, state: State, name: str) -> None:
    """Let a snapshot lead to the row that it did, where the object there has become another's meanwhile."""
    if leads_elsewhere(state, name):
        found = referred(state.session or session, state.mapper.relationships[name], state.dict)
        if found is not None:
            state.dict[name] = found


def _computed(mapper: orm.Mapper[t.Any]) -> list[str]:
    """What a query computes (`column_property`): of columns as they were it cannot be known."""
    return [attr.key for attr in mapper.column_attrs if not isinstance(attr.columns[0], sa.Column)]
