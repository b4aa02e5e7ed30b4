"""What waits for a session's commit: signals, and the bell."""

from __future__ import annotations

import typing as t

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["afterwards"]

_WAITING, _DUE = "webhooks_afterwards", "webhooks_afterwards_due"
Work = t.Callable[[], object]


def afterwards(session: Session, work: Work) -> None:
    """Call `work` once the session's transaction is committed; forget it if that is rolled back.

    It is called when the session has given its connection back: `work` may ask Redis, or call receivers of signals that
    need a connection themselves.
    """
    if _WAITING not in session.info:
        session.info[_WAITING], session.info[_DUE] = [], []
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_rollback", _forget)
        event.listen(session, "after_transaction_end", _do)
    session.info[_WAITING].append(work)


def _committed(session: Session) -> None:
    session.info[_DUE] += session.info[_WAITING]
    session.info[_WAITING] = []


def _do(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    due: list[Work] = session.info[_DUE]
    session.info[_DUE] = []
    for work in due:
        work()


def _forget(session: Session) -> None:
    session.info[_WAITING] = []
