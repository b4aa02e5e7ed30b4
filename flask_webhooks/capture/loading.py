"""Loads rows by their keys, and what relationships lead to from them: a few statements for any number of rows."""

from __future__ import annotations

import contextlib
import functools
import traceback
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, load_only, object_session, selectinload, undefer
from sqlalchemy.orm.base import NO_RAISE, PASSIVE_OFF

from ..bindings.owner_steps import SIGN, KeyLink, Relation, keep, link_of, linked, rows_led_to
from ..bindings.serializers import each_in
from ..errors import WebhooksError
from ..outbox.recording import CHUNK
from .sqlalchemy_internals import STATE, expire_attributes, state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel

__all__ = [
    "CHUNK",
    "attributes_of",
    "follows_keys",
    "is_certainly_its_row",
    "leads_elsewhere",
    "load",
    "load_linked",
    "load_path",
    "may_be_hidden",
    "next_on_path",
    "owner_of",
    "referred",
    "refresh",
    "rows_where",
    "unfiltered",
    "unloading_relationships",
    "unreadable",
    "value",
]

Path = tuple[str, ...]
HiddenRow = t.Callable[[Relation, t.Mapping[str, t.Any]], t.Any]
"""Finds the row that a relationship leads to by the values of its columns."""


def rows_where(columns: t.Sequence[t.Any], keys: t.Sequence[t.Any]) -> sa.ColumnElement[bool]:
    """The condition that a row has one of these primary keys."""
    # Row values with one column are no SQL on some databases.
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

    Of a row of which a type of the host's cannot read a value only what hangs on it is: without us it is not read.

    :param columns: deferred columns too.
    :param again: what is loaded already as well, as it stands in the database now.
    """
    options = [undefer("*")] if columns else []
    try:
        return _loaded(session, model, keys, paths, options, is_again=again)
    except Exception as error:
        if unreadable(inspect(model), error) is None:
            raise
    found: list[t.Any] = []
    for key in keys:
        # One row cannot be read: each is loaded alone, and what cannot be read without its columns.
        for some in (options, [load_only(*_keys_of(model))]):
            try:
                found += _loaded(session, model, [key], paths, some, is_again=again)
                break
            except Exception as error:
                if unreadable(inspect(model), error) is None:
                    raise
    return found


def _keys_of(model: type) -> list[t.Any]:
    mapper: orm.Mapper[t.Any] = inspect(model)
    return [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]


def _loaded(
    session: Session,
    model: type,
    keys: t.Sequence[t.Any],
    paths: t.Collection[Path],
    options: t.Sequence[t.Any],
    *,
    is_again: bool,
) -> list[t.Any]:
    options = [*(option(model, path) for path in sorted(paths) if path), *options]
    found: list[t.Any] = []
    # Databases limit how many parameters a statement has.
    for start in range(0, len(keys), CHUNK):
        some = keys[start : start + CHUNK]
        statement: t.Any = sa.select(model).where(rows_where(_keys_of(model), some)).options(*options)
        if is_again:
            statement = statement.execution_options(populate_existing=True)
        found.extend(session.scalars(statement).unique())
    return found


@contextlib.contextmanager
def unfiltered(session: Session) -> t.Iterator[None]:
    """Read rows in a session of ours as they are, whatever the host's listeners make of its SELECTs meanwhile.

    A filter on all sessions (soft deletion, tenants) concerns what the host reads, not the rows that it changes. The
    listeners come into play again for what hangs on the rows.
    """
    dispatch: t.Any = session.dispatch
    listeners, dispatch.do_orm_execute = dispatch.do_orm_execute, ()
    try:
        yield
    finally:
        dispatch.do_orm_execute = listeners


@contextlib.contextmanager
def unloading_relationships(session: Session) -> t.Iterator[None]:
    """Unload the relationships that are loaded meanwhile: for a session that does not expire its objects at commit.

    There the host would go on seeing what they led to then, though it has never asked for it.
    """
    before = {state: set(state.dict) for state in session.identity_map.all_states()}
    try:
        yield
    finally:
        for state in session.identity_map.all_states():
            names = set(state.mapper.relationships.keys()) & state.dict.keys() - before.get(state, set())
            expire_attributes(state, names)


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
    state = state_of(obj)
    # A step over a foreign key for which the host has declared no relationship.
    if name.endswith(SIGN):
        link = t.cast("KeyLink", link_of(state.mapper, name))
        return None if value(obj, link.column) is None else linked(obj, link)
    attribute = state.manager.get(name)
    # A synonym has no loader, and leads to an attribute that has.
    if attribute is None or name in state.dict or not hasattr(attribute.impl, "callable_"):
        return getattr(obj, name)
    return attribute.impl.get(state, state.dict, PASSIVE_OFF | NO_RAISE)


def load_path(obj: t.Any, path: Path) -> None:
    """Load everything along a path of relationships, so that whoever follows it afterwards meets no `raiseload`."""
    reached = [obj]
    for name in path:
        ahead: list[t.Any] = []
        for each in reached:
            ahead += each_in(value(each, name))
        reached = [each for each in ahead if hasattr(each, STATE)]


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


def follows_keys(state: orm.InstanceState[t.Any], name: str) -> bool:
    """Say whether a loaded many-to-one relationship leads to where its columns say.

    Nothing is loaded for that: what it leads to may be in no session any more.
    """
    held, other = state.dict, state.dict[name]
    for local, place, remote in _pairs(state.mapper.relationships[name]):
        if held.get(local) != (None if other is None else _of_row(other, place, remote)):
            return False
    return True


def leads_elsewhere(state: orm.InstanceState[t.Any], name: str) -> bool:
    """Say whether a loaded many-to-one relationship leads to an object that does not stand for its row any more.

    A clone (`make_transient`) is about another row, in whatever relationships it was loaded before. And of what was
    expired and then expunged nothing can be read.
    """
    held = state.dict
    its = getattr(held.get(name), STATE, None)
    if its is None or is_certainly_its_row(state.class_, held, name, its):
        return False
    return _leads_elsewhere(state, name, its)


def is_certainly_its_row(
    cls: t.Any, held: t.Mapping[str, t.Any], name: str, its: orm.InstanceState[t.Any]
) -> bool:
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


def _leads_elsewhere(state: orm.InstanceState[t.Any], name: str, its: orm.InstanceState[t.Any]) -> bool:
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
    if not wanted or None in wanted.values():
        return None
    # Of a joined inheritance both tables have the key, under one attribute.
    keys = [target.get_property_by_column(column).key for column in target.primary_key]
    # By primary key the identity map may have it without a statement.
    if wanted.keys() == set(keys):
        return session.get(target.class_, tuple(wanted[key] for key in keys))
    conditions = [getattr(target.class_, name) == each for name, each in wanted.items()]
    return session.scalars(sa.select(target.class_).where(*conditions).limit(1)).first()


def unreadable(mapper: orm.Mapper[t.Any], error: Exception) -> str | None:
    """Return which columns have the type that has raised an error while a row was read; None if none has.

    What it says of a value is not repeated: it may be a secret.
    """
    if isinstance(error, sa.exc.SQLAlchemyError | WebhooksError):
        return None
    # SQLAlchemy wraps no error of a type: only the frames say which type it was.
    for frame, _line in traceback.walk_tb(error.__traceback__):
        kind = frame.f_locals.get("self")
        if isinstance(kind, sa.types.TypeEngine | sa.types.TypeDecorator):
            names = [
                f"{below.class_.__name__}.{prop.key}"
                for below in mapper.self_and_descendants
                for prop in below.column_attrs
                if isinstance(prop.columns[0].type, type(kind))
            ]
            return ", ".join(dict.fromkeys(names)) or f"a {type(kind).__name__}"
    return None


def refresh(objects: t.Iterable[t.Any]) -> None:
    """Load objects that are expired as a whole, in one statement for each class instead of one for each object."""
    stale = [obj for obj in objects if (state := state_of(obj)).expired_attributes and state.persistent]
    if len(stale) < 2:
        return
    groups: dict[tuple[Session, type], list[t.Any]] = {}
    for obj in stale:
        state = state_of(obj)
        if state.session is not None:
            groups.setdefault((state.session, type(obj)), []).append(state.identity)
    for (session, model), identities in groups.items():
        load(session, model, identities)
