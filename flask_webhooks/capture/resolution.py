"""Net changes to resolved ones: each has an object that stands for its row, and every value that decides its events.

The law of this room: a stage takes changes and returns new ones. What it does to objects of the host's is undone at the
end of the commit (`StoredValues`); what it does to snapshots of deleted rows stays, for they are ours.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import orm
from sqlalchemy.orm import Session

from ..catalog import Kind
from .change import SERVER_GENERATED, Change, Values, stands_for
from .loading import refresh
from .references import (
    expire_stale_references,
    restore_references,
)
from .relationships import TouchedParents
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from .context import CommitContext
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
    changes = _with_values(stored, changes)
    # Owners and parents are read along relationships: these must lead where the rows do, now and, of what was deleted,
    # when the transaction began.
    consistent = expire_stale_references(stored, changes, context.candidates.consistent)
    restore_references(session, changes)
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


def _with_values(stored: StoredValues, changes: t.Sequence[Change]) -> t.Sequence[Change]:
    """Read the new values that only the database knew, where a condition or a path to an owner looks at them.

    Left out is what came back to its first value, and what a statement that nothing could follow has deleted.
    """
    open_ones = [change for change in changes if change.is_later and _is_open(change)]
    # Owners and conditions see what the row has, not what was assigned.
    stored.show_deciding(changes, open_ones)
    if not open_ones:
        return changes
    # SQLAlchemy expires what the database made; without this each object would load alone.
    refresh([change.obj for change in open_ones])
    read = {id(change): _read(change) for change in open_ones}
    found = [read.get(id(change), change) for change in changes]
    return [change for change in found if change is not None]


def _is_open(change: Change) -> bool:
    """Whether it takes the database to say what happened, or whether anything did."""
    if change.kind is Kind.DELETED:
        return False
    later = [name for name, (_, new) in change.values.items() if new is SERVER_GENERATED]
    if not later:
        return False
    if change.is_remade or len(later) == len(change.values) or not change.bound.watch.isdisjoint(later):
        return True
    return not change.plan.leading.isdisjoint(later)


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
