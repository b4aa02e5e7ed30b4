"""What a business may do in one step. Each function works in the open transaction and returns what it did.

A step that finds nothing to work on (no draft to send, no bill to pay) creates something instead. A step that returns
nothing is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import sqlalchemy as sa

from .. import actions
from ..models import (
    Account,
    Bill,
    BillLine,
    BillStatus,
    BusinessLoan,
    Client,
    Deposit,
    Employee,
    Expense,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Ledger,
    PayRun,
    Payslip,
    Quote,
    QuoteLine,
    Record,
    SalaryPayment,
    Sale,
    SaleLine,
    Supplier,
    WalletDirection,
    WalletTransaction,
    db,
)
from .factories import GOODS, Factory, in_a_month, today

LENDERS = ("First Savings", "Harbour Bank", "Co-operative Credit")

Done = list[tuple[str, Record]]
StepFunction = Callable[[Factory], Done]


def issue_invoice(factory: Factory) -> Done:
    invoice = Invoice(
        number=factory.number("2026"),
        client_id=factory.any_id(Client),
        currency=factory.currency,
        issued_on=today(),
        due_on=in_a_month(),
        line_items=factory.lines(InvoiceLine),
    )
    return [("created", factory.add(invoice))]


def send_invoice(factory: Factory) -> Done:
    invoice = factory.first(Invoice, Invoice.status == InvoiceStatus.DRAFT)
    if invoice is None:
        return issue_invoice(factory)
    actions.send(invoice)
    return [("updated", invoice)]


def pay_invoice(factory: Factory) -> Done:
    invoice = factory.first(Invoice, Invoice.status.in_([InvoiceStatus.SENT, InvoiceStatus.OVERDUE]))
    if invoice is None:
        return issue_invoice(factory)
    return [("created", actions.pay(invoice)), ("updated", invoice)]


def quote(factory: Factory) -> Done:
    offer = Quote(
        number=factory.number("Q"),
        client_id=factory.any_id(Client),
        currency=factory.currency,
        quoted_on=today(),
        valid_until=in_a_month(),
        line_items=factory.lines(QuoteLine),
    )
    return [("created", factory.add(offer))]


def add_bill(factory: Factory) -> Done:
    bill = Bill(
        number=factory.number("B"),
        supplier_id=factory.any_id(Supplier),
        currency=factory.currency,
        billed_on=today(),
        due_on=in_a_month(),
        line_items=factory.lines(BillLine),
    )
    return [("created", factory.add(bill))]


def pay_bill(factory: Factory) -> Done:
    bill = factory.first(Bill, Bill.status.in_([BillStatus.OPEN, BillStatus.OVERDUE]))
    if bill is None:
        return add_bill(factory)
    return [("created", actions.pay_bill(bill)), ("updated", bill)]


def spend(factory: Factory) -> Done:
    expense = Expense(
        description=factory.rng.choice(GOODS),
        amount=factory.amount(80),
        currency=factory.currency,
        paid_on=today(),
        account_id=factory.any_id(Account),
    )
    return [("created", factory.add(expense))]


def take_loan(factory: Factory) -> Done:
    principal = Decimal(factory.rng.randrange(5, 50) * 1000)
    loan = BusinessLoan(
        lender=factory.rng.choice(LENDERS),
        principal=principal,
        balance=principal,
        interest_rate=Decimal(factory.rng.randrange(20, 180)) / 10,
        term_months=factory.rng.choice((12, 24, 36, 60)),
        currency=factory.currency,
        disbursed_on=today(),
    )
    return [("created", factory.add(loan))]


def repay_loan(factory: Factory) -> Done:
    loan = factory.first(BusinessLoan, BusinessLoan.balance > 100)
    if loan is None:
        return take_loan(factory)
    loan.balance -= 100
    return [("updated", loan)]


def delete_loan(factory: Factory) -> Done:
    loan = factory.first(BusinessLoan)
    if loan is None:
        return take_loan(factory)
    db.session.delete(loan)
    return [("deleted", loan)]


def post_to_ledger(factory: Factory) -> Done:
    posting = Ledger(
        account_id=factory.any_id(Account),
        posted_on=today(),
        description=factory.rng.choice(GOODS),
        debit=factory.amount(),
        currency=factory.currency,
    )
    return [("created", factory.add(posting))]


def run_payroll(factory: Factory) -> Done:
    staff = db.session.scalars(sa.select(Employee).where(Employee.business_id == factory.business_id)).all()
    slips = [Payslip(employee_id=one.id, gross=one.basic_salary) for one in staff]
    run = factory.add(
        PayRun(
            currency=factory.currency,
            period_start=today().replace(day=1),
            period_end=today(),
            pay_on=today(),
            payslips=slips,
        )
    )
    db.session.flush()  # the payment needs the id of its pay run
    payment = SalaryPayment(
        pay_run_id=run.id, amount=run.net_total, currency=factory.currency, paid_on=today()
    )
    return [("created", run), ("created", factory.add(payment))]


def use_wallet(factory: Factory) -> Done:
    use = WalletTransaction(
        direction=factory.rng.choice(list(WalletDirection)),
        amount=factory.amount(20),
        balance_after=factory.amount(),
        currency=factory.currency,
        description="Text messages",
    )
    return [("created", factory.add(use))]


def sell(factory: Factory) -> Done:
    return [
        (
            "created",
            factory.add(Sale(currency=factory.currency, sold_on=today(), line_items=factory.lines(SaleLine))),
        )
    ]


def sell_without_deposit(factory: Factory) -> Done:
    """Sell; a deposit taken on the way is undone by its savepoint, and only the sale remains."""
    done = sell(factory)
    with db.session.begin_nested() as savepoint:
        deposit = Deposit(
            client_id=factory.any_id(Client),
            amount=factory.amount(),
            currency=factory.currency,
            paid_on=today(),
        )
        factory.add(deposit)
        db.session.flush()
        savepoint.rollback()
    return done


def abandon_sale(factory: Factory) -> Done:
    """Begin a sale, get as far as the database with it, and give it up."""
    sell(factory)
    return []


STEPS: dict[StepFunction, int] = {
    issue_invoice: 6,
    send_invoice: 5,
    pay_invoice: 4,
    quote: 2,
    add_bill: 3,
    pay_bill: 2,
    spend: 2,
    take_loan: 2,
    repay_loan: 2,
    delete_loan: 1,
    post_to_ledger: 3,
    run_payroll: 1,
    use_wallet: 2,
    sell: 2,
    sell_without_deposit: 1,
    abandon_sale: 2,
}
"""How often each is made, in relation to the others."""
