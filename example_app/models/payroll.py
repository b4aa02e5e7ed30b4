"""Paying people: pay runs, their payslips, and the payments that settle them."""

from __future__ import annotations

import enum
from datetime import date

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .columns import ZERO, Currency, LongText, Money
from .payments import Payment
from .records import Model, Record
from .transitions import HasTransitions


class PayRunStatus(enum.StrEnum):
    DRAFT = "draft"
    APPROVED = "approved"
    PAID = "paid"


class PayRun(HasTransitions, Record):
    """One round of salaries; its totals are the sums of its payslips."""

    __tablename__ = "pay_runs"
    __tag_prefix__ = "PAY"
    __transitions__ = {
        "draft": frozenset({"approved"}),
        "approved": frozenset({"draft", "paid"}),
        "paid": frozenset(),
    }

    status: Mapped[PayRunStatus] = mapped_column(default=PayRunStatus.DRAFT)
    currency: Mapped[Currency]
    period_start: Mapped[date]
    period_end: Mapped[date]
    pay_on: Mapped[date]
    gross_total: Mapped[Money] = mapped_column(default=ZERO)
    income_tax_total: Mapped[Money] = mapped_column(default=ZERO)
    pension_total: Mapped[Money] = mapped_column(default=ZERO)
    net_total: Mapped[Money] = mapped_column(default=ZERO)
    notes: Mapped[LongText | None]

    payslips: Mapped[list[Payslip]] = relationship(cascade="all, delete-orphan", order_by="Payslip.id")

    def settle(self) -> None:
        """Add up the payslips."""
        for slip in self.payslips:
            slip.net = slip.gross - (slip.income_tax or ZERO) - (slip.pension or ZERO)
        self.gross_total = sum((slip.gross for slip in self.payslips), ZERO)
        self.income_tax_total = sum((slip.income_tax or ZERO for slip in self.payslips), ZERO)
        self.pension_total = sum((slip.pension or ZERO for slip in self.payslips), ZERO)
        self.net_total = sum((slip.net for slip in self.payslips), ZERO)


class Payslip(Model):
    """What one employee earned in one pay run."""

    __tablename__ = "payslips"

    id: Mapped[int] = mapped_column(primary_key=True)
    pay_run_id: Mapped[int] = mapped_column(sa.ForeignKey("pay_runs.id"), index=True)
    employee_id: Mapped[int] = mapped_column(sa.ForeignKey("employees.id"), index=True)
    gross: Mapped[Money]
    income_tax: Mapped[Money] = mapped_column(default=ZERO)
    pension: Mapped[Money] = mapped_column(default=ZERO)
    net: Mapped[Money]


class PayRunPayment(Payment):
    """A payment that settles part of a pay run."""

    __abstract__ = True

    @orm.declared_attr
    def pay_run_id(cls) -> Mapped[int]:
        return mapped_column(sa.ForeignKey("pay_runs.id"), index=True)

    @orm.declared_attr
    def pay_run(cls) -> Mapped[PayRun]:
        return relationship(PayRun)


class SalaryPayment(PayRunPayment):
    """Net salaries, to the employees."""

    __tablename__ = "salary_payments"
    __tag_prefix__ = "SPY"


class PayrunTier1Payment(PayRunPayment):
    """The first pension tier: the state's scheme."""

    __tablename__ = "payrun_tier1_payments"
    __tag_prefix__ = "TR1"


class PayrunTier2Payment(PayRunPayment):
    """The second pension tier: the occupational scheme."""

    __tablename__ = "payrun_tier2_payments"
    __tag_prefix__ = "TR2"


class PayrunTier3Payment(PayRunPayment):
    """The third pension tier: voluntary savings."""

    __tablename__ = "payrun_tier3_payments"
    __tag_prefix__ = "TR3"


class PayrunIncomeTaxPayment(PayRunPayment):
    """Income tax withheld from salaries, to the authority."""

    __tablename__ = "payrun_income_tax_payments"
    __tag_prefix__ = "PTX"
