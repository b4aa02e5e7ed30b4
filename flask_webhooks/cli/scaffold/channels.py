"""One model to what its channel could say."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm

from ...bindings.columns import doubts_of
from ...bindings.imports import Unfound, locate
from ...bindings.private import private_columns, sounds_private
from ...bindings.schema_keys import keys_of
from ...bindings.serializers import column_renderer
from ...catalog import RESERVED_CHANNEL, plural
from .owners import AnyMapper, Tenancy

__all__ = ["Sketch", "sketch_all"]

_TOUCHED_BY_MACHINES = re.compile(r"(updated|modified|changed|last_modified|last_seen)(_at|_on)?")

_STATES = ("status", "state", "stage", "phase")
_HOLDS_SECRETS = re.compile(r"token|secret|passw|credential|session|api_?key", re.IGNORECASE)


@dataclass(frozen=True)
class Sketch:
    """What a channel could say."""

    name: str
    model: str
    """Import path."""
    schema: str | None
    owner: str | None
    columns: tuple[str, ...]
    """What `data` has without a schema."""
    private: tuple[str, ...]
    """Columns that sound private, and are left out of it."""
    doubts: tuple[str, ...]
    """What is to be said of columns that JSON cannot hold, without a schema."""
    ignore: tuple[str, ...]
    """Columns that machines write at every update."""
    step: tuple[str, str] | None
    """A column with states, and one of them."""
    includes: tuple[str, ...]
    """Related rows that a listener may want."""
    touches: str | None
    """The relationship to what it is a part of."""
    is_link: bool
    """It only links other rows."""
    holds_secrets: bool
    """Its name says so, and no schema says what may leave the house."""


def sketch_all(mappers: t.Sequence[AnyMapper], tenancy: Tenancy | None) -> list[Sketch]:
    """Return a sketch of every model, in the order of their names."""
    taken: set[str] = {RESERVED_CHANNEL}
    found = []
    for mapper in mappers:
        name = _name(mapper, taken)
        taken.add(name.casefold())
        found.append(_sketch(mapper, name, tenancy))
    return found


def _sketch(mapper: AnyMapper, name: str, tenancy: Tenancy | None) -> Sketch:
    cls = mapper.class_
    whole, schema = _whole(mapper), _schema(cls)
    keys = column_renderer(mapper).keys
    private = tuple(key for key in private_columns(mapper, keys) if key in keys)
    shown = keys_of(t.cast("t.Any", locate(schema))()) if schema is not None else ()
    return Sketch(
        name=name,
        model=f"{cls.__module__}:{cls.__qualname__}",
        schema=schema,
        owner=tenancy.path(mapper) if tenancy is not None else None,
        columns=tuple(key for key in keys if key not in private),
        private=private,
        doubts=tuple(map(str, doubts_of(mapper))),
        ignore=tuple(attr.key for attr in mapper.column_attrs if _is_machines(attr)),
        step=_step(mapper),
        includes=tuple(
            each.key
            for each in mapper.relationships
            if each.lazy not in ("dynamic", "write_only", "noload", "raise")
            and each.key not in (whole, "changes", *shown)
            and not (tenancy is not None and each.mapper.local_table is tenancy.tenant)
        ),
        touches=whole,
        is_link=all(column.foreign_keys for column in mapper.local_table.columns),
        holds_secrets=schema is None and (sounds_private(name) or _HOLDS_SECRETS.search(name) is not None),
    )


def _name(mapper: AnyMapper, taken: t.Collection[str]) -> str:
    table = mapper.local_table
    name = table.name if isinstance(table, sa.Table) else mapper.class_.__name__
    base = plural(re.sub(r"[^A-Za-z0-9_]+", "_", name)[:60].strip("_")) or "channel"
    names = [base, *(f"{base}_{number}" for number in range(2, 100))]
    return next(name for name in names if name.casefold() not in taken)


def _schema(model: type) -> str | None:
    """The marshmallow schema that is called like the model, or says that it is for it, in the same package."""
    package = model.__module__.partition(".")[0]
    fitting = [
        schema
        for schema in _subclasses(ma.Schema)
        if schema.__module__.partition(".")[0] == package
        and (schema.__name__ == f"{model.__name__}Schema" or getattr(schema.opts, "model", None) is model)
        and _is_usable(schema)
    ]
    # The one that lives nearest: `shop.sales.schemas` for `shop.sales.models`.
    fitting.sort(key=lambda schema: -_common(schema.__module__, model.__module__))
    return f"{fitting[0].__module__}:{fitting[0].__qualname__}" if fitting else None


def _subclasses(cls: type[ma.Schema]) -> t.Iterator[type[ma.Schema]]:
    for below in cls.__subclasses__():
        yield below
        yield from _subclasses(below)


def _is_usable(schema: type[ma.Schema]) -> bool:
    """Whether a catalogue can name it: importable by its path, and made without arguments."""
    if "<" in schema.__qualname__:
        return False
    try:
        found: object = locate(f"{schema.__module__}:{schema.__qualname__}")
        schema()
    except (Unfound, Exception):  # the class is the app's own: its __init__ can raise anything
        return False
    return found is schema


def _common(one: str, other: str) -> int:
    parts = zip(one.split("."), other.split("."), strict=False)
    return next((at for at, (a, b) in enumerate(parts) if a != b), 99)


def _is_machines(attr: orm.ColumnProperty[t.Any]) -> bool:
    column = attr.columns[0]
    is_moment = isinstance(column.type, sa.DateTime | sa.types.TypeDecorator)
    kept = getattr(column, "onupdate", None) is not None
    return is_moment and (kept or bool(_TOUCHED_BY_MACHINES.fullmatch(attr.key)))


def _step(mapper: AnyMapper) -> tuple[str, str] | None:
    for attr in mapper.column_attrs:
        kind = attr.columns[0].type
        if attr.key in _STATES and isinstance(kind, sa.Enum) and len(kind.enums) > 1:
            # The first is what rows begin with, so the second is the first that they become.
            return attr.key, str(kind.enums[1])
    return None


def _whole(mapper: AnyMapper) -> str | None:
    """The relationship to what this is a part of: it goes when that goes."""
    for relationship in mapper.relationships:
        if relationship.direction is not orm.RelationshipDirection.MANYTOONE:
            continue
        for back in relationship.mapper.relationships:
            if back.mapper is mapper and back.cascade.delete_orphan:
                return str(relationship.key)
    return None
