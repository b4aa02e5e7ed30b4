"""What remains of deleted rows: objects of our own that show what is told of each, as it was when its DELETE was sent.

The host's own objects live on until the commit. What is assigned to them meanwhile, expired, or taken out of their
collections is no part of the row that is gone.
"""

from __future__ import annotations

import copy
import typing as t

from sqlalchemy import orm
from sqlalchemy.orm import attributes
from sqlalchemy.orm.base import NO_VALUE, PASSIVE_NO_RESULT, instance_state
from sqlalchemy.orm.collections import collection_adapter

__all__ = ["frozen", "is_unknown", "make_remains", "written"]

if t.TYPE_CHECKING:
    from .watching import Plan

State = orm.InstanceState[t.Any]
Shown = t.Mapping[State, t.Mapping[str, t.Any]]


class Remains(t.NamedTuple):
    """Of one row."""

    obj: t.Any
    """Of the class of the host's object, in its session and deleted like it."""
    row: dict[str, t.Any]
    """What the database had, by attribute."""


def make_remains(states: t.Iterable[tuple[State, Plan]], shown: Shown) -> dict[State, Remains]:
    """Return what remains of each; the objects lead to each other.

    :param shown: values of attributes that the host's objects do not have, or not any more.
    """
    rows = {state: {**state.dict, **written(state), **shown.get(state, {})} for state, _ in states}
    made = {state: _made(state) for state in rows}
    for state, plan in states:
        _fill(state, made[state], _told(state, plan, rows[state]), made)
    return {state: Remains(obj, rows[state]) for state, obj in made.items()}


def _told(state: State, plan: Plan, row: dict[str, t.Any]) -> dict[str, t.Any]:
    """Key, owner and relationships are the row's; other columns as the host left them (`row.deleted_by = ...`)."""
    fixed = {*plan.keys, *plan.owners}.union(*plan.references.values())
    columns = state.mapper.column_attrs
    left = {name: value for name, value in state.dict.items() if name in columns and name not in fixed}
    return {**row, **left}


def _made(state: State) -> t.Any:
    """Make an object as one that was loaded is made."""
    obj = state.manager.new_instance()
    twin = instance_state(obj)
    twin.key, twin.identity_token, twin.session_id = state.key, state.identity_token, state.session_id
    twin.load_options, twin.load_path = state.load_options, state.load_path
    twin._deleted = True
    return obj


def _fill(state: State, obj: t.Any, values: dict[str, t.Any], made: dict[State, t.Any]) -> None:
    columns, relations = state.mapper.column_attrs, state.mapper.relationships
    for name, value in values.items():
        if name in relations:
            attributes.set_committed_value(obj, name, _related(value, made))
        elif name != "_sa_instance_state":  # what is no column may be anything of the host's
            obj.__dict__[name] = frozen(value) if name in columns else value


def _related(value: t.Any, made: dict[State, t.Any]) -> t.Any:
    """What a relationship leads to, with what remains in place of what is deleted too."""
    if value is None:
        return None
    if hasattr(value, "_sa_instance_state"):
        return made.get(instance_state(value), value)
    members = value if isinstance(value, list) else collection_adapter(value)
    return [made.get(instance_state(member), member) for member in members]


def written(state: State) -> dict[str, t.Any]:
    """Return what the row has where the object was changed; of a collection, what it had."""
    return {name: value for name, value in state.committed_state.items() if not is_unknown(value)}


def is_unknown(value: t.Any) -> bool:
    """Say whether it stands for a value that was not loaded when it was replaced."""
    return value is NO_VALUE or value is PASSIVE_NO_RESULT


def frozen(value: t.Any) -> t.Any:
    """Return a value that will not change in place afterwards."""
    return copy.deepcopy(_plain(value)) if isinstance(value, dict | list | set) else value


def _plain(value: t.Any) -> t.Any:
    # The copies of MutableDict and its like would tell their parent about every change.
    for kind in (dict, list, set):
        if isinstance(value, kind):
            return kind(value)
    return value
