"""Conditions against the columns they name: does the column exist, can it ever have that value?"""

from __future__ import annotations

import datetime
import decimal
import json
import typing as t
import uuid

import sqlalchemy as sa

from ..catalog import EventType, did_you_mean, suggestion
from .paths import AnyMapper, column_of, columns_of, has

Finding: t.TypeAlias = tuple[str, str, str]
"""Path, message, remedy."""

_NUMBERS = (int, float, decimal.Decimal)
_UNSPEAKABLE = (datetime.date, datetime.time, datetime.timedelta, uuid.UUID, bytes)


def column_problems(event: EventType, mapper: AnyMapper, *, check_ignore: bool) -> t.Iterator[Finding]:
    """Yield what is wrong with the columns and values that an event names.

    :param check_ignore: false where `ignore` is a default, which holds only for models that have the column.
    """
    named = [(f"{event.path}.when.{column}", column) for column in event.when]
    named += [(f"{event.path}.when.changed", column) for column in sorted(event.changed)]
    if check_ignore:
        named += [(f"{event.path}.ignore", column) for column in sorted(event.ignore)]
    columns = columns_of(mapper)
    for path, column in named:
        if column not in columns:
            yield path, *_no_column(column, mapper)
    for column, condition in event.when.items():
        if column not in columns:
            continue
        kind = mapper.column_attrs[column].columns[0].type
        where = f"{event.path}.when.{column}"
        if (
            condition.leaves is not None
            and condition.leaves == condition.enters
            and len(condition.leaves) == 1
        ):
            yield where, "goes from a value to the same, which is no change.", 'Change "from" or "to".'
        for key, values in condition.operands():
            for value in values:
                if value is not None and (said := _impossible(value, kind)) is not None:
                    yield f"{where}.{key}", *said


def _no_column(name: str, mapper: AnyMapper) -> tuple[str, str]:
    model = mapper.class_.__name__
    if name in mapper.relationships:
        remedy = suggestion(column_of(mapper, name), "Name a column.")
        return f'"{name}" is a relationship of {model}, not a column.', remedy
    remedy = did_you_mean(name, sorted(columns_of(mapper)), "Name a column of the model.")
    if has(mapper, name):
        return f'"{name}" of {model} is not a column, so its changes are not seen.', remedy
    return f'{model} has no column "{name}".', remedy


def _impossible(value: t.Any, kind: sa.types.TypeEngine[t.Any]) -> tuple[str, str] | None:
    """Say why a column of this type never has that value; `None` if it may."""
    if isinstance(kind, sa.Enum):
        return _no_member(value, kind)
    try:
        python_type = kind.python_type
    # A TypeDecorator does not say what it returns.
    except NotImplementedError:
        return None
    written = json.dumps(value)
    if issubclass(python_type, bool):
        fits, holds, remedy = isinstance(value, bool), "true or false", "Write true or false."
    elif issubclass(python_type, str):
        fits, holds, remedy = isinstance(value, str), "text", f'Put it in quotes: "{written}".'
    elif issubclass(python_type, _NUMBERS):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, holds, remedy = is_number, "numbers", "Write a number."
    elif issubclass(python_type, _UNSPEAKABLE):
        message = f"{written} is never a value of a column of type {kind}."
        return message, 'Only null can be compared there; use "changed" for any change.'
    else:
        return None
    return None if fits else (f"{written} is never in this column, which holds {holds}.", remedy)


def _no_member(value: t.Any, kind: sa.Enum) -> tuple[str, str] | None:
    members = [str(word) for word in kind.enums]
    if kind.enum_class is not None:
        members += [str(member.value) for member in kind.enum_class]
    if str(value) in members:
        return None
    known = list(dict.fromkeys(members))
    return f'"{value}" is no value of this column.', did_you_mean(
        str(value), known, f"It has: {', '.join(known)}."
    )
