"""What every schema has. A plain dump touches only the record's own columns."""

from __future__ import annotations

import typing as t
from collections.abc import Collection

from marshmallow import Schema, fields

from .fields import Instant


class RecordSchema(Schema):
    """One record: exactly what ``GET`` returns, and the ``data`` of its webhook.

    Related records are declared as nested fields, and left out of a dump unless they are asked for by name,
    in ``include`` or in marshmallow's own ``only``: each would cost a query per record.
    """

    id = fields.Integer(dump_only=True)
    tag = fields.String(dump_only=True)
    business_id = fields.Integer(dump_only=True)
    created_at = Instant(dump_only=True)
    updated_at = Instant(dump_only=True)

    def __init__(self, *, include: Collection[str] = (), **options: t.Any) -> None:
        asked_for = {*include, *(options.get("only") or ())}
        options.setdefault("load_only", self.includes() - asked_for)
        super().__init__(**options)

    @classmethod
    def includes(cls) -> set[str]:
        """Name the related records that a dump can include."""
        return {name for name, field in cls._declared_fields.items() if is_related(field)}


def is_related(field: t.Any) -> bool:
    """Tell whether a field holds other records: one (``client``) or many (``line_items``)."""
    return isinstance(field.inner if isinstance(field, fields.List) else field, fields.Nested)


def Related(schema: type[Schema]) -> fields.Nested:
    """A record this one refers to. It is changed under its own address, never through this one."""
    return fields.Nested(schema, dump_only=True)


def Children(schema: type[Schema], **options: t.Any) -> fields.List[t.Any]:
    """The lines of a document, written together with it."""
    return fields.List(fields.Nested(schema), **options)
