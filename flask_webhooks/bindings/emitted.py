"""Data that the host's code emits: it passes through the schema of the event as a row does.

The law of this room: what was promised of an event (the lock file, the OpenAPI document) holds for emitted data too. A
key that nothing stands for is a mistake at the call, and so is a value that the published JSON Schema refuses.
"""

from __future__ import annotations

import functools
import json
import typing as t
from collections.abc import Mapping
from decimal import Decimal

import marshmallow as ma
import sqlalchemy as sa
from marshmallow import fields as mf

from .. import payload
from ..catalog import did_you_mean, listed
from ..errors import PayloadError
from .json_types import Json, mismatch, of_plain, of_schema
from .plain import Plain
from .schema_keys import attribute_of, dump_hooks, key_of, names_in, names_read

__all__ = ["Given"]

Data = dict[str, t.Any]


class Given:
    """How emitted data of one event becomes its `data`.

    :param schema: of the event; `None`: the columns of `plain`.
    """

    def __init__(self, schema: ma.Schema | None, plain: Plain | None) -> None:
        self._schema, self._plain = schema, plain

    def __call__(self, data: t.Any) -> Data:
        """Return `data` as a row with these values would have it. Of dicts a copy is dumped.

        :raises PayloadError: with the path to what does not fit. Whatever the host's schema raises passes through.
        """
        made = self._dumped(data) if self._schema is not None else self._of_columns(data)
        said = mismatch(self._published, json.loads(payload.encode(made)))
        if said:
            raise PayloadError(f"{said}, as was promised to receivers. Correct the value, or the schema.")
        return made

    @functools.cached_property
    def _published(self) -> Json:
        if self._schema is not None:
            return of_schema(self._schema, self._plain.mapper if self._plain is not None else None)
        return of_plain(t.cast("Plain", self._plain))

    def _dumped(self, data: t.Any) -> Data:
        schema = t.cast("ma.Schema", self._schema)
        if isinstance(data, Mapping):
            return dict(schema.dump(_checked(schema, data, "data"), many=False))
        made = {} if _is_plain(data) else dict(schema.dump(data, many=False))
        if not made:
            raise PayloadError(
                f"data is {type(data).__name__}, which has none of the attributes that {type(schema).__name__} reads. "
                f"Pass a dict with {listed(_heads(schema))}."
            )
        return made

    def _of_columns(self, data: t.Any) -> Data:
        plain = t.cast("Plain", self._plain)
        model, keys, columns = plain.mapper.class_.__name__, plain.keys, plain.mapper.column_attrs
        if not isinstance(data, Mapping):
            raise PayloadError(
                f"data is {type(data).__name__}. Pass a {model}, or a dict with columns of it: {', '.join(keys)}."
            )
        for key in data:
            if key not in keys:
                remedy = did_you_mean(str(key), keys, f"It has: {', '.join(keys)}.")
                raise PayloadError(f"data has the key {key!r}, which {model} does not send. {remedy}")
        return {key: _as_column(columns[key].columns[0].type, value) for key, value in data.items()}


def _as_column(kind: sa.types.TypeEngine[t.Any], value: t.Any) -> t.Any:
    """Return a value as a row would have it."""
    if isinstance(kind, sa.Enum) and kind.enum_class is not None and isinstance(value, str):
        return kind.enum_class.__members__.get(value, value)
    if isinstance(kind, sa.Numeric) and kind.asdecimal and type(value) in (int, float):
        return Decimal(str(value))
    return value


def _checked(schema: ma.Schema, data: Mapping[t.Any, t.Any], path: str) -> Data:
    """Return a copy, down to what nested schemas dump, whose keys are all known."""
    name, fields = type(schema).__name__, _heads(schema)
    allowed = fields.keys() | _read_by_code(schema)
    for key in data:
        if key not in allowed:
            raise PayloadError(
                f"{path} has the key {key!r}, which {name} does not know. {_remedy(schema, key)}"
            )
    lacking = [head for head, field in fields.items() if field.required and _is_lacking(head, field, data)]
    if lacking:
        raise PayloadError(
            f"{path} lacks {listed(lacking)}, which {name} requires. Pass it, or the row itself."
        )
    return {key: _below(fields.get(key), value, f"{path}.{key}") for key, value in data.items()}


