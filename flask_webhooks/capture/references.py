"""References: many-to-one relationships that are loaded, beside the columns that SQLAlchemy writes for them.

The two may disagree. `line.invoice_id = 7` leaves `line.invoice` as it was until the commit; an object that was loaded
may have become another row's (`make_transient`); and what a deleted row led to may have changed since.

The law of this room: what references of the host's objects are made to lead to is restored at the end of the commit
(`StoredValues`); what snapshots of deleted rows are made to lead to stays, for they are ours.
"""

from __future__ import annotations

import functools
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..catalog import Kind, same
from .loading import Path, attributes_of, load, value
from .sqlalchemy_internals import STATE, state_of

if t.TYPE_CHECKING:
    from ..bindings.owner_steps import Relation
    from .change import Change
    from .stored_values import StoredValues

__all__ = [
    "expire_stale_references",
    "follows_keys",
    "is_certainly_its_row",
    "leads_elsewhere",
    "previous_parent",
    "referred",
    "restore_references",
]

State = orm.InstanceState[t.Any]


# ---- where a reference leads -------------------------------------------------------------------------------


def leads_elsewhere(state: State, name: str) -> bool:
    """Say whether a loaded many-to-one relationship leads to an object that does not stand for its row any more.

    A clone (`make_transient`) is about another row, in whatever relationships it was loaded before. And of what was
    expired and then expunged nothing can be read.
    """
    held = state.dict
    its = getattr(held.get(name), STATE, None)
    if its is None or is_certainly_its_row(state.class_, held, name, its):
        return False
    return _leads_elsewhere(state, name, its)


def is_certainly_its_row(cls: t.Any, held: t.Mapping[str, t.Any], name: str, its: State) -> bool:
    """Say whether a loaded relationship certainly leads to what stands for its row, as nearly all do.

    :param held: the attributes of the object that has it.
    :param its: the state of the object that it leads to.
    """
    # What is in no session may stand for any row, or for none.
    if its.session_id is None or its.key is None:
        return False
    key = its.key[1]
    for local, place, _ in _pairs_of(cls, name):
        if place is None or local not in held or held[local] != key[place]:
            return False
    return True


def _leads_elsewhere(state: State, name: str, its: State) -> bool:
    held = state.dict
    # The host has just set it: SQLAlchemy will write its key in the flush.
    if name in state.committed_state:
        return False
    if its.session_id is None and its.expired_attributes:
        return True
    for local, place, remote in _pairs_of(t.cast("t.Any", state.class_), name):
        theirs = _of_row(held[name], place, remote)
        # A key may have been given in another form, such as "7" for 7.
        if local in held and held[local] != theirs and str(held[local]) != str(theirs):
            return True
    return False


def follows_keys(state: State, name: str) -> bool:
    """Say whether a loaded many-to-one relationship leads to where its columns say.

    Nothing is loaded for that: what it leads to may be in no session any more.
    """
    held, other = state.dict, state.dict[name]
    for local, place, remote in _pairs(state.mapper.relationships[name]):
        if held.get(local) != (None if other is None else _of_row(other, place, remote)):
            return False
    return True


@functools.lru_cache(maxsize=4096)
def _pairs_of(cls: t.Any, name: str) -> tuple[tuple[str, int | None, str], ...]:
    return _pairs(inspect(cls).relationships[name])


@functools.lru_cache(maxsize=1024)
def _pairs(relation: orm.RelationshipProperty[t.Any]) -> tuple[tuple[str, int | None, str], ...]:
    """By what a relationship to one goes: the attribute here, its place in the key there if any, and there."""
    target, pairs = relation.mapper, relation.local_remote_pairs or ()
    keys = attributes_of(target, target.primary_key)
    mine = attributes_of(relation.parent, [local for local, _ in pairs])
    theirs = attributes_of(target, [remote for _, remote in pairs])
    if relation.direction is not orm.MANYTOONE:
        return ()
    return tuple(
        (local, keys.index(remote) if remote in keys else None, remote)
        for local, remote in zip(mine, theirs, strict=False)
    )


