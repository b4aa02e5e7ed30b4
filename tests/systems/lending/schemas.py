"""What the API's GET of each resource returns; `entity_state` is exactly that."""

from __future__ import annotations

from marshmallow import Schema, fields

from .models import InvoiceStatus


class PartySchema(Schema):
    """A seller or a buyer."""

    id = fields.Integer()
    name = fields.String()
    status = fields.String()


class InvoiceSchema(Schema):
    id = fields.Integer()
    number = fields.String()
    status = fields.Enum(InvoiceStatus)
    currency = fields.String()
    amount = fields.Decimal(places=2, as_string=True)
    due_on = fields.Date()
    seller = fields.Nested(PartySchema)
    buyer = fields.Nested(PartySchema)
