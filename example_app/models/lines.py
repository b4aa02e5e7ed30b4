"""What invoices, sales, quotes and bills share: priced lines, totals made from them, and being paid."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

from .columns import ZERO, Money, Quantity, Rate, to_cents, utc_now
from .records import Inconsistent, Model


class PricedLine(Model):
    """One line of a document. It belongs to its document alone and lives and dies with it."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True, sort_order=-3)
    position: Mapped[int] = mapped_column(sort_order=-2)
    description: Mapped[str]
    quantity: Mapped[Quantity] = mapped_column(default=Decimal(1))
    unit_price: Mapped[Money]
    tax_rate: Mapped[Rate] = mapped_column(default=ZERO)
    net: Mapped[Money]
    tax: Mapped[Money]

    @orm.declared_attr
    def product_service_id(cls) -> Mapped[int | None]:
        return mapped_column(sa.ForeignKey("products_services.id"))

    def price(self) -> None:
        """Work out net and tax; tax is rounded per line, as it is printed."""
        quantity = Decimal(1) if self.quantity is None else self.quantity
        self.net = to_cents(quantity * self.unit_price)
        self.tax = to_cents(self.net * (self.tax_rate or ZERO) / 100)


class Totals:
    """A document with ``line_items``: its totals are the sums of its lines."""

    if t.TYPE_CHECKING:

        @property
        def line_items(self) -> Sequence[PricedLine]: ...

    subtotal: Mapped[Money] = mapped_column(default=ZERO)
    tax_total: Mapped[Money] = mapped_column(default=ZERO)
    total: Mapped[Money] = mapped_column(default=ZERO)

    def settle(self) -> None:
        """Price the lines and add them up."""
        for position, line in enumerate(self.line_items, start=1):
            line.position = position
            line.price()
        self.subtotal = sum((line.net for line in self.line_items), ZERO)
        self.tax_total = sum((line.tax for line in self.line_items), ZERO)
        self.total = self.subtotal + self.tax_total


class Payable(Totals):
    """A document that someone owes: an invoice or a bill. Once paid, it costs what was paid."""

    if t.TYPE_CHECKING:
        status: Mapped[t.Any]

    amount_paid: Mapped[Money] = mapped_column(default=ZERO)
    paid_at: Mapped[datetime | None]

    @property
    def amount_due(self) -> Money:
        return self.total - (self.amount_paid or ZERO)

    def settle(self) -> None:
        super().settle()
        if self.status != "paid":
            return
        if self.paid_at is None:
            self.paid_at, self.amount_paid = utc_now(), self.total
        elif self.amount_paid != self.total:
            raise Inconsistent("line_items", f"It was paid with {self.amount_paid}, so that is its total.")
