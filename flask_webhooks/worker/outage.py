"""When the database cannot be reached: wait, longer each time, say so once, go on."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
import weakref

import sqlalchemy as sa

from ..sql.transactions import says

if t.TYPE_CHECKING:
    from ..shutdown import ShutdownFlag

__all__ = ["TRANSIENT_ERRORS", "OutageBackoff", "first_line", "is_cut_short"]

logger = logging.getLogger("flask_webhooks.database")

TRANSIENT_ERRORS = (
    sa.exc.OperationalError,  # gone, refused, locked, a deadlock, shutting down
    sa.exc.InterfaceError,
    sa.exc.InternalError,  # PostgreSQL while it is a standby: read-only
    sa.exc.TimeoutError,  # no connection of the pool came free
)
"""What passes by itself. Anything else is a mistake, and waiting would hide it."""
_CUT_SHORT = ("57014", 1969, 3024)
"""`statement_timeout` of PostgreSQL, `max_statement_time` of MariaDB, `max_execution_time` of MySQL."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
LONGEST_TROUBLE = 300.0
"""Seconds after which the error is raised: then somebody has to look."""


def is_cut_short(error: Exception) -> bool:
    """Whether the server is there, and has broken off a statement that took it too long: less may pass."""
    return says(error, _CUT_SHORT)


class _Outage:
    """What this process has told of one database: that it is gone, and that it is back for all who missed it."""

    _known: t.ClassVar[weakref.WeakKeyDictionary[sa.Engine, _Outage]] = weakref.WeakKeyDictionary()
    _lock: t.ClassVar = threading.Lock()

    def __init__(self) -> None:
        self.since: float | None = None
        self._missed_by: weakref.WeakSet[OutageBackoff] = weakref.WeakSet()

    @classmethod
    def of(cls, engine: sa.Engine) -> _Outage:
        with cls._lock:
            return cls._known.setdefault(engine, cls())

    def begin(self, patience: OutageBackoff, error: Exception) -> None:
        with self._lock:
            self._missed_by.add(patience)
            is_new, self.since = self.since is None, self.since or time.monotonic()
        if is_new:
            extra = {"worker": patience.worker, "reason": first_line(error)}
            logger.warning("database.trouble", extra=extra)

    def end(self, patience: OutageBackoff) -> None:
        with self._lock:
            self._missed_by.discard(patience)
            if self.since is None or self._missed_by:
                return
            seconds, self.since = round(time.monotonic() - self.since, 1), None
        logger.warning("database.back", extra={"worker": patience.worker, "seconds": seconds})

    def leave(self, patience: OutageBackoff) -> None:
        with self._lock:
            self._missed_by.discard(patience)


class OutageBackoff:
    """How one thread of a worker bears a database in trouble; a process tells it once for all of them.

    :param stop: ends a wait.
    """

    def __init__(self, worker: str, stop: ShutdownFlag, engine: sa.Engine) -> None:
        self.worker, self._stop = worker, stop
        self._outage = _Outage.of(engine)
        self._since: float | None = None
        self._wait = FIRST_WAIT

    @property
    def is_tried(self) -> bool:
        """Whether there is trouble now."""
        return self._since is not None

    def bear(self, error: Exception, *, for_ever: bool = False) -> None:
        """Wait; tell it if nobody in this process has.

        :param for_ever: raise nothing.
        :raises Exception: `error`, when it has gone on for too long.
        """
        now = time.monotonic()
        self._outage.begin(self, error)
        if self._since is None:
            self._since = now
        elif now - self._since > LONGEST_TROUBLE and not for_ever:
            raise error
        if self._stop.wait(self._wait):
            time.sleep(FIRST_WAIT)  # what is still to be written is tried again, but not without a breath
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def relax(self) -> None:
        """Note that the database answers; tell it, unless somebody else still waits for it. Cheap while all is well."""
        self._since, self._wait = None, FIRST_WAIT
        if self._outage.since is not None:
            self._outage.end(self)

    def leave(self) -> None:
        """Wait no longer, however it stands: the next that reaches the database tells that it is back."""
        self._outage.leave(self)


def first_line(error: Exception) -> str:
    """Return what happened, without the statement and its values, which SQLAlchemy adds on lines of their own."""
    return str(error).partition("\n")[0][:300]
