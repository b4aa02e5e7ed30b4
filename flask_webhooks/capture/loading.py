"""Loads rows by their keys, and what relationships lead to from them: a few statements for any number of rows."""

from __future__ import annotations

import contextlib
import traceback
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, load_only, selectinload, undefer
from sqlalchemy.orm.base import NO_RAISE, PASSIVE_OFF

from ..bindings.owner_steps import SIGN, KeyLink, link_of, linked
from ..bindings.serializers import each_in
from ..errors import WebhooksError
from ..outbox.recording import CHUNK
from .sqlalchemy_internals import STATE, expire_attributes, state_of

if t.TYPE_CHECKING:
    pass

__all__ = [
    "CHUNK",
    "attributes_of",
    "load",
    "load_path",
    "refresh",
    "rows_where",
    "unfiltered",
    "unloading_relationships",
    "unreadable",
    "value",
]

Path = tuple[str, ...]


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
