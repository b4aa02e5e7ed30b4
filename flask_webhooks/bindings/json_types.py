"""JSON Schema (2020-12) of what columns and marshmallow fields are written as.

The law of this room: every body that `data` can have is valid. What the host's own code decides (methods, fields of its
own classes, hooks) is promised as far as it is known, and no further.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import typing as t
import uuid

import marshmallow as ma
import sqlalchemy as sa
from marshmallow import fields as mf
from sqlalchemy.dialects import postgresql as pg

from .. import payload
from ..errors import PayloadError
from .columns import shown_type
from .paths import AnyMapper
from .schema_keys import attribute_of, is_hooked, key_of
from .serializers import column_renderer

if t.TYPE_CHECKING:
    from .plain import Plain

__all__ = ["Json", "mismatch", "nullable", "of_columns", "of_plain", "of_schema"]

Json = dict[str, t.Any]
DEEPEST = 4

# The first that fits counts, so a subclass stands before its base.
_FIELDS: tuple[tuple[type, Json], ...] = (
    (mf.Boolean, {"type": "boolean"}),
    (mf.Decimal, {"type": "string", "format": "decimal"}),
    (mf.Integer, {"type": "integer"}),
    (mf.Number, {"type": "number"}),
    (mf.TimeDelta, {"type": "number"}),
    (mf.UUID, {"type": "string", "format": "uuid"}),
    (mf.Time, {"type": "string", "format": "time"}),
    (mf.Date, {"type": "string", "format": "date"}),
    (mf.NaiveDateTime, {"type": "string", "format": "date-time-local"}),
    (mf.DateTime, {"type": "string", "format": "date-time"}),
    (mf.Email, {"type": "string", "format": "email"}),
    (mf.Url, {"type": "string", "format": "uri"}),
    (mf.Mapping, {"type": "object"}),
    (mf.Tuple, {"type": "array"}),
    (mf.String, {"type": "string"}),
    (mf.IP, {"type": "string"}),
    (mf.IPInterface, {"type": "string"}),
)
_VALUES: tuple[tuple[type, Json], ...] = (
    (bool, {"type": "boolean"}),
    (int, {"type": "integer"}),
    (float, {"type": ["number", "null"]}),  # NaN is null
    (datetime.timedelta, {"type": "number"}),
    (decimal.Decimal, {"type": "string", "format": "decimal"}),
    (uuid.UUID, {"type": "string", "format": "uuid"}),
    (datetime.datetime, {"type": "string", "format": "date-time"}),
    (datetime.date, {"type": "string", "format": "date"}),
    (datetime.time, {"type": "string", "format": "time"}),
    (str, {"type": "string"}),
    (bytes, {"type": "string", "contentEncoding": "base64"}),
)


def nullable(schema: Json) -> Json:
    """Return the same for a value that may be null."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    found = {**schema, "type": [*kinds, "null"]} if kinds and "null" not in kinds else dict(schema)
    if None not in found.get("enum", [None]):
        found["enum"] = [*found["enum"], None]
    return found


def _choices(values: t.Iterable[t.Any]) -> Json:
    """Return the schema of a value that is one of these."""
    try:
        written = [json.loads(payload.encode(value)) for value in values]
    except PayloadError:
        return {}
    if written and all(isinstance(value, str) for value in written):
        return {"type": "string", "enum": written}
    if written and all(type(value) is int for value in written):
        return {"type": "integer", "enum": written}
    return {"enum": written}


# ---- columns ---------------------------------------------------------------------------------------------


def of_plain(plain: Plain) -> Json:
    """Return the schema of rows that are sent without a schema; of what a method returns nothing is known."""
    if plain.method is not None:
        return {"type": "object", "properties": {}, "additionalProperties": True}
    return of_columns(plain.mapper, plain.keys)


