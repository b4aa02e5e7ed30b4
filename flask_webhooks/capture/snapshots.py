"""What remains of deleted rows: objects of our own that show what is told of each, as it was when its DELETE was sent.

The host's own objects live on until the commit. What is assigned to them meanwhile, expired, or taken out of their
collections is no part of the row that is gone.
"""

from __future__ import annotations

import copy
import typing as t
from collections import OrderedDict

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.mutable import MutableDict, MutableList, MutableSet
from sqlalchemy.orm.base import NO_VALUE, PASSIVE_NO_RESULT, instance_state
from sqlalchemy.orm.collections import collection_adapter

from ..bindings.owner_steps import LED, keep
from ..bindings.stored_values import SERVER_GENERATED
from ..catalog import same
from .sqlalchemy_internals import STATE, mark_deleted, set_adapter

ASSIGNED = "flask_webhooks.assigned"
"""In `state.info`: columns whose value is as it was assigned, though the row may have it in another form."""

__all__ = ["ASSIGNED", "as_before", "frozen", "is_unknown", "make_remains", "written"]

if t.TYPE_CHECKING:
    from .mapper_plan import MapperPlan

State = orm.InstanceState[t.Any]
Shown = t.Mapping[State, t.Mapping[str, t.Any]]


_QUERIES = ("dynamic", "write_only")
"""Relationships that are not loaded; in the object's place for them is something else."""


class DeletedSnapshot(t.NamedTuple):
    """Of one row."""

    obj: t.Any
    """Of the class of the host's object, in its session and deleted like it."""
    row: dict[str, t.Any]
    """What the database had, by attribute."""


def make_remains(states: t.Sequence[tuple[State, MapperPlan]], shown: Shown) -> dict[State, DeletedSnapshot]:
    """Return what remains of each; the objects lead to each other.

    :param shown: values of attributes that the host's objects do not have, or not any more.
    """
    found: dict[State, DeletedSnapshot] = {}
    for state, plan in states:
        row = state.dict
        if state.committed_state or shown.get(state):
            row = {**row, **written(state), **shown.get(state, {})}
        row = _stored(plan, row)
        kept = {name: frozen(value) if name in plan.attributes else value for name, value in row.items()}
        found[state] = DeletedSnapshot(_made(state, plan, row, kept), kept)
    for state, remains in found.items():  # when all have their columns: a collection may go by these
        for name, relation in state.mapper.relationships.items():
            if name in remains.row and relation.lazy not in _QUERIES:
                remains.obj.__dict__[name] = _related(remains.row[name], found)
    for state, plan in states:
        for link in plan.links:
            led = state.info.get(LED, {}).get(link.key)
            if led is not None:
                keep(found[state].obj, link, _related(led, found))
    return found


def _made(state: State, plan: MapperPlan, row: t.Mapping[str, t.Any], kept: dict[str, t.Any]) -> t.Any:
    """Make an object as one that was loaded is made.

    Columns that decide who is told are the row's, others as the host left them (`row.deleted_by = ...`).
    """
    obj = _bare(state)
    held, told = state.dict, obj.__dict__
    for name, value in row.items():
        if name in plan.attributes:
            told[name] = _shown(kept[name], value)
            if (
                row is not held
                and name not in plan.deciding
                and (left := _left(state, plan, name, value)) is not value
            ):
                told[name] = _shown(frozen(left), left)
        elif name != STATE and name not in state.mapper.relationships:
            told[name] = value  # may be anything of the host's
    return obj


def _stored(plan: MapperPlan, row: dict[str, t.Any]) -> dict[str, t.Any]:
    """The row in the forms that the database has, as far as that can be said."""
    found = {name: plan.stored(name, row[name]) for name in plan.forms if name in row}
    found = {
        name: value
        for name, value in found.items()
        if value is not row[name] and value is not SERVER_GENERATED
    }
    return {**row, **found} if found else row


