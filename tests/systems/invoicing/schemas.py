"""What the API's GET of each resource returns: the main object, without what can be included."""

from __future__ import annotations

from marshmallow import Schema, fields


class InvoiceSchema(Schema):
    id = fields.Integer()
    number = fields.String()
    status = fields.String()
    client_id = fields.Integer()


class LineItemSchema(Schema):
    id = fields.Integer()
    description = fields.String()
    quantity = fields.Integer()
    price = fields.Decimal(places=2, as_string=True)


class UserSchema(Schema):
    """Without the hash of the password."""

    id = fields.Integer()
    name = fields.String()
    email = fields.Email()


class PaymentSchema(Schema):
    id = fields.Integer()
    invoice_id = fields.Integer()
    amount = fields.Decimal(places=2, as_string=True)


class ExpenseSchema(Schema):
    id = fields.Integer()
    title = fields.String()
    amount = fields.Decimal(places=2, as_string=True)
