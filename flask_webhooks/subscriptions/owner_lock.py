"""The lock of an owner: it serialises all changes that depend on the owner's other subscriptions."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from ..errors import ErrorText, SubscriptionChangedError
from ..models import OWNERS
from .joined_session import is_joined

__all__ = ["lock"]


def lock(session: Session, owner: str, environment: str) -> None:
    """Make all other changes of an owner's subscriptions wait until this transaction ends.

    It must be the first statement. On SQLite a write takes the only lock there is, and a transaction that has already
    read can no longer take it. Elsewhere it locks the row, and what is read afterwards is current.
    """
    row = {"owner": owner, "environment": environment, "changes": 1}
    dialect = session.get_bind().dialect.name
    if dialect in ("mysql", "mariadb"):
        statement: t.Any = (
            mysql.insert(OWNERS).values(row).on_duplicate_key_update(changes=OWNERS.c.changes + 1)
        )
    else:
        flavour = postgresql if dialect == "postgresql" else sqlite
        statement = flavour.insert(OWNERS).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=[OWNERS.c.owner, OWNERS.c.environment], set_={"changes": OWNERS.c.changes + 1}
        )
    # On MariaDB a snapshot that is older than the lock would hide what others have committed since.
    before = _changes(session, owner, environment) if is_joined(session) else None
    session.execute(statement)
    if before is not None and _changes(session, owner, environment) != before + 1:
        raise SubscriptionChangedError(ErrorText("changed_in_transaction", owner=repr(owner)))


def _changes(session: Session, owner: str, environment: str) -> int | None:
    """Return the count of changes that a transaction of the host sees, if its snapshot may be older than the lock.

    None on PostgreSQL, which refuses the lock then, and on SQLite, which refuses any write.
    """
    if session.get_bind().dialect.name not in ("mysql", "mariadb"):
        return None
    mine = OWNERS.c.owner == owner, OWNERS.c.environment == environment
    return session.scalar(sa.select(OWNERS.c.changes).where(*mine)) or 0
