"""What a flush does to objects, read from what SQLAlchemy notes of them.

Old values are in `committed_state`, unless the attribute was expired, deferred or changed in place when it was set.
Those are asked for just before the flush, in one SELECT for all objects of a class, while the row still has them.
"""

from __future__ import annotations

import typing as t
import weakref
from dataclasses import dataclass, field
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, attributes
from sqlalchemy.orm.base import NO_VALUE

from ..catalog import Kind, same
from .change import SERVER_GENERATED, Change, Values
from .loading import CHUNK, rows_where, unreadable
from .snapshots import ASSIGNED, copied, make_snapshots
from .sqlalchemy_internals import expire_attributes, state_of

if t.TYPE_CHECKING:
    from .mapper_plan import MapperPlan

__all__ = [
    "FlushState",
    "OldValues",
    "changes",
    "complete",
    "is_assigned",
    "load_old",
    "mistrust",
    "mistrusted",
    "select_old",
    "trust",
]

State = orm.InstanceState[t.Any]
_MISTRUSTED = "flask_webhooks.mistrusted"
"""In `session.info`."""


def mistrust(session: Session) -> None:
    """Note that objects may hold values that no row ever had: from now on their rows are read instead.

    SQLAlchemy lets stand what was loaded between a bulk statement and the rollback of its savepoint. So does the host:
    to expire it would change what the host goes on to write.
    """
    # Weakly, for the host may let its objects go before the transaction ends.
    known = session.info.setdefault(_MISTRUSTED, weakref.WeakSet())
    known.update(session.identity_map.all_states())


def mistrusted(session: Session | None) -> t.Container[State]:
    """Return the states of objects that may hold values that no row ever had."""
    found: t.Container[State] = session.info.get(_MISTRUSTED, ()) if session is not None else ()
    return found


def trust(session: Session) -> None:
    """Forget which objects are mistrusted: all were expired, and will be loaded from their rows."""
    session.info.pop(_MISTRUSTED, None)


class OldValues(dict[str, t.Any]):
    """Old values of one object, by column."""

    expression = False
    """A column was set to an SQL expression: its history is gone when the flush ends."""


@dataclass(slots=True, eq=False)
class FlushState:
    """What was there before one flush, and cannot be read any more when it ends."""

    old_values: dict[State, OldValues] = field(default_factory=dict)
    """Old values that SQLAlchemy does not know, of all objects that were looked at."""
    prepared: dict[State, dict[str, t.Any]] = field(default_factory=dict)
    """Objects that are ready to be deleted: what events show of them is loaded. Their values here are what the objects
    do not have themselves: what they led to, and what the database deletes along with them."""
    missing: set[State] = field(default_factory=set)
    """Objects to be deleted whose row is there no more, so that no event happens."""

    @property
    def is_used(self) -> bool:
        """Whether anything was kept."""
        return bool(self.old_values or self.prepared or self.missing)

    def lacks(self, state: State, plan: MapperPlan) -> bool:
        """Say whether an object was changed since it was looked at, in a way that hides the old value."""
        old_values = self.old_values.get(state)
        if old_values is None:
            return True
        committed = state.committed_state
        return any(
            committed[name] is NO_VALUE and name not in old_values for name in plan.columns & committed.keys()
        )


def load_old(
    session: Session,
    flush: FlushState,
    states: t.Iterable[tuple[State, MapperPlan]],
    cleared: t.Mapping[State, t.Collection[str]] = MappingProxyType({}),
) -> None:
    """Keep the old values that SQLAlchemy will not know when the flush ends.

    :param cleared: columns that the flush itself will set, by object.
    """
    missing: dict[type, list[tuple[State, set[str]]]] = {}
    untrusted = mistrusted(session)
    for state, plan in states:
        changed = plan.columns & state.committed_state.keys()
        # SQLAlchemy copies their keys to the columns only inside the flush.
        references = plan.references.keys() & state.committed_state.keys()
        keys = [name for name in cleared.get(state, ()) if name not in state.dict]
        if not changed and not references and not keys:
            continue
        old_values, unknown = _old_values(state, plan, changed, references)
        if untrusted and state in untrusted:
            # Of what is set to what it seems to be SQLAlchemy writes nothing.
            seeming = {name for name in changed if _is_set_to_itself(state, name)}
            unknown = (unknown | changed | old_values.keys()) - seeming
            old_values.clear()
        # A second look in the same flush must not take a value that the first look has seen already changed.
        known = flush.old_values.setdefault(state, old_values)
        for name, old in old_values.items():
            known.setdefault(name, old)
        known.expression |= old_values.expression
        unknown = unknown.union(keys).difference(known)
        if unknown:
            missing.setdefault(state.class_, []).append((state, unknown))
    for cls, wanted in missing.items():
        select_old(session, cls, wanted, flush.old_values)


