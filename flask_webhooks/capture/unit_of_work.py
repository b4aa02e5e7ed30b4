"""What each session has seen while a transaction lasts, by the savepoint in which it happened."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session, SessionTransaction

from . import history
from .change import Change
from .events import Emitted, Recorded
from .lookup import SubscriptionLookup
from .registry import INFO, Registry
from .side_session import SideSession
from .sqlalchemy_internals import begin_implicitly
from .uncaptured import UncapturedChange

__all__ = [
    "Item",
    "UnitOfWork",
    "Written",
    "alive_in",
    "enclosing",
    "forget",
    "is_committing",
    "set_committing",
    "unit_of",
    "units_in",
    "units_of",
]

COMMITTING = f"{INFO}_late"

Item = Change | Emitted | UncapturedChange
Items = dict[SessionTransaction | None, list[Item]]
"""What happened, by the innermost savepoint in which it did; None: outside of any."""


@dataclass(slots=True, eq=False)
class Written:
    """What a commit has written, kept until it is through: a savepoint or a second try may undo it."""

    place: SessionTransaction | None
    """The innermost savepoint in which it was written."""
    connection: sa.Connection | None
    items: Items
    recorded: list[Recorded]


@dataclass(slots=True, eq=False)
class UnitOfWork:
    """What one session has seen for one app in its current root transaction."""

    registry: Registry
    side_session: SideSession
    """Rows that no object of the host's session stands for."""
    items: Items = field(default_factory=dict)
    lookup: SubscriptionLookup | None = None
    """Who listens: what this commit has asked so far; None before it began."""
    flush: history.FlushState = field(default_factory=history.FlushState)
    """What was there before the flush that is running."""
    written: list[Written] = field(default_factory=list)
    broken: str | None = None
    """Why the transaction can only be rolled back."""

    def recorded(self) -> list[Recorded]:
        """The messages that the transaction commits, for the signal."""
        return [row for written in self.written for row in written.recorded]

    def requeue(self, written: Written, alive: t.Collection[SessionTransaction | None]) -> None:
        """Queue the changes again whose messages were written and then rolled back."""
        # The messages were deleted, or rolled back with a savepoint. Changes of savepoints that still exist happened
        # nevertheless, so the next try writes them.
        self.written.remove(written)
        for place, items in written.items.items():
            if place in alive:
                self.items[place] = items + self.items.get(place, [])


class UnitsOfWork(dict[Registry, UnitOfWork]):
    """The units of work of one root transaction: one for each app that captures something in it.

    They are an attribute of the transaction and end with it, however it ends: a listener for that would be called
    at every flush of every session.
    """

    has_bulk = False
    """A bulk statement has changed rows."""


def unit_of(session: Session, registry: Registry) -> UnitOfWork:
    """Return the unit of work of the session's transaction, made anew if there is none."""
    units = units_of(session)
    unit = units.get(registry)
    if unit is None:
        unit = units[registry] = UnitOfWork(registry, SideSession(session, registry))
    return unit


def units_of(session: Session) -> UnitsOfWork:
    transaction = session.get_transaction()
    if transaction is None:  # emit() before anything else: begin as a change would, with no connection yet
        begin_implicitly(session)
        transaction = t.cast("SessionTransaction", session.get_transaction())
    units = units_in(transaction)
    if units is None:
        units = UnitsOfWork()
        setattr(transaction, INFO, units)
    return units


def units_in(transaction: SessionTransaction | None) -> UnitsOfWork | None:
    return getattr(transaction, INFO, None)


def is_committing(root: SessionTransaction | None) -> bool:
    """Whether the root's `before_commit` has passed: what is flushed now is written at once."""
    return getattr(root, COMMITTING, False)


def set_committing(root: SessionTransaction | None, is_committing: bool) -> None:
    # Not among the units of work: a commit of nothing that is captured shall not pay for these.
    setattr(root, COMMITTING, is_committing)


def alive_in(session: Session) -> set[SessionTransaction | None]:
    """The savepoints that are open, innermost to outermost, and None for the root."""
    savepoint = session.get_nested_transaction()
    alive = {None, savepoint}
    # None is the root transaction, which is always open.
    while savepoint is not None:
        savepoint = enclosing(savepoint)
        alive.add(savepoint)
    return alive


def enclosing(savepoint: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint around a savepoint (flushes have transactions of their own), None for the root."""
    outer = savepoint.parent
    while outer is not None and not outer.nested:
        outer = outer.parent
    return outer


def forget(root: SessionTransaction | None) -> None:
    units = units_in(root)
    if units is not None:
        delattr(root, INFO)
        for unit in units.values():
            unit.items.clear()
            unit.side_session.close()
