"""Sellers, buyers, and invoices on their way from draft to repaid."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class InvoiceStatus(enum.Enum):
    DRAFT = "DRAFT"
    SUBMITTED = "SUBMITTED"
    VERIFIED = "VERIFIED"
    REJECTED = "REJECTED"
    FUNDED = "FUNDED"
    REPAID = "REPAID"


class Seller(db.Model):
    __tablename__ = "seller"
    id: Mapped[int] = mapped_column(primary_key=True)
    partner_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    status: Mapped[str] = mapped_column(String(20), default="CREATED")


class Buyer(db.Model):
    __tablename__ = "buyer"
    id: Mapped[int] = mapped_column(primary_key=True)
    partner_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    status: Mapped[str] = mapped_column(String(20), default="CREATED")


class Invoice(db.Model):
    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    seller_id: Mapped[int] = mapped_column(ForeignKey("seller.id"))
    buyer_id: Mapped[int] = mapped_column(ForeignKey("buyer.id"))
    number: Mapped[str] = mapped_column(String(40))
    status: Mapped[InvoiceStatus] = mapped_column(default=InvoiceStatus.DRAFT)
    currency: Mapped[str] = mapped_column(String(3), default="USD")
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    due_on: Mapped[date | None]
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    seller: Mapped[Seller] = relationship()
    buyer: Mapped[Buyer] = relationship()
