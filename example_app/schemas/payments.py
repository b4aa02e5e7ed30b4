"""What every payment schema has, and the lines that documents have."""

from __future__ import annotations

from marshmallow import Schema, fields

from ..models import PaymentMethod
from .banking import BankAccountSchema
from .fields import LONG_TEXT, Choice, Currency, Money, Optional, Quantity, Rate, Reference, Text
from .records import RecordSchema, Related


class PaymentSchema(RecordSchema):
    amount = Money(required=True)
    currency = Currency()
    paid_on = fields.Date(required=True)
    method = Choice(PaymentMethod)
    reference = Optional()
    notes = Optional(LONG_TEXT)
    bank_account_id = Reference(required=False)

    bank_account = Related(BankAccountSchema)


class OnlinePaymentSchema(RecordSchema):
    amount = Money(required=True)
    fee = Money()
    currency = Currency()
    paid_on = fields.Date(required=True)
    gateway = Text(required=True)
    gateway_reference = Text(required=True)


class PricedLineSchema(Schema):
    """A line of an invoice, sale, quote or bill. Net and tax are worked out, not given."""

    id = fields.Integer(dump_only=True)
    position = fields.Integer(dump_only=True)
    product_service_id = Reference(required=False)
    description = Text(required=True)
    quantity = Quantity()
    unit_price = Money(required=True)
    tax_rate = Rate()
    net = Money(dump_only=True)
    tax = Money(dump_only=True)


class TotalsSchema(RecordSchema):
    """The sums of a document's lines."""

    subtotal = Money(dump_only=True)
    tax_total = Money(dump_only=True)
    total = Money(dump_only=True)
