"""Attempts as they are made: the newest end of the log, read again and again.

Ids are made when an attempt has ended and written some moments later, by several workers whose clocks differ. So each
look begins `LATE` before the newest id that was seen, and what was seen already is left out. Only ids are read twice.
"""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ..ids import first_at, following, made_at
from ..models import Attempt, Delivery, Message
from ..sql.parameters import KeyedStatement
from ..sql.ranges import first, in_range

__all__ = ["LATE", "Tail"]

A, D, M = (t.cast("sa.Table", model.__table__) for model in (Attempt, Delivery, Message))
_ids = sa.select(A.c.id)
LATE = timedelta(seconds=10)
"""What comes into the log later than this after its attempt is not shown."""
PAGE = 500
_SHOWN = (
    A.c.id,
    A.c.delivery_id,
    A.c.subscription_id,
    A.c.number,
    A.c.trigger,
    A.c.started_at,
    A.c.status,
    A.c.failure,
    A.c.detail,
    A.c.url,
    A.c.total_seconds,
    M.c.event,
)


class Tail:
    """How far a watcher of the log has read.

    :param since: attempts made before are not shown; None: from now on.
    """

    def __init__(self, since: datetime | None = None) -> None:
        self._start = first_at(since or datetime.now(UTC))
        self._newest = self._start
        self._seen: set[str] = set()

    def read_new(self, connection: sa.Connection) -> t.Iterator[t.Any]:
        """Yield what has come since the last look, in the order of ids."""
        cursor = self._floor()
        self._seen = {key for key in self._seen if key >= cursor}
        while True:
            behind = in_range(_ids, connection.dialect, {}, A.c.id, since=following(cursor))
            ids = list(connection.scalars(first(behind, PAGE)))
            fresh = [key for key in ids if key not in self._seen]
            self._seen.update(fresh)
            yield from self._rows(connection, fresh)
            if len(ids) < PAGE:
                break
            cursor = ids[-1]
        self._newest = max(self._newest, *self._seen) if self._seen else self._newest

    def read_last(self, connection: sa.Connection, most: int) -> list[t.Any]:
        """Return the last few attempts, oldest first; they are not shown again."""
        newest = in_range(_ids, connection.dialect, {}, A.c.id, is_newest_first=True)
        ids = list(connection.scalars(first(newest, most)))
        self._seen.update(ids)
        return list(self._rows(connection, ids))

    def _floor(self) -> str:
        # No later than our own clock says: one attempt of a worker from the future must not hide all others.
        newest = min(made_at(self._newest), datetime.now(UTC))
        return max(self._start, first_at(newest - LATE))

    @staticmethod
    def _rows(connection: sa.Connection, ids: t.Sequence[str]) -> t.Iterator[t.Any]:
        if ids:
            yield from _ROWS.run(connection, ids)


_ROWS = KeyedStatement(
    A.c.id,
    lambda these: (
        sa.select(*_SHOWN)
        .select_from(A.outerjoin(D, D.c.id == A.c.delivery_id).outerjoin(M, M.c.id == D.c.message_id))
        .where(these)
        .order_by(A.c.id)
    ),
)
