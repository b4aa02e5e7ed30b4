"""What a flush does to objects, read from SQLAlchemy's own books.

Old values are in `committed_state`, unless the attribute was expired, deferred or changed in place when it was set.
Those are asked for just before the flush, in one SELECT for all objects of a class, while the row still has them.
"""

from __future__ import annotations

import copy
import typing as t
from dataclasses import dataclass, field
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, attributes
from sqlalchemy.orm.base import NO_RAISE, NO_VALUE, PASSIVE_NO_FETCH, PASSIVE_NO_RESULT

from ..bindings.dumping import OwnerReader
from ..catalog import Kind, same
from .changes import LATER, Change, Values
from .loading import CHUNK, load, referred, rows_where

if t.TYPE_CHECKING:
    from .watching import Plan

__all__ = ["Before", "Olds", "all_reads", "changes", "frozen", "load_for_delete", "look"]

State = orm.InstanceState[t.Any]


class Olds(dict[str, t.Any]):
    """Old values of one object, by column."""

    expression = False
    """A column was set to an SQL expression: its history is gone when the flush ends."""


@dataclass(slots=True, eq=False)
class Before:
    """What was there before one flush, and is in nobody's books when it ends."""

    olds: dict[State, Olds] = field(default_factory=dict)
    """Old values that SQLAlchemy does not know, of all objects that were looked at."""
    doomed: set[State] = field(default_factory=set)
    """Objects that are ready to be deleted: what can be told of them is loaded."""
    owners: dict[State, dict[str, str | None]] = field(default_factory=dict)
    """Whose a doomed object was, by channel, where it has been taken from the parent that says so."""
    lent: dict[State, dict[str, t.Any]] = field(default_factory=dict)
    """What hangs on a doomed object and goes by the database's own work; see `_lend`."""

    def lacks(self, state: State, plan: Plan) -> bool:
        """Say whether an object was changed since it was looked at, in a way that hides the old value."""
        olds = self.olds.get(state)
        if olds is None:
            return True
        committed = state.committed_state
        return any(
            committed[name] is NO_VALUE and name not in olds for name in plan.columns & committed.keys()
        )


def look(
    session: Session,
    before: Before,
    states: t.Iterable[tuple[State, Plan]],
    cleared: t.Mapping[State, t.Collection[str]] = MappingProxyType({}),
) -> None:
    """Keep the old values that will not be in SQLAlchemy's books when the flush ends.

    :param cleared: columns that the flush itself will set, by object.
    """
    missing: dict[type, list[tuple[State, set[str]]]] = {}
    for state, plan in states:
        changed = plan.columns & state.committed_state.keys()
        references = plan.references.keys() & state.committed_state.keys()
        keys = [name for name in cleared.get(state, ()) if name not in state.dict]
        if not changed and not references and not keys:
            continue
        olds, unknown = _olds(state, plan, changed, references)
        known = before.olds.setdefault(state, olds)
        for name, old in olds.items():
            known.setdefault(name, old)
        known.expression |= olds.expression
        unknown = unknown.union(keys).difference(known)
        if unknown:
            missing.setdefault(state.class_, []).append((state, unknown))
    for cls, wanted in missing.items():
        _ask(session, cls, wanted, before.olds)


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
            if name not in unknown:
                olds[name] = state.committed_state[name]
    for name in plan.automatic:
        if name in unknown:
            continue
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
    reading = sa.select(*keys, *(getattr(cls, name) for name in names))
    rows: dict[tuple[t.Any, ...], t.Any] = {}
    for some in _cut(list(states)):
        rows.update(
            (tuple(row[: len(keys)]), row)
            for row in connection.execute(reading.where(rows_where(keys, some)))
        )
    for identity, (state, unknown) in states.items():
        row = rows.get(identity)
        if row is None:  # the key was given in another form than the database has it, such as "7" for 7
            row = connection.execute(reading.where(rows_where(keys, [identity]))).first()
        if row is not None:
            _keep(state, unknown, dict(zip(names, row[len(keys) :], strict=True)), found[state])
            _put_back(state, dict(zip([*(key.key for key in keys), *names], row, strict=True)))


def _cut(identities: list[tuple[t.Any, ...]]) -> t.Iterator[list[tuple[t.Any, ...]]]:
    for start in range(0, len(identities), CHUNK):
        yield identities[start : start + CHUNK]


def _keep(state: State, unknown: set[str], row: dict[str, t.Any], olds: Olds) -> None:
    olds.update((name, value) for name, value in row.items() if name in unknown)


def _put_back(state: State, row: dict[str, t.Any]) -> None:
    """Give an object what was read beside what was asked for; its key above all, for which SQLAlchemy would load it.

    Not where somebody listens to what is set: a `MutableDict` must be made by who tracks it.
    """
    for name, found in row.items():
        if (
            name not in state.dict
            and name not in state.committed_state
            and not state.manager[name].dispatch.set
        ):
            attributes.set_committed_value(state.obj(), name, found)


