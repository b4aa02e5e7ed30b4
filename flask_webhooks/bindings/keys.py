"""Keys of what a schema dumps: what of a row each reads, and whether code of the host's stands between.

Marshmallow has no words of its own for this, so its rules, and its private names, are here.
"""

from __future__ import annotations

import inspect
import types
import typing as t
from collections.abc import Iterator

import marshmallow as ma
from marshmallow import fields as mf

__all__ = ["attribute_of", "dump_hooks", "is_hooked", "key_of", "keys_of", "names_in", "names_read"]

AnyField: t.TypeAlias = mf.Field[t.Any]


def key_of(name: str, field: AnyField) -> str:
    """Return the key under which a field of a schema stands in what it dumps."""
    return name if field.data_key is None else field.data_key


def keys_of(schema: ma.Schema) -> frozenset[str]:
    """Return the keys of what a schema dumps."""
    return frozenset(key_of(name, field) for name, field in schema.dump_fields.items())


def attribute_of(name: str, field: AnyField) -> str:
    """Return the attribute that a field of a schema reads; perhaps a path, with dots."""
    return name if field.attribute is None else field.attribute


def dump_hooks(schema: ma.Schema) -> dict[str, t.Any]:
    """Return the methods of a schema that are called before or after it dumps, by their names."""
    methods = {name: inspect.getattr_static(type(schema), name, None) for name in dir(type(schema))}
    return {name: method for name, method in methods.items() if _is_dump_hook(method)}


def _is_dump_hook(method: t.Any) -> bool:
    """Marked by `pre_dump` or `post_dump`: of marshmallow 3, or of 4."""
    marks: t.Any = getattr(method, "_marshmallow_hook", None) or getattr(method, "__marshmallow_hook__", ())
    return any("_dump" in str(mark) for mark in marks)


def is_hooked(schema: ma.Schema) -> bool:
    """Say whether code of the host's stands between the fields of a schema and what it dumps."""
    return type(schema).dump is not ma.Schema.dump or bool(dump_hooks(schema))


def names_read(schema: ma.Schema, field: AnyField) -> frozenset[str] | None:
    """Return the names that the host's code behind a field mentions; None of a field that no code stands behind."""
    if isinstance(field, mf.Method):
        return names_in(getattr(schema, field.serialize_method_name or "", None))
    return names_in(field.serialize_func) if isinstance(field, mf.Function) else None


def names_in(function: object) -> frozenset[str]:
    """Return attributes and keys that a function's code mentions; a wrapper's are those of what it wraps."""
    found: object = function
    while (inner := getattr(found, "__wrapped__", None)) is not None:
        found = inner
    return frozenset(_mentioned(getattr(found, "__code__", None)))


def _mentioned(code: object) -> Iterator[str]:
    if isinstance(code, types.CodeType):
        yield from code.co_names
        for inside in code.co_consts:
            yield from [inside] if isinstance(inside, str) else _mentioned(inside)
