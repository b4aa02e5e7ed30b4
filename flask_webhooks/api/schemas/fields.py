"""Fields and base classes that several schemas share."""

from __future__ import annotations

import re
import typing as t
from datetime import UTC, datetime

import marshmallow as ma
from marshmallow import fields, validate

from ...visible import is_storable

__all__ = [
    "UUID",
    "Flag",
    "Instant",
    "Number",
    "PageQuery",
    "Strict",
    "Text",
    "described",
    "identifier",
    "page",
]


class Strict(ma.Schema):
    """A request: unknown keys are refused, so that a misspelt one is noticed."""

    class Meta:
        unknown = ma.RAISE


class Instant(fields.AwareDateTime):
    """An instant in ISO 8601. One without an offset is read as UTC; answers are always in UTC."""

    def __init__(self, **kwargs: t.Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, **kwargs)

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            moment: datetime = super()._deserialize(value, attr, data, **kwargs)
            return moment.astimezone(UTC)
        except OverflowError:  # year 1 or 9999 with an offset
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None

    def _serialize(self, value: t.Any, attr: str | None, obj: t.Any, **kwargs: t.Any) -> t.Any:
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")


class Text(fields.String):
    """Text that every database can store and search: without NUL and halves of surrogate pairs."""

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not is_storable(text):
            raise ma.ValidationError("Not valid text: it contains a NUL or half of a surrogate pair.")
        return text


class Flag(fields.Boolean):
    """True or false only; marshmallow's field also accepts texts and numbers such as "yes" and 1."""

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Number(fields.Float):
    """A number only; marshmallow's field also accepts text."""

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Count(fields.Integer):
    """A whole number in a query: ASCII digits only; `int` also accepts underscores, spaces and other digits."""

    def _deserialize(self, value: t.Any, attr: str | None, data: t.Any, **kwargs: t.Any) -> t.Any:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


def described(text: str, **more: t.Any) -> dict[str, t.Any]:
    """Return the metadata from which OpenAPI describes a field."""
    return {"description": text, **more}


UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


def identifier(text: str, **kwargs: t.Any) -> fields.String:
    """Return the field of an id: UUIDv7 in its canonical form."""
    return fields.String(
        validate=validate.Regexp(UUID, error="This is not a valid id. Ids are UUIDs in lower case."),
        metadata=described(text, example="01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c"),
        **kwargs,
    )


class PageQuery(Strict):
    """Query for a page of a list."""

    limit = Count(
        validate=validate.Range(min=1, max=1_000_000),
        metadata=described(
            "Most rows on the page; `WEBHOOKS_PAGE_LIMIT` is the limit and the default.",
            example=50,
        ),
    )
    cursor = identifier("`next` of the previous page; without it: the newest rows.")


def page(item: type[ma.Schema], name: str) -> type[ma.Schema]:
    """Return the schema of a page of items."""
    return type(
        name,
        (ma.Schema,),
        {
            "__doc__": f"A page of a list, newest first: {item.__name__}.",
            "items": fields.List(fields.Nested(item), required=True, metadata=described("Newest first.")),
            "next": fields.String(
                required=True,
                allow_none=True,
                metadata=described("Send it as `cursor` to get the next page; null on the last one."),
            ),
        },
    )
