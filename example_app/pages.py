"""The home page: what the business has, its latest invoices, and buttons to try everything with."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, InvalidOperation

import sqlalchemy as sa
from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload
from werkzeug.wrappers import Response

from . import crud
from .actions import ACTIONS
from .auth import check_csrf, current_user
from .channels import RESOURCES
from .database import begin_request
from .models import Client, Inconsistent, Invoice, InvoiceLine, TransitionRefused, User, db, utc_now
from .models.columns import CENT

bp = Blueprint("pages", __name__)
bp.before_request(check_csrf)
bp.before_request(begin_request)

LATEST = 8
MOST = Decimal(10**9)


@bp.get("/")
def home() -> Response | str:
    user = current_user()
    if user is None:
        return redirect(url_for("auth.sign_in_form"))
    invoices = sa.select(Invoice).where(Invoice.business_id == user.business_id)
    clients = sa.select(Client).where(Client.business_id == user.business_id)
    return render_template(
        "home.html",
        user=user,
        counts=_count_records(user.business_id),
        invoices=db.session.scalars(
            invoices.options(selectinload(Invoice.client)).order_by(Invoice.id.desc()).limit(LATEST)
        ).all(),
        clients=db.session.scalars(clients.order_by(Client.name)).all(),
    )


def _count_records(business_id: int) -> list[tuple[str, str, int]]:
    """Return name, title and number of records of every resource, with one query."""
    counts = [
        sa.select(sa.literal(name), sa.func.count()).where(resource.owner == business_id)
        for name, resource in RESOURCES.items()
    ]
    found = {name: number for name, number in db.session.execute(sa.union_all(*counts))}
    return [(name, resource.title, found[name]) for name, resource in RESOURCES.items()]


@bp.post("/invoices")
def issue_invoice() -> Response:
    user = _require_user()
    client = crud.find(RESOURCES["clients"], request.form.get("client_id", 0, type=int), user.business_id)
    line = InvoiceLine(description=request.form.get("description", "")[:200], unit_price=_amount())
    now = utc_now()
    invoice = Invoice(
        business_id=user.business_id,
        number=f"{now:%Y%m%d-%H%M%S}",
        client_id=client.id,
        invoice_user_id=user.id,
        currency=client.currency,
        issued_on=now.date(),
        due_on=now.date() + timedelta(days=30),
        line_items=[line],
    )
    invoice.settle()
    db.session.add(invoice)
    db.session.commit()
    flash(f"{invoice.tag} is issued.")
    return redirect(url_for("pages.home"))


def _amount() -> Decimal:
    try:
        amount = Decimal(request.form.get("amount", ""))
    except InvalidOperation:
        abort(400, "The amount is not a number.")
    if not (amount.is_finite() and CENT <= amount <= MOST):
        abort(400, f"The amount is not between {CENT} and {MOST}.")
    return amount.quantize(CENT)


@bp.post("/invoices/<int:invoice_id>/<any(send, pay, void, delete):action>")
def change_invoice(invoice_id: int, action: str) -> Response:
    user = _require_user()
    invoice = crud.find(RESOURCES["invoices"], invoice_id, user.business_id, lock=True)
    tag = invoice.tag
    try:
        (ACTIONS["invoices"] | {"delete": db.session.delete})[action](invoice)
        db.session.commit()
        flash(f"{tag}: {action} done.")
    except (TransitionRefused, Inconsistent) as refusal:
        db.session.rollback()
        flash(f"{tag}: {refusal}")
    except IntegrityError:
        db.session.rollback()
        flash(f"{tag} has payments, so it cannot be deleted.")
    return redirect(url_for("pages.home"))


def _require_user() -> User:
    user = current_user()
    if user is None:
        abort(401, "Sign in first.")
    return user
