"""Whose an object is: follows a path to its owner, also over rows that a filter of the host's hides."""

from __future__ import annotations

import typing as t

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session

from ..bindings.owner_steps import SIGN, KeyLink, Relation, keep, link_of, rows_led_to
from ..bindings.serializers import each_in
from .loading import Path, attributes_of, value
from .references import leads_elsewhere
from .sqlalchemy_internals import STATE

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel

__all__ = ["HiddenRow", "load_linked", "may_be_hidden", "next_on_path", "owner_of"]

HiddenRow = t.Callable[[Relation, t.Mapping[str, t.Any]], t.Any]
"""Finds the row that a relationship leads to by the values of its columns."""


def owner_of(bound: BoundChannel, obj: t.Any, hidden_row: HiddenRow | None = None) -> str | None:
    """Return whose an object is.

    :param hidden_row: finds a row on the way that a filter of the host's hides (soft deletion, tenants).
    """
    path = bound.owner_path
    # A loaded column, as mostly.
    if not path or (len(path) == 1 and path[0] in obj.__dict__):
        return bound.owner(obj)
    found = obj
    for name in path:
        found = next_on_path(found, name, hidden_row)
        if found is None:
            return None
    return str(found) or None


def next_on_path(obj: t.Any, name: str, hidden_row: HiddenRow | None) -> t.Any:
    """Return an attribute of an object on the way to an owner."""
    state = getattr(obj, STATE, None)
    if state is None:
        return getattr(obj, name, None)
    found = value(obj, name)
    is_row = name in state.mapper.relationships
    if hidden_row is None or (found is not None and not (is_row and leads_elsewhere(state, name))):
        return found
    # The relationship shows nothing, or an object that is not its row any more: the columns still lead there.
    keys = _keys_led_by(obj, name)
    relation = link_of(state.mapper, name)
    return (hidden_row(relation, keys) if keys and relation is not None else None) or found


def may_be_hidden(bound: BoundChannel, obj: t.Any) -> bool:
    """Say whether an owner was not found because there may be a row that a filter of the host's hides."""
    found = obj
    for name in bound.owner_path or ():
        ahead = next_on_path(found, name, None)
        if ahead is None:
            return bool(_keys_led_by(found, name))
        found = ahead
    return False


def _keys_led_by(obj: t.Any, name: str) -> dict[str, t.Any]:
    """The columns by which a many-to-one relationship leads to a row; nothing if it leads to none."""
    state = getattr(obj, STATE, None)
    relation = link_of(state.mapper, name) if state is not None else None
    if relation is None or relation.direction is not orm.MANYTOONE:
        return {}
    values = {key: value(obj, key) for key in attributes_of(relation.parent, relation.local_columns)}
    return {} if None in values.values() else values


def load_linked(
    found: t.Iterable[tuple[BoundChannel, t.Any, t.Mapping[str, t.Any]]], *, is_kept: bool = False
) -> list[t.Any]:
    """Load what foreign keys without a relationship lead to on the way to owners: a statement for each step of a class.

    :param found: channel, object, and what of it was changed, column to (old, new): where it led before is loaded too.
    :param is_kept: the objects are about to be deleted, so they remember it.
    :return: what was found; sessions hold it only while the caller does.
    """
    groups: dict[tuple[Session, type, Path], list[tuple[t.Any, t.Mapping[str, t.Any]]]] = {}
    for bound, obj, values in found:
        path = bound.owner_path
        if path and obj is not None and any(name.endswith(SIGN) for name in path):
            session = object_session(obj)
            if session is not None:
                groups.setdefault((session, type(obj), path), []).append((obj, values))
    # A session holds its objects weakly: without this list they would be gone before the owners are read.
    held: list[t.Any] = []
    for (session, model, path), objects in groups.items():
        mapper: t.Any = inspect(model)
        for name in path:
            relation = link_of(mapper, name)
            if relation is None or not objects:
                break
            mapper = relation.mapper
            if isinstance(relation, KeyLink):
                column = relation.column
                wanted = [obj.__dict__.get(column) for obj, _ in objects]
                wanted += [values[column][0] for _, values in objects if column in values]
                rows = rows_led_to(session, relation, wanted)
                ahead = list(rows.values())
                # After a deletion the session forgets what its foreign keys led to, so the object itself keeps it.
                for obj, values in objects if is_kept else ():
                    was = values[column][0] if column in values else obj.__dict__.get(column)
                    if was in rows:
                        keep(obj, relation, rows[was])
            else:
                ahead = [
                    each for obj, _ in objects for each in _ahead(obj, name, is_kept) if each is not None
                ]
            held += ahead
            objects = [(each, {}) for each in ahead]
    return held


def _ahead(obj: t.Any, name: str, is_loading: bool) -> list[t.Any]:
    return each_in(value(obj, name) if is_loading else obj.__dict__.get(name))
