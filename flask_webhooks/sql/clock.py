"""What time it is: the database's, by which all workers go.

A lease, a due time, a pause is written by one machine and judged by another. Were each to go by its own clock, two that
differ by more than a lease is long would take each other's lanes for ever. Servers tell what time it is; SQLite is on
this machine, and so is everybody who writes to it.
"""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ..models import Instant

__all__ = ["Clock", "microseconds", "now"]

AGAIN = 10.0
"""Seconds after which a server is asked again: its clock may be put right, and ours does not run quite as fast."""
_ASKED = {
    # Not now(), which is when the transaction began.
    "postgresql": sa.select(sa.func.clock_timestamp(type_=Instant())),
    "mysql": sa.select(sa.func.utc_timestamp(6, type_=Instant())),
    "mariadb": sa.select(sa.func.utc_timestamp(6, type_=Instant())),
}


def _utcnow() -> datetime:
    return datetime.now(UTC)


def now(connection: sa.Connection, local: t.Callable[[], datetime] = _utcnow) -> datetime:
    """Ask the database what time it is."""
    asked = _ASKED.get(connection.dialect.name)
    return local() if asked is None else t.cast("datetime", connection.scalar(asked))


def microseconds(moment: datetime) -> int:
    """Return a moment as columns of whole numbers have it: microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Clock:
    """The database's time, for threads that do not talk to it: what it said last, and the seconds since.

    :param local: this machine's clock, for SQLite, and until `set` is called; elsewhere it may be wrong, and may jump.
    :param seconds: what counts the seconds since.
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
        """Return what time it is."""
        if self._known is None:
            return self._local()
        told, at = self._known
        return told + timedelta(seconds=self._seconds() - at)

    def set(self, connection: sa.Connection, again: float = AGAIN) -> None:
        """Ask the database, unless that was just done.

        What it says is true at some moment between question and answer. As long as the clock agrees with that it goes
        on as it does; so an answer that took long changes nothing, unless the clock is wrong by more than that.

        :param again: seconds for which an answer is good.
        """
        began = self._seconds()
        if connection.dialect.name not in _ASKED or began < self._again:
            return
        told = now(connection)
        ended = self._seconds()
        half = timedelta(seconds=(ended - began) / 2)
        if self._known is None or abs(told + half - self()) > half:
            self._known = told + half, ended
        self._again = ended + again
