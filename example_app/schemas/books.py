"""The chart of accounts, journals, and ledger postings."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from ..models import AccountType
from .fields import LONG_TEXT, Choice, Currency, Money, Optional, Reference, Text
from .records import Children, RecordSchema, Related


class AccountSchema(RecordSchema):
    code = Text(20, required=True)
    name = Text(required=True)
    type = Choice(AccountType, required=True)
    currency = Currency()
    description = Optional(LONG_TEXT)
    is_active = fields.Boolean()


class JournalLineSchema(Schema):
    id = fields.Integer(dump_only=True)
    position = fields.Integer(dump_only=True)
    account_id = Reference()
    description = Optional()
    debit = Money()
    credit = Money()


class JournalSchema(RecordSchema):
    posted_on = fields.Date(required=True)
    currency = Currency()
    narration = Text(required=True)
    total = Money(dump_only=True)

    line_items = Children(JournalLineSchema, required=True, validate=validate.Length(min=2))


class LedgerSchema(RecordSchema):
    account_id = Reference()
    posted_on = fields.Date(required=True)
    description = Text(required=True)
    debit = Money()
    credit = Money()
    currency = Currency()
    source = Optional()

    account = Related(AccountSchema)
