"""What a business does with its documents. Each changes records in the session; the caller commits."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from .models import (
    Bill,
    BillPayment,
    BillStatus,
    Invoice,
    InvoicePayment,
    InvoiceStatus,
    TransitionRefused,
    db,
    utc_now,
)


def send(invoice: Invoice) -> None:
    """Send an invoice to its client.

    :raises TransitionRefused: if it is not a draft. So do the others, when the status is not right for them.
    """
    _move(invoice, InvoiceStatus.SENT)
    invoice.settle()


def pay(invoice: Invoice) -> InvoicePayment:
    """Receive what is still due on an invoice; the payment and the invoice are one change."""
    payment = InvoicePayment(
        business_id=invoice.business_id,
        invoice_id=invoice.id,
        bank_account_id=invoice.bank_account_id,
        amount=invoice.amount_due,
        currency=invoice.currency,
        paid_on=utc_now().date(),
        reference=invoice.number,
    )
    _move(invoice, InvoiceStatus.PAID)
    invoice.settle()
    db.session.add(payment)
    return payment


def void(invoice: Invoice) -> None:
    """Give up a claim without deleting it."""
    _move(invoice, InvoiceStatus.VOID)


def pay_bill(bill: Bill) -> BillPayment:
    """Pay what is still due on a bill; the payment and the bill are one change."""
    payment = BillPayment(
        business_id=bill.business_id,
        bill_id=bill.id,
        amount=bill.amount_due,
        currency=bill.currency,
        paid_on=utc_now().date(),
        reference=bill.number,
    )
    _move(bill, BillStatus.PAID)
    bill.settle()
    db.session.add(payment)
    return payment


def _move(document: Invoice | Bill, status: t.Any) -> None:
    """Change the status, unlike an assignment also refusing the one it has: nothing is paid twice."""
    if document.status == status:
        raise TransitionRefused(document.status, status, document.__transitions__[document.status])
    document.status = status


ACTIONS: dict[str, dict[str, Callable[[t.Any], object]]] = {
    "invoices": {"send": send, "pay": pay, "void": void},
    "bills": {"pay": pay_bill},
}
"""By resource, then by the name under which the API and the home page offer them."""
