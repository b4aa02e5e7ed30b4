"""Keys of what a schema dumps: what of a row each reads, and whether code of the host's stands between.

Marshmallow has no words of its own for this, so its rules, and its private names, are here.
"""

from __future__ import annotations

import inspect
import types
import typing as t
import weakref
from collections.abc import Iterator

import marshmallow as ma
from marshmallow import fields as mf

__all__ = [
    "all_names_in",
    "attribute_of",
    "code_behind",
    "dump_hooks",
    "is_hooked",
    "key_of",
    "keys_of",
    "names_in",
    "names_read",
]

# In quotes: only of marshmallow 4 is it a class that takes a parameter while the program runs.
AnyField: t.TypeAlias = "mf.Field[t.Any]"


def key_of(name: str, field: AnyField) -> str:
    """Return the key under which a field of a schema stands in what it dumps."""
    return name if field.data_key is None else field.data_key


def keys_of(schema: ma.Schema) -> frozenset[str]:
    """Return the keys of what a schema dumps."""
    return frozenset(key_of(name, field) for name, field in schema.dump_fields.items())


def attribute_of(name: str, field: AnyField) -> str:
    """Return the attribute that a field of a schema reads; perhaps a path, with dots."""
    return name if field.attribute is None else field.attribute


_hooks: weakref.WeakKeyDictionary[type, t.Mapping[str, t.Any]] = weakref.WeakKeyDictionary()
"""By class, as marshmallow keeps them too: each event asks, and an app has as many schemas as channels."""


def dump_hooks(schema: ma.Schema) -> t.Mapping[str, t.Any]:
    """Return the methods of a schema that are called before or after it dumps, by their names."""
    cls = type(schema)
    found = _hooks.get(cls)
    if found is None:
        methods = {name: inspect.getattr_static(cls, name, None) for name in dir(cls)}
        found = _hooks[cls] = {name: method for name, method in methods.items() if _is_dump_hook(method)}
    return found


def _is_dump_hook(method: t.Any) -> bool:
    """Marked by `pre_dump` or `post_dump`: of marshmallow 3, or of 4."""
    marks: t.Any = getattr(method, "_marshmallow_hook", None) or getattr(method, "__marshmallow_hook__", ())
    return any("_dump" in str(mark) for mark in marks)


def is_hooked(schema: ma.Schema) -> bool:
    """Say whether code of the host's stands between the fields of a schema and what it dumps."""
    return type(schema).dump is not ma.Schema.dump or bool(dump_hooks(schema))


def code_behind(schema: ma.Schema, field: AnyField) -> object:
    """Return the function of the host's that makes the value of a field; None of a field that none stands behind."""
    if isinstance(field, mf.Method):
        return getattr(schema, field.serialize_method_name or "", None)
    return field.serialize_func if isinstance(field, mf.Function) else None


def names_read(schema: ma.Schema, field: AnyField) -> frozenset[str] | None:
    """Return the names that the host's code behind a field mentions; None of a field that no code stands behind."""
    return names_in(code_behind(schema, field)) if isinstance(field, mf.Method | mf.Function) else None


def names_in(function: object) -> frozenset[str]:
    """Return attributes and keys that a function's code mentions; a wrapper's are those of what it wraps."""
    return frozenset(_mentioned(getattr(_unwrapped(function), "__code__", None)))


def all_names_in(start: object, *classes: type) -> frozenset[str]:
    """Return the same with what functions mention that it names: of its module, around it, of these classes."""
    found: set[str] = set()
    waiting, seen = [start], set[int]()
    while waiting and len(seen) < _MOST_FUNCTIONS:
        each: t.Any = _unwrapped(waiting.pop())
        if id(each) in seen or not isinstance(each, types.FunctionType | types.MethodType):
            continue
        seen.add(id(each))
        names = names_in(each)
        found |= names
        function: t.Any = getattr(each, "__func__", each)
        around = function.__globals__
        for name in names:
            waiting += [_function_of(inspect.getattr_static(cls, name, None)) for cls in classes]
            waiting.append(_function_of(around.get(name)))
        waiting += [_function_of(_inside(cell)) for cell in function.__closure__ or ()]
    return frozenset(found)


_MOST_FUNCTIONS = 200
_OTHERS = ("marshmallow.", "sqlalchemy.", "flask_sqlalchemy.")
"""Fields whose functions read what they are given, and no columns by name."""


def _function_of(value: t.Any) -> object:
    """Return the host's function that is behind an attribute or a name, if there is one."""
    for name in ("fget", "func", "__func__"):
        try:
            inner = getattr(value, name, None)
        except RuntimeError:  # a proxy, such as Flask's `current_app`, of what is not there now
            return None
        value = value if inner is None else inner
    is_function = isinstance(value, types.FunctionType)
    return value if is_function and not value.__module__.startswith(_OTHERS) else None


def _inside(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _unwrapped(function: object) -> object:
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        function = inner
    return function


def _mentioned(code: object) -> Iterator[str]:
    if isinstance(code, types.CodeType):
        yield from code.co_names
        for inside in code.co_consts:
            yield from [inside] if isinstance(inside, str) else _mentioned(inside)