def _is_set_to_itself(state: State, name: str) -> bool:
    old = state.committed_state[name]
    return old is not NO_VALUE and name in state.dict and _same(state, name, old, state.dict[name])


def _old_values(
    state: State, plan: MapperPlan, changed: t.Collection[str], references: t.Collection[str]
) -> tuple[OldValues, set[str]]:
    """Return the old values to keep that are known, and the names of those that are not."""
    old_values = OldValues()
    held = state.dict
    unknown = {name for name in changed if _must_be_read(state, plan, name, state.committed_state[name])}
    unknown.update(name for key in references for name in plan.references[key] if name not in held)
    unknown.update(name for name in plan.owners if name not in held)
    for name in changed:
        if isinstance(held.get(name), sa.ClauseElement):
            old_values.expression = True
            if name not in unknown:
                old_values[name] = plan.stored(name, state.committed_state[name])
    # An UPDATE will set them though nothing was assigned, and SQLAlchemy expires them afterwards.
    for name in plan.automatic:
        if name in unknown:
            continue
        if name in held:
            old = state.committed_state.get(name, held[name])
            if _must_be_read(state, plan, name, old):
                unknown.add(name)
            else:
                old_values.setdefault(name, copied(plan.stored(name, old)))
        elif name in plan.columns:
            unknown.add(name)
    return old_values, unknown


def _must_be_read(state: State, plan: MapperPlan, name: str, old: t.Any) -> bool:
    """Whether an old value has to be read: SQLAlchemy has none, or what was assigned once."""
    if old is NO_VALUE:
        return True
    if name in plan.opaque:
        return is_assigned(state, name, old)
    return plan.stored(name, old) is SERVER_GENERATED


def is_assigned(state: State, name: str, value: t.Any) -> bool:
    """Whether a value of a column that only the row can tell is not the row's, but what was assigned."""
    known = state.info.get(ASSIGNED)
    return known is not None and known.get(name, SERVER_GENERATED) is value


def _note_assigned(state: State, plan: MapperPlan, names: t.Iterable[str]) -> None:
    held = state.dict
    found = {name: held[name] for name in plan.opaque.intersection(names) if name in held}
    if found:
        state.info.setdefault(ASSIGNED, {}).update(found)


def select_old(
    session: Session, cls: type, wanted: list[tuple[State, set[str]]], found: dict[State, OldValues]
) -> None:
    """Read columns of rows as they are before the flush; what was expired and is not being changed is put back."""
    mapper: t.Any = inspect(cls)
    # One SELECT for all objects of the class: what one of them lacks is read of all.
    names = sorted(set().union(*(unknown for _, unknown in wanted)))
    states = {tuple(state.identity or ()): (state, unknown) for state, unknown in wanted}
    keys = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    connection = session.connection(bind_arguments={"mapper": mapper})
    reading = sa.select(*keys, *(getattr(cls, name) for name in names))
    try:
        rows = _rows(connection, reading, keys, list(states))
    except Exception as error:
        if unreadable(mapper, error) is None:
            raise
        # Without us it would not be read at all, so no error may come of it: what the driver gives has to do.
        reading = sa.select(
            *keys, *(_bare(connection, getattr(cls, name), keys, list(states)) for name in names)
        )
        rows = _rows(connection, reading, keys, list(states))
    for identity, (state, unknown) in states.items():
        row = rows.get(identity)
        if row is None:  # the key was given in another form than the database has it, such as "7" for 7
            row = connection.execute(reading.where(rows_where(keys, [identity]))).first()
        if row is not None:
            _keep(state, unknown, dict(zip(names, row[len(keys) :], strict=True)), found[state])
            _put_back(state, dict(zip([*(key.key for key in keys), *names], row, strict=True)))


