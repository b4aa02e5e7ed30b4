"""Businesses, users, clients, suppliers and employees."""

from __future__ import annotations

from marshmallow import fields, validate

from ..models import EmploymentStatus
from .fields import LONG_TEXT, Choice, Country, Currency, Money, Optional, Text
from .records import RecordSchema


class BusinessSchema(RecordSchema):
    class Meta:
        exclude = ("business_id",)

    name = Text(required=True)
    legal_name = Optional()
    email = fields.Email(required=True)
    phone = Optional()
    address = Optional(LONG_TEXT)
    country = Country(required=True)
    currency = Currency()
    tax_number = Optional()
    fiscal_year_start_month = fields.Integer(validate=validate.Range(1, 12))


class UserSchema(RecordSchema):
    """Only ever included in something else. The password hash has no field, so it cannot leak."""

    name = Text(dump_only=True)
    email = fields.Email(dump_only=True)


class PartySchema(RecordSchema):
    """What clients and suppliers have in common."""

    name = Text(required=True)
    email = fields.Email(allow_none=True)
    phone = Optional()
    address = Optional(LONG_TEXT)
    country = Country(allow_none=True)
    currency = Currency()
    tax_number = Optional()
    is_active = fields.Boolean()


class ClientSchema(PartySchema):
    credit_limit = Money()


class SupplierSchema(PartySchema):
    payment_terms_days = fields.Integer(validate=validate.Range(0, 365))


class EmployeeSchema(RecordSchema):
    first_name = Text(required=True)
    last_name = Text(required=True)
    email = fields.Email(allow_none=True)
    job_title = Optional()
    status = Choice(EmploymentStatus)
    hired_on = fields.Date(required=True)
    left_on = fields.Date(allow_none=True)
    basic_salary = Money(required=True)
    currency = Currency()
    tax_number = Optional()
    social_security_number = Optional()
