"""Snapshots of deleted rows: objects of our own that show each row as it was when its DELETE was sent.

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

from ..bindings.owner_steps import REACHED, keep
from ..bindings.stored_values import SERVER_GENERATED
from ..catalog import same
from .sqlalchemy_internals import STATE, mark_deleted, set_adapter

ASSIGNED = "flask_webhooks.assigned"
"""In `state.info`: columns whose value is as it was assigned, though the row may have it in another form."""

__all__ = ["ASSIGNED", "as_before", "copied", "is_unknown", "make_snapshots", "written"]

if t.TYPE_CHECKING:
    from .mapper_plan import MapperPlan

State = orm.InstanceState[t.Any]
Observed = t.Mapping[State, t.Mapping[str, t.Any]]


_QUERIES = ("dynamic", "write_only")
"""Relationships that are not loaded; in the object's place for them is something else."""


class DeletedSnapshot(t.NamedTuple):
    """Of one row."""

    obj: t.Any
    """Of the class of the host's object, in its session and deleted like it."""
    row: dict[str, t.Any]
    """What the database had, by attribute."""


def make_snapshots(
    states: t.Sequence[tuple[State, MapperPlan]], shown: Observed
) -> dict[State, DeletedSnapshot]:
    """Return a snapshot of each; snapshots lead to each other.

    :param shown: values of attributes that the host's objects do not have, or not any more.
    """
    found: dict[State, DeletedSnapshot] = {}
    for state, plan in states:
        row = state.dict
        # Of an unchanged object the attributes are the row: no copy of the dict is needed.
        if state.committed_state or shown.get(state):
            row = {**row, **written(state), **shown.get(state, {})}
        row = _stored(plan, row)
        copies = {name: copied(value) if name in plan.attributes else value for name, value in row.items()}
        found[state] = DeletedSnapshot(_snapshot_of(state, plan, row, copies), copies)
    for state, snapshot in found.items():  # when all have their columns: a collection may go by these
        for name, relation in state.mapper.relationships.items():
            if name in snapshot.row and relation.lazy not in _QUERIES:
                snapshot.obj.__dict__[name] = _with_snapshots(snapshot.row[name], found)
    for state, plan in states:
        for link in plan.links:
            next_on_path = state.info.get(REACHED, {}).get(link.key)
            if next_on_path is not None:
                keep(found[state].obj, link, _with_snapshots(next_on_path, found))
    return found


def _snapshot_of(
    state: State, plan: MapperPlan, row: t.Mapping[str, t.Any], copies: dict[str, t.Any]
) -> t.Any:
    """Make an object that looks as if it had been loaded.

    Columns that decide who gets the event are the row's, others as the host left them (`row.deleted_by = ...`).
    """
    obj = _deleted_twin(state)
    held, shown = state.dict, obj.__dict__
    for name, value in row.items():
        if name in plan.attributes:
            shown[name] = _visible(copies[name], value)
            if (
                row is not held
                and name not in plan.deciding
                and (left := _left_by_host(state, plan, name, value)) is not value
            ):
                shown[name] = _visible(copied(left), left)
        elif name != STATE and name not in state.mapper.relationships:
            shown[name] = value  # may be anything of the host's
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


def _left_by_host(state: State, plan: MapperPlan, name: str, value: t.Any) -> t.Any:
    """What the host has left in a column before the DELETE, and not flushed; else the row's value.

    That of a type of which only a row can tell what it makes of a value: no row has had it, so there is none to ask.
    """
    if name not in state.committed_state:
        return value
    found = plan.stored(name, state.dict.get(name, value))
    return value if found is SERVER_GENERATED or same(found, value) else found


def as_before(state: State, old_values: t.Mapping[str, t.Any]) -> t.Any:
    """Return an object that shows a row with values of before, and all that the host's object has but columns.

    What it led to is for the caller to add. What a query computes of columns that were changed cannot be known.
    """
    obj = _deleted_twin(state)
    shown, mapper = obj.__dict__, state.mapper
    columns = mapper.column_attrs
    for name, value in {**state.dict, **old_values}.items():
        if name in columns:
            shown[name] = _visible(copied(value), value)
        elif name != STATE and name not in mapper.relationships:
            shown[name] = value
    # A computed column was computed of the values of now.
    for attribute in columns if old_values else ():
        if not isinstance(attribute.columns[0], sa.Column):
            shown[attribute.key] = None
    return obj


def _deleted_twin(state: State) -> t.Any:
    """An object of the same class for the same row, deleted, in no identity map."""
    obj = state.manager.new_instance()
    twin = instance_state(obj)
    twin.key, twin.identity_token, twin.session_id = state.key, state.identity_token, state.session_id
    twin.load_options, twin.load_path = state.load_options, state.load_path
    mark_deleted(twin)
    return obj


def _visible(copies: t.Any, value: t.Any) -> t.Any:
    """Of a class of the host's it stays, for his properties know that."""
    return value if copies is not value and type(value) not in _COPIES else copies


def _with_snapshots(value: t.Any, found: dict[State, DeletedSnapshot]) -> t.Any:
    """Return what a relationship leads to, with snapshots in place of objects that are deleted too."""
    if value is None:
        return None
    if hasattr(value, STATE):
        snapshot = found.get(instance_state(value))
        return value if snapshot is None else snapshot.obj
    if isinstance(value, dict):
        return _copied_collection(value, OrderedDict if isinstance(value, OrderedDict) else dict, found)
    for base in (list, set):
        if isinstance(value, base):
            return _copied_collection(value, base, found)
    return [_with_snapshots(member, found) for member in collection_adapter(value)]


def _copied_collection(value: t.Any, base: t.Any, found: dict[State, DeletedSnapshot]) -> t.Any:
    """Return a collection of the same class, filled without the events that adding a member has."""
    made: t.Any = base.__new__(type(value))
    if hasattr(made, "__dict__"):
        made.__dict__.update(vars(value))
        set_adapter(made, None)
    if isinstance(value, dict):
        for key, member in value.items():
            base.__setitem__(made, key, _with_snapshots(member, found))
    else:
        base.__init__(made, [_with_snapshots(member, found) for member in value])
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


def copied(value: t.Any) -> t.Any:
    """Return a value that will not change in place afterwards: of JSON and its like, a plain copy."""
    if not isinstance(value, _CONTAINERS):
        return value
    kind = _COPIES.get(type(value))
    if kind is None:
        return _plain_copy(value)
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return kind(map(copied, value))


def _plain_copy(value: t.Any) -> t.Any:
    # The copies of classes that are tracked would tell their parent about every change.
    plain = next(kind(value) for kind in _CONTAINERS if isinstance(value, kind))
    try:
        return copy.deepcopy(plain)
    except Exception:  # a lock, a generator: the host may hold what it likes
        return plain
