"""Bank accounts, transfers, the wallet, and loans."""

from __future__ import annotations

from marshmallow import fields, validate

from ..models import LoanStatus, WalletDirection
from .fields import LONG_TEXT, Choice, Currency, Money, Optional, Rate, Reference, Text
from .records import RecordSchema, Related


class BankAccountSchema(RecordSchema):
    """Only ever included in something else."""

    name = Text(required=True)
    bank = Text(required=True)
    number = Text(required=True)
    branch = Optional()
    currency = Currency()


class BankTransferSchema(RecordSchema):
    from_bank_account_id = Reference()
    to_bank_account_id = Reference()
    amount = Money(required=True)
    fee = Money()
    currency = Currency()
    transferred_on = fields.Date(required=True)
    reference = Optional()
    notes = Optional(LONG_TEXT)

    from_bank_account = Related(BankAccountSchema)
    to_bank_account = Related(BankAccountSchema)


class WalletTransactionSchema(RecordSchema):
    direction = Choice(WalletDirection, required=True)
    amount = Money(required=True)
    balance_after = Money(required=True, least=None)
    currency = Currency()
    description = Text(required=True)
    reference = Optional()


class BusinessLoanSchema(RecordSchema):
    lender = Text(required=True)
    status = Choice(LoanStatus)
    principal = Money(required=True)
    balance = Money(required=True)
    interest_rate = Rate(required=True)
    term_months = fields.Integer(required=True, validate=validate.Range(1, 600))
    currency = Currency()
    disbursed_on = fields.Date(required=True)
    bank_account_id = Reference(required=False)
    notes = Optional(LONG_TEXT)

    bank_account = Related(BankAccountSchema)