def complete(session: Session, cls: type, objects: t.Sequence[t.Any]) -> None:
    """Give objects of ours what their types cannot read, as the driver has it."""
    mapper: orm.Mapper[t.Any] = inspect(cls)
    columns = {attr.key for attr in mapper.column_attrs if isinstance(attr.columns[0], sa.Column)}
    lacking = [(state_of(obj), missing) for obj in objects if (missing := columns - obj.__dict__.keys())]
    if lacking:
        old_values = {state: OldValues() for state, _ in lacking}
        select_old(session, cls, lacking, old_values)
        for state, found in old_values.items():
            for name, value in found.items():
                attributes.set_committed_value(state.obj(), name, value)


def _rows(
    connection: sa.Connection,
    reading: sa.Select[t.Any],
    keys: list[t.Any],
    identities: list[tuple[t.Any, ...]],
) -> dict[tuple[t.Any, ...], t.Any]:
    rows: dict[tuple[t.Any, ...], t.Any] = {}
    for some in _cut(identities):
        found = connection.execute(reading.where(rows_where(keys, some)))
        rows.update((tuple(row[: len(keys)]), row) for row in found)
    return rows


def _bare(
    connection: sa.Connection, column: t.Any, keys: list[t.Any], identities: list[tuple[t.Any, ...]]
) -> t.Any:
    """Return a column without its type, if that cannot read one of these rows."""
    try:
        _rows(connection, sa.select(*keys, column), keys, identities)
    except Exception as error:
        if unreadable(column.parent, error) is None:
            raise
        return sa.type_coerce(column, sa.types.NullType()).label(column.key)
    return column


def _cut(identities: list[tuple[t.Any, ...]]) -> t.Iterator[list[tuple[t.Any, ...]]]:
    for start in range(0, len(identities), CHUNK):
        yield identities[start : start + CHUNK]


def _keep(state: State, unknown: set[str], row: dict[str, t.Any], old_values: OldValues) -> None:
    old_values.update((name, value) for name, value in row.items() if name in unknown)


def _put_back(state: State, row: dict[str, t.Any]) -> None:
    """Give an object what else was read of its row; its key above all, for which SQLAlchemy would load it.

    Not where a listener waits for what is set: a `MutableDict` must be made by who tracks it.
    """
    for name, found in row.items():
        if (
            name not in state.dict
            and name not in state.committed_state
            and not state.manager[name].dispatch.set
        ):
            attributes.set_committed_value(state.obj(), name, found)


def changes(states: t.Sequence[tuple[Kind, State, MapperPlan]], flush: FlushState) -> list[Change]:
    """Return what a flush did, for each channel that sees it; deletions come first."""
    found: list[Change] = []
    updated, deleted = Kind.UPDATED, Kind.DELETED  # an enum looks its members up slowly
    states = [each for each in states if each[1] not in flush.missing] if flush.missing else states
    snapshot = make_snapshots(
        [(state, plan) for kind, state, plan in states if kind is deleted], flush.prepared
    )
    gone: set[tuple[t.Any, ...]] = set()
    for kind, state, plan in states:
        if kind is updated:
            _updated(found, state, plan, flush.old_values.get(state))
            continue
        if kind is deleted:
            obj, held = snapshot[state]
        else:
            obj = state.obj()
            held = obj.__dict__
        # A list of changes is made for each flush, so the key is put together once for all channels.
        key = tuple(map(held.__getitem__, plan.keys))
        if plan.opaque and kind is not deleted:
            _note_assigned(state, plan, held)
        if kind is deleted:
            gone.add((plan.head, key))
        # SQLAlchemy turns DELETE and INSERT of one key in one flush into an UPDATE.
        elif gone and (plan.head, key) in gone:
            _forget_unset(state)
        for bound in plan.bounds:
            values: Values = {}
            is_later = False
            if kind is deleted:
                values = {name: (held[name], None) for name in bound.columns if name in held}
            elif bound.conditions:
                values = {name: (None, _new(plan, name, held)) for name in bound.conditions}
                is_later = any(new is SERVER_GENERATED for _, new in values.values())
            where = (bound.channel.name, plan.head, *key)
            found.append(Change(kind, bound, plan, where, obj, values, is_later=is_later))
    return found


