"""A company makes offers to freelancers; accepted ones have milestones, approved ones are invoiced."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Enum, ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Freelancer(db.Model):
    __tablename__ = "freelancer"
    id: Mapped[int] = mapped_column(primary_key=True)
    company_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))


class Offer(db.Model):
    __tablename__ = "offer"
    id: Mapped[int] = mapped_column(primary_key=True)
    company_id: Mapped[str] = mapped_column(String(40))
    freelancer_id: Mapped[int] = mapped_column(ForeignKey("freelancer.id"))
    title: Mapped[str] = mapped_column(String(80))
    status: Mapped[str] = mapped_column(
        Enum("open", "accepted", "declined", "withdrawn", name="offer_status"), default="open"
    )
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    freelancer: Mapped[Freelancer] = relationship()
    milestones: Mapped[list[Milestone]] = relationship(back_populates="offer")


class Milestone(db.Model):
    __tablename__ = "milestone"
    id: Mapped[int] = mapped_column(primary_key=True)
    offer_id: Mapped[int] = mapped_column(ForeignKey("offer.id"))
    title: Mapped[str] = mapped_column(String(80))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    status: Mapped[str] = mapped_column(
        Enum("planned", "delivered", "approved", name="milestone_status"), default="planned"
    )
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    offer: Mapped[Offer] = relationship(back_populates="milestones")


class Invoice(db.Model):
    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    milestone_id: Mapped[int] = mapped_column(ForeignKey("milestone.id"))
    number: Mapped[str] = mapped_column(String(20))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    status: Mapped[str] = mapped_column(
        Enum("sent", "paid", "cancelled", name="invoice_status"), default="sent"
    )
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    milestone: Mapped[Milestone] = relationship()
