"""Outages of the database: retried with backoff, each of them logged once in a process."""

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
"""Seconds after which the error is raised: an operator has to look."""


def is_cut_short(error: Exception) -> bool:
    """Whether the server is there, and has broken off a statement that took it too long: less may pass."""
    return says(error, _CUT_SHORT)


class _Outage:
    """The outage of one database: logged once when it begins, and once when no thread waits for it any more."""

    _known: t.ClassVar[weakref.WeakKeyDictionary[sa.Engine, _Outage]] = weakref.WeakKeyDictionary()
    _lock: t.ClassVar = threading.Lock()

    def __init__(self) -> None:
        self.since: float | None = None
        self._missed_by: weakref.WeakSet[OutageBackoff] = weakref.WeakSet()

    @classmethod
    def of(cls, engine: sa.Engine) -> _Outage:
        with cls._lock:
            return cls._known.setdefault(engine, cls())

    def begin(self, backoff: OutageBackoff, error: Exception) -> None:
        with self._lock:
            self._missed_by.add(backoff)
            is_new, self.since = self.since is None, self.since or time.monotonic()
        if is_new:
            extra = {"worker": backoff.worker, "reason": first_line(error)}
            logger.warning("database.trouble", extra=extra)

    def end(self, backoff: OutageBackoff) -> None:
        with self._lock:
            self._missed_by.discard(backoff)
            if self.since is None or self._missed_by:
                return
            seconds, self.since = round(time.monotonic() - self.since, 1), None
        logger.warning("database.back", extra={"worker": backoff.worker, "seconds": seconds})

    def leave(self, backoff: OutageBackoff) -> None:
        with self._lock:
            self._missed_by.discard(backoff)


class OutageBackoff:
    """Retries with backoff while the database is unreachable; a process logs each outage once for all of its threads.

    :param stop: ends a wait.
    """

    def __init__(self, worker: str, stop: ShutdownFlag, engine: sa.Engine) -> None:
        self.worker, self._stop = worker, stop
        self._outage = _Outage.of(engine)
        self._since: float | None = None
        self._wait = FIRST_WAIT

    @property
    def is_outage(self) -> bool:
        """Whether the last call of the database failed."""
        return self._since is not None

    def wait(self, error: Exception, *, forever: bool = False) -> None:
        """Wait, longer each time; log the outage if this process has not logged it yet.

        :param forever: raise nothing.
        :raises Exception: `error`, when it has gone on for too long.
        """
        now = time.monotonic()
        self._outage.begin(self, error)
        if self._since is None:
            self._since = now
        elif now - self._since > LONGEST_TROUBLE and not forever:
            raise error
        if self._stop.wait(self._wait):
            time.sleep(FIRST_WAIT)  # what is still to be written is tried again, but not without a breath
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def reset(self) -> None:
        """Note that the database answers; log the end of an outage, unless another thread still waits for it."""
        self._since, self._wait = None, FIRST_WAIT
        if self._outage.since is not None:
            self._outage.end(self)

    def leave(self) -> None:
        """Wait no longer, even if the outage goes on: the next thread that reaches the database logs its end."""
        self._outage.leave(self)


def first_line(error: Exception) -> str:
    """Return what happened, without the statement and its values, which SQLAlchemy adds on lines of their own."""
    return str(error).partition("\n")[0][:300]
