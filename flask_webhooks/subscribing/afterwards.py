"""What waits for a session's commit: signals, and the bell."""

from __future__ import annotations

import typing as t

from sqlalchemy import event
from sqlalchemy.orm import Session

__all__ = ["afterwards"]

_INFO = "webhooks_afterwards"
Work = t.Callable[[], object]


def afterwards(session: Session, work: Work) -> None:
    """Call `work` once the session's transaction is committed; forget it if that is rolled back."""
    if _INFO not in session.info:
        session.info[_INFO] = []
        event.listen(session, "after_commit", _do)
        event.listen(session, "after_rollback", _forget)
    session.info[_INFO].append(work)


def _do(session: Session) -> None:
    waiting: list[Work] = session.info[_INFO]
    session.info[_INFO] = []
    for work in waiting:
        work()


def _forget(session: Session) -> None:
    session.info[_INFO] = []
