"""What each session has seen while a transaction lasts, by the savepoint in which it happened."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session, SessionTransaction

from . import history
from .change import Change
from .events import Emitted, Recorded
from .matching import SubscriptionLookup
from .registry import INFO, Registry
from .side_session import SideSession
from .sqlalchemy_internals import begin_implicitly
from .traces import Trace

__all__ = [
    "Item",
    "UnitOfWork",
    "Written",
    "alive_in",
    "around",
    "buffer_of",
    "buffers_of",
    "forget",
    "is_late",
    "kept",
    "set_late",
]

LATE = f"{INFO}_late"

Item = Change | Emitted | Trace
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

    watch: Registry
    aside: SideSession
    """Rows that no object of the host's session stands for."""
    items: Items = field(default_factory=dict)
    hearing: SubscriptionLookup | None = None
    """Who listens: what this commit has asked so far; None before it began."""
    flush: history.FlushState = field(default_factory=history.FlushState)
    """What was there before the flush that is running."""
    written: list[Written] = field(default_factory=list)
    broken: str | None = None
    """Why the transaction can only be rolled back."""

    def recorded(self) -> list[Recorded]:
        """The messages that the transaction commits, for the signal."""
        return [row for written in self.written for row in written.recorded]

    def take_back(self, written: Written, alive: t.Collection[SessionTransaction | None]) -> None:
        """Wait again for what is still true of something that is written no more."""
        self.written.remove(written)
        for place, items in written.items.items():
            if place in alive:
                self.items[place] = items + self.items.get(place, [])


class UnitsOfWork(dict[Registry, UnitOfWork]):
    """The buffers of one root transaction: one for each app that captures something in it.

    They are an attribute of the transaction and end with it, however it ends: a listener for that would be called
    at every flush of everybody.
    """

    has_bulk = False
    """A bulk statement has changed rows."""


def buffer_of(session: Session, watch: Registry) -> UnitOfWork:
    """Return the buffer of the session's transaction, made anew if there is none."""
    buffers = buffers_of(session)
    buffer = buffers.get(watch)
    if buffer is None:
        buffer = buffers[watch] = UnitOfWork(watch, SideSession(session, watch))
    return buffer


def buffers_of(session: Session) -> UnitsOfWork:
    transaction = session.get_transaction()
    if transaction is None:  # emit() before anything else: begin as a change would, with no connection yet
        begin_implicitly(session)
        transaction = t.cast("SessionTransaction", session.get_transaction())
    buffers = kept(transaction)
    if buffers is None:
        buffers = UnitsOfWork()
        setattr(transaction, INFO, buffers)
    return buffers


def kept(transaction: SessionTransaction | None) -> UnitsOfWork | None:
    return getattr(transaction, INFO, None)


def is_late(root: SessionTransaction | None) -> bool:
    """Whether the root's `before_commit` has passed: what is flushed now is written at once."""
    return getattr(root, LATE, False)


def set_late(root: SessionTransaction | None, is_late: bool) -> None:
    # Not among the buffers: a commit of nothing that is captured shall not pay for these.
    setattr(root, LATE, is_late)


def alive_in(session: Session) -> set[SessionTransaction | None]:
    """The savepoints that are open, innermost to outermost, and None for the root."""
    savepoint = session.get_nested_transaction()
    alive = {None, savepoint}
    while savepoint is not None:
        savepoint = around(savepoint)
        alive.add(savepoint)
    return alive


def around(savepoint: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint around a savepoint (flushes have transactions of their own), None for the root."""
    outer = savepoint.parent
    while outer is not None and not outer.nested:
        outer = outer.parent
    return outer


def forget(root: SessionTransaction | None) -> None:
    buffers = kept(root)
    if buffers is not None:
        delattr(root, INFO)
        for buffer in buffers.values():
            buffer.items.clear()
            buffer.aside.close()
