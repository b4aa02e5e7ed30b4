"""Encodes data as JSON text; if that fails, names the place in the data and the remedy."""

from __future__ import annotations

import typing as t
from collections.abc import Set
from decimal import Decimal

from ..errors import PayloadError
from .values import JSON, with_written_keys, written, written_key

__all__ = ["encode"]


def encode(data: object, *, root: str = "data") -> str:
    """Return data as JSON text: compact, keys in the order they were given, not escaped to ASCII.

    Beyond JSON's own types it takes what has one obvious form; docs/catalogue.md has the table. Text: `Decimal` (so
    that no cent is lost), dates and times (ISO 8601, with the offset they have), `UUID`, addresses, networks, paths.
    Numbers: durations, in seconds. `bytes` are base64, enums their value, sets sorted lists, ranges
    `{lower, upper, bounds}`. What is text like that may also be a key.

    :param root: what the error calls the outermost value.
    :raises PayloadError: for anything else, for NaN and infinities (JSON has none, RFC 8259, section 6), for
        values that contain themselves. It names the place: ``data.lines[3].photo is Image; …``.
    """
    try:
        try:
            text = JSON.encode(data)
        except TypeError:  # perhaps for a key that is no text: the encoder does not pass keys to `written`
            text = JSON.encode(with_written_keys(data))
        if not text.isascii():  # raises for half of a surrogate pair, here where the caller can correct it
            text.encode()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PayloadError(_blame(data, root)) from error
    return text


# ---- what is wrong ---------------------------------------------------------------------------------------


_HALF = "it holds half of a surrogate pair, which UTF-8 cannot carry"
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((float, Decimal), "JSON has no such number, send None"),
    (int, "it has too many digits for Python to write, send it as text"),
    (str, _HALF),
)

DEEPEST = 500
"""Levels that the search for a mistake follows; the encoder itself gives up at Python's recursion limit."""


class _Place(t.NamedTuple):
    """A value inside the data, with its path."""

    value: object
    path: str
    above: tuple[int, ...]
    """`id()` of each container around it."""


def _blame(data: object, root: str) -> str:
    """Return a sentence on what in the data cannot be encoded. It is slow, and used only after encoding has failed."""
    # A stack and no recursion: data that is nested too deeply is one of the mistakes to find.
    places = [_Place(data, root, ())]
    # Keeps what `_made` returns: a freed list could have the same `id()` as a later one, and seem to contain itself.
    alive = []
    while places:
        value, path, above = places.pop()
        if id(value) in above:
            return f"{path} contains itself; send its key instead."
        if len(above) > DEEPEST:
            return f"{path[:80]}… is nested more than {DEEPEST} levels deep; send less of it."
        complaint = _bad_keys(value) if isinstance(value, dict) else ""
        if complaint:
            return f"{path} has {complaint}."
        inside = _inside(value, path)
        if inside is None:
            if complaint := _complaint(value):
                return f"{path} is {complaint}."
            continue
        alive.append(value)
        places.extend(_Place(item, step, (*above, id(value))) for step, item in reversed(inside))
    return f"{root} cannot be written as JSON; send less of it."


def _inside(value: object, path: str) -> list[tuple[str, object]] | None:
    """Return the values inside a value, with their paths; None for a value that contains none."""
    if isinstance(value, dict):
        return [(path + _step(key), item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    if isinstance(value, Set):  # the order of a set says nothing, so its elements have no number
        return [(f"{path}[]", item) for item in value]
    made = _made(value)
    return None if made is None else [(path, made)]


def _bad_keys(value: dict[t.Any, t.Any]) -> str:
    bad = next((key for key in value if not _is_key(key)), None)
    if bad is not None:
        return _bad_key(bad)
    if len({written_key(key) for key in value}) < len(value):
        return "two keys that are the same when they are written; use text as keys"
    return ""


def _made(value: object) -> dict[str, t.Any] | list[t.Any] | None:
    """Return the form in which a value is written, if that is a container."""
    try:
        made = value if isinstance(value, str | int | float | None) else written(value)
    except Exception:  # the host's class: whatever its methods raise
        return None
    return made if isinstance(made, dict | list) else None


def _is_key(key: object) -> bool:
    """Whether JSON can hold it as a key; numbers and None become text as in Python's own `json`."""
    try:
        return not _complaint(written_key(key))
    except TypeError:
        return False


def _bad_key(key: object) -> str:
    if isinstance(key, str):
        return f"the key {key!r}; {_HALF}"
    try:
        shown = repr(key)
    except ValueError:  # an int with too many digits
        shown = "…"
    return f"the key {shown} of type {type(key).__name__}; use text as keys"


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _complaint(value: object) -> str:
    try:
        JSON.encode(value).encode()
    except (TypeError, ValueError, AttributeError, RecursionError):
        kind = type(value)
        remedy = next((text for types, text in _REMEDIES if issubclass(kind, types)), None)
        name = repr(value) if isinstance(value, float | Decimal) else kind.__qualname__
        return f"{name}; {remedy or 'convert it, or give the channel a schema that does'}"
    return ""