def _of_row(obj: t.Any, place: int | None, name: str) -> t.Any:
    """Return a column of the row that an object stands for; None if it stands for none."""
    state = state_of(obj)
    if state.key is None:
        return None
    if place is not None:
        return state.key[1][place]
    try:
        return state.dict.get(name) if state.detached else value(obj, name)
    except orm.exc.ObjectDeletedError:
        return None


def referred(session: Session, relation: Relation, values: t.Mapping[str, t.Any]) -> t.Any:
    """Return the object that a many-to-one relationship leads to by the values of its columns, or None.

    :param values: of the object that refers, by attribute; they need not be those it has now.
    """
    target = relation.mapper
    pairs = relation.local_remote_pairs or ()
    mine = attributes_of(relation.parent, [local for local, _ in pairs])
    theirs = attributes_of(target, [remote for _, remote in pairs])
    wanted = {name: values.get(local) for local, name in zip(mine, theirs, strict=False)}
    # A NULL in a key of several columns refers to no row.
    if not wanted or None in wanted.values():
        return None
    # Of a joined inheritance both tables have the key, under one attribute.
    keys = [target.get_property_by_column(column).key for column in target.primary_key]
    # By primary key the identity map may have it without a statement.
    if wanted.keys() == set(keys):
        return session.get(target.class_, tuple(wanted[key] for key in keys))
    conditions = [getattr(target.class_, name) == each for name, each in wanted.items()]
    return session.scalars(sa.select(target.class_).where(*conditions).limit(1)).first()


def previous_parent(session: Session, change: Change, name: str) -> t.Any:
    """Return what a many-to-one relationship led to before the transaction, if its key was changed; else None."""
    relation: orm.RelationshipProperty[t.Any] | None = inspect(change.obj).mapper.relationships.get(name)
    if relation is None or relation.direction is not orm.MANYTOONE:
        return None
    keys = attributes_of(relation.parent, relation.local_columns)
    changed = {key: change.values[key] for key in keys if key in change.values}
    # Not changed, or set back: what the relationship shows is where it led.
    if all(old == new for old, new in changed.values()):
        return None
    old_values = {key: old for key, (old, _) in changed.items()}
    kept = {key: change.obj.__dict__.get(key) for key in keys if key not in old_values}
    return referred(object_session(change.obj) or session, relation, {**kept, **old_values})


# ---- where it has to lead ----------------------------------------------------------------------------------


def expire_stale_references(
    stored: StoredValues, changes: t.Sequence[Change], consistent: set[State]
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
    for change in changes:
        if change.kind is deleted:
            continue
        # What no event reads stays as it is: the host may read it after the session is closed.
        followed = change.plan.followed.get(change.bound.channel.name, ())
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
                paths, identities = stale.setdefault((state.session, state.class_), (set(), []))
                paths.add((name,))
                identities.append(state.identity)
    # Loaded together, and after all were hidden: a row may be the parent of another.
    for (session, model), (paths, identities) in stale.items():
        load(session, model, identities, paths)
    return consistent - moved if moved else consistent


def restore_references(session: Session, changes: t.Sequence[Change]) -> None:
    """Restore the owner and foreign keys that each deleted row had when the transaction began.

    The snapshot was taken when the DELETE was sent. Whoever owned the row before has not seen what became of it since.
    It is changed in place, because snapshots lead to each other; doing it twice changes nothing more.
    """
    for change in changes:
        if change.kind is not Kind.DELETED:
            continue
        for name in change.plan.references:
            _restore_reference(session, state_of(change.obj), name)
        if change.steps:
            _restore_columns(session, change)


def _restore_columns(session: Session, change: Change) -> None:
    shown, plan = change.obj.__dict__, change.plan
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
