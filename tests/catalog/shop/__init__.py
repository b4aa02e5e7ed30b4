"""A small shop: the models and schemas that the catalogues of these tests name."""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal

import marshmallow as ma
from sqlalchemy import ForeignKey, Integer, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Stage(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


class Client(Base):
    __tablename__ = "client"
    id: Mapped[int] = mapped_column(primary_key=True)
    business_id: Mapped[int]
    name: Mapped[str] = mapped_column(String(80))
    photo: Mapped[bytes | None] = mapped_column(LargeBinary)


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    password_hash: Mapped[str] = mapped_column(String(80))


class Invoice(Base):
    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20))
    stage: Mapped[Stage | None]
    total: Mapped[Decimal | None]
    urgent: Mapped[bool] = mapped_column(default=False)
    due_on: Mapped[datetime.date | None]
    updated_at: Mapped[datetime.datetime | None]
    reference: Mapped[uuid.UUID | None]
    client_id: Mapped[int] = mapped_column(ForeignKey("client.id"))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    approver_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    client: Mapped[Client] = relationship()
    author: Mapped[User | None] = relationship(foreign_keys=[author_id])
    approver: Mapped[User | None] = relationship(foreign_keys=[approver_id])
    lines: Mapped[list[Line]] = relationship(back_populates="invoice")

    @property
    def display(self) -> str:
        return f"No. {self.number}"

    def cancel(self) -> None: ...

    def to_dict(self) -> dict[str, object]:
        return {"id": self.id, "number": self.number}

    def to_text(self, form: str) -> str:
        return f"{form} {self.number}"


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoice.id"))
    product: Mapped[str] = mapped_column(String(80))
    quantity: Mapped[int] = mapped_column(Integer)
    invoice: Mapped[Invoice] = relationship(back_populates="lines")


class LineSchema(ma.Schema):
    id = ma.fields.Integer()
    product = ma.fields.String()


class InvoiceSchema(ma.Schema):
    id = ma.fields.Integer()
    number = ma.fields.String()
    status = ma.fields.String()
    total = ma.fields.Decimal(as_string=True)
    lines = ma.fields.List(ma.fields.Nested(LineSchema))
    customer = ma.fields.String(attribute="client.name")


class PaidSchema(ma.Schema):
    id = ma.fields.Integer()
    total = ma.fields.Decimal(as_string=True)


class UserSchema(ma.Schema):
    id = ma.fields.Integer()
    name = ma.fields.String()


class Demanding(ma.Schema):
    def __init__(self, currency: str) -> None:
        super().__init__()


user_schema = UserSchema()
"""An instance is as good as a class."""
