"""Names and types of what stands in `data`: what the lock file remembers.

Paths are dotted, with `[]` where there are several: `client.name`, `lines[].product`, `tags[]`.
"""

from __future__ import annotations

import datetime
import decimal
import typing as t
import uuid

import marshmallow as ma
import sqlalchemy as sa
from marshmallow import fields as mf

from ..catalog import ANY, Fields

if t.TYPE_CHECKING:
    from .channel import BoundChannel
    from .plain import Plain

_DEPTH = 5

# The first that fits counts, so a subclass stands before its base.
_FIELD_TYPES: tuple[tuple[type, str], ...] = (
    (mf.Boolean, "boolean"),
    (mf.Integer, "integer"),
    (mf.Decimal, "decimal"),
    (mf.Float, "number"),
    (mf.TimeDelta, "number"),
    (mf.UUID, "uuid"),
    (mf.Date, "date"),
    (mf.Time, "time"),
    (mf.DateTime, "datetime"),
    (mf.Enum, "enum"),
    (mf.String, "string"),
    (mf.IP, "string"),
    (mf.Dict, "object"),
)

_COLUMN_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (decimal.Decimal, "decimal"),
    (float, "number"),
    (datetime.timedelta, "number"),
    (uuid.UUID, "uuid"),
    (datetime.datetime, "datetime"),
    (datetime.date, "date"),
    (datetime.time, "time"),
    (str, "string"),
    (dict, "object"),
)


def describe(bound: t.Mapping[str, BoundChannel]) -> tuple[dict[str, Fields], dict[str, dict[str, Fields]]]:
    """Return (event type to fields, channel to include to fields), the arguments of `catalog.lock.build_lock`.

    Events without schema and model are missing: their data is whatever the code emits; so are those whose data a
    method returns.
    """
    events: dict[str, Fields] = {}
    includes: dict[str, dict[str, Fields]] = {}
    for name, each in bound.items():
        for event in each.channel.events.values():
            found = _fields(each.schemas.get(event.name), each.plain)
            if found is not None:
                events[event.name] = found
        includes[name] = {}
        for include in each.includes.values():
            below = _fields(include.schema, include.plain) or {"": ANY}
            several = "[]" if include.many else ""
            includes[name][include.name] = {
                f"{several}.{path}".strip("."): kind for path, kind in below.items()
            }
    return events, includes


def _fields(schema: ma.Schema | None, plain: Plain | None) -> dict[str, str] | None:
    if schema is not None:
        return dict(_schema_fields(schema, "", _DEPTH))
    return _column_fields(plain) if plain is not None and plain.method is None else None


def _schema_fields(schema: ma.Schema, prefix: str, depth: int) -> t.Iterator[tuple[str, str]]:
    for name, field in schema.dump_fields.items():
        yield from _field(field, f"{prefix}{field.data_key or name}", depth)


def _field(field: mf.Field[t.Any], path: str, depth: int) -> t.Iterator[tuple[str, str]]:
    if isinstance(field, mf.List):
        yield from _field(field.inner, f"{path}[]", depth)
    elif isinstance(field, mf.Pluck):
        several = "[]" if field.many or field.schema.many else ""
        yield from _field(field.schema.fields[field.field_name], f"{path}{several}", depth)
    elif isinstance(field, mf.Nested):
        several = "[]" if field.many or field.schema.many else ""
        if depth:
            yield from _schema_fields(field.schema, f"{path}{several}.", depth - 1)
        else:
            yield f"{path}{several}", "object"
    else:
        yield path, _field_type(field)


def _field_type(field: mf.Field[t.Any]) -> str:
    if isinstance(field, mf.Number | mf.Decimal) and getattr(field, "as_string", False):
        return "decimal" if isinstance(field, mf.Decimal) else "string"
    if isinstance(field, mf.DateTime | mf.Date | mf.Time) and field.format not in (None, "iso", "iso8601"):
        return f"{_named(type(field), _FIELD_TYPES)} ({field.format})"
    return _named(type(field), _FIELD_TYPES)


def _column_fields(plain: Plain) -> dict[str, str]:
    columns = plain.mapper.column_attrs
    return {key: _column_type(columns[key].columns[0].type) for key in plain.keys}


def _column_type(kind: sa.types.TypeEngine[t.Any]) -> str:
    try:
        return "enum" if isinstance(kind, sa.Enum) else _named(kind.python_type, _COLUMN_TYPES)
    except NotImplementedError:
        return ANY


def _named(kind: type, names: tuple[tuple[type, str], ...]) -> str:
    return next((name for base, name in names if issubclass(kind, base)), ANY)
