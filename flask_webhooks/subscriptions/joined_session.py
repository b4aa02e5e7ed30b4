"""Sessions of our own inside a transaction of the host.

The law of this room: our session ends a savepoint, never the transaction. A refused change is rolled back to the
savepoint and leaves the host's transaction intact; an accepted one is committed by the host.
"""

from __future__ import annotations

import contextlib
import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..sql.transactions import is_autocommit

__all__ = ["host_of", "is_joined", "joined"]

_HOST = "webhooks_host"


@contextlib.contextmanager
def joined(own: sa.Engine, host: Session, connection: sa.Connection) -> t.Iterator[Session]:
    """Yield a session of our own on the connection of the host's transaction, behind a savepoint.

    If the host's engine commits each statement, there is no transaction to join: the session then has its own.

    :param own: the engine of that transaction.
    :param connection: the connection of `host` to our tables.
    """
    info: dict[str, t.Any] = {"webhooks": False}
    if is_autocommit(connection):
        session = Session(own, info=info, expire_on_commit=False)
    else:
        _begin(connection)
        info[_HOST] = host
        session = Session(
            connection, info=info, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
    with session:
        yield session
        session.commit()


def _begin(connection: sa.Connection) -> None:
    """Begin on SQLite, whose driver does so only at the first write: a savepoint released before that is committed."""
    if connection.dialect.name == "sqlite" and not getattr(
        connection.connection.dbapi_connection, "in_transaction", True
    ):
        connection.exec_driver_sql("BEGIN")


def host_of(session: Session) -> Session | None:
    """Return the host's session in whose transaction one of ours is."""
    return t.cast("Session | None", session.info.get(_HOST))


def is_joined(session: Session) -> bool:
    """Whether a session of ours is in a transaction of the host's."""
    return _HOST in session.info
