"""Who takes part: the business, its users, and the people it trades with and employs."""

from __future__ import annotations

import enum
import hashlib
from datetime import date

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship
from werkzeug.security import check_password_hash, generate_password_hash

from .columns import ZERO, Country, Currency, LongText, Money
from .records import Model, Record, Tagged


class Business(Tagged):
    """The tenant. Everything else belongs to one; the business belongs to itself."""

    __tablename__ = "business"
    __tag_prefix__ = "BIZ"

    name: Mapped[str]
    legal_name: Mapped[str | None]
    email: Mapped[str]
    phone: Mapped[str | None]
    address: Mapped[LongText | None]
    country: Mapped[Country]
    currency: Mapped[Currency]
    tax_number: Mapped[str | None]
    fiscal_year_start_month: Mapped[int] = mapped_column(default=1)


class User(Record):
    """Someone who signs in for a business."""

    __tablename__ = "users"
    __tag_prefix__ = "USR"

    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)

    business: Mapped[Business] = relationship()

    def set_password(self, password: str) -> None:
        self.password_hash = generate_password_hash(password)

    def has_password(self, password: str) -> bool:
        return check_password_hash(self.password_hash, password)


class ApiToken(Model):
    """A bearer token of a user. Only its digest is kept: tokens are long and random, so SHA-256 suffices."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)

    user: Mapped[User] = relationship()

    @staticmethod
    def digest_of(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()


class Client(Record):
    """Someone the business sells to."""

    __tablename__ = "clients"
    __tag_prefix__ = "CLI"

    name: Mapped[str]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    address: Mapped[LongText | None]
    country: Mapped[Country | None]
    currency: Mapped[Currency]
    tax_number: Mapped[str | None]
    credit_limit: Mapped[Money] = mapped_column(default=ZERO)
    is_active: Mapped[bool] = mapped_column(default=True)


class Supplier(Record):
    """Someone the business buys from."""

    __tablename__ = "suppliers"
    __tag_prefix__ = "SUP"

    name: Mapped[str]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    address: Mapped[LongText | None]
    country: Mapped[Country | None]
    currency: Mapped[Currency]
    tax_number: Mapped[str | None]
    payment_terms_days: Mapped[int] = mapped_column(default=30)
    is_active: Mapped[bool] = mapped_column(default=True)


class EmploymentStatus(enum.StrEnum):
    ACTIVE = "active"
    ON_LEAVE = "on_leave"
    LEFT = "left"


class Employee(Record):
    """Someone on the payroll."""

    __tablename__ = "employees"
    __tag_prefix__ = "EMP"

    first_name: Mapped[str]
    last_name: Mapped[str]
    email: Mapped[str | None]
    job_title: Mapped[str | None]
    status: Mapped[EmploymentStatus] = mapped_column(default=EmploymentStatus.ACTIVE)
    hired_on: Mapped[date]
    left_on: Mapped[date | None]
    basic_salary: Mapped[Money]
    currency: Mapped[Currency]
    tax_number: Mapped[str | None]
    social_security_number: Mapped[str | None]
