"""Runs steps of realistic business, one at a time, the same ones for the same seed.

Each step is one transaction and returns what it committed, so that a receiver can compare the webhooks with it.
Some steps are rolled back: no webhook may ever be sent for them.
"""

from __future__ import annotations

import random
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from flask import Flask

from ..database import begin_to_write
from ..models import Business, db
from .factories import Factory
from .steps import STEPS


class Change(t.NamedTuple):
    """One record, created, updated or deleted: ``("invoices.created", "INV-0007")``."""

    event: str
    tag: str


@dataclass(frozen=True)
class Step:
    """What one step did. ``changes`` is empty if it was rolled back."""

    action: str
    business_id: int
    changes: tuple[Change, ...]

    @property
    def is_committed(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        done = ", ".join(f"{change.event} {change.tag}" for change in self.changes) or "rolled back"
        return f"business {self.business_id}: {self.action.replace('_', ' ')}: {done}"


class Simulation:
    """Simulates the businesses of a seeded app. Iterate over it without end, or call :meth:`step`."""

    def __init__(self, app: Flask, *, seed: int = 1, business: str | None = None) -> None:
        """Load the businesses.

        :param business: the name of the only one to simulate; default: all.
        """
        self.app = app
        self.rng = random.Random(seed)
        query = sa.select(Business.id, Business.currency).order_by(Business.id)
        if business is not None:
            query = query.where(Business.name == business)
        with app.app_context():
            self.businesses = db.session.execute(query).all()
        if not self.businesses:
            raise LookupError("There is no business. Run `flask --app example_app seed` first.")

    def __iter__(self) -> Iterator[Step]:
        while True:
            yield self.step()

    def step(self) -> Step:
        """Run one step, in a transaction and an app context of its own."""
        (step,) = self.rng.choices(list(STEPS), weights=list(STEPS.values()))
        business_id, currency = self.rng.choice(self.businesses)
        with self.app.app_context():
            begin_to_write()
            done = step(Factory(self.rng, business_id, currency))
            db.session.flush()
            changes = tuple(Change(f"{record.__tablename__}.{kind}", record.tag) for kind, record in done)
            if changes:
                db.session.commit()
            else:
                db.session.rollback()
        return Step(step.__name__, business_id, changes)