def _left(state: State, plan: MapperPlan, name: str, value: t.Any) -> t.Any:
    """What the host has left in a column before the DELETE, and not flushed; else the row's value.

    That of a type of which only a row can tell what it makes of a value: no row has had it, so there is none to ask.
    """
    if name not in state.committed_state:
        return value
    found = plan.stored(name, state.dict.get(name, value))
    return value if found is SERVER_GENERATED or same(found, value) else found


def as_before(state: State, olds: t.Mapping[str, t.Any]) -> t.Any:
    """Return an object that shows a row with values of before, and has what the host's object has beside columns.

    What it led to is for the caller to add. What a query computes of columns that were changed cannot be known.
    """
    obj = _bare(state)
    told, mapper = obj.__dict__, state.mapper
    columns = mapper.column_attrs
    for name, value in {**state.dict, **olds}.items():
        if name in columns:
            told[name] = _shown(frozen(value), value)
        elif name != STATE and name not in mapper.relationships:
            told[name] = value
    for attribute in columns if olds else ():
        if not isinstance(attribute.columns[0], sa.Column):
            told[attribute.key] = None
    return obj


def _bare(state: State) -> t.Any:
    """An object of the same class for the same row, deleted, in no identity map."""
    obj = state.manager.new_instance()
    twin = instance_state(obj)
    twin.key, twin.identity_token, twin.session_id = state.key, state.identity_token, state.session_id
    twin.load_options, twin.load_path = state.load_options, state.load_path
    mark_deleted(twin)
    return obj


def _shown(kept: t.Any, value: t.Any) -> t.Any:
    """Of a class of the host's it stays, for his properties know that."""
    return value if kept is not value and type(value) not in _COPIES else kept


def _related(value: t.Any, found: dict[State, DeletedSnapshot]) -> t.Any:
    """What a relationship leads to, with what remains in place of what is deleted too."""
    if value is None:
        return None
    if hasattr(value, STATE):
        remains = found.get(instance_state(value))
        return value if remains is None else remains.obj
    if isinstance(value, dict):
        return _collected(value, OrderedDict if isinstance(value, OrderedDict) else dict, found)
    for base in (list, set):
        if isinstance(value, base):
            return _collected(value, base, found)
    return [_related(member, found) for member in collection_adapter(value)]


def _collected(value: t.Any, base: t.Any, found: dict[State, DeletedSnapshot]) -> t.Any:
    """A collection of the same class, filled without what SQLAlchemy and the host do when something is added."""
    made: t.Any = base.__new__(type(value))
    if hasattr(made, "__dict__"):
        made.__dict__.update(vars(value))
        set_adapter(made, None)
    if isinstance(value, dict):
        for key, member in value.items():
            base.__setitem__(made, key, _related(member, found))
    else:
        base.__init__(made, [_related(member, found) for member in value])
    return made


def written(state: State) -> dict[str, t.Any]:
    """Return what the row has where the object was changed. Of collections it says nothing."""
    relations = state.mapper.relationships
    return {
        name: value
        for name, value in state.committed_state.items()
        if not is_unknown(value) and not (name in relations and relations[name].uselist)
    }


def is_unknown(value: t.Any) -> bool:
    """Say whether it stands for a value that was not loaded when it was replaced."""
    return value is NO_VALUE or value is PASSIVE_NO_RESULT


_CONTAINERS = (dict, list, set)
_COPIES: dict[type, type] = {
    dict: dict,
    MutableDict: dict,
    list: list,
    MutableList: list,
    set: set,
    MutableSet: set,
}


def frozen(value: t.Any) -> t.Any:
    """Return a value that will not change in place afterwards: of JSON and its like, a plain copy."""
    if not isinstance(value, _CONTAINERS):
        return value
    kind = _COPIES.get(type(value))
    if kind is None:
        return _thawed(value)
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    return kind(map(frozen, value))


def _thawed(value: t.Any) -> t.Any:
    # The copies of classes that are tracked would tell their parent about every change.
    plain = next(kind(value) for kind in _CONTAINERS if isinstance(value, kind))
    try:
        return copy.deepcopy(plain)
    except Exception:  # a lock, a generator: the host may hold what it likes
        return plain
