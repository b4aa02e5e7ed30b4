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
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.default import DefaultDialect

from .. import payload
from ..errors import PayloadError
from .paths import AnyMapper
from .schema_keys import attribute_of

__all__ = [
    "Doubt",
    "Fit",
    "doubts_of",
    "fit_of",
    "is_binary",
    "is_sealed",
    "is_unwritable",
    "raw_doubts",
    "shown_type",
]

AnyType: t.TypeAlias = sa.types.TypeEngine[t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """The values other than None that the type of a column can return."""

    kinds: tuple[type, ...]
    others: tuple[type, ...] = ()
    """Classes below these that it does not."""
    words: frozenset[str] | None = None
    """Of texts, those that it does."""

    def by_class(self, kind: type) -> bool:
        """Say whether a value may be of a class."""
        return issubclass(kind, self.kinds) and not issubclass(kind, self.others)

    def __call__(self, value: t.Any) -> bool:
        return self.by_class(type(value)) and (self.words is None or value in self.words)


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
    """Return whether JSON can represent the values of a type; None if that depends on the value."""
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


def shown_type(kind: AnyType) -> AnyType | None:
    """Return the type whose values a column has; None where that is the work of the host's own code."""
    makers = ("process_result_value", "result_processor")
    if any(_is_hosts(kind, name) for name in makers) or isinstance(kind, mysql.SET):
        return None
    found = kind
    if isinstance(kind, sa.TypeDecorator) and not type(kind).__module__.startswith("sqlalchemy."):
        # What it says of its values is often what its column has (`ChoiceType`).
        inner = shown_type(kind.impl_instance)
        if inner is None:
            return None
        found = inner
    variants = kind._variant_mapping.values()
    return found if all(_is_alike(found, each) for each in variants) else None


def _is_hosts(kind: AnyType, method: str) -> bool:
    owner = next((base for base in type(kind).__mro__ if method in vars(base)), object)
    return owner is not object and not owner.__module__.startswith("sqlalchemy.")


def _is_alike(kind: AnyType, variant: AnyType) -> bool:
    """Whether a type for another database has values of the same class."""
    shown = shown_type(variant)
    return shown is not None and _python_type(shown) is _python_type(kind)


def fit_of(column: sa.ColumnElement[t.Any]) -> Fit | None:
    """Return the values that the type of a column can return; None: any.

    Some databases hold what a type cannot read: SQLite a text in a column of numbers, others a word that no enum has.
    """
    # What an expression computes the database decides: the sum of whole numbers may be a decimal.
    kind = shown_type(column.type) if isinstance(column, sa.Column) else None
    if isinstance(kind, sa.Enum):
        return (
            Fit((str,), words=frozenset(kind.enums)) if kind.enum_class is None else Fit((kind.enum_class,))
        )
    values = _python_type(kind) if kind is not None else None
    return next((fit for base, fit in _FITS if values is not None and issubclass(values, base)), None)


_FITS: tuple[tuple[type, Fit], ...] = (
    (bool, Fit((bool,))),
    (int, Fit((int,), (bool,))),
    (float, Fit((float, int), (bool,))),
    (datetime.timedelta, Fit((datetime.timedelta,))),
    (decimal.Decimal, Fit((decimal.Decimal,))),
    (uuid.UUID, Fit((uuid.UUID,))),
    (datetime.datetime, Fit((datetime.datetime,))),
    (datetime.date, Fit((datetime.date,), (datetime.datetime,))),
    (datetime.time, Fit((datetime.time,))),
    (str, Fit((str,))),
)
"""As `json_types` promises it; the first that fits counts."""


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
