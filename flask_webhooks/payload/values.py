"""What each class of values is written as: the values that JSON does not know, in values that it knows.

The law of this room: a class has one form, whatever the process; docs/catalogue.md has the table.
"""

from __future__ import annotations

import base64
import enum
import functools
import ipaddress
import json
import pathlib
import typing as t
import uuid
import zoneinfo
from collections.abc import Callable, ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from datetime import date, time, timedelta
from decimal import Decimal
from operator import attrgetter, methodcaller

__all__ = ["JSON", "is_writable", "ordered", "with_written_keys", "written", "written_key"]

Writer = Callable[[t.Any], object]


def written(value: object) -> object:
    """Return a value that JSON does not know in values that it knows: the encoder calls it.

    :raises TypeError: its class has no form. `encode` then looks for the place.
    """
    kind: t.Any = type(value)
    write = _writer(kind)
    if write is None:
        raise TypeError
    return write(value)


@functools.lru_cache(256)
def _writer(kind: type) -> Writer | None:
    """Return the function that writes the values of a class, None if the class has no form.

    The function may return values that need a writer in turn.
    """
    for base, write in _WRITERS:
        if issubclass(kind, base):
            return write
    # By name: their packages are not always installed, and importing them takes time.
    for base in kind.__mro__:
        foreign = _FOREIGN.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if foreign is not None:
            return foreign
    # SQLAlchemy's, psycopg's and asyncpg's ranges have nothing else in common.
    if all(hasattr(kind, name) for name in ("lower", "upper", "lower_inc", "upper_inc")):
        return _range
    for name in ("tolist", "to_list"):  # arrays and their scalars
        if hasattr(kind, name):
            return methodcaller(name)
    return next((write for base, write in _CONTAINERS if issubclass(kind, base)), None)


def is_writable(kind: t.Any) -> bool:
    """Whether values of a class can be written as JSON; of a container only the class is checked, not its elements."""
    return issubclass(kind, str | int | float | dict | list | tuple | None) or _writer(kind) is not None


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise TypeError
    return str(value)


def ordered(values: Set[t.Any]) -> list[t.Any]:
    """Return a set as a list: numbers by size, anything else by its JSON, the same whatever the process's hashes are.

    :raises TypeError: it has something that JSON cannot hold.
    """
    if all(type(each) is int for each in values):
        return sorted(values)
    return sorted(values, key=lambda each: JSON.encode(with_written_keys(each)))


def _range(value: t.Any) -> dict[str, object]:
    """Return a range of PostgreSQL, from any library: with `bounds` as PostgreSQL writes them, or `empty`."""
    if getattr(value, "isempty", False) or getattr(value, "empty", False) is True:
        return {"lower": None, "upper": None, "bounds": "empty"}
    lower, upper = value.lower, value.upper
    opening = "[" if value.lower_inc and lower is not None else "("
    closing = "]" if value.upper_inc and upper is not None else ")"
    return {"lower": lower, "upper": upper, "bounds": opening + closing}


_WRITERS: tuple[tuple[type | t.Any, Writer], ...] = (
    (Decimal, _decimal),
    (date | time, methodcaller("isoformat")),
    (uuid.UUID, str),
    (enum.Enum, attrgetter("value")),
    (timedelta, timedelta.total_seconds),
    (bytes | bytearray | memoryview, lambda value: base64.b64encode(value).decode()),
    (
        ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network,
        str,
    ),
    (pathlib.PurePath, str),
    (zoneinfo.ZoneInfo, str),
)
"""The first match counts. None of these contains other values, so most can be keys too."""
_CONTAINERS: tuple[tuple[type | t.Any, Writer], ...] = (
    (Mapping, dict),
    (KeysView | ValuesView | ItemsView | Sequence, list),
    (Set, ordered),
)
_FOREIGN: t.Mapping[str, Writer] = {
    "arrow.Arrow": methodcaller("isoformat"),
    "babel.Locale": str,
    "colour.Color": attrgetter("hex"),
    "furl.furl": str,
    "intervals.AbstractInterval": _range,
    "sqlalchemy_utils.Choice": attrgetter("code"),
    "sqlalchemy_utils.Country": attrgetter("code"),
    "sqlalchemy_utils.Currency": attrgetter("code"),
    "sqlalchemy_utils.Ltree": attrgetter("path"),
    "sqlalchemy_utils.PhoneNumber": attrgetter("e164"),
    "ulid.ULID": str,
    "yarl.URL": str,
}
"""Values of widespread column types, by their outermost package and their class, so that no package is imported."""


# Built once: json.dumps with arguments builds an encoder on every call.
JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=written)


def with_written_keys(value: object) -> object:
    """Return a value with all keys and values in the forms that the encoder accepts."""
    if isinstance(value, dict):
        found = {written_key(key): with_written_keys(item) for key, item in value.items()}
        if len(found) < len(value):  # two keys became one text: a value would be lost
            raise TypeError
        return found
    if isinstance(value, list | tuple):
        return [with_written_keys(item) for item in value]
    return value if isinstance(value, str | int | float | None) else with_written_keys(written(value))


def written_key(key: object) -> object:
    """Return a key in the form that the encoder accepts. Bytes are refused: in base64 they would look like text.

    :raises TypeError: it is no such key.
    """
    if isinstance(key, str | int | float | None):
        return key
    write = next((write for base, write in _WRITERS if isinstance(key, base)), None)
    if write is None or isinstance(key, bytes | bytearray | memoryview):
        raise TypeError
    return write(key)
