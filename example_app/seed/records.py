"""Creates the records of one business: every kind, area by area."""

from __future__ import annotations

import typing as t
from datetime import date
from decimal import Decimal

from flask_sqlalchemy import SQLAlchemy

from .. import models as m
from .businesses import PASSWORD, Founding, demo_token

NEW_YEAR = date(2026, 1, 1)
FIRST_DAY = date(2026, 1, 5)
DUE_DAY = date(2026, 2, 4)

R = t.TypeVar("R", bound=m.Tagged)


class Founder:
    """Sets up one business, area by area; later areas refer to records of earlier ones."""

    def __init__(self, db: SQLAlchemy, founding: Founding) -> None:
        self.session = db.session
        self.founding = founding
        self.currency = founding.currency

    def found(self) -> None:
        self._open_business()
        self._meet_people()
        self._open_books()
        self._sell()
        self._buy()
        self._pay_staff()
        self._move_money()

    def _add(self, record: R) -> R:
        if isinstance(record, m.Record):
            record.business_id = self.business.id
        record.settle()
        self.session.add(record)
        self.session.flush()
        return record

    def _paid(self, amount: str) -> dict[str, t.Any]:
        """Return what every payment has."""
        return {
            "amount": Decimal(amount),
            "currency": self.currency,
            "paid_on": FIRST_DAY,
            "bank_account_id": self.bank_account.id,
        }

    def _paid_online(self, amount: str) -> dict[str, t.Any]:
        return {
            "amount": Decimal(amount),
            "fee": Decimal("0.30"),
            "currency": self.currency,
            "paid_on": FIRST_DAY,
            "gateway": "paygate",
            "gateway_reference": f"pg-{self.founding.name.lower()}-{amount}",
        }

    def _line(self, price: str, quantity: int = 1) -> dict[str, t.Any]:
        return {
            "product_service_id": self.product.id,
            "description": self.product.name,
            "quantity": Decimal(quantity),
            "unit_price": Decimal(price),
            "tax_rate": Decimal("15"),
        }

    def _open_business(self) -> None:
        founding = self.founding
        self.business = self._add(
            m.Business(
                name=founding.name,
                legal_name=founding.legal_name,
                email=f"office@{founding.domain}",
                country=founding.country,
                currency=founding.currency,
            )
        )
        for name, email, is_admin in founding.people:
            user = m.User(name=name, email=email, is_admin=is_admin)
            user.set_password(PASSWORD)
            self._add(user)
            token = m.ApiToken(user_id=user.id, digest=m.ApiToken.digest_of(demo_token(email)))
            self.session.add(token)
            if is_admin:
                self.user = user

    def _meet_people(self) -> None:
        founding = self.founding
        self.clients = [self._add(m.Client(name=name, currency=self.currency)) for name in founding.clients]
        self.suppliers = [
            self._add(m.Supplier(name=name, currency=self.currency)) for name in founding.suppliers
        ]
        self.staff = [
            self._add(
                m.Employee(
                    first_name=name.split()[0],
                    last_name=name.split()[1],
                    email=email,
                    hired_on=NEW_YEAR,
                    basic_salary=Decimal("2400"),
                    currency=self.currency,
                )
            )
            for name, email, _ in founding.people
        ]

    def _open_books(self) -> None:
        chart = (
            ("1000", "Bank", m.AccountType.ASSET),
            ("4000", "Sales", m.AccountType.INCOME),
            ("5000", "Purchases", m.AccountType.EXPENSE),
        )
        self.accounts = [
            self._add(m.Account(code=code, name=name, type=type_, currency=self.currency))
            for code, name, type_ in chart
        ]
        bank, sales, _ = self.accounts
        amount = Decimal("250")
        lines = [
            m.JournalLine(account_id=bank.id, debit=amount),
            m.JournalLine(account_id=sales.id, credit=amount),
        ]
        journal = m.Journal(
            posted_on=FIRST_DAY, currency=self.currency, narration="Opening sale", line_items=lines
        )
        self._add(journal)
        posting = m.Ledger(
            account_id=bank.id,
            posted_on=FIRST_DAY,
            description="Opening sale",
            debit=amount,
            currency=self.currency,
            source=journal.tag,
        )
        self._add(posting)
        self.bank_account, self.savings = (
            self._add(m.BankAccount(name=name, bank="Harbour Bank", number=number, currency=self.currency))
            for name, number in (("Current", "0010 2003"), ("Savings", "0010 2004"))
        )
        self.product = self._add(
            m.ProductService(
                kind=m.ProductServiceKind.SERVICE, name="Consulting", unit="hour", sales_price=Decimal("90")
            )
        )

    def _sell(self) -> None:
        bought = {"currency": self.currency, "client_id": self.clients[0].id}
        prefix = self._add(m.InvoicePrefix(prefix=f"{self.founding.name.upper()}/2026/"))
        statuses = (m.InvoiceStatus.SENT, m.InvoiceStatus.DRAFT, m.InvoiceStatus.OVERDUE)
        for number, status in enumerate(statuses, start=1):
            invoice = m.Invoice(
                **bought,
                number=f"{prefix.prefix}{number:04d}",
                status=status,
                invoice_user_id=self.user.id,
                invoice_prefix_id=prefix.id,
                bank_account_id=self.bank_account.id,
                issued_on=FIRST_DAY,
                due_on=DUE_DAY,
                line_items=[m.InvoiceLine(**self._line("90", number)), m.InvoiceLine(**self._line("12.50"))],
            )
            self._add(invoice)
        self._add(m.InvoicePayment(**self._paid("20"), invoice_id=invoice.id))
        self._add(m.InvoiceOnlinePayment(**self._paid_online("15"), invoice_id=invoice.id))
        invoice.amount_paid = Decimal("35")
        self._add(m.Sale(**bought, sold_on=FIRST_DAY, line_items=[m.SaleLine(**self._line("35", 2))]))
        offer = [m.QuoteLine(**self._line("90", 40))]
        self._add(m.Quote(**bought, number="Q-1", quoted_on=FIRST_DAY, valid_until=DUE_DAY, line_items=offer))
        self._add(m.Deposit(**self._paid("100"), client_id=self.clients[1].id))
        income = m.OtherIncome(**self._paid("7.31"), account_id=self.accounts[1].id, description="Interest")
        self._add(income)

    def _buy(self) -> None:
        bill = m.Bill(
            number="1187",
            supplier_id=self.suppliers[0].id,
            currency=self.currency,
            billed_on=FIRST_DAY,
            due_on=DUE_DAY,
            line_items=[m.BillLine(**self._line("4.20", 50))],
        )
        self._add(bill)
        self._add(m.BillPayment(**self._paid("50"), bill_id=bill.id))
        self._add(m.BillOnlinePayment(**self._paid_online("25"), bill_id=bill.id))
        bill.amount_paid = Decimal("75")
        self._add(m.Expense(**self._paid("18.90"), description="Taxi", account_id=self.accounts[2].id))
        taxes = (
            (m.IncomeTaxPayment, "320"),
            (m.WithholdingTaxPayment, "45"),
            (m.SalesTaxPayment, "150"),
        )
        for tax, amount in taxes:
            period = {"period_start": NEW_YEAR, "period_end": FIRST_DAY}
            self._add(tax(**self._paid(amount), **period, authority="Revenue Authority"))

    def _pay_staff(self) -> None:
        slips = [
            m.Payslip(
                employee_id=one.id, gross=one.basic_salary, income_tax=Decimal("310"), pension=Decimal("132")
            )
            for one in self.staff
        ]
        days = {"period_start": NEW_YEAR, "period_end": FIRST_DAY, "pay_on": FIRST_DAY}
        run = self._add(m.PayRun(**days, currency=self.currency, payslips=slips))
        payments = (
            (m.SalaryPayment, "1958"),
            (m.PayrunTier1Payment, "66"),
            (m.PayrunTier2Payment, "44"),
            (m.PayrunTier3Payment, "22"),
            (m.PayrunIncomeTaxPayment, "310"),
        )
        for payment, amount in payments:
            self._add(payment(**self._paid(amount), pay_run_id=run.id))

    def _move_money(self) -> None:
        between = {"from_bank_account_id": self.bank_account.id, "to_bank_account_id": self.savings.id}
        moved = {"amount": Decimal("400"), "currency": self.currency, "transferred_on": FIRST_DAY}
        self._add(m.BankTransfer(**between, **moved))
        credit = m.WalletTransaction(
            direction=m.WalletDirection.CREDIT,
            amount=Decimal("20"),
            balance_after=Decimal("20"),
            currency=self.currency,
            description="Top-up",
        )
        self._add(credit)
        for principal in (Decimal("10000"), Decimal("2500")):
            loan = m.BusinessLoan(
                lender="Co-operative Credit",
                principal=principal,
                balance=principal,
                interest_rate=Decimal("12.5"),
                term_months=36,
                currency=self.currency,
                disbursed_on=FIRST_DAY,
                bank_account_id=self.bank_account.id,
            )
            self._add(loan)
