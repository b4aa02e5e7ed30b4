"""Double entry: the chart of accounts, journals that balance, and the ledger they are posted to."""

from __future__ import annotations

import enum
from datetime import date

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .columns import ZERO, Currency, LongText, Money
from .records import Inconsistent, Model, Record


class AccountType(enum.StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    INCOME = "income"
    EXPENSE = "expense"


class Account(Record):
    """A line of the chart of accounts: ``4000 Sales``."""

    __tablename__ = "accounts"
    __tag_prefix__ = "ACC"

    code: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str]
    type: Mapped[AccountType]
    currency: Mapped[Currency]
    description: Mapped[LongText | None]
    is_active: Mapped[bool] = mapped_column(default=True)


class Journal(Record):
    """A manual entry. What it debits equals what it credits."""

    __tablename__ = "journals"
    __tag_prefix__ = "JNL"

    posted_on: Mapped[date]
    currency: Mapped[Currency]
    narration: Mapped[str]
    total: Mapped[Money] = mapped_column(default=ZERO)

    line_items: Mapped[list[JournalLine]] = relationship(
        cascade="all, delete-orphan", order_by="JournalLine.position"
    )

    def settle(self) -> None:
        """Add up both sides, which must agree."""
        for position, line in enumerate(self.line_items, start=1):
            line.position = position
        debits = sum((line.debit or ZERO for line in self.line_items), ZERO)
        credits = sum((line.credit or ZERO for line in self.line_items), ZERO)
        if debits != credits:
            raise Inconsistent(
                "line_items", f"Debits are {debits} and credits {credits}. They must be equal."
            )
        self.total = debits


class JournalLine(Model):
    """One side of an entry: an account debited or credited."""

    __tablename__ = "journal_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    journal_id: Mapped[int] = mapped_column(sa.ForeignKey("journals.id"), index=True)
    position: Mapped[int]
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    description: Mapped[str | None]
    debit: Mapped[Money] = mapped_column(default=ZERO)
    credit: Mapped[Money] = mapped_column(default=ZERO)


class Ledger(Record):
    """One posting in the general ledger. Its source names the record that caused it: ``INV-0007``."""

    __tablename__ = "ledgers"
    __tag_prefix__ = "LED"

    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    posted_on: Mapped[date]
    description: Mapped[str]
    debit: Mapped[Money] = mapped_column(default=ZERO)
    credit: Mapped[Money] = mapped_column(default=ZERO)
    currency: Mapped[Currency]
    source: Mapped[str | None]

    account: Mapped[Account] = relationship()
