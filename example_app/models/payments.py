"""What every payment has, whichever way it goes: an amount, a day, a bank account."""

from __future__ import annotations

import enum
from datetime import date

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .banking import BankAccount
from .columns import ZERO, Currency, LongText, Money
from .records import Record


class PaymentMethod(enum.StrEnum):
    BANK_TRANSFER = "bank_transfer"
    CARD = "card"
    CASH = "cash"
    CHEQUE = "cheque"
    MOBILE_MONEY = "mobile_money"


class Payment(Record):
    """Money that moved through one of our bank accounts, entered by someone here."""

    __abstract__ = True

    amount: Mapped[Money]
    currency: Mapped[Currency]
    paid_on: Mapped[date]
    method: Mapped[PaymentMethod] = mapped_column(default=PaymentMethod.BANK_TRANSFER)
    reference: Mapped[str | None]
    notes: Mapped[LongText | None]

    @orm.declared_attr
    def bank_account_id(cls) -> Mapped[int | None]:
        return mapped_column(sa.ForeignKey("bank_accounts.id"))

    @orm.declared_attr
    def bank_account(cls) -> Mapped[BankAccount | None]:
        return relationship(BankAccount)


class OnlinePayment(Record):
    """Money that moved through a payment gateway."""

    __abstract__ = True

    amount: Mapped[Money]
    fee: Mapped[Money] = mapped_column(default=ZERO)
    currency: Mapped[Currency]
    paid_on: Mapped[date]
    gateway: Mapped[str]
    gateway_reference: Mapped[str]
