"""What a flush does to objects, read from SQLAlchemy's own books.

Old values are in `committed_state`, unless the attribute was expired, deferred or changed in place when it was set.
Those are asked for just before the flush, in one SELECT for all objects of a class, while the row still has them.
"""

from __future__ import annotations

import copy
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, attributes
from sqlalchemy.orm.base import NO_VALUE, PASSIVE_NO_FETCH, PASSIVE_NO_RESULT

from ..catalog import Kind
from .changes import LATER, Change, Values
from .loading import CHUNK, load, rows_where

if t.TYPE_CHECKING:
    from .watching import Plan

__all__ = ["Olds", "changes", "frozen", "load_for_delete", "old_values", "reads"]

State = orm.InstanceState[t.Any]


class Olds(dict[str, t.Any]):
    """Old values of one object, by column."""

    expression = False
    """A column was set to an SQL expression: its history is gone when the flush ends."""


def old_values(session: Session, dirty: t.Iterable[tuple[State, Plan]]) -> dict[State, Olds]:
    """Return the old values that will not be in SQLAlchemy's books when the flush ends."""
    found: dict[State, Olds] = {}
    missing: dict[type, list[tuple[State, set[str]]]] = {}
    for state, plan in dirty:
        changed = plan.columns & state.committed_state.keys()
        references = plan.references.keys() & state.committed_state.keys()
        if not changed and not references:
            continue
        olds, unknown = _olds(state, plan, changed, references)
        if olds or unknown:
            found[state] = olds
        if unknown:
            missing.setdefault(state.class_, []).append((state, unknown))
    for cls, wanted in missing.items():
        _ask(session, cls, wanted, found)
    return found


def _olds(
    state: State, plan: Plan, changed: t.Collection[str], references: t.Collection[str]
) -> tuple[Olds, set[str]]:
    """Return the old values to keep that are known, and the names of those that are not."""
    olds = Olds()
    held = state.dict
    unknown = {name for name in changed if state.committed_state[name] is NO_VALUE}
    unknown.update(name for key in references for name in plan.references[key] if name not in held)
    unknown.update(name for name in plan.owners if name not in held)
    for name in changed:
        if isinstance(held.get(name), sa.ClauseElement):
            olds.expression = True
            olds[name] = state.committed_state[name]
    for name in plan.automatic:
        if name in held:
            olds.setdefault(name, frozen(state.committed_state.get(name, held[name])))
        elif name in plan.columns:
            unknown.add(name)
    return olds, unknown


def _ask(session: Session, cls: type, wanted: list[tuple[State, set[str]]], found: dict[State, Olds]) -> None:
    """Read columns of rows as they are before the flush; what was expired and is not being changed is put back."""
    mapper: t.Any = inspect(cls)
    names = sorted(set().union(*(unknown for _, unknown in wanted)))
    states = {tuple(state.identity or ()): (state, unknown) for state, unknown in wanted}
    keys = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    connection = session.connection(bind_arguments={"mapper": mapper})
    identities = list(states)
    for start in range(0, len(identities), CHUNK):
        some = identities[start : start + CHUNK]
        statement = sa.select(*keys, *(getattr(cls, name) for name in names)).where(rows_where(keys, some))
        for row in connection.execute(statement):
            state, unknown = states[tuple(row[: len(keys)])]
            for name, value in zip(names, row[len(keys) :], strict=True):
                if name in unknown:
                    found[state][name] = value
            # The key too: SQLAlchemy would load each expired row for it.
            for name, value in zip([*(key.key for key in keys), *names], row, strict=True):
                if name not in state.dict and name not in state.committed_state:
                    attributes.set_committed_value(state.obj(), name, value)


def changes(states: t.Iterable[tuple[Kind, State, Plan]], olds: t.Mapping[State, Olds]) -> list[Change]:
    """Return what a flush did, for each channel that sees it."""
    found: list[Change] = []
    updated, deleted = Kind.UPDATED, Kind.DELETED  # an enum looks its members up slowly
    for kind, state, plan in states:
        if kind is updated:
            _updated(found, state, plan, olds.get(state))
            continue
        obj = state.obj()
        held = obj.__dict__
        key = tuple([held[name] for name in plan.keys])
        for bound in plan.bounds:
            values: Values = {}
            is_later = False
            if kind is deleted:
                # What was assigned and never flushed was never in the database.
                was = {**held, **{k: v for k, v in state.committed_state.items() if v is not NO_VALUE}}
                values = {name: (frozen(was[name]), None) for name in bound.columns if name in held}
            elif bound.watch:
                values = {name: (None, frozen(held.get(name, LATER))) for name in bound.watch}
                is_later = not bound.watch <= held.keys()
            found.append(
                Change(kind, bound, (bound.channel.name, plan.head, *key), obj, values, None, (), is_later)
            )
    return found


