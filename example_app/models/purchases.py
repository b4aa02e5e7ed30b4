"""Money going out: bills, their payments, and expenses."""

from __future__ import annotations

import enum
from datetime import date

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .books import Account
from .columns import ZERO, Currency, LongText, Money
from .lines import Payable, PricedLine
from .parties import Supplier
from .payments import OnlinePayment, Payment
from .records import Record
from .transitions import HasTransitions


class BillStatus(enum.StrEnum):
    OPEN = "open"
    OVERDUE = "overdue"
    PAID = "paid"
    VOID = "void"


class Bill(HasTransitions, Payable, Record):
    """A supplier's claim on us."""

    __tablename__ = "bills"
    __tag_prefix__ = "BIL"
    __transitions__ = {
        "open": frozenset({"paid", "overdue", "void"}),
        "overdue": frozenset({"paid", "void"}),
        "paid": frozenset(),
        "void": frozenset(),
    }

    number: Mapped[str]
    status: Mapped[BillStatus] = mapped_column(default=BillStatus.OPEN)
    supplier_id: Mapped[int] = mapped_column(sa.ForeignKey("suppliers.id"), index=True)
    currency: Mapped[Currency]
    billed_on: Mapped[date]
    due_on: Mapped[date]
    notes: Mapped[LongText | None]

    supplier: Mapped[Supplier] = relationship()
    line_items: Mapped[list[BillLine]] = relationship(
        cascade="all, delete-orphan", order_by="BillLine.position"
    )


class BillLine(PricedLine):
    """What was bought, on a bill."""

    __tablename__ = "bill_lines"

    bill_id: Mapped[int] = mapped_column(sa.ForeignKey("bills.id"), index=True)


class BillPayment(Payment):
    """Money paid against a bill."""

    __tablename__ = "bill_payments"
    __tag_prefix__ = "BPY"

    bill_id: Mapped[int] = mapped_column(sa.ForeignKey("bills.id"), index=True)

    bill: Mapped[Bill] = relationship()


class BillOnlinePayment(OnlinePayment):
    """Money paid for a bill through a payment gateway."""

    __tablename__ = "bill_online_payments"
    __tag_prefix__ = "BOP"

    bill_id: Mapped[int] = mapped_column(sa.ForeignKey("bills.id"), index=True)

    bill: Mapped[Bill] = relationship()


class Expense(Payment):
    """Spent at once, without a bill: fuel, a taxi, lunch."""

    __tablename__ = "expenses"
    __tag_prefix__ = "EXP"

    description: Mapped[str]
    tax_amount: Mapped[Money] = mapped_column(default=ZERO)
    supplier_id: Mapped[int | None] = mapped_column(sa.ForeignKey("suppliers.id"), index=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)

    supplier: Mapped[Supplier | None] = relationship()
    account: Mapped[Account] = relationship()


class ProductServiceKind(enum.StrEnum):
    PRODUCT = "product"
    SERVICE = "service"


class ProductService(Record):
    """Something we buy or sell, by the piece or by the hour."""

    __tablename__ = "products_services"
    __tag_prefix__ = "PRD"

    kind: Mapped[ProductServiceKind]
    name: Mapped[str]
    sku: Mapped[str | None]
    description: Mapped[LongText | None]
    unit: Mapped[str | None]
    sales_price: Mapped[Money] = mapped_column(default=ZERO)
    purchase_price: Mapped[Money] = mapped_column(default=ZERO)
    is_active: Mapped[bool] = mapped_column(default=True)