def of_columns(mapper: AnyMapper, keys: t.Sequence[str] | None = None) -> Json:
    """Return the schema of the columns of a row: of all that JSON can hold, or of these."""
    known = mapper.column_attrs
    sent = column_renderer(mapper).keys if keys is None else keys
    return {"type": "object", "properties": {key: _of_column(known[key].columns[0]) for key in sent}}


def _of_column(column: sa.ColumnElement[t.Any]) -> Json:
    found = _of_type(column.type)
    if isinstance(column, sa.Column):
        return nullable(found) if column.nullable else found
    # What an expression computes the database decides: the sum of whole numbers may be a decimal, which is text.
    return {} if any(each in str(found) for each in ("number", "integer", "decimal")) else nullable(found)


def _of_type(declared: sa.types.TypeEngine[t.Any]) -> Json:
    kind = shown_type(declared)
    if kind is None:
        return {}
    if isinstance(kind, sa.Enum):
        return _choices(kind.enum_class if kind.enum_class is not None else kind.enums)
    if isinstance(kind, sa.ARRAY):
        return _of_array(kind)
    if isinstance(kind, pg.ranges.AbstractMultiRange):
        return {"type": "array", "items": _RANGE}
    if isinstance(kind, pg.ranges.AbstractRange):
        return _RANGE
    if isinstance(kind, pg.HSTORE):
        return {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
    if isinstance(kind, pg.INET | pg.CIDR | pg.MACADDR):
        return {"type": "string"}
    return _of_values(kind)


def _of_array(kind: sa.ARRAY[t.Any]) -> Json:
    found = nullable(_of_type(kind.item_type))
    if kind.dimensions is None and found:  # PostgreSQL takes any number of dimensions then
        found = {"anyOf": [found, {"type": "array"}]}
    for _ in range(kind.dimensions or 1):
        found = {"type": "array", "items": found} if found else {"type": "array"}
    return found


def _of_values(kind: sa.types.TypeEngine[t.Any]) -> Json:
    try:
        values = kind.python_type
    except NotImplementedError:
        return {}
    found = dict(next((found for base, found in _VALUES if issubclass(values, base)), {}))
    if found.get("format") == "date-time" and not getattr(kind, "timezone", True):
        found["format"] = "date-time-local"
    return found


_BOUND = {"type": ["string", "number", "null"]}
_RANGE: Json = {
    "type": "object",
    "properties": {
        "lower": _BOUND,
        "upper": _BOUND,
        "bounds": {"type": "string", "enum": ["[)", "[]", "(]", "()", "empty"]},
    },
    "required": ["lower", "upper", "bounds"],
}


# ---- marshmallow -----------------------------------------------------------------------------------------


def of_schema(schema: ma.Schema, mapper: AnyMapper | None = None, depth: int = DEEPEST) -> Json:
    """Return the schema of what a marshmallow schema dumps of one object.

    :param mapper: what it dumps; by it known values are never null.
    """
    is_known = mapper is not None and not is_hooked(schema)
    properties = {}
    for name, field in schema.dump_fields.items():
        found = {} if _is_passed_on(name, field, mapper) else _of_field(field, depth)
        text = field.metadata.get("description")
        if not (is_known and mapper is not None and _is_there(name, field, mapper)):
            found = nullable(found)
        properties[key_of(name, field)] = {**found, "description": str(text)} if text else found
    return {"type": "object", "properties": properties}


def _is_passed_on(name: str, field: mf.Field[t.Any], mapper: AnyMapper | None) -> bool:
    """Say whether a `Boolean` stands for a column of another type: marshmallow dumps 1 and "yes" as they are."""
    attribute = attribute_of(name, field)
    if not isinstance(field, mf.Boolean) or mapper is None or attribute not in mapper.column_attrs:
        return False
    return _of_type(mapper.column_attrs[attribute].columns[0].type) != {"type": "boolean"}


def _is_there(name: str, field: mf.Field[t.Any], mapper: AnyMapper) -> bool:
    """Say whether the value is never null: whatever it says of loading, a field dumps None as null."""
    attribute = attribute_of(name, field)
    if field.allow_none:
        return False
    if attribute in mapper.relationships:
        return bool(mapper.relationships[attribute].uselist)
    if attribute not in mapper.column_attrs:
        return False
    column = mapper.column_attrs[attribute].columns[0]
    return isinstance(column, sa.Column) and not column.nullable


def _of_field(field: mf.Field[t.Any], depth: int) -> Json:
    if _is_hosts(field):
        return {}
    if isinstance(field, mf.List):
        items = nullable(_of_field(field.inner, depth))
        return {"type": "array", "items": items} if items else {"type": "array"}
    if isinstance(field, mf.Nested):
        return _of_nested(field, depth)
    if isinstance(field, mf.Enum):
        return _of_enum(field)
    found = dict(next((found for kind, found in _FIELDS if isinstance(field, kind)), {}))
    if isinstance(field, mf.Number) and field.as_string and "format" not in found:
        return {"type": "string"}
    if isinstance(field, mf.DateTime | mf.Date | mf.Time) and field.format not in (None, "iso", "iso8601"):
        return {"type": "number" if field.format in ("timestamp", "timestamp_ms") else "string"}
    if isinstance(field, mf.Url) and field.relative:
        return {"type": "string"}
    if isinstance(field, mf.Mapping) and field.value_field is not None:
        found["additionalProperties"] = nullable(_of_field(field.value_field, depth))
    return found


def _is_hosts(field: mf.Field[t.Any]) -> bool:
    """Say whether a class of the host's decides what is written."""
    return any(
        not next(base for base in type(field).__mro__ if name in vars(base)).__module__.startswith(
            "marshmallow."
        )
        for name in ("serialize", "_serialize")
    )


def _of_nested(field: mf.Nested, depth: int) -> Json:
    schema = field.schema
    if isinstance(field, mf.Pluck):
        inner = nullable(_of_field(schema.fields[field.field_name], depth))
    else:
        inner = of_schema(schema, None, depth - 1) if depth else {"type": "object"}
    if not (field.many or schema.many):
        return inner
    return {"type": "array", "items": inner} if inner else {"type": "array"}


def _of_enum(field: mf.Enum[t.Any]) -> Json:
    members: list[enum.Enum] = list(t.cast("t.Any", field.enum))
    if not field.by_value:
        return _choices(member.name for member in members)
    try:
        return _choices([field.field._serialize(member.value, None, None) for member in members])
    except Exception:  # a field of the host's, which may want more than a value
        return {}


# ---- values ----------------------------------------------------------------------------------------------

_TYPES: t.Mapping[str, t.Callable[[t.Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def mismatch(schema: Json | bool, value: t.Any, path: str = "data") -> str:
    """Return what in a JSON value does not fit one of our schemas, and where; empty if everything fits."""
    if isinstance(schema, bool):
        return "" if schema else f"{path} is not expected"
    if "anyOf" in schema:
        tried = [mismatch(each, value, path) for each in schema["anyOf"]]
        return "" if "" in tried else tried[0]
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if (kinds and not any(_TYPES[kind](value) for kind in kinds)) or value not in schema.get("enum", [value]):
        wanted = " or ".join(map(str, kinds)) or "one of its values"
        if "enum" in schema:
            wanted = f"one of {', '.join(json.dumps(each) for each in schema['enum'])}"
        return f"{path} is {json.dumps(value, ensure_ascii=False)[:80]}, and not {wanted}"
    inside: list[tuple[Json | bool, t.Any, str]] = []
    if isinstance(value, list):
        inside = [(schema.get("items", {}), each, f"{path}[{at}]") for at, each in enumerate(value)]
    elif isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        inside = [(known.get(key, others), each, f"{path}.{key}") for key, each in value.items()]
    return next((found for each in inside if (found := mismatch(*each))), "")
