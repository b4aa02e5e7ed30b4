"""Money coming in: invoices, quotes, sales, deposits and other income."""

from __future__ import annotations

import enum
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .banking import BankAccount
from .columns import Currency, LongText, utc_now
from .lines import Payable, PricedLine, Totals
from .parties import Client, User
from .payments import OnlinePayment, Payment
from .records import Record
from .transitions import HasTransitions


class InvoiceStatus(enum.StrEnum):
    DRAFT = "draft"
    SENT = "sent"
    OVERDUE = "overdue"
    PAID = "paid"
    VOID = "void"


class InvoicePrefix(Record):
    """The series an invoice number is drawn from: ``ACME/2026/``."""

    __tablename__ = "invoice_prefixes"
    __tag_prefix__ = "PFX"

    prefix: Mapped[str]
    description: Mapped[str | None]


class Invoice(HasTransitions, Payable, Record):
    """A claim on a client."""

    __tablename__ = "invoices"
    __tag_prefix__ = "INV"
    __transitions__ = {
        "draft": frozenset({"sent", "void"}),
        "sent": frozenset({"paid", "overdue", "void"}),
        "overdue": frozenset({"paid", "void"}),
        "paid": frozenset(),
        "void": frozenset(),
    }

    number: Mapped[str]
    status: Mapped[InvoiceStatus] = mapped_column(default=InvoiceStatus.DRAFT)
    client_id: Mapped[int] = mapped_column(sa.ForeignKey("clients.id"), index=True)
    invoice_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    invoice_prefix_id: Mapped[int | None] = mapped_column(sa.ForeignKey("invoice_prefixes.id"))
    bank_account_id: Mapped[int | None] = mapped_column(sa.ForeignKey("bank_accounts.id"))
    currency: Mapped[Currency]
    issued_on: Mapped[date]
    due_on: Mapped[date]
    sent_at: Mapped[datetime | None]
    purchase_order: Mapped[str | None]
    notes: Mapped[LongText | None]

    client: Mapped[Client] = relationship()
    invoice_user: Mapped[User | None] = relationship()
    invoice_prefix: Mapped[InvoicePrefix | None] = relationship()
    bank_account: Mapped[BankAccount | None] = relationship()
    line_items: Mapped[list[InvoiceLine]] = relationship(
        cascade="all, delete-orphan", order_by="InvoiceLine.position"
    )

    def settle(self) -> None:
        super().settle()
        if self.status == InvoiceStatus.SENT and self.sent_at is None:
            self.sent_at = utc_now()


class InvoiceLine(PricedLine):
    """What was sold, on an invoice."""

    __tablename__ = "invoice_lines"

    invoice_id: Mapped[int] = mapped_column(sa.ForeignKey("invoices.id"), index=True)


class InvoicePayment(Payment):
    """Money received against an invoice."""

    __tablename__ = "invoice_payments"
    __tag_prefix__ = "IPY"

    invoice_id: Mapped[int] = mapped_column(sa.ForeignKey("invoices.id"), index=True)

    invoice: Mapped[Invoice] = relationship()


class InvoiceOnlinePayment(OnlinePayment):
    """Money a client paid through a payment page; the gateway reports it, no user enters it."""

    __tablename__ = "invoice_online_payments"
    __tag_prefix__ = "IOP"

    invoice_id: Mapped[int] = mapped_column(sa.ForeignKey("invoices.id"), index=True)

    invoice: Mapped[Invoice] = relationship()


class Sale(Totals, Record):
    """Sold and paid at the counter, without an invoice."""

    __tablename__ = "sales"
    __tag_prefix__ = "SAL"

    client_id: Mapped[int | None] = mapped_column(sa.ForeignKey("clients.id"), index=True)
    bank_account_id: Mapped[int | None] = mapped_column(sa.ForeignKey("bank_accounts.id"))
    currency: Mapped[Currency]
    sold_on: Mapped[date]
    notes: Mapped[LongText | None]

    client: Mapped[Client | None] = relationship()
    bank_account: Mapped[BankAccount | None] = relationship()
    line_items: Mapped[list[SaleLine]] = relationship(
        cascade="all, delete-orphan", order_by="SaleLine.position"
    )


class SaleLine(PricedLine):
    """What was sold, over the counter."""

    __tablename__ = "sale_lines"

    sale_id: Mapped[int] = mapped_column(sa.ForeignKey("sales.id"), index=True)


class QuoteStatus(enum.StrEnum):
    DRAFT = "draft"
    SENT = "sent"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    EXPIRED = "expired"


class Quote(HasTransitions, Totals, Record):
    """A price offered to a client, good until a day."""

    __tablename__ = "quotes"
    __tag_prefix__ = "QUO"
    __transitions__ = {
        "draft": frozenset({"sent"}),
        "sent": frozenset({"accepted", "declined", "expired"}),
        "accepted": frozenset(),
        "declined": frozenset(),
        "expired": frozenset(),
    }

    number: Mapped[str]
    status: Mapped[QuoteStatus] = mapped_column(default=QuoteStatus.DRAFT)
    client_id: Mapped[int] = mapped_column(sa.ForeignKey("clients.id"), index=True)
    currency: Mapped[Currency]
    quoted_on: Mapped[date]
    valid_until: Mapped[date]
    notes: Mapped[LongText | None]

    client: Mapped[Client] = relationship()
    line_items: Mapped[list[QuoteLine]] = relationship(
        cascade="all, delete-orphan", order_by="QuoteLine.position"
    )


class QuoteLine(PricedLine):
    """What is offered, on a quote."""

    __tablename__ = "quote_lines"

    quote_id: Mapped[int] = mapped_column(sa.ForeignKey("quotes.id"), index=True)


class Deposit(Payment):
    """Money a client leaves in advance, before there is anything to invoice."""

    __tablename__ = "deposits"
    __tag_prefix__ = "DEP"

    client_id: Mapped[int] = mapped_column(sa.ForeignKey("clients.id"), index=True)

    client: Mapped[Client] = relationship()


class OtherIncome(Payment):
    """Income outside the trade: interest, a grant, rent."""

    __tablename__ = "other_incomes"
    __tag_prefix__ = "OIN"

    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    description: Mapped[str]
