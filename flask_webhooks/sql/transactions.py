"""Transactions of our own: how they are isolated, and what is done when the database refuses one.

The law of this room: whatever a database or an engine has as its default is for the host's transactions. Ours compare
and set, and look again behind a lock: they are made for READ COMMITTED. Under a stricter level a change that has waited
for a worker's lock is refused (40001; 1020 where `innodb_snapshot_isolation` is on). What is refused all the same, as
one of two that wait for each other is, is done again, a few times, a moment later. The host's own transactions are
neither changed nor repeated by us.
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
"""Times that something is tried."""
LONGEST = 5.0
"""Seconds after which it is not tried again."""
FIRST_WAIT = 0.005
"""Seconds; each wait is up to twice as long as the one before, and a part of it is chance."""
_COMMITTED = "webhooks_committed"
_CONFLICTS = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # a lock_timeout of the host's
        1020,  # MariaDB: the record has changed since the snapshot
        1205,  # a wait for a lock that took too long
        1213,  # deadlock
    }
)
_UNFIT = frozenset(
    {
        "22021",  # not in the repertoire of characters
        "22P05",  # no equivalent in the database's encoding
        1267,  # MariaDB: collations that do not mix, as of what is in utf8mb3 and what is in utf8mb4
        1300,  # no text of the connection's encoding
        1366,  # a value that the column's encoding has not
        3854,  # MySQL: cannot be converted
        3988,
    }
)
"""What databases say of a text that their encoding, or that of the host's connection, has no characters for."""
_SNAPSHOT = 517
"""SQLite: a transaction that has read cannot write any more, for another has written (SQLITE_BUSY_SNAPSHOT)."""


def own_engine(engine: sa.Engine) -> sa.Engine:
    """Return the engine for transactions of our own: it shares the host's pool, and reads what is committed."""
    name = engine.dialect.name
    if name == "sqlite":
        return engine  # serializable whatever is asked for
    if name == "postgresql":
        return engine.execution_options(isolation_level=LEVEL)  # part of the driver's BEGIN: no trip
    # To set it for the connection and back again would be four trips; this is one.
    own = engine.execution_options(webhooks=True)
    event.listen(own, "begin", _begin)
    return own


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {LEVEL}")
    if is_autocommit(connection):
        connection.exec_driver_sql("START TRANSACTION")


def is_autocommit(connection: sa.Connection) -> bool:
    """Whether the host's engine is made so that a transaction is none."""
    made = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return "AUTOCOMMIT" in (made, connection.get_execution_options().get("isolation_level"))


def is_conflict(error: sa.exc.DBAPIError) -> bool:
    """Whether a transaction was refused because of what others do at the same time: repeated it may pass."""
    return getattr(error.orig, "sqlite_errorcode", None) == _SNAPSHOT or says(error, _CONFLICTS)


def says(error: Exception, codes: t.Container[t.Any]) -> bool:
    """Whether an error has one of these codes: PyMySQL has a number, and newer ones a state beside it."""
    cause: t.Any = getattr(error, "orig", None)
    found = (
        getattr(cause, "sqlstate", None),
        getattr(cause, "pgcode", None),
        *getattr(cause, "args", ())[:1],
    )
    return any(each in codes for each in found if isinstance(each, str | int))


def may_be_repeated(session: Session) -> None:
    """Say that what the session has committed so far does no harm if it is done again."""
    session.info[_COMMITTED] = False


def repeated(engine: sa.Engine, work: t.Callable[[Session], T]) -> T:
    """Do something in a session of our own, which `work` commits; again if the database refuses it.

    Never after a commit, unless that was one of `may_be_repeated`.

    :raises UnfitTextError: a text is none that the database can keep.
    """
    until, wait = time.monotonic() + LONGEST, FIRST_WAIT
    for tries_left in range(MOST - 1, -1, -1):
        with Session(engine, info={"webhooks": False}, expire_on_commit=False) as session:
            event.listen(session, "after_commit", _note)
            try:
                return work(session)
            except UnicodeEncodeError as error:  # psycopg writes in the database's encoding itself
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
