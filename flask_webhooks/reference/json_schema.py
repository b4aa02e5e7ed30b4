"""What `data` of an event looks like: as JSON Schema, and as an example made from that.

Made from the marshmallow schema that dumps it, else from the columns of the model; an event that code emits freely
has neither, and anything is possible.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

from ..bindings import CHANGES
from ..bindings.json_types import Json, nullable, of_plain, of_schema
from ..bindings.paths import follow

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel, BoundInclude
    from ..bindings.paths import AnyMapper
    from ..catalog import EventType

__all__ = ["data_schema", "sample_data", "with_includes"]

_EXAMPLES = {
    "uuid": "7b0a2c1e-4f3d-4c8a-9a51-2f4f1a6d9c03",
    "date-time": "2026-01-31T09:30:00+00:00",
    "date-time-local": "2026-01-31T09:30:00",
    "date": "2026-01-31",
    "time": "09:30:00",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "decimal": "125.50",
}


def data_schema(bound: BoundChannel, event: EventType) -> Json:
    """Return the JSON Schema of `data`, without includes; `{}`, which allows anything, if none is known."""
    schema = bound.schemas.get(event.name)
    if schema is not None:
        return of_schema(schema, _mapper(bound.model))
    return of_plain(bound.plain) if bound.plain is not None else {}


def with_includes(data: Json, bound: BoundChannel) -> Json:
    """Return the JSON Schema of `data` with what a listener may ask for, `changes` among it; none is required."""
    if bound.model is None:
        return data
    known = {include.name: _of_include(include, bound) for include in bound.includes.values()}
    known[CHANGES] = _of_changes(data["properties"])
    return {**data, "properties": {**data["properties"], **known}}


def _of_changes(properties: Json) -> Json:
    """A change whose values cannot be shown has neither; a hook may rename fields."""
    named = {
        name: {"type": "object", "properties": {"from": nullable(inner), "to": inner}}
        for name, inner in properties.items()
    }
    return {"type": "object", "properties": named, "additionalProperties": {"type": "object"}}


def _of_include(include: BoundInclude, bound: BoundChannel) -> Json:
    target = follow(sa.inspect(t.cast("t.Any", bound.model)), include.path).target
    found: Json = {}
    if include.schema is not None:
        found = of_schema(include.schema, target)
    elif include.plain is not None:
        found = of_plain(include.plain)
    # A path that crosses several relationships may end early.
    if include.many:
        items = {"items": nullable(found)} if found else {}
        return {"type": ["array", "null"] if len(include.path) > 1 else "array", **items}
    return nullable(found)


def _mapper(model: type | None) -> AnyMapper | None:
    return None if model is None else sa.inspect(model)


def sample_data(bound: BoundChannel, event: EventType) -> Json:
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


def _example(schema: Json, name: str) -> t.Any:
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: _example(inner, key) for key, inner in schema.get("properties", {}).items()}
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], name)
    if kind == "array":
        return [_example(schema["items"], name)] if "items" in schema else []
    if kind == "string":
        return _EXAMPLES.get(schema.get("format", ""), name.replace("_", " ") or "text")
    return {"integer": 1, "number": 1.5, "boolean": True}.get(kind or "")
