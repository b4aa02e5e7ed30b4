"""Taxes the business pays for itself; those of a pay run are in ``payroll``."""

from __future__ import annotations

from datetime import date

from sqlalchemy.orm import Mapped

from .payments import Payment


class TaxPayment(Payment):
    """A tax for a period, paid to the authority."""

    __abstract__ = True

    authority: Mapped[str]
    period_start: Mapped[date]
    period_end: Mapped[date]


class IncomeTaxPayment(TaxPayment):
    """Tax on the profit of the business."""

    __tablename__ = "income_tax_payments"
    __tag_prefix__ = "ITX"


class WithholdingTaxPayment(TaxPayment):
    """Tax withheld from what suppliers were paid, handed on."""

    __tablename__ = "withholding_tax_payments"
    __tag_prefix__ = "WTX"


class SalesTaxPayment(TaxPayment):
    """Tax charged on sales (VAT, GST), handed on."""

    __tablename__ = "sales_tax_payments"
    __tag_prefix__ = "STX"
