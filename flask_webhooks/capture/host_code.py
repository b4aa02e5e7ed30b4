"""Guarded calls of the host's code for one row (schemas, includes, owners), and the search for a field that fails."""

from __future__ import annotations

import contextlib
import functools
import typing as t

import marshmallow as ma
import sqlalchemy as sa

from ..bindings.owner_steps import link_of
from ..bindings.schema_keys import dump_hooks
from ..bindings.serializers import IncludeDumper, each_in
from . import guard
from .guard import About, Wanted
from .sqlalchemy_internals import STATE
from .undo import holders

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ..bindings import BoundChannel, BoundInclude
    from ..catalog import EventType

T = t.TypeVar("T")

__all__ = [
    "at_field",
    "by_schema",
    "dump",
    "failing_field",
    "included",
    "owned",
    "owner",
    "reading_owners",
    "rows_of",
    "status",
]


def dump(bound: BoundChannel, event: EventType, obj: t.Any) -> dict[str, t.Any]:
    """Return `data` of a row."""
    quiet = bound.quiet.get(event.name)
    # Plain columns run no code of the host's, so there is nothing to guard.
    if quiet is not None and quiet(obj):
        return bound.dump(obj, event)
    return by_schema(bound, event, obj, bound.dump, obj, event)


def by_schema(
    bound: BoundChannel, event: EventType, obj: t.Any, function: t.Callable[..., T], *args: t.Any
) -> T:
    """Call something that dumps a row by the event's schema."""
    schema = bound.schemas.get(event.name)
    rows = _reached(obj, bound.read_paths)
    place = _place(bound) if schema is None else type(schema).__name__
    about = About(event.name, place, rows, lambda is_wanted: _field_that(is_wanted, schema, obj, rows))
    return guard.call(about, function, *args)


def _place(bound: BoundChannel) -> str:
    """What makes `data` without a schema."""
    if bound.plain is not None and bound.plain.method is not None:
        return f"{bound.plain.mapper.class_.__name__}.{bound.plain.method}()"
    return "What is read of the columns"


def included(event: EventType, include: BoundInclude, obj: t.Any) -> t.Any:
    """Return the value of an include."""
    rows = _reached(obj, (include.relationships,))
    schema = include.schema
    place = f"The include {include.name!r}" + (f" ({type(schema).__name__})" if schema is not None else "")

    def search(is_wanted: Wanted) -> str:
        for row in rows[1:] or _related(obj, include.relationships):
            where = _field_that(is_wanted, schema, row, rows)
            if where:
                return where
        return ""

    return guard.call(About(event.name, place, rows, search), include.dump, obj)


def owner(bound: BoundChannel, obj: t.Any) -> str | None:
    """Return whose a row is, by the catalogue's path from loaded attributes."""
    return owned(bound, obj, bound.owner, obj)


def owned(bound: BoundChannel, obj: t.Any, function: t.Callable[..., T], *args: t.Any) -> T:
    """Call something that reads whose a row is; guarded where a property of the host's may be on the way."""
    path = bound.owner_path
    # The usual owner is a column: guarding it would cost more than reading it.
    if not path or (len(path) == 1 and path[0] in bound.columns) or _is_mapped(bound.model, path):
        return function(*args)
    about = About(
        f"an event of {bound.channel.name}", f"The owner ({'.'.join(bound.channel.owner or ())})", (obj,)
    )
    return guard.call(about, function, *args)


def status(event: EventType, obj: t.Any, name: str) -> t.Any:
    """Return an attribute of a row, perhaps a property; None if it has none of that name."""
    # A loaded column runs no code.
    if name in obj.__dict__ or not hasattr(type(obj), name):
        return obj.__dict__.get(name)
    about = About(event.name, f"{type(obj).__name__}.{name}", (obj,))
    return guard.call(about, getattr, obj, name, None)


@contextlib.contextmanager
def reading_owners(
    session: Session, bounds: t.Iterable[BoundChannel], warned: set[tuple[str, str]]
) -> t.Iterator[None]:
    """Guard the reading of owners before the commit, where a property of the host's says whose a row is.

    :param warned: see `guard.Guard`.
    """
    if all(_is_mapped(bound.model, bound.owner_path) for bound in bounds):
        yield
        return
    with session.no_autoflush, guard.guarding(session, warned=warned):
        yield


@functools.lru_cache(maxsize=1024)
def _is_mapped(model: type | None, path: tuple[str, ...] | None) -> bool:
    """Whether the owner is a column, perhaps of what relationships lead to: then no code of the host's runs."""
    mapper: t.Any = sa.inspect(model) if model is not None else None
    for name in path or ():
        attribute = (link_of(mapper, name) or mapper.attrs.get(name)) if mapper is not None else None
        if attribute is None:
            return False
        # A column has none: a step behind it can only be an attribute of its value.
        mapper = getattr(attribute, "mapper", None)
    return True


def at_field(schema: ma.Schema | None, obj: t.Any) -> str:
    """Dump once more field by field: marshmallow lets errors through without saying where it was."""
    name = failing_field(schema, obj)
    return "" if name is None else f" at the field {name!r} of {type(schema).__name__}"


def failing_field(schema: ma.Schema | None, obj: t.Any) -> str | None:
    """Return the first field of a schema that fails; None if it is something else."""
    if schema is None or obj is None:
        return None
    rows = (obj,) if hasattr(obj, STATE) else ()
    for name, field in schema.dump_fields.items():
        # marshmallow dumps field by field, so a field fails by itself as it does in the whole.
        if guard.trial(rows, field.serialize, name, obj, accessor=schema.get_attribute).error is not None:
            return name
    return None


def rows_of(include: BoundInclude, obj: t.Any) -> list[t.Any]:
    """Return what an include dumps; nothing if already the way there fails."""
    try:
        return each_in(IncludeDumper(include.path, None)(obj))
    except Exception:  # the host's code
        return []


def _field_that(is_wanted: Wanted, schema: ma.Schema | None, obj: t.Any, rows: t.Sequence[t.Any]) -> str:
    """Say which field of a schema, or else which of its hooks, it is that is looked for."""
    if schema is None:
        return ""
    for name, field in schema.dump_fields.items():
        if is_wanted(guard.trial(rows, field.serialize, name, obj, accessor=schema.get_attribute)):
            return f" at the field {name!r}"
    hooks = dump_hooks(schema)
    return f" in {' or '.join(hooks)}" if hooks else ""


def _reached(obj: t.Any, paths: tuple[tuple[str, ...], ...]) -> list[t.Any]:
    """The row, and what it leads to as far as that is loaded and has containers in its columns."""
    found = [obj]
    model: t.Any = type(obj)
    for path in _to_holders(model, paths):
        found += [row for row in _related(obj, path) if holders(type(row))]
    return found


@functools.lru_cache(maxsize=1024)
def _to_holders(model: t.Any, paths: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Those of some paths that may lead to a class, or to one below it, whose columns may have containers."""
    found = []
    for path in paths:
        mapper: t.Any = sa.inspect(model)
        for name in path:
            mapper = (
                mapper.relationships[name].mapper
                if mapper is not None and name in mapper.relationships
                else None
            )
        if mapper is not None and any(holders(each.class_) for each in mapper.self_and_descendants):
            found.append(path)
    return tuple(found)


def _related(obj: t.Any, path: tuple[str, ...]) -> list[t.Any]:
    rows = [obj]
    for name in path:
        ahead: list[t.Any] = []
        for row in rows:
            ahead += each_in(row.__dict__.get(name))
        rows = [row for row in ahead if hasattr(row, STATE)]
    return rows
