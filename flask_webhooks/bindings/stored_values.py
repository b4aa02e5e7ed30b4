"""The form in which a column's value comes back from the database: `"5"` assigned to a number is 5 in the row.

SQLAlchemy takes more than a type gives back. What that is can be said of its own types without asking; of a type of the
host's, and of what a database rounds, pads or cuts, only the row can tell (`SERVER_GENERATED`).
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import re
import typing as t
import uuid
import zoneinfo
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

import sqlalchemy as sa
from sqlalchemy import types
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.mutable import Mutable

__all__ = ["SERVER_GENERATED", "Form", "Forms", "form_of"]


class _ServerGenerated(enum.Enum):
    SERVER_GENERATED = enum.auto()


SERVER_GENERATED = _ServerGenerated.SERVER_GENERATED
"""Stands for a value that only the database knows."""

Convert = t.Callable[[t.Any], t.Any]
AnyType: t.TypeAlias = types.TypeEngine[t.Any]


@dataclass(frozen=True, slots=True)
class Form:
    """What becomes of the values of one column."""

    kinds: frozenset[type] = frozenset()
    """Classes of which values come back as they are; subclasses are others."""
    fits: t.Callable[[t.Any], bool] | None = None
    """Of a value of these, whether it does."""
    convert: Convert | None = None
    """What comes back for another; raises for what cannot be said."""
    is_opaque: bool = False
    """Nothing can be said: of a type of the host's."""
    is_zoned: bool = False
    """The database gives it back in the zone of the connection."""

    def __call__(self, value: t.Any) -> t.Any:
        """Return what the row has for a value, itself if it is that; `SERVER_GENERATED` if only the row can tell."""
        if value is None:
            return None
        if type(value) in self.kinds and (self.fits is None or self.fits(value)):
            return value
        if self.convert is not None:
            try:
                return self.convert(value)
            except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
                pass
        return SERVER_GENERATED

    def may_change(self, kind: type) -> bool:
        """Whether a value of a class may come back as another; of None this is asked as of what is not there."""
        if self.is_opaque:
            return True
        return kind is not type(None) and (kind not in self.kinds or self.fits is not None)


class Forms:
    """The forms of some columns of a class.

    Whether a value has to be looked at hangs on its class alone, and most objects have values of the same classes:
    so that is worked out once for all of them together.
    """

    def __init__(self, forms: t.Mapping[str, Form]) -> None:
        self._forms = tuple(forms.items())
        self._names = tuple(forms)
        self._known: dict[tuple[type, ...], tuple[tuple[str, Form], ...]] = {}

    def in_doubt(self, held: dict[str, t.Any]) -> tuple[tuple[str, Form], ...]:
        """Return those of the columns whose values may come back as others. An object need not have them."""
        kinds = tuple(map(type, map(held.get, self._names)))
        found = self._known.get(kinds)
        if found is None:
            found = tuple(
                each for each, kind in zip(self._forms, kinds, strict=True) if each[1].may_change(kind)
            )
            if len(self._known) < _MOST_KNOWN:
                self._known[kinds] = found
        return found


_MOST_KNOWN = 256
"""A host may make classes of its own without end."""
OPAQUE = Form(is_opaque=True)


def form_of(column: sa.ColumnElement[t.Any], dialect: sa.Dialect) -> Form:
    """Return the form of a column on a database."""
    kind = column.type
    kind = kind._variant_mapping.get(dialect.name, kind)
    if not type(kind).__module__.startswith("sqlalchemy."):
        return OPAQUE
    for cls, make in _MAKERS:
        if isinstance(kind, cls):
            return make(kind, dialect)
    return OPAQUE


def _opaque(kind: AnyType, dialect: sa.Dialect) -> Form:
    return OPAQUE


def _refuse(value: t.Any) -> t.NoReturn:
    raise TypeError(value)


# ---- texts, numbers ----------------------------------------------------------------------------------------


def _text(kind: types.String, dialect: sa.Dialect) -> Form:
    length, name = kind.length, dialect.name
    is_char = isinstance(kind, types.CHAR | types.NCHAR)
    if name == "postgresql" and is_char:
        width = length or 1
        return Form(
            frozenset({str}),
            lambda value: len(value) == width,
            lambda value: _as_text(value).ljust(width) if len(_as_text(value)) <= width else _refuse(value),
        )
    if name in ("mysql", "mariadb") and is_char:
        return Form(
            frozenset({str}),
            lambda value: not value.endswith(" ") and (length is None or len(value) <= length),
            lambda value: _within(_as_text(value).rstrip(" "), length),
        )
    if length is None or name == "sqlite":
        return Form(frozenset({str}), None, _as_text)
    return Form(
        frozenset({str}), lambda value: len(value) <= length, lambda value: _within(_as_text(value), length)
    )


def _as_text(value: t.Any) -> str:
    return value if type(value) is str else str(value) if type(value) is int else _refuse(value)


def _within(value: str, length: int | None) -> str:
    return value if length is None or len(value) <= length else _refuse(value)


_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)