def _is_lacking(head: str, field: mf.Field[t.Any], data: Mapping[t.Any, t.Any]) -> bool:
    return head not in data and not field.load_only and field.dump_default is ma.missing


def _heads(schema: ma.Schema) -> dict[str, mf.Field[t.Any]]:
    """Return the fields of a schema by the first attribute that each reads."""
    return {attribute_of(name, field).partition(".")[0]: field for name, field in schema.fields.items()}


def _remedy(schema: ma.Schema, key: t.Any) -> str:
    for name, field in schema.fields.items():
        if key_of(name, field) == key:
            return f'It reads "{attribute_of(name, field)}" and sends it as "{key}".'
    heads = list(_heads(schema))
    return did_you_mean(str(key), heads, f"It knows: {', '.join(heads)}.")


def _below(field: mf.Field[t.Any] | None, value: t.Any, path: str) -> t.Any:
    """Copy a value, and check what nested schemas will dump of it."""
    is_elsewhere = field is not None and field.attribute is not None and "." in field.attribute
    if field is None or value is None or is_elsewhere or isinstance(field, mf.Pluck):
        return _copied(value)
    if isinstance(field, mf.Mapping):
        inner = field.value_field
        if inner is None or not isinstance(value, Mapping):
            return _copied(value)
        return {key: _below(inner, each, f"{path}[{key!r}]") for key, each in value.items()}
    if isinstance(field, mf.Tuple):
        fields = field.tuple_fields
        pairs = zip(fields, value, strict=False) if isinstance(value, list | tuple) else ()
        found = [_below(inner, each, f"{path}[{at}]") for at, (inner, each) in enumerate(pairs)]
        return found if len(found) == len(fields) else _copied(value)
    several = isinstance(field, mf.List) or (
        isinstance(field, mf.Nested) and (field.many or field.schema.many)
    )
    if several:
        if isinstance(value, Mapping | str | bytes) or not hasattr(value, "__iter__"):
            raise PayloadError(f"{path} is {type(value).__name__}, and not a list. Pass a list.")
        return [_each(field, each, f"{path}[{at}]") for at, each in enumerate(value)]
    return _each(field, value, path)


def _each(field: mf.Field[t.Any], value: t.Any, path: str) -> t.Any:
    """Check one value of a list, or the value itself."""
    if isinstance(field, mf.List):
        return _below(field.inner, value, path)
    return _one(field.schema, value, path) if isinstance(field, mf.Nested) else _copied(value)


def _one(schema: ma.Schema, value: t.Any, path: str) -> t.Any:
    if isinstance(value, Mapping):
        return _checked(schema, value, path)
    if value is not None and _is_plain(value):
        known = ", ".join(_heads(schema))
        raise PayloadError(f"{path} is {type(value).__name__}, and not an object with {known}. Pass a dict.")
    return value


def _is_plain(value: t.Any) -> bool:
    """Whether it has no attributes that a schema could mean."""
    return value is None or isinstance(value, str | bytes | int | float | list | tuple | set | frozenset)


def _copied(value: t.Any) -> t.Any:
    """Copy what hooks of the host's might change in place; the dict that was passed may be used again."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _read_by_code(schema: ma.Schema) -> frozenset[str]:
    """Return the keys that methods, functions and dump hooks of a schema mention."""
    by_fields = (names_read(schema, field) or () for field in schema.dump_fields.values())
    by_hooks = map(names_in, dump_hooks(schema).values())
    return frozenset().union(*by_fields, *by_hooks)
