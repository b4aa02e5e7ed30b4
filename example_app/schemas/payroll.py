"""Pay runs with their payslips, the payments that settle them, and the taxes of the business."""

from __future__ import annotations

from marshmallow import Schema, fields

from ..models import PayRunStatus
from .fields import LONG_TEXT, Choice, Currency, Money, Optional, Reference, Text
from .payments import PaymentSchema
from .records import Children, RecordSchema, Related


class PayslipSchema(Schema):
    id = fields.Integer(dump_only=True)
    employee_id = Reference()
    gross = Money(required=True)
    income_tax = Money()
    pension = Money()
    net = Money(dump_only=True)


class PayRunSchema(RecordSchema):
    status = Choice(PayRunStatus)
    currency = Currency()
    period_start = fields.Date(required=True)
    period_end = fields.Date(required=True)
    pay_on = fields.Date(required=True)
    gross_total = Money(dump_only=True)
    income_tax_total = Money(dump_only=True)
    pension_total = Money(dump_only=True)
    net_total = Money(dump_only=True)
    notes = Optional(LONG_TEXT)

    payslips = Children(PayslipSchema)


class PayRunPaymentSchema(PaymentSchema):
    pay_run_id = Reference()

    pay_run = Related(PayRunSchema)


class SalaryPaymentSchema(PayRunPaymentSchema):
    """Net salaries."""


class PayrunTier1PaymentSchema(PayRunPaymentSchema):
    """The state's pension scheme."""


class PayrunTier2PaymentSchema(PayRunPaymentSchema):
    """The occupational pension scheme."""


class PayrunTier3PaymentSchema(PayRunPaymentSchema):
    """Voluntary savings."""


class PayrunIncomeTaxPaymentSchema(PayRunPaymentSchema):
    """Income tax withheld from salaries."""


class TaxPaymentSchema(PaymentSchema):
    authority = Text(required=True)
    period_start = fields.Date(required=True)
    period_end = fields.Date(required=True)


class IncomeTaxPaymentSchema(TaxPaymentSchema):
    """Tax on the profit of the business."""


class WithholdingTaxPaymentSchema(TaxPaymentSchema):
    """Tax withheld from what suppliers were paid."""


class SalesTaxPaymentSchema(TaxPaymentSchema):
    """Tax charged on sales."""
