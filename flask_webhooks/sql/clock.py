"""The database's time, which all workers use.

One machine writes a lease, a due time or a pause, and another one compares it with the current time. If each used its
own clock, two machines whose clocks differ by more than the length of a lease would take each other's lanes for ever.
Database servers have a clock; a SQLite database has none, but all processes that write to it are on this machine.
"""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ..models import Instant

__all__ = ["Clock", "microseconds", "now"]

AGAIN = 10.0
"""Seconds after which the server is asked again: its clock may be corrected, and ours runs at a slightly other
speed."""
_ASKED = {
    # Not now(), which is the time at which the transaction began.
    "postgresql": sa.select(sa.func.clock_timestamp(type_=Instant())),
    "mysql": sa.select(sa.func.utc_timestamp(6, type_=Instant())),
    "mariadb": sa.select(sa.func.utc_timestamp(6, type_=Instant())),
}


def _utcnow() -> datetime:
    return datetime.now(UTC)


def now(connection: sa.Connection, local: t.Callable[[], datetime] = _utcnow) -> datetime:
    """Return the current time of the database.

    :param local: this machine's clock, for SQLite.
    """
    asked = _ASKED.get(connection.dialect.name)
    return local() if asked is None else t.cast("datetime", connection.scalar(asked))


def microseconds(moment: datetime) -> int:
    """Return a moment as microseconds since 1970, the form of integer columns."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Clock:
    """The database's time for threads without a connection: its last answer plus the seconds since then.

    :param local: this machine's clock, which may be wrong and may jump; used for SQLite, and until `set` is called.
    :param seconds: a monotonic clock, which counts the seconds since the last answer.
    """

    def __init__(
        self,
        local: t.Callable[[], datetime] = _utcnow,
        seconds: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._local, self._seconds = local, seconds
        self._known: tuple[datetime, float] | None = None
        self._again = float("-inf")

    def __call__(self) -> datetime:
        """Return the current time."""
        if self._known is None:
            return self._local()
        moment, at = self._known
        return moment + timedelta(seconds=self._seconds() - at)

    def set(self, connection: sa.Connection, again: float = AGAIN) -> None:
        """Ask the database for its time, unless the last answer is recent.

        The answer is the time at some moment between question and answer. If this clock lies within that span it is not
        changed, so a slow answer does not move it unless it is wrong by more than the answer's own uncertainty.

        :param again: seconds for which an answer is used before the database is asked again.
        """
        began = self._seconds()
        if connection.dialect.name not in _ASKED or began < self._again:
            return
        answer = now(connection)
        ended = self._seconds()
        half = timedelta(seconds=(ended - began) / 2)
        if self._known is None or abs(answer + half - self()) > half:
            self._known = answer + half, ended
        self._again = ended + again
