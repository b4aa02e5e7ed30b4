"""What a business may do in one step of trade. Each move works in the open transaction and says what it did.

A move that finds nothing to work on (no draft to send, no bill to pay) makes one instead. One that returns
nothing wants to be rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import sqlalchemy as sa

from . import actions
from .desk import GOODS, Desk, in_a_month, today
from .models import (
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

LENDERS = ("First Savings", "Harbour Bank", "Co-operative Credit")

Done = list[tuple[str, Record]]
Move = Callable[[Desk], Done]


def issue_invoice(desk: Desk) -> Done:
    invoice = Invoice(
        number=desk.number("2026"),
        client_id=desk.any_id(Client),
        currency=desk.currency,
        issued_on=today(),
        due_on=in_a_month(),
        line_items=desk.lines(InvoiceLine),
    )
    return [("created", desk.add(invoice))]


def send_invoice(desk: Desk) -> Done:
    invoice = desk.first(Invoice, Invoice.status == InvoiceStatus.DRAFT)
    if invoice is None:
        return issue_invoice(desk)
    actions.send(invoice)
    return [("updated", invoice)]


def pay_invoice(desk: Desk) -> Done:
    invoice = desk.first(Invoice, Invoice.status.in_([InvoiceStatus.SENT, InvoiceStatus.OVERDUE]))
    if invoice is None:
        return issue_invoice(desk)
    return [("created", actions.pay(invoice)), ("updated", invoice)]


def quote(desk: Desk) -> Done:
    offer = Quote(
        number=desk.number("Q"),
        client_id=desk.any_id(Client),
        currency=desk.currency,
        quoted_on=today(),
        valid_until=in_a_month(),
        line_items=desk.lines(QuoteLine),
    )
    return [("created", desk.add(offer))]


def add_bill(desk: Desk) -> Done:
    bill = Bill(
        number=desk.number("B"),
        supplier_id=desk.any_id(Supplier),
        currency=desk.currency,
        billed_on=today(),
        due_on=in_a_month(),
        line_items=desk.lines(BillLine),
    )
    return [("created", desk.add(bill))]


def pay_bill(desk: Desk) -> Done:
    bill = desk.first(Bill, Bill.status.in_([BillStatus.OPEN, BillStatus.OVERDUE]))
    if bill is None:
        return add_bill(desk)
    return [("created", actions.pay_bill(bill)), ("updated", bill)]


def spend(desk: Desk) -> Done:
    expense = Expense(
        description=desk.rng.choice(GOODS),
        amount=desk.amount(80),
        currency=desk.currency,
        paid_on=today(),
        account_id=desk.any_id(Account),
    )
    return [("created", desk.add(expense))]


def take_loan(desk: Desk) -> Done:
    principal = Decimal(desk.rng.randrange(5, 50) * 1000)
    loan = BusinessLoan(
        lender=desk.rng.choice(LENDERS),
        principal=principal,
        balance=principal,
        interest_rate=Decimal(desk.rng.randrange(20, 180)) / 10,
        term_months=desk.rng.choice((12, 24, 36, 60)),
        currency=desk.currency,
        disbursed_on=today(),
    )
    return [("created", desk.add(loan))]


def repay_loan(desk: Desk) -> Done:
    loan = desk.first(BusinessLoan, BusinessLoan.balance > 100)
    if loan is None:
        return take_loan(desk)
    loan.balance -= 100
    return [("updated", loan)]


def delete_loan(desk: Desk) -> Done:
    loan = desk.first(BusinessLoan)
    if loan is None:
        return take_loan(desk)
    db.session.delete(loan)
    return [("deleted", loan)]


def post_to_ledger(desk: Desk) -> Done:
    posting = Ledger(
        account_id=desk.any_id(Account),
        posted_on=today(),
        description=desk.rng.choice(GOODS),
        debit=desk.amount(),
        currency=desk.currency,
    )
    return [("created", desk.add(posting))]


def run_payroll(desk: Desk) -> Done:
    staff = db.session.scalars(sa.select(Employee).where(Employee.business_id == desk.business_id)).all()
    slips = [Payslip(employee_id=one.id, gross=one.basic_salary) for one in staff]
    run = desk.add(
        PayRun(
            currency=desk.currency,
            period_start=today().replace(day=1),
            period_end=today(),
            pay_on=today(),
            payslips=slips,
        )
    )
    db.session.flush()  # the payment needs the id of its pay run
    payment = SalaryPayment(pay_run_id=run.id, amount=run.net_total, currency=desk.currency, paid_on=today())
    return [("created", run), ("created", desk.add(payment))]


def use_wallet(desk: Desk) -> Done:
    use = WalletTransaction(
        direction=desk.rng.choice(list(WalletDirection)),
        amount=desk.amount(20),
        balance_after=desk.amount(),
        currency=desk.currency,
        description="Text messages",
    )
    return [("created", desk.add(use))]


def sell(desk: Desk) -> Done:
    return [
        ("created", desk.add(Sale(currency=desk.currency, sold_on=today(), line_items=desk.lines(SaleLine))))
    ]


def sell_without_deposit(desk: Desk) -> Done:
    """Sell; a deposit taken on the way is undone by its savepoint, and only the sale remains."""
    done = sell(desk)
    with db.session.begin_nested() as savepoint:
        deposit = Deposit(
            client_id=desk.any_id(Client), amount=desk.amount(), currency=desk.currency, paid_on=today()
        )
        desk.add(deposit)
        db.session.flush()
        savepoint.rollback()
    return done


def abandon_sale(desk: Desk) -> Done:
    """Begin a sale, get as far as the database with it, and give it up."""
    sell(desk)
    return []


MOVES: dict[Move, int] = {
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
