"""Transactions of our own: their isolation level, and their repetition after a conflict.

The law of this room: the default isolation level of a database or engine applies to the host's transactions. Ours are
written for READ COMMITTED: they compare and set, and read again after they got a lock. Under a stricter level, a change
that has waited for a worker's lock would be refused (40001; 1020 with `innodb_snapshot_isolation`). A transaction that
is refused nevertheless, such as one of two in a deadlock, is repeated a few times after short waits. We neither change
nor repeat transactions of the host.
"""

from __future__ import annotations

import random
import time
import typing as t

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from ..errors import UnfitTextError

__all__ = ["is_autocommit", "is_conflict", "may_be_repeated", "own_engine", "repeated", "says"]

T = t.TypeVar("T")
LEVEL = "READ COMMITTED"
MOST = 8
"""Tries of one transaction, the first included."""
LONGEST = 5.0
"""Seconds after which it is not tried again."""
FIRST_WAIT = 0.005
"""Seconds of the first wait. Each next one is twice as long; a random part of each, up to half, is left out."""
_COMMITTED = "webhooks_committed"
_CONFLICTS = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # a lock_timeout of the host's
        1020,  # MariaDB: the record has changed since the snapshot
        1205,  # lock wait timeout
        1213,  # deadlock
    }
)
_UNFIT = frozenset(
    {
        "22021",  # character not in repertoire
        "22P05",  # untranslatable character
        1267,  # MariaDB: illegal mix of collations, such as of utf8mb3 and utf8mb4
        1300,  # invalid text in the connection's encoding
        1366,  # the column's encoding does not have the character
        3854,  # MySQL: cannot be converted
        3988,
    }
)
"""Errors for a text with characters that the encoding of the database, or of the host's connection, does not have."""
_SNAPSHOT = 517
"""SQLite: a transaction that has read can no longer write, because another one has written (SQLITE_BUSY_SNAPSHOT)."""


def own_engine(engine: sa.Engine) -> sa.Engine:
    """Return the engine for transactions of our own: with the host's pool, and with READ COMMITTED."""
    name = engine.dialect.name
    if name == "sqlite":
        return engine  # always serializable
    if name == "postgresql":
        # Part of the driver's BEGIN: no further round trip.
        return engine.execution_options(isolation_level=LEVEL)
    # Setting the level of the connection and resetting it would take four round trips; this takes one.
    own = engine.execution_options(webhooks=True)
    event.listen(own, "begin", _begin)
    return own


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {LEVEL}")
    if is_autocommit(connection):
        connection.exec_driver_sql("START TRANSACTION")


def is_autocommit(connection: sa.Connection) -> bool:
    """Whether the host has set its engine to AUTOCOMMIT, so that each statement is its own transaction."""
    made = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return "AUTOCOMMIT" in (made, connection.get_execution_options().get("isolation_level"))


def is_conflict(error: sa.exc.DBAPIError) -> bool:
    """Whether a transaction was refused because of a concurrent one, so that a repetition may succeed."""
    return getattr(error.orig, "sqlite_errorcode", None) == _SNAPSHOT or says(error, _CONFLICTS)


def says(error: Exception, codes: t.Container[t.Any]) -> bool:
    """Whether a database error has one of these codes: an SQLSTATE, or the error number of PyMySQL."""
    cause: t.Any = getattr(error, "orig", None)
    found = (
        getattr(cause, "sqlstate", None),
        getattr(cause, "pgcode", None),
        *getattr(cause, "args", ())[:1],
    )
    return any(each in codes for each in found if isinstance(each, str | int))


def may_be_repeated(session: Session) -> None:
    """Declare that the commits of a session so far may be repeated; see `repeated`."""
    session.info[_COMMITTED] = False


def repeated(engine: sa.Engine, work: t.Callable[[Session], T]) -> T:
    """Call `work` with a session of our own, which `work` commits; call it again if the database reports a conflict.

    It is not called again once it has committed, unless it called `may_be_repeated` after the commit.

    :raises UnfitTextError: a text has characters that the database cannot store.
    """
    until, wait = time.monotonic() + LONGEST, FIRST_WAIT
    for tries_left in range(MOST - 1, -1, -1):
        with Session(engine, info={"webhooks": False}, expire_on_commit=False) as session:
            event.listen(session, "after_commit", _note)
            try:
                return work(session)
            except UnicodeEncodeError as error:  # psycopg encodes text in the database's encoding itself
                raise UnfitTextError from error
            except sa.exc.DBAPIError as error:
                if says(error, _UNFIT):
                    raise UnfitTextError from error
                is_over = not tries_left or time.monotonic() > until
                if is_over or session.info.get(_COMMITTED) or not is_conflict(error):
                    raise
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
        wait *= 2
    raise AssertionError("unreachable")


def _note(session: Session) -> None:
    session.info[_COMMITTED] = True
