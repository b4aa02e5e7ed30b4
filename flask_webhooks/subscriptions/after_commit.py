"""Work that waits for a session's commit: signals, and the bell."""

from __future__ import annotations

import functools
import typing as t

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from .joined_session import host_of

__all__ = ["afterwards"]

_WAITING, _DUE = "webhooks_afterwards", "webhooks_afterwards_due"
Work = t.Callable[[], object]


def afterwards(session: Session, work: Work) -> None:
    """Call `work` once the session's transaction is committed; forget it if that, or the savepoint, is rolled back.

    In a transaction of the host it waits for the host's commit. It runs after the session has returned its connection
    to the pool: `work` may call Redis, or receivers of signals that need a connection themselves.
    """
    if _WAITING not in session.info:
        session.info[_WAITING], session.info[_DUE] = [], []
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_soft_rollback", _forget)
        event.listen(session, "after_transaction_end", _do)
    host = host_of(session)
    if host is not None:
        work = functools.partial(afterwards, host, work)
    session.info[_WAITING].append((session.get_nested_transaction(), work))


def _committed(session: Session) -> None:
    released = session.get_nested_transaction()
    waiting: list[tuple[SessionTransaction | None, Work]] = session.info[_WAITING]
    if released is None:
        session.info[_DUE] += [work for _, work in waiting]
        session.info[_WAITING] = []
    else:  # SQLAlchemy also calls `after_commit` for a savepoint: the work moves to the one around it
        around = _around(released)
        session.info[_WAITING] = [(around if place is released else place, work) for place, work in waiting]


def _do(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    due: list[Work] = session.info[_DUE]
    session.info[_DUE] = []
    for work in due:
        work()


def _forget(session: Session, transaction: SessionTransaction) -> None:
    alive: set[SessionTransaction | None] = set()
    if transaction.nested:
        alive = {None}
        savepoint = session.get_nested_transaction()
        while savepoint is not None:
            alive.add(savepoint)
            savepoint = _around(savepoint)
    session.info[_WAITING] = [
        (place, work) for place, work in session.info[_WAITING] if place in alive and place is not transaction
    ]


def _around(savepoint: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint around a savepoint (flushes have transactions of their own), None for the root."""
    outer = savepoint.parent
    while outer is not None and not outer.nested:
        outer = outer.parent
    return outer
