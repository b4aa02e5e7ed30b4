"""One account (the tenant) has users, clients, bank accounts, invoices, payments and expenses."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class BankAccount(db.Model):
    __tablename__ = "bank_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    bank: Mapped[str] = mapped_column(String(80))
    iban: Mapped[str] = mapped_column(String(40))


class InvoicePrefix(db.Model):
    __tablename__ = "invoice_prefix"
    id: Mapped[int] = mapped_column(primary_key=True)
    prefix: Mapped[str] = mapped_column(String(10))
    next_number: Mapped[int] = mapped_column(default=1)


class User(db.Model):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    password_hash: Mapped[str] = mapped_column(String(120), default="")
    last_seen_at: Mapped[datetime | None]


class Client(db.Model):
    __tablename__ = "client"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    name: Mapped[str] = mapped_column(String(80))


class Invoice(db.Model):
    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    number: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), default="draft")
    client_id: Mapped[int | None] = mapped_column(ForeignKey("client.id"))
    bank_account_id: Mapped[int | None] = mapped_column(ForeignKey("bank_account.id"))
    invoice_user_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    invoice_prefix_id: Mapped[int | None] = mapped_column(ForeignKey("invoice_prefix.id"))
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    client: Mapped[Client | None] = relationship()
    bank_account: Mapped[BankAccount | None] = relationship()
    invoice_user: Mapped[User | None] = relationship()
    invoice_prefix: Mapped[InvoicePrefix | None] = relationship()
    line_items: Mapped[list[LineItem]] = relationship(back_populates="invoice", cascade="all, delete-orphan")


class LineItem(db.Model):
    __tablename__ = "line_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoice.id"))
    description: Mapped[str] = mapped_column(String(120))
    quantity: Mapped[int] = mapped_column(default=1)
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    invoice: Mapped[Invoice] = relationship(back_populates="line_items")


class Payment(db.Model):
    __tablename__ = "payment"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    invoice_id: Mapped[int | None] = mapped_column(ForeignKey("invoice.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    invoice: Mapped[Invoice | None] = relationship()


class Expense(db.Model):
    __tablename__ = "expense"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    title: Mapped[str] = mapped_column(String(80))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
