"""New attempts: the newest end of the log, read again and again.

An id is made when the attempt has ended, and its row is committed some moments later, by one of several workers whose
clocks differ. So each read begins `LATE` before the newest id that was seen, and skips the ids that were seen already.
Only ids are read twice.
"""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ..ids import first_at, following, made_at
from ..models import ATTEMPTS, DELIVERIES, MESSAGES
from ..sql.parameters import KeyedStatement
from ..sql.ranges import first, in_range

__all__ = ["LATE", "Tail"]

_ids = sa.select(ATTEMPTS.c.id)
LATE = timedelta(seconds=10)
"""An attempt that is committed later than this after its id was made is not shown."""
PAGE = 500
"""Ids that one statement reads."""
_SHOWN = (
    ATTEMPTS.c.id,
    ATTEMPTS.c.delivery_id,
    ATTEMPTS.c.subscription_id,
    ATTEMPTS.c.number,
    ATTEMPTS.c.trigger,
    ATTEMPTS.c.started_at,
    ATTEMPTS.c.status,
    ATTEMPTS.c.failure,
    ATTEMPTS.c.detail,
    ATTEMPTS.c.url,
    ATTEMPTS.c.total_seconds,
    MESSAGES.c.event,
)


class Tail:
    """A reader of the log, and how far it has read.

    :param since: attempts before this time are skipped; None: before now.
    """

    def __init__(self, since: datetime | None = None) -> None:
        self._start = first_at(since or datetime.now(UTC))
        self._newest = self._start
        self._seen: set[str] = set()

    def read_new(self, connection: sa.Connection) -> t.Iterator[t.Any]:
        """Yield the attempts since the last read, in the order of their ids."""
        cursor = self._floor()
        self._seen = {key for key in self._seen if key >= cursor}
        while True:
            behind = in_range(_ids, connection.dialect, {}, ATTEMPTS.c.id, since=following(cursor))
            ids = list(connection.scalars(first(behind, PAGE)))
            fresh = [key for key in ids if key not in self._seen]
            self._seen.update(fresh)
            yield from self._rows(connection, fresh)
            if len(ids) < PAGE:
                break
            cursor = ids[-1]
        self._newest = max(self._newest, *self._seen) if self._seen else self._newest

    def read_last(self, connection: sa.Connection, most: int) -> list[t.Any]:
        """Return the last few attempts, oldest first; `read_new` will skip them."""
        newest = in_range(_ids, connection.dialect, {}, ATTEMPTS.c.id, is_newest_first=True)
        ids = list(connection.scalars(first(newest, most)))
        self._seen.update(ids)
        return list(self._rows(connection, ids))

    def _floor(self) -> str:
        # At most our own time: the clock of one worker may be hours ahead, and its ids must not hide all others.
        newest = min(made_at(self._newest), datetime.now(UTC))
        return max(self._start, first_at(newest - LATE))

    @staticmethod
    def _rows(connection: sa.Connection, ids: t.Sequence[str]) -> t.Iterator[t.Any]:
        if ids:
            yield from _ROWS.run(connection, ids)


_ROWS = KeyedStatement(
    ATTEMPTS.c.id,
    lambda these: (
        sa.select(*_SHOWN)
        .select_from(
            ATTEMPTS.outerjoin(DELIVERIES, DELIVERIES.c.id == ATTEMPTS.c.delivery_id).outerjoin(
                MESSAGES, MESSAGES.c.id == DELIVERIES.c.message_id
            )
        )
        .where(these)
        .order_by(ATTEMPTS.c.id)
    ),
)