def _whole(kind: AnyType, dialect: sa.Dialect) -> Form:
    return Form(frozenset({int}), None, _as_whole)


def _as_whole(value: t.Any) -> int:
    if type(value) is bool or (type(value) is str and _WHOLE.fullmatch(value)):
        return int(value)
    _refuse(value)


def _flag(kind: AnyType, dialect: sa.Dialect) -> Form:
    return Form(frozenset({bool}), None, lambda value: bool(value) if type(value) is int else _refuse(value))


def _float(kind: types.Float[t.Any], dialect: sa.Dialect) -> Form:
    is_rounded = getattr(kind, "scale", None) is not None  # MySQL's DOUBLE(8, 2)
    is_double = (isinstance(kind, types.Double) and not is_rounded) or (
        dialect.name == "sqlite"
        or (
            dialect.name == "postgresql"
            and not isinstance(kind, types.REAL)
            and (kind.precision is None or kind.precision > 24)
        )
    )
    if kind.asdecimal or not is_double:
        return OPAQUE
    return Form(frozenset({float}), lambda value: value == value, _as_float)


def _as_float(value: t.Any) -> float:
    return float(value) if type(value) is int and abs(value) <= 2**53 else _refuse(value)


_WIDE = Context(prec=200, rounding=ROUND_HALF_UP)


def _numeric(kind: types.Numeric[t.Any], dialect: sa.Dialect) -> Form:
    if dialect.name == "sqlite":
        return _numeric_on_sqlite(kind, dialect)
    if not kind.asdecimal:
        return OPAQUE
    if dialect.name == "postgresql" and kind.precision is None and kind.scale is None:
        return Form(
            frozenset({Decimal}),
            _is_plain,
            lambda value: _refuse(value) if type(value) is Decimal else _plain(value),
        )
    places = kind.scale or 0
    unit = Decimal(1).scaleb(-places)

    def fits(value: Decimal) -> bool:
        return value.as_tuple().exponent == -places and bool(value)

    def convert(value: t.Any) -> Decimal:
        found = _plain(value).quantize(unit, context=_WIDE)
        return found if found else found.copy_abs()

    return Form(frozenset({Decimal}), fits, convert)


def _is_plain(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and -20 < exponent <= 0 and bool(value)


def _plain(value: t.Any) -> Decimal:
    if type(value) is Decimal and value.is_finite():
        return value
    if type(value) is int or (type(value) is str and _NUMBER.fullmatch(value)):
        return Decimal(value)
    _refuse(value)


def _numeric_on_sqlite(kind: types.Numeric[t.Any], dialect: sa.Dialect) -> Form:
    """It keeps floats, and SQLAlchemy makes decimals of them, with as many places as the type says."""
    impl = kind.dialect_impl(dialect)
    bind, result = impl.bind_processor(dialect), impl.result_processor(dialect, None)
    places = kind.scale if kind.scale is not None else kind._default_decimal_return_scale

    def fits(value: Decimal) -> bool:
        _, digits, exponent = value.as_tuple()
        return exponent == -places and len(digits) <= 15 and bool(value)

    def convert(value: t.Any) -> t.Any:
        if type(value) is not float:
            _plain(value)
        found: t.Any = bind(value) if bind is not None else float(value)
        found = found or 0.0  # it has no negative zero
        return result(found) if result is not None else found

    if not kind.asdecimal:
        return Form(frozenset({float}), lambda value: value == value, convert)
    return Form(frozenset({Decimal}), fits, convert)


# ---- times -------------------------------------------------------------------------------------------------


def _moment(kind: types.DateTime, dialect: sa.Dialect) -> Form:
    name = dialect.name
    if name == "sqlite":
        if isinstance(kind, sqlite.DATETIME):
            return OPAQUE
        return Form(frozenset({dt.datetime}), _is_naive, _as_naive)
    if name in ("mysql", "mariadb"):
        keeps = bool(getattr(kind, "fsp", None) == 6)
        return Form(
            frozenset({dt.datetime}), lambda value: _is_naive(value) and (keeps or not value.microsecond)
        )
    precision = getattr(kind, "precision", None)
    keeps = precision is None or precision == 6
    if kind.timezone:
        return Form(frozenset({dt.datetime}), _is_in_a_zone, is_zoned=True) if keeps else OPAQUE
    return Form(frozenset({dt.datetime}), lambda value: _is_naive(value) and (keeps or not value.microsecond))


def _is_naive(value: dt.datetime | dt.time) -> bool:
    return value.tzinfo is None


def _is_in_a_zone(value: dt.datetime) -> bool:
    """Say whether it may be as a driver gives it back: an offset alone is not."""
    return value.tzinfo is dt.UTC or isinstance(value.tzinfo, zoneinfo.ZoneInfo)


def _as_naive(value: t.Any) -> dt.datetime:
    return value.replace(tzinfo=None) if type(value) is dt.datetime else _refuse(value)


def _day(kind: AnyType, dialect: sa.Dialect) -> Form:
    return OPAQUE if isinstance(kind, sqlite.DATE) else Form(frozenset({dt.date}))


def _time(kind: types.Time, dialect: sa.Dialect) -> Form:
    if isinstance(kind, sqlite.TIME) or kind.timezone:
        return OPAQUE
    keeps = dialect.name not in ("mysql", "mariadb") and getattr(kind, "precision", None) is None
    keeps = keeps or getattr(kind, "fsp", None) == 6
    return Form(frozenset({dt.time}), lambda value: _is_naive(value) and (keeps or not value.microsecond))


def _span(kind: t.Any, dialect: sa.Dialect) -> Form:
    if any(getattr(kind, name, None) is not None for name in ("fields", "precision", "second_precision")):
        return OPAQUE
    keeps = dialect.name not in ("mysql", "mariadb")
    return Form(frozenset({dt.timedelta}), lambda value: keeps or not value.microseconds)


# ---- the rest ----------------------------------------------------------------------------------------------


def _choice(kind: types.Enum, dialect: sa.Dialect) -> Form:
    impl = kind.dialect_impl(dialect)
    bind, result = impl.bind_processor(dialect), impl.result_processor(dialect, None)

    def convert(value: t.Any) -> t.Any:
        return result(bind(value)) if bind is not None and result is not None else _refuse(value)

    if kind.enum_class is None and kind.native_enum and dialect.name in ("mysql", "mariadb"):
        return Form(frozenset({str}), frozenset(kind.enums).__contains__)  # "PAID" is "paid" to it
    return Form(frozenset({str if kind.enum_class is None else kind.enum_class}), None, convert)


_CANONICAL = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)


