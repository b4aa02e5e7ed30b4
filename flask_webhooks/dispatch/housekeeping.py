"""Heartbeats of workers, the backlog, and purging."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..ids import first_at
from .lanes import earliest
from .tables import A, D, M, W, chunks, is_mysql

__all__ = ["backlog", "beat", "count", "purge", "sign_off", "workers"]


def beat(connection: sa.Connection, worker: str, now: datetime) -> None:
    """Write that a worker lives, and forget those that have not been seen for a day."""
    seen = connection.execute(sa.update(W).where(W.c.name == worker).values(seen_at=now))
    if not seen.rowcount:
        row = {"name": worker, "started_at": now, "seen_at": now, "delivered": 0, "failed": 0}
        connection.execute(W.insert(), row)
    connection.execute(sa.delete(W).where(W.c.seen_at < now - timedelta(days=1)))


def count(connection: sa.Connection, worker: str, delivered: int, failed: int) -> None:
    """Add to what a worker has done; nothing if it has no heartbeat."""
    connection.execute(
        sa.update(W)
        .where(W.c.name == worker)
        .values(delivered=W.c.delivered + delivered, failed=W.c.failed + failed)
    )


def sign_off(connection: sa.Connection, worker: str) -> None:
    """Forget a worker that ends in good order."""
    connection.execute(sa.delete(W).where(W.c.name == worker))


def workers(connection: sa.Connection) -> list[sa.Row[t.Any]]:
    """Return the workers that were seen lately, the newest heartbeat first."""
    return list(connection.execute(sa.select(W).order_by(W.c.seen_at.desc())))


def backlog(connection: sa.Connection, now: datetime) -> list[sa.Row[t.Any]]:
    """Return, for each lane with pending deliveries, its subscription and since when the first is due."""
    return list(connection.execute(earliest(is_mysql(connection))))


def purge(connection: sa.Connection, before: datetime, most: int = 1_000) -> int:
    """Delete up to `most` messages that occurred before a time, with their deliveries and attempts.

    Messages that still have a pending delivery stay; held ones do not (design: they age like finished ones).
    Return how many messages were deleted; 0 when there are no more.
    """
    pending = sa.exists().where(D.c.message_id == M.c.id, D.c.due_at.is_not(None))
    old = sa.select(M.c.id).where(M.c.id < first_at(before), ~pending).order_by(M.c.id).limit(most)
    ids = list(connection.scalars(old))
    for some in chunks(ids):
        gone = list(connection.scalars(sa.select(D.c.id).where(D.c.message_id.in_(some))))
        for part in chunks(gone):
            connection.execute(sa.delete(A).where(A.c.delivery_id.in_(part)))
        connection.execute(sa.delete(D).where(D.c.message_id.in_(some)))
        connection.execute(sa.delete(M).where(M.c.id.in_(some)))
    return len(ids)
