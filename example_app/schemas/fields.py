"""How values look in JSON: money as a string, an instant as ISO 8601 in UTC, a status by its value."""

from __future__ import annotations

import enum
import typing as t
from datetime import UTC

from marshmallow import fields, validate

_LARGEST_AMOUNT = 10**15


def Money(*, least: int | None = 0, **options: t.Any) -> fields.Decimal:
    """``"1250.00"``: a string, because JSON numbers are floats to most readers.

    :param least: the smallest amount accepted; ``None`` where it may be below zero.
    """
    limits = validate.Range(min=least, max=_LARGEST_AMOUNT)
    return fields.Decimal(places=2, as_string=True, validate=limits, **options)


def Rate(**options: t.Any) -> fields.Decimal:
    """``"12.5000"``: a percentage."""
    return fields.Decimal(places=4, as_string=True, validate=validate.Range(min=0, max=1000), **options)


def Quantity(**options: t.Any) -> fields.Decimal:
    """``"3.000"``: how many, or how many hours."""
    return fields.Decimal(places=3, as_string=True, validate=validate.Range(min=0, max=10**8), **options)


def Text(longest: int = 200, **options: t.Any) -> fields.String:
    """A line of text that fits its column. Required ones may not be empty."""
    shortest = 1 if options.get("required") else None
    return fields.String(validate=validate.Length(min=shortest, max=longest), **options)


def Optional(longest: int = 200) -> fields.String:
    """A line of text that may be null."""
    return Text(longest, allow_none=True)


def Choice(choices: type[enum.Enum], **options: t.Any) -> fields.Enum[enum.Enum]:
    """One of a closed set, by value: ``"sent"``."""
    return fields.Enum(choices, by_value=True, **options)


def Currency() -> fields.String:
    return fields.String(required=True, validate=validate.Regexp("^[A-Z]{3}$", error="Not an ISO 4217 code."))


def Country(**options: t.Any) -> fields.String:
    code = validate.Regexp("^[A-Z]{2}$", error="Not an ISO 3166-1 alpha-2 code.")
    return fields.String(validate=code, **options)


def Instant(**options: t.Any) -> fields.AwareDateTime:
    """``"2026-01-05T09:30:00+00:00"``."""
    return fields.AwareDateTime(default_timezone=UTC, **options)


def Reference(*, required: bool = True) -> fields.Integer:
    """The id of another record of the same business; the API checks that it is one."""
    return fields.Integer(required=required, allow_none=not required, strict=True)


LONG_TEXT = 10_000
