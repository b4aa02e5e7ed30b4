"""Rows by their keys, with what hangs on them: a few statements however many there are."""

from __future__ import annotations

import contextlib
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, selectinload, undefer
from sqlalchemy.orm.base import NO_RAISE, PASSIVE_OFF

from ..bindings.dumping import listed
from ..outbox import CHUNK
from . import hosted

if t.TYPE_CHECKING:
    from ..bindings import Bound

__all__ = [
    "CHUNK",
    "agrees",
    "attributes_of",
    "leaving_no_trace",
    "load",
    "owner_of",
    "referred",
    "rows_where",
    "value",
    "walk",
]

Path = tuple[str, ...]


def rows_where(columns: t.Sequence[t.Any], keys: t.Sequence[t.Any]) -> sa.ColumnElement[bool]:
    """The condition that a row has one of these primary keys."""
    if len(columns) == 1:
        return t.cast("sa.ColumnElement[bool]", columns[0].in_([key[0] for key in keys]))
    return sa.tuple_(*columns).in_([tuple(key) for key in keys])


def load(
    session: Session,
    model: type,
    keys: t.Sequence[t.Any],
    paths: t.Collection[Path] = (),
    *,
    columns: bool = False,
    again: bool = False,
) -> list[t.Any]:
    """Return the objects with these primary keys that are still there; what they lack of the paths is loaded.

    :param columns: deferred columns too.
    :param again: what is loaded already as well, as it stands in the database now.
    """
    mapper: orm.Mapper[t.Any] = inspect(model)
    attributes = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    options: list[t.Any] = [option(model, path) for path in sorted(paths) if path]
    if columns:
        options.append(undefer("*"))
    found: list[t.Any] = []
    for start in range(0, len(keys), CHUNK):
        some = keys[start : start + CHUNK]
        statement: t.Any = sa.select(model).where(rows_where(attributes, some)).options(*options)
        if again:
            statement = statement.execution_options(populate_existing=True)
        found.extend(session.scalars(statement).unique())
    return found


@contextlib.contextmanager
def leaving_no_trace(session: Session) -> t.Iterator[None]:
    """Unload the relationships that are loaded meanwhile, where a session does not expire its objects at commit.

    There the host would go on seeing what they led to then, though it has never asked for it.
    """
    if session.expire_on_commit:
        yield
        return
    before = {state: set(state.dict) for state in session.identity_map.all_states()}
    try:
        yield
    finally:
        for state in session.identity_map.all_states():
            names = set(state.mapper.relationships.keys()) & state.dict.keys() - before.get(state, set())
            state._expire_attributes(state.dict, names)


def option(model: type, path: Path) -> t.Any:
    """`selectinload` along a path of relationships."""
    made: t.Any = None
    cls: t.Any = model
    for name in path:
        attribute = getattr(cls, name)
        made = selectinload(attribute) if made is None else made.selectinload(attribute)
        cls = attribute.property.mapper.class_
    return made


def attributes_of(mapper: orm.Mapper[t.Any], columns: t.Iterable[t.Any]) -> tuple[str, ...]:
    """Return the attributes of columns; nothing if one has none, such as a window function that a join goes by."""
    try:
        return tuple(mapper.get_property_by_column(column).key for column in columns)
    except orm.exc.UnmappedColumnError:
        return ()


def value(obj: t.Any, name: str) -> t.Any:
    """Return an attribute, loaded if need be: also where the host forbade that to itself (`raiseload`)."""
    state = obj._sa_instance_state
    attribute = state.manager.get(name)
    # A synonym has no loader, and leads to an attribute that has.
    if attribute is None or name in state.dict or not hasattr(attribute.impl, "callable_"):
        return getattr(obj, name)
    return attribute.impl.get(state, state.dict, PASSIVE_OFF | NO_RAISE)


def walk(obj: t.Any, path: Path) -> None:
    """Load everything along a path of relationships, so that whoever follows it afterwards meets no `raiseload`."""
    reached = [obj]
    for name in path:
        ahead: list[t.Any] = []
        for each in reached:
            found = listed(value(each, name))
            ahead += found if isinstance(found, list) else [found]
        reached = [each for each in ahead if hasattr(each, "_sa_instance_state")]


def owner_of(bound: Bound, obj: t.Any) -> str | None:
    """Return whose an object is."""
    path = bound.channel.owner
    if path is not None and (len(path) > 1 or path[0] not in obj.__dict__):
        walk(obj, path)
    return hosted.owner(bound, obj)


def agrees(state: orm.InstanceState[t.Any], name: str) -> bool:
    """Say whether a loaded many-to-one relationship leads to where its columns say."""
    relation = state.mapper.relationships[name]
    other = state.dict[name]
    for local, remote in relation.local_remote_pairs or ():
        mine = state.dict.get(relation.parent.get_property_by_column(local).key)
        theirs = None if other is None else value(other, relation.mapper.get_property_by_column(remote).key)
        if mine != theirs:
            return False
    return True


def referred(
    session: Session, relation: orm.RelationshipProperty[t.Any], values: t.Mapping[str, t.Any]
) -> t.Any:
    """Return the object that a many-to-one relationship leads to by the values of its columns, or None.

    :param values: of the object that refers, by attribute; they need not be those it has now.
    """
    target = relation.mapper
    pairs = relation.local_remote_pairs or ()
    mine = attributes_of(relation.parent, [local for local, _ in pairs])
    theirs = attributes_of(target, [remote for _, remote in pairs])
    wanted = {name: values.get(local) for local, name in zip(mine, theirs, strict=False)}
    if not wanted or None in wanted.values():
        return None
    # Of a joined inheritance both tables have the key, under one attribute.
    keys = [target.get_property_by_column(column).key for column in target.primary_key]
    if wanted.keys() == set(keys):
        return session.get(target.class_, tuple(wanted[key] for key in keys))
    conditions = [getattr(target.class_, name) == each for name, each in wanted.items()]
    return session.scalars(sa.select(target.class_).where(*conditions).limit(1)).first()