def _updated(found: list[Change], state: State, plan: Plan, olds: Olds | None) -> None:
    values = _history(state, plan, olds)
    if not values:
        return
    obj = state.obj()
    new = tuple([state.dict[name] for name in plan.keys])
    old = tuple(state.identity or new)
    for bound in plan.bounds:
        seen = values if len(plan.bounds) == 1 else _only(values, bound.columns)
        if seen:
            name = bound.channel.name
            moved = (name, plan.head, *new) if new != old else None
            is_later = any(pair[1] is LATER for pair in seen.values())
            found.append(
                Change(Kind.UPDATED, bound, (name, plan.head, *old), obj, seen, moved, is_later=is_later)
            )


def _only(values: Values, columns: t.Collection[str]) -> Values:
    return {name: pair for name, pair in values.items() if name in columns}


def _history(state: State, plan: Plan, olds: Olds | None) -> Values:
    """Return the columns that this flush changed, with old and new value."""
    values: Values = {}
    held = state.dict
    for name in plan.columns & state.committed_state.keys():
        old = state.committed_state[name]
        if old is NO_VALUE:
            old = olds.get(name) if olds is not None else None
        new = held.get(name, LATER)
        if new is LATER or not _same(state, name, old, new):
            values[name] = (frozen(old), frozen(new))
    if olds is not None and (values or olds.expression):
        for name, old in olds.items():
            new = held.get(name, LATER)
            if name in plan.columns and name not in values and (new is LATER or old != new):
                values[name] = (old, frozen(new))
    return values


def _same(state: State, name: str, old: t.Any, new: t.Any) -> bool:
    """Compare as SQLAlchemy does: by the column's type."""
    return state.manager[name].impl.is_equal(new, old) is True


def frozen(value: t.Any) -> t.Any:
    """Return a value that will not change in place afterwards."""
    return copy.deepcopy(_plain(value)) if isinstance(value, dict | list | set) else value


def _plain(value: t.Any) -> t.Any:
    # The copies of MutableDict and its like would tell their parent about every change.
    for kind in (dict, list, set):
        if isinstance(value, kind):
            return kind(value)
    return value


def load_for_delete(
    session: Session,
    states: t.Iterable[tuple[State, Plan]],
    is_heard: t.Callable[[t.Sequence[tuple[State, Plan]]], bool],
) -> None:
    """Load what of objects would be gone after their DELETE: columns, and the relationships that are read.

    :param is_heard: whether anybody listens to their deletion: else only columns and touched rows are loaded.
    """
    states = [(state, plan) for state, plan in states if state.persistent]
    bare = [(state, plan) for state, plan in states if plan.columns - state.dict.keys()]
    _load(session, bare, lambda _: ())
    _load(session, states, _touches)
    if any(_unloaded(state, reads(plan)) for state, plan in states) and is_heard(states):
        _load(session, states, reads)


Paths = t.Collection[tuple[str, ...]]


def _touches(plan: Plan) -> Paths:
    return {(touch.relationship,) for bound in plan.bounds for touch in bound.touches}


def reads(plan: Plan) -> Paths:
    paths = {path for bound in plan.bounds for path in bound.trails}
    paths |= {
        include.relationships
        for bound in plan.bounds
        for include in bound.includes.values()
        if include.relationships
    }
    paths |= {(name,) for bound in plan.bounds for name in bound.needed}
    return paths


def _unloaded(state: State, paths: Paths) -> bool:
    return any(path[0] not in state.dict and not _at_hand(state, path[0]) for path in paths)


def _at_hand(state: State, name: str) -> bool:
    """Whether a relationship can be had without a statement; it is loaded then."""
    got = state.manager[name].impl.get(state, state.dict, PASSIVE_NO_FETCH)
    return got is not PASSIVE_NO_RESULT and name in state.dict


def _load(
    session: Session, states: t.Sequence[tuple[State, Plan]], paths_of: t.Callable[[Plan], Paths]
) -> None:
    groups: dict[type, tuple[set[tuple[str, ...]], list[t.Any]]] = {}
    for state, plan in states:
        paths = paths_of(plan)
        if paths and not _unloaded(state, paths):
            continue
        if not paths and not plan.columns - state.dict.keys():
            continue
        wanted, identities = groups.setdefault(state.class_, (set(), []))
        wanted.update(paths)
        identities.append(state.identity)
    for cls, (wanted, identities) in groups.items():
        load(session, cls, identities, wanted, columns=True)
