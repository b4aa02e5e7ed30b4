"""Which columns can be sent without a schema: what JSON can hold, by their types, before any row is there."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import typing as t
import uuid
from collections.abc import Iterator

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine.default import DefaultDialect

from .. import payload
from ..errors import PayloadError
from .keys import attribute_of
from .trails import AnyMapper

__all__ = ["Doubt", "doubts_of", "is_binary", "is_sealed", "is_unwritable", "raw_doubts"]

AnyType: t.TypeAlias = sa.types.TypeEngine[t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Doubt:
    """A column whose values JSON cannot hold, or perhaps cannot."""

    column: str
    """`Shop.place`"""
    kind: str
    """The type of the column: `Geometry`."""
    is_left_out: bool
    """Whether it is known, so that `data` leaves it out."""

    def __str__(self) -> str:
        if self.is_left_out:
            return (
                f"{self.column} ({self.kind}) is left out of data: its values have no form in JSON. To send it, name a "
                "schema that gives it one."
            )
        return (
            f"{self.column} ({self.kind}) may hold what JSON cannot: only its values tell, and an event with such a "
            "value cannot be sent. Name a schema that gives it a form, or leaves it out."
        )


def is_binary(kind: AnyType) -> bool:
    """Say whether a column holds bytes, which `data` leaves out: they are long, and of no use to most."""
    return isinstance(kind, sa.LargeBinary)


_SEALED = re.compile(r"Password|Encrypt|Cipher|Fernet|Sealed|Secret|Vault", re.IGNORECASE)


def is_sealed(kind: AnyType) -> bool:
    """Say whether a type is there to keep its values from being read: `PasswordType`, `StringEncryptedType`.

    A host's own is known by its name, by that of a class that it inherits from, and by the type that it stands on.
    """
    if any(_SEALED.search(base.__name__) for base in type(kind).__mro__):
        return True
    return isinstance(kind, sa.TypeDecorator) and is_sealed(kind.impl_instance)


def is_unwritable(kind: AnyType) -> bool:
    """Say whether it is known that JSON cannot hold the values of a type."""
    return _is_writable(kind) is False


def doubts_of(mapper: AnyMapper) -> Iterator[Doubt]:
    """Yield the columns of a class that JSON cannot hold, or perhaps cannot."""
    for attr in mapper.column_attrs:
        doubt = _doubt(mapper, attr)
        if doubt is not None:
            yield doubt


def raw_doubts(schema: ma.Schema, mapper: AnyMapper) -> Iterator[Doubt]:
    """Yield the same of the columns that a schema sends as they are."""
    for name, field in schema.dump_fields.items():
        attr = mapper.column_attrs.get(attribute_of(name, field))
        if type(field) in (ma.fields.Raw, ma.fields.Field) and attr is not None:
            doubt = _doubt(mapper, attr)
            if doubt is not None:
                yield dataclasses.replace(doubt, is_left_out=False)


def _doubt(mapper: AnyMapper, attr: orm.ColumnProperty[t.Any]) -> Doubt | None:
    kind = attr.columns[0].type
    writable = _is_writable(kind)
    if writable or is_binary(kind):
        return None
    return Doubt(f"{mapper.class_.__name__}.{attr.key}", type(kind).__name__, writable is False)


_KNOWN = ("sqlalchemy", "sqlalchemy_utils", "pgvector")
"""Packages whose types have values that we write."""
_UNWRITABLE = ("geoalchemy2",)


def _is_writable(kind: AnyType) -> bool | None:
    """Say whether JSON can hold the values of a type; None if only the values tell."""
    package = type(kind).__module__.partition(".")[0]
    if isinstance(kind, sa.ARRAY):
        return _is_writable(kind.item_type)
    if isinstance(kind, sa.PickleType | sa.types.NullType):
        return None
    if package in _UNWRITABLE:
        return False
    values = _python_type(kind)
    if values is not None and not payload.is_writable(values):
        return False
    if isinstance(kind, sa.TypeDecorator) and package not in _KNOWN:
        return _tried(kind)
    return True if values is not None or package in _KNOWN else None


def _python_type(kind: AnyType) -> type | None:
    """Return what a type says that its values are; None if it does not."""
    try:
        found: type = kind.python_type
    except NotImplementedError:
        return None
    return None if found is object else found


_SAMPLES: t.Mapping[type, tuple[object, ...]] = {
    str: ("", "1", "{}", "[]", "a"),
    int: (1,),
    float: (1.5,),
    bool: (True,),
    bytes: (b"",),
    dict: ({},),
    list: ([],),
    decimal.Decimal: (decimal.Decimal(1),),
    uuid.UUID: (uuid.UUID(int=1),),
    datetime.datetime: (datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC),),
    datetime.date: (datetime.date(2026, 1, 31),),
    datetime.time: (datetime.time(9, 30),),
    datetime.timedelta: (datetime.timedelta(hours=1),),
}


def _tried(kind: sa.TypeDecorator[t.Any]) -> bool | None:
    """Let a type of the host's make values of what the database could give it, and look whether JSON can hold them."""
    if type(kind).process_result_value is sa.TypeDecorator.process_result_value:
        return _is_writable(kind.impl_instance)
    below = _python_type(kind.impl_instance)
    for sample in _SAMPLES.get(below, ()) if below is not None else ():
        try:
            made = kind.process_result_value(t.cast("t.Any", sample), DefaultDialect())
        except Exception:  # noqa: S112  # the host's code, and no value that it knows
            continue
        if made is not None:
            return _fits(made)
    return None


def _fits(value: object) -> bool:
    try:
        payload.encode(value)
    except PayloadError:
        return False
    return True
