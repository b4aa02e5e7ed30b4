"""Finds and creates the records of one business, with made-up figures."""

from __future__ import annotations

import random
import typing as t
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import sqlalchemy as sa

from ..models import Record, db, utc_now
from ..models.columns import CENT
from ..models.lines import PricedLine

GOODS = ("Design work", "Consulting", "Printing", "Delivery", "Repairs", "Paper", "Toner", "Training")

R = t.TypeVar("R", bound=Record)
L = t.TypeVar("L", bound=PricedLine)


@dataclass(frozen=True)
class Factory:
    """Finds and creates the records of one business."""

    rng: random.Random
    business_id: int
    currency: str

    def add(self, record: R) -> R:
        record.business_id = self.business_id
        record.settle()
        db.session.add(record)
        return record

    def first(self, model: type[R], *conditions: sa.ColumnElement[bool]) -> R | None:
        mine = sa.select(model).where(model.business_id == self.business_id, *conditions)
        return db.session.scalar(mine.order_by(model.id).limit(1))

    def any_id(self, model: type[Record]) -> int:
        mine = sa.select(model.id).where(model.business_id == self.business_id).order_by(model.id)
        return self.rng.choice(db.session.scalars(mine).all())

    def amount(self, most: int = 500) -> Decimal:
        return self.rng.randrange(500, most * 100) * CENT

    def lines(self, line: type[L]) -> list[L]:
        return [
            line(
                description=self.rng.choice(GOODS),
                quantity=Decimal(self.rng.randint(1, 8)),
                unit_price=self.amount(),
                tax_rate=Decimal(self.rng.choice((0, 5, 15))),
            )
            for _ in range(self.rng.randint(1, 5))
        ]

    def number(self, series: str) -> str:
        return f"{series}-{self.rng.randrange(10**6):06d}"


def today() -> date:
    return utc_now().date()


def in_a_month() -> date:
    return today() + timedelta(days=30)