def _known(plan: MapperPlan, name: str, old: t.Any) -> t.Any:
    """Return an old value that was not read by us; None for what was not loaded."""
    if old is NO_VALUE:
        return None
    found = plan.stored(name, old)
    return old if found is SERVER_GENERATED else found


def _new(plan: MapperPlan, name: str, held: t.Mapping[str, t.Any]) -> t.Any:
    """Return what the row has that a flush has written."""
    value = held.get(name, SERVER_GENERATED)
    form = plan.forms.get(name)
    if form is None or value is SERVER_GENERATED or (type(value) in form.kinds and form.fits is None):
        return copied(value)
    return SERVER_GENERATED if form.is_opaque else copied(form(value))


def _forget_unset(state: State) -> None:
    """Expire the attributes of a new object that took the row of a deleted one, as far as they were not given.

    SQLAlchemy makes an UPDATE of the columns that were given; the others keep what the deleted one had, and the
    object knows nothing of it.
    """
    unset = [name for name in state.mapper.column_attrs.keys() if name not in state.dict]
    expire_attributes(state, unset)


def _updated(found: list[Change], state: State, plan: MapperPlan, old_values: OldValues | None) -> None:
    values = _history(state, plan, old_values)
    if not values:
        return
    obj = state.obj()
    new = tuple([state.dict[name] for name in plan.keys])
    # The identity is renewed when the flush has ended: here it is still the key of before.
    old = tuple(state.identity or new)
    for bound in plan.bounds:
        seen = values if len(plan.bounds) == 1 else _only(values, bound.columns)
        if seen:
            name = bound.channel.name
            moved = (name, plan.head, *new) if new != old else None
            is_later = any(pair[1] is SERVER_GENERATED for pair in seen.values())
            found.append(
                Change(
                    Kind.UPDATED, bound, plan, (name, plan.head, *old), obj, seen, moved, is_later=is_later
                )
            )


def _only(values: Values, columns: t.Collection[str]) -> Values:
    return {name: pair for name, pair in values.items() if name in columns}


def _history(state: State, plan: MapperPlan, old_values: OldValues | None) -> Values:
    """Return the columns that this flush changed, with old and new value."""
    values: Values = {}
    held = state.dict
    changed = plan.columns & state.committed_state.keys()
    if plan.opaque:
        _note_assigned(state, plan, (*state.committed_state, *plan.automatic))
    for name in changed:
        old = old_values.get(name, NO_VALUE) if old_values is not None else NO_VALUE
        if old is NO_VALUE:
            old = _known(plan, name, state.committed_state[name])
        new = held.get(name, SERVER_GENERATED)
        if new is SERVER_GENERATED or not _same(state, name, old, new):
            new = _new(plan, name, held)
            if new is SERVER_GENERATED or not same(old, new):
                values[name] = (copied(old), new)
    if old_values is not None and (values or old_values.expression):
        for name, old in old_values.items():
            is_set = name in plan.automatic or old_values.expression
            new = _new(plan, name, held) if is_set or name not in held else plan.stored(name, held[name])
            if (
                name in plan.columns
                and name not in changed
                and (new is SERVER_GENERATED or not same(old, new))
            ):
                values[name] = (old, new)
    return values


def _same(state: State, name: str, old: t.Any, new: t.Any) -> bool:
    """Compare as SQLAlchemy does: by the column's type."""
    return state.manager[name].impl.is_equal(new, old) is True