def _uuid(kind: types.Uuid[t.Any], dialect: sa.Dialect) -> Form:
    if kind.as_uuid:
        return Form(frozenset({uuid.UUID}), None, lambda value: uuid.UUID(value))
    return Form(
        frozenset({str}),
        lambda value: _CANONICAL.fullmatch(value) is not None,
        lambda value: str(uuid.UUID(str(value))),
    )


def _bytes(kind: types.LargeBinary, dialect: sa.Dialect) -> Form:
    def convert(value: t.Any) -> bytes:
        return bytes(value) if type(value) in (bytearray, memoryview) else _refuse(value)

    return Form(frozenset({bytes}), None, convert)


def _json(kind: types.JSON, dialect: sa.Dialect) -> Form:
    mine: t.Any = dialect
    is_own = getattr(mine, "_json_serializer", None) or getattr(mine, "_json_deserializer", None)

    def convert(value: t.Any) -> t.Any:
        if isinstance(value, Mutable) and fits(value):
            return value
        if value is types.JSON.NULL:
            return None
        found = _refuse(value) if is_own else json.loads(json.dumps(value))
        return found if fits(found) else _refuse(value)

    # PostgreSQL's JSONB has one kind of number: 1e16 is a whole one when it comes back.
    fits = _is_jsonb if isinstance(kind, postgresql.JSONB) else _is_json
    return Form(frozenset({dict, list, str, int, float, bool}), fits, convert)


_LEAVES = frozenset({str, int, bool, type(None)})


def _is_json(value: t.Any, largest: float = math.inf) -> bool:
    """Say whether JSON gives it back as it is.

    :param largest: what a float must be below.
    """
    kind = type(value)
    if kind in _LEAVES:
        return True
    if isinstance(value, dict):
        return (kind is dict or isinstance(value, Mutable)) and all(
            type(key) is str and _is_json(each, largest) for key, each in value.items()
        )
    if isinstance(value, list):
        return (kind is list or isinstance(value, Mutable)) and all(_is_json(each, largest) for each in value)
    return kind is float and -largest <= value <= largest


def _is_jsonb(value: t.Any) -> bool:
    return _is_json(value, 9e15)


def _array(kind: types.ARRAY[t.Any], dialect: sa.Dialect) -> Form:
    item = form_of(sa.column("item", kind.item_type), dialect)
    if kind.as_tuple or item.is_opaque:
        return OPAQUE

    def within(value: t.Any) -> t.Any:
        if type(value) in (list, tuple):
            return [within(each) for each in value]
        found = item(value)
        return _refuse(value) if found is SERVER_GENERATED else found

    def fits(value: list[t.Any]) -> bool:
        return all(fits(each) if type(each) is list else item(each) is each for each in value)

    def convert(value: t.Any) -> t.Any:
        return within(value) if type(value) in (list, tuple) else _refuse(value)

    return Form(frozenset({list}), fits, convert)


_MAKERS: tuple[tuple[type, t.Callable[[t.Any, sa.Dialect], Form]], ...] = (
    (types.Enum, _choice),
    (mysql.SET, _opaque),
    (types.LargeBinary, _bytes),
    (types.String, _text),
    (types.Boolean, _flag),
    (types.Integer, _whole),
    (types.Float, _float),
    (types.Numeric, _numeric),
    (types.Interval, _span),
    (postgresql.INTERVAL, _span),
    (types.DateTime, _moment),
    (types.Date, _day),
    (types.Time, _time),
    (types.Uuid, _uuid),
    (types.JSON, _json),
    (types.ARRAY, _array),
)