def changes(states: t.Iterable[tuple[Kind, State, Plan]], before: Before) -> list[Change]:
    """Return what a flush did, for each channel that sees it; deletions come first."""
    found: list[Change] = []
    updated, deleted = Kind.UPDATED, Kind.DELETED  # an enum looks its members up slowly
    gone: set[tuple[t.Any, ...]] = set()
    for kind, state, plan in states:
        if kind is updated:
            _updated(found, state, plan, before.olds.get(state))
            continue
        obj = state.obj()
        held = obj.__dict__
        key = tuple([held[name] for name in plan.keys])
        owners = _NOBODY
        if kind is deleted:
            gone.add((plan.head, key))
            for name, lent in before.lent.get(state, _NOTHING).items():
                attributes.set_committed_value(obj, name, lent)
            owners = before.owners.get(state, _NOBODY)
        elif gone and (plan.head, key) in gone:
            _forget_unset(state)
        for bound in plan.bounds:
            values: Values = {}
            is_later = False
            if kind is deleted:
                # What was assigned and never flushed was never in the database.
                was = {**held, **_written(state)}
                values = {name: (frozen(was[name]), None) for name in bound.columns if name in held}
            elif bound.watch:
                values = {name: (None, frozen(held.get(name, LATER))) for name in bound.watch}
                is_later = not bound.watch <= held.keys()
            found.append(
                Change(
                    kind,
                    bound,
                    (bound.channel.name, plan.head, *key),
                    obj,
                    values,
                    is_later=is_later,
                    owner=owners.get(bound.channel.name),
                )
            )
    return found


_NOBODY: t.Mapping[str, str | None] = MappingProxyType({})
_NOTHING: t.Mapping[str, t.Any] = MappingProxyType({})


def _forget_unset(state: State) -> None:
    """Let the database say what an object has that took the row of a deleted one.

    SQLAlchemy makes an UPDATE of the columns that were given; the others keep what the deleted one had, and the
    object knows nothing of it.
    """
    unset = [name for name in state.mapper.column_attrs.keys() if name not in state.dict]
    state._expire_attributes(state.dict, unset)


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
            if name in plan.columns and name not in values and (new is LATER or not same(old, new)):
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
    before: Before,
    states: t.Iterable[tuple[State, Plan]],
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
    for state, plan in bare:
        missing = plan.attributes - state.dict.keys()
        if missing:  # a filter of the host's has hidden the row
            session.refresh(state.obj(), sorted(missing))
    for state, plan in states:
        before.doomed.add(state)
        owners = _owners_before(session, state, plan)
        if owners:
            before.owners[state] = owners
    _load(session, states, _touches)
    if any(_missing(state, all_reads(plan)) for state, plan in states) and is_heard():
        _load(session, states, reads)
        _lend(session, before, states, another)


def _lend(
    session: Session,
    before: Before,
    states: t.Sequence[tuple[State, Plan]],
    another: t.Callable[[sa.Connection], Session],
) -> None:
    """Read what the database deletes by itself (`passive_deletes`), to be shown to the object after its DELETE.

    Were it loaded before into the host's objects, SQLAlchemy would clear its keys or delete it row by row: the host has
    asked for neither.
    """
    for cls, (paths, identities) in _groups(states, _passive).items():
        beside = another(session.connection(bind_arguments={"mapper": inspect(cls)}))
        found = load(beside, cls, identities, paths)
        by_identity = {inspect(copy).identity: copy for copy in found}
        for state, plan in states:
            copy = by_identity.get(state.identity) if state.class_ is cls else None
            if copy is not None:
                names = {path[0] for path in _missing(state, _passive(plan))}
                before.lent[state] = {name: getattr(copy, name) for name in names}


def _owners_before(session: Session, state: State, plan: Plan) -> dict[str, str | None]:
    """Whose an object was that has been taken from the parent which says so."""
    found: dict[str, str | None] = {}
    for bound in plan.bounds:
        path = bound.channel.owner
        if path is None or len(path) == 1 or path[0] not in state.committed_state:
            continue
        relation = state.mapper.relationships.get(path[0])
        if relation is not None and relation.direction is orm.MANYTOONE:
            parent = referred(session, relation, {**state.dict, **_written(state)})
            found[bound.channel.name] = None if parent is None else OwnerReader(path[1:])(parent)
    return found


def _written(state: State) -> dict[str, t.Any]:
    """What the row has where the object was changed."""
    return {name: value for name, value in state.committed_state.items() if value is not NO_VALUE}


Paths = t.Collection[tuple[str, ...]]


def _touches(plan: Plan) -> Paths:
    touched = {touch.relationship for bound in plan.bounds for touch in bound.touches}
    return {(name,) for name in touched - plan.passive}


def reads(plan: Plan) -> Paths:
    """The paths that data, includes, owner and touches follow, but for those that the database deletes along."""
    return {path for path in all_reads(plan) if not path or path[0] not in plan.passive}


def _passive(plan: Plan) -> Paths:
    return {path for path in all_reads(plan) if path and path[0] in plan.passive}


def all_reads(plan: Plan) -> Paths:
    paths = {path for bound in plan.bounds for path in bound.trails}
    paths |= {
        include.relationships
        for bound in plan.bounds
        for include in bound.includes.values()
        if include.relationships
    }
    paths |= {(name,) for bound in plan.bounds for name in bound.needed}
    return paths


def _missing(state: State, paths: Paths) -> set[tuple[str, ...]]:
    return {path for path in paths if path[0] not in state.dict and not _at_hand(state, path[0])}


def _at_hand(state: State, name: str) -> bool:
    """Whether a relationship can be had without a statement; it is loaded then."""
    got = state.manager[name].impl.get(state, state.dict, PASSIVE_NO_FETCH | NO_RAISE)
    return got is not PASSIVE_NO_RESULT and name in state.dict


def _load(
    session: Session, states: t.Sequence[tuple[State, Plan]], paths_of: t.Callable[[Plan], Paths]
) -> None:
    for cls, (wanted, identities) in _groups(states, paths_of).items():
        load(session, cls, identities, wanted, columns=True)


def _groups(
    states: t.Sequence[tuple[State, Plan]], paths_of: t.Callable[[Plan], Paths]
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
