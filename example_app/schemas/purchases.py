"""Bills, their payments, expenses, and what is bought and sold."""

from __future__ import annotations

from marshmallow import fields

from ..models import BillStatus, ProductServiceKind
from .books import AccountSchema
from .fields import LONG_TEXT, Choice, Currency, Instant, Money, Optional, Reference, Text
from .parties import SupplierSchema
from .payments import OnlinePaymentSchema, PaymentSchema, PricedLineSchema, TotalsSchema
from .records import Children, RecordSchema, Related


class BillSchema(TotalsSchema):
    number = Text(required=True)
    status = Choice(BillStatus)
    supplier_id = Reference()
    currency = Currency()
    billed_on = fields.Date(required=True)
    due_on = fields.Date(required=True)
    paid_at = Instant(dump_only=True)
    amount_paid = Money(dump_only=True)
    amount_due = Money(dump_only=True, least=None)
    notes = Optional(LONG_TEXT)

    supplier = Related(SupplierSchema)
    line_items = Children(PricedLineSchema)


class BillPaymentSchema(PaymentSchema):
    bill_id = Reference()

    bill = Related(BillSchema)


class BillOnlinePaymentSchema(OnlinePaymentSchema):
    bill_id = Reference()

    bill = Related(BillSchema)


class ExpenseSchema(PaymentSchema):
    description = Text(required=True)
    tax_amount = Money()
    supplier_id = Reference(required=False)
    account_id = Reference()

    supplier = Related(SupplierSchema)
    account = Related(AccountSchema)


class ProductServiceSchema(RecordSchema):
    kind = Choice(ProductServiceKind, required=True)
    name = Text(required=True)
    sku = Optional()
    description = Optional(LONG_TEXT)
    unit = Optional()
    sales_price = Money()
    purchase_price = Money()
    is_active = fields.Boolean()
