"""What `data` of an event looks like: as JSON Schema, and as an example made from that.

Made from the marshmallow schema that dumps it, else from the columns of the model; an event that code emits freely
has neither, and any object is possible.
"""

from __future__ import annotations

import enum
import typing as t

import marshmallow as ma
import sqlalchemy as sa
from marshmallow import fields as mf

from .dumping import column_renderer

if t.TYPE_CHECKING:
    from ..catalog import EventType
    from .bound import Bound, BoundInclude

__all__ = ["data_schema", "sample", "with_includes"]

Json = dict[str, t.Any]
_DEEPEST = 4

# The first that fits counts, so a subclass stands before its base.
_FIELDS: tuple[tuple[type, Json], ...] = (
    (mf.Boolean, {"type": "boolean"}),
    (mf.Integer, {"type": "integer"}),
    (mf.Float, {"type": "number"}),
    (mf.TimeDelta, {"type": "number"}),
    (mf.UUID, {"type": "string", "format": "uuid"}),
    (mf.Time, {"type": "string", "format": "time"}),
    (mf.Date, {"type": "string", "format": "date"}),
    (mf.DateTime, {"type": "string", "format": "date-time"}),
    (mf.Email, {"type": "string", "format": "email"}),
    (mf.Url, {"type": "string", "format": "uri"}),
    (mf.Dict, {"type": "object"}),
    (mf.String, {"type": "string"}),
    (mf.IP, {"type": "string"}),
)
_COLUMNS = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "timedelta": {"type": "number"},
    "Decimal": {"type": "string", "format": "decimal"},
    "UUID": {"type": "string", "format": "uuid"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "str": {"type": "string"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
}
_EXAMPLES = {
    "uuid": "7b0a2c1e-4f3d-4c8a-9a51-2f4f1a6d9c03",
    "date-time": "2026-01-31T09:30:00+00:00",
    "date": "2026-01-31",
    "time": "09:30:00",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "decimal": "125.50",
}


def data_schema(bound: Bound, event: EventType) -> Json:
    """Return the JSON Schema of `data`, without includes."""
    schema = bound.schemas.get(event.name)
    if schema is not None:
        return _of_schema(schema, _DEEPEST)
    if bound.model is not None:
        return _of_model(bound.model)
    return {"type": "object"}


def with_includes(data: Json, bound: Bound) -> Json:
    """Return the JSON Schema of `data` with what a listener may ask for, `changes` among it; none is required."""
    # A change that cannot be shown has neither.
    change = {"type": "object", "properties": {"from": {}, "to": {}}, "dependentRequired": {"from": ["to"]}}
    known = {include.name: _of_include(include) for include in bound.includes.values()}
    known["changes"] = {"type": "object", "additionalProperties": change}
    return {**data, "properties": {**data.get("properties", {}), **known}}


def _of_include(include: BoundInclude) -> Json:
    if include.schema is None:
        return {"type": "array"} if include.many else {}
    found = _of_schema(include.schema, _DEEPEST)
    return {"type": "array", "items": found} if include.many else {**found, "type": ["object", "null"]}


def sample(bound: Bound, event: EventType) -> Json:
    """Return an example of `data`: the catalogue's own, else one made from `data_schema`."""
    if event.sample is not None:
        return dict(event.sample)
    schema = data_schema(bound, event)
    made = _example(schema, "")
    if not isinstance(made, dict):
        return {}
    for column, condition in event.when.items():
        # `invoices.paid` shows an invoice that is paid, not one in the first of its states.
        known = schema["properties"].get(column, {})
        if condition.enters and condition.enters[0] in known.get("enum", condition.enters):
            made |= {column: condition.enters[0]} if known else {}
    return made


def _of_schema(schema: ma.Schema, depth: int) -> Json:
    properties = {
        field.data_key or name: _of_field(field, depth) for name, field in schema.dump_fields.items()
    }
    found: Json = {"type": "object", "properties": properties}
    if isinstance(schema, ma.Schema) and schema.many:
        return {"type": "array", "items": found}
    return found


def _of_field(field: mf.Field[t.Any], depth: int) -> Json:
    found = _plain(field, depth)
    text = field.metadata.get("description")
    if text:
        found["description"] = str(text)
    if field.allow_none and "type" in found:
        found["type"] = [found["type"], "null"]
    return found


def _plain(field: mf.Field[t.Any], depth: int) -> Json:
    if isinstance(field, mf.List):
        return {"type": "array", "items": _of_field(field.inner, depth)}
    if isinstance(field, mf.Pluck):
        inner = _of_field(field.schema.fields[field.field_name], depth)
        return {"type": "array", "items": inner} if field.many else inner
    if isinstance(field, mf.Nested):
        inner = _of_schema(field.schema, depth - 1) if depth else {"type": "object"}
        return {"type": "array", "items": inner} if field.many and inner["type"] == "object" else inner
    if isinstance(field, mf.Decimal):
        return {"type": "string", "format": "decimal"} if field.as_string else {"type": "number"}
    if isinstance(field, mf.Enum):
        return _of_enum(field)
    if isinstance(field, mf.DateTime) and field.format not in (None, "iso", "iso8601"):
        return {"type": "string"}
    return dict(next((found for kind, found in _FIELDS if isinstance(field, kind)), {}))


def _of_enum(field: mf.Enum[t.Any]) -> Json:
    members: list[enum.Enum] = list(t.cast("t.Any", field.enum))
    values = [member.value for member in members] if field.by_value else [member.name for member in members]
    is_text = all(isinstance(value, str) for value in values)
    return {"type": "string", "enum": values} if is_text else {"enum": values}


def _of_model(model: type) -> Json:
    mapper: t.Any = sa.inspect(model)
    properties = {
        key: _of_column(mapper.column_attrs[key].columns[0]) for key in column_renderer(mapper).keys
    }
    return {"type": "object", "properties": properties}


def _of_column(column: sa.Column[t.Any]) -> Json:
    if isinstance(column.type, sa.Enum):
        kind: type[enum.Enum] | None = column.type.enum_class
        found: Json = {"type": "string", "enum": [each.value for each in kind] if kind else column.type.enums}
    else:
        try:
            found = dict(_COLUMNS.get(column.type.python_type.__name__, {}))
        except NotImplementedError:
            found = {}
    if column.nullable and "type" in found:
        found["type"] = [found["type"], "null"]
    return found


def _example(schema: Json, name: str) -> t.Any:
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: _example(inner, key) for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema["items"], name)] if "items" in schema else []
    if kind == "string":
        return _EXAMPLES.get(schema.get("format", ""), name.replace("_", " ") or "text")
    return {"integer": 1, "number": 1.5, "boolean": True}.get(kind or "")
