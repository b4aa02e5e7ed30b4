"""Whether making `data` of a row can run code of the host's: of a schema of plain fields over plain columns it cannot.

Then nothing has to be looked after while it is made. What is not known to be plain is not quiet: a method, a hook, a
property, a field or a column type of the host's, a relationship, a value that has to be loaded first.
"""

from __future__ import annotations

import inspect
import typing as t

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm

__all__ = ["PLAIN", "Quiet"]

_FIELDS = frozenset(
    {
        ma.fields.AwareDateTime,
        ma.fields.Boolean,
        ma.fields.Date,
        ma.fields.DateTime,
        ma.fields.Decimal,
        ma.fields.Email,
        ma.fields.Enum,
        ma.fields.Float,
        ma.fields.Integer,
        ma.fields.NaiveDateTime,
        ma.fields.Raw,
        ma.fields.String,
        ma.fields.Time,
        ma.fields.TimeDelta,
        ma.fields.URL,
        ma.fields.UUID,
    }
)
"""Subclasses are the host's."""
PLAIN = (
    sa.String,
    sa.Integer,
    sa.Numeric,
    sa.Boolean,
    sa.Date,
    sa.Time,
    sa.DateTime,
    sa.Interval,
    sa.Uuid,
)
"""Types whose values are Python's own, or enums."""
_OF_SCHEMAS = ("dump", "_serialize", "get_attribute", "_invoke_dump_processors", "dict_class")
_OF_FIELDS = ("serialize", "_serialize", "get_value")


class Quiet:
    """What one schema reads, or the plain columns; and of which classes that runs nothing of the host's."""

    def __init__(self, fields: t.Mapping[str, ma.fields.Field[t.Any] | None] | None) -> None:
        """Note what is read.

        :param fields: attribute to the field that is made of it, None for its plain value; None: the schema itself
            runs code of the host's.
        """
        self._fields = fields or {}
        self._is_loud = fields is None
        self._names = frozenset(self._fields)
        self._classes: dict[type, bool] = {}

    @classmethod
    def of(cls, schema: ma.Schema | None, columns: t.Iterable[str] | None) -> Quiet:
        """Look at a schema; without one at columns, or at nothing, where a method makes `data`."""
        if schema is None:
            return cls(None if columns is None else dict.fromkeys(columns))
        fields = {field.attribute or name: field for name, field in schema.dump_fields.items()}
        is_plain = _is_plain(schema) and len(fields) == len(schema.dump_fields)
        return cls(fields if is_plain and all(map(_is_plain_field, fields.values())) else None)

    def __call__(self, row: t.Any) -> bool:
        """Say whether nothing of the host's will run for a row, and nothing will be loaded."""
        state = row._sa_instance_state
        if self._is_loud or not (
            self._names.isdisjoint(state.expired_attributes) and self._names.isdisjoint(state.callables)
        ):
            return False
        cls = type(row)
        found = self._classes.get(cls)
        if found is None:
            found = self._classes[cls] = self._is_plain_class(cls)
        return found

    def _is_plain_class(self, cls: type) -> bool:
        getter: t.Any = cls.__getattribute__
        if getter is not object.__getattribute__ or hasattr(cls, "__getitem__"):
            return False
        mapper: orm.Mapper[t.Any] = sa.inspect(cls)
        return all(_is_plain_column(mapper, *each) for each in self._fields.items())


def _is_plain(schema: ma.Schema) -> bool:
    for name in _OF_SCHEMAS:
        own = inspect.getattr_static(type(schema), name, None)
        if own is not inspect.getattr_static(ma.Schema, name, None) or name in vars(schema):
            return False
    hooks: t.Mapping[t.Any, t.Any] = getattr(schema, "_hooks", {"dump": True})
    return not any(found and "dump" in str(when) for when, found in hooks.items())


def _is_plain_field(field: ma.fields.Field[t.Any]) -> bool:
    if type(field) not in _FIELDS or callable(field.dump_default):
        return False
    if any(name in vars(field) for name in _OF_FIELDS):
        return False
    return not isinstance(field, ma.fields.Enum) or _is_plain_field(field.field)


def _is_plain_column(mapper: orm.Mapper[t.Any], name: str, field: ma.fields.Field[t.Any] | None) -> bool:
    if name not in mapper.column_attrs:
        return False
    attribute: t.Any = inspect.getattr_static(mapper.class_, name, None)
    if type(attribute) is not orm.InstrumentedAttribute or getattr(attribute.impl, "callable_", True):
        return False
    kind = mapper.column_attrs[name].columns[0].type
    if not isinstance(kind, PLAIN) or not type(kind).__module__.startswith("sqlalchemy."):
        return False
    # Any other field would ask an enum for its text.
    return not isinstance(kind, sa.Enum) or field is None or isinstance(field, ma.fields.Enum)
