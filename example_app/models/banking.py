"""Where the money is: bank accounts, transfers, the wallet, and loans."""

from __future__ import annotations

import enum
from datetime import date

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .columns import ZERO, Currency, LongText, Money, Rate
from .records import Inconsistent, Record


class BankAccount(Record):
    """An account at a bank, printed on invoices and used by payments."""

    __tablename__ = "bank_accounts"
    __tag_prefix__ = "BNK"

    name: Mapped[str]
    bank: Mapped[str]
    number: Mapped[str]
    branch: Mapped[str | None]
    currency: Mapped[Currency]


class BankTransfer(Record):
    """Money moved between two of our own accounts."""

    __tablename__ = "bank_transfers"
    __tag_prefix__ = "TRF"

    from_bank_account_id: Mapped[int] = mapped_column(sa.ForeignKey("bank_accounts.id"))
    to_bank_account_id: Mapped[int] = mapped_column(sa.ForeignKey("bank_accounts.id"))
    amount: Mapped[Money]
    fee: Mapped[Money] = mapped_column(default=ZERO)
    currency: Mapped[Currency]
    transferred_on: Mapped[date]
    reference: Mapped[str | None]
    notes: Mapped[LongText | None]

    from_bank_account: Mapped[BankAccount] = relationship(foreign_keys=[from_bank_account_id])
    to_bank_account: Mapped[BankAccount] = relationship(foreign_keys=[to_bank_account_id])

    def settle(self) -> None:
        if self.from_bank_account_id == self.to_bank_account_id:
            raise Inconsistent("to_bank_account_id", "A transfer needs two different accounts.")


class WalletDirection(enum.StrEnum):
    CREDIT = "credit"
    DEBIT = "debit"


class WalletTransaction(Record):
    """Money in or out of the wallet that pays for gateway fees and text messages."""

    __tablename__ = "wallet_transactions"
    __tag_prefix__ = "WAL"

    direction: Mapped[WalletDirection]
    amount: Mapped[Money]
    balance_after: Mapped[Money]
    currency: Mapped[Currency]
    description: Mapped[str]
    reference: Mapped[str | None]


class LoanStatus(enum.StrEnum):
    ACTIVE = "active"
    REPAID = "repaid"
    DEFAULTED = "defaulted"


class BusinessLoan(Record):
    """Money lent to the business, at a yearly rate over a term."""

    __tablename__ = "business_loans"
    __tag_prefix__ = "LOAN"

    lender: Mapped[str]
    status: Mapped[LoanStatus] = mapped_column(default=LoanStatus.ACTIVE)
    principal: Mapped[Money]
    balance: Mapped[Money]
    interest_rate: Mapped[Rate]
    term_months: Mapped[int]
    currency: Mapped[Currency]
    disbursed_on: Mapped[date]
    bank_account_id: Mapped[int | None] = mapped_column(sa.ForeignKey("bank_accounts.id"))
    notes: Mapped[LongText | None]

    bank_account: Mapped[BankAccount | None] = relationship()
