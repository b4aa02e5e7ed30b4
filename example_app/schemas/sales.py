"""Invoices, quotes, sales, deposits and other income."""

from __future__ import annotations

from marshmallow import fields

from ..models import InvoiceStatus, QuoteStatus
from .banking import BankAccountSchema
from .fields import LONG_TEXT, Choice, Currency, Instant, Money, Optional, Reference, Text
from .parties import ClientSchema, UserSchema
from .payments import OnlinePaymentSchema, PaymentSchema, PricedLineSchema, TotalsSchema
from .records import Children, RecordSchema, Related


class InvoicePrefixSchema(RecordSchema):
    """Only ever included in something else."""

    prefix = Text(required=True)
    description = Optional()


class InvoiceSchema(TotalsSchema):
    number = Text(required=True)
    status = Choice(InvoiceStatus)
    client_id = Reference()
    invoice_user_id = Reference(required=False)
    invoice_prefix_id = Reference(required=False)
    bank_account_id = Reference(required=False)
    currency = Currency()
    issued_on = fields.Date(required=True)
    due_on = fields.Date(required=True)
    sent_at = Instant(dump_only=True)
    paid_at = Instant(dump_only=True)
    amount_paid = Money(dump_only=True)
    amount_due = Money(dump_only=True, least=None)
    purchase_order = Optional()
    notes = Optional(LONG_TEXT)

    client = Related(ClientSchema)
    invoice_user = Related(UserSchema)
    invoice_prefix = Related(InvoicePrefixSchema)
    bank_account = Related(BankAccountSchema)
    line_items = Children(PricedLineSchema)


class InvoicePaymentSchema(PaymentSchema):
    invoice_id = Reference()

    invoice = Related(InvoiceSchema)


class InvoiceOnlinePaymentSchema(OnlinePaymentSchema):
    invoice_id = Reference()

    invoice = Related(InvoiceSchema)


class SaleSchema(TotalsSchema):
    client_id = Reference(required=False)
    bank_account_id = Reference(required=False)
    currency = Currency()
    sold_on = fields.Date(required=True)
    notes = Optional(LONG_TEXT)

    client = Related(ClientSchema)
    bank_account = Related(BankAccountSchema)
    line_items = Children(PricedLineSchema)


class QuoteSchema(TotalsSchema):
    number = Text(required=True)
    status = Choice(QuoteStatus)
    client_id = Reference()
    currency = Currency()
    quoted_on = fields.Date(required=True)
    valid_until = fields.Date(required=True)
    notes = Optional(LONG_TEXT)

    client = Related(ClientSchema)
    line_items = Children(PricedLineSchema)


class DepositSchema(PaymentSchema):
    client_id = Reference()

    client = Related(ClientSchema)


class OtherIncomeSchema(PaymentSchema):
    account_id = Reference()
    description = Text(required=True)
