"""When the database cannot be reached: wait, longer each time, say so once, go on."""

from __future__ import annotations

import logging
import threading
import time

import sqlalchemy as sa

__all__ = ["TROUBLE", "Patience"]

logger = logging.getLogger("flask_webhooks.database")

TROUBLE = (
    sa.exc.OperationalError,  # gone, refused, locked, a deadlock, shutting down
    sa.exc.InterfaceError,
    sa.exc.InternalError,  # PostgreSQL while it is a standby: read-only
    sa.exc.TimeoutError,  # no connection of the pool came free
)
"""What passes by itself. Anything else is a mistake, and waiting would hide it."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
LONGEST_TROUBLE = 300.0
"""Seconds after which the error is raised: then somebody has to look."""


class Patience:
    """How one worker bears a database in trouble. Not for several threads.

    :param stop: ends a wait.
    """

    def __init__(self, worker: str, stop: threading.Event) -> None:
        self.worker, self._stop = worker, stop
        self._since: float | None = None
        self._wait = FIRST_WAIT

    @property
    def is_tried(self) -> bool:
        """Whether there is trouble now."""
        return self._since is not None

    def bear(self, error: Exception, *, for_ever: bool = False) -> None:
        """Wait; tell it the first time.

        :param for_ever: raise nothing.
        :raises Exception: `error`, when it has gone on for too long.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning("database.trouble", extra={"worker": self.worker, "reason": _first_line(error)})
        elif now - self._since > LONGEST_TROUBLE and not for_ever:
            raise error
        if self._stop.wait(self._wait):
            time.sleep(FIRST_WAIT)  # what is still to be written is tried again, but not without a breath
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def relax(self) -> None:
        """Note that all is well."""
        if self._since is not None:
            seconds = round(time.monotonic() - self._since, 1)
            logger.warning("database.back", extra={"worker": self.worker, "seconds": seconds})
        self._since, self._wait = None, FIRST_WAIT


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
