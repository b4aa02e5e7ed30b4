"""Heartbeats of workers, the backlog, and purging."""

from __future__ import annotations

import itertools
import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..ids import first_at
from ..models import Hour, Lane, Listener, Replay, Secret
from ..sql.parameters import KeyedStatement
from ..sql.ranges import first, in_range
from .leases import belongs, earliest, those
from .tables import CHUNK, A, B, D, M, N, S, W, chunks, is_mysql

__all__ = [
    "Elsewhere",
    "backlog",
    "broken",
    "count",
    "elsewhere",
    "heartbeat",
    "purge",
    "purge_removed",
    "subscribed",
    "unregister",
    "waiting_for_us",
    "workers",
]


def heartbeat(connection: sa.Connection, worker: str, now: datetime) -> None:
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


def unregister(connection: sa.Connection, worker: str) -> None:
    """Forget a worker that ends in good order."""
    connection.execute(sa.delete(W).where(W.c.name == worker))


def workers(connection: sa.Connection) -> list[sa.Row[t.Any]]:
    """Return the workers that were seen lately, the newest heartbeat first."""
    return list(connection.execute(sa.select(W).order_by(W.c.seen_at.desc())))


def backlog(
    connection: sa.Connection, now: datetime, environments: t.Collection[str] | None = None
) -> list[sa.Row[t.Any]]:
    """Return, for each lane with pending deliveries, its subscription and since when the first is due.

    :param environments: of which subscriptions; None: all.
    """
    work = earliest(is_mysql(connection)).subquery("work")
    found = sa.select(work.c.key, work.c.due_at)
    if environments is not None:
        found = found.where(belongs(work.c.key))
    return list(connection.execute(found, those(environments)))


class Elsewhere(t.NamedTuple):
    """What waits for another environment than those that this app sends for."""

    environment: str
    subscriptions: int
    deliveries: int

    def __str__(self) -> str:
        return (
            f"{self.deliveries} pending for {self.subscriptions} subscriptions of {self.environment}: "
            "this app does not send for that environment"
        )


def elsewhere(connection: sa.Connection, environments: t.Collection[str] | None) -> list[Elsewhere]:
    """Count what waits for subscriptions of other environments; it stays pending.

    :param environments: those that are sent for; None: all, so that nothing waits elsewhere.
    """
    if environments is None:
        return []
    work = earliest(is_mysql(connection)).subquery("work")
    pending = (
        sa.select(sa.func.count())
        .where(D.c.subscription_id == work.c.key, D.c.due_at.is_not(None))
        .correlate(work)
        .scalar_subquery()
    )
    found = (
        sa.select(S.c.environment, pending)
        .join(work, work.c.key == S.c.id)
        .where(S.c.environment.not_in(sorted(environments)))
    )
    counts: dict[str, list[int]] = {}
    for environment, deliveries in connection.execute(found):
        counts.setdefault(environment, []).append(deliveries)
    return [Elsewhere(name, len(some), sum(some)) for name, some in sorted(counts.items())]


def subscribed(connection: sa.Connection) -> dict[str, int]:
    """Count the active subscriptions of each environment."""
    found = (
        sa.select(S.c.environment, sa.func.count())
        .where(S.c.active, S.c.deleted_at.is_(None))
        .group_by(S.c.environment)
        .order_by(S.c.environment)
    )
    return {name: count for name, count in connection.execute(found)}


def waiting_for_us(connection: sa.Connection, now: datetime) -> int:
    """Count the lanes that wait because our side can reach nobody: its proxy, name server, network or resources.

    One that has had no worker for long is not among them: nobody knows how it would be today.
    """
    lately = sa.and_(N.c.waits_for == "sender", N.c.sendable_at > now - timedelta(minutes=5))
    return connection.scalar(sa.select(sa.func.count()).select_from(N).where(lately)) or 0


def purge(connection: sa.Connection, before: datetime, most: int = 1_000) -> int:
    """Delete up to `most` messages that occurred before a time, with their deliveries and attempts.

    Messages that still have a pending delivery stay, and broken ones that somebody may repair; held ones do not
    (design: they age like finished ones).
    Return how many messages were deleted; 0 when there are no more.
    """
    ids = list(itertools.islice(_finished(connection, first_at(before)), most))
    for some in chunks(ids):
        for part in chunks(list(_DELIVERIES.run(connection, some).scalars())):
            _FORGET_ATTEMPTS.run(connection, part)
            _FORGET_DELIVERIES.run(connection, part)
        _FORGET_ERRORS.run(connection, some)
        _FORGET_MESSAGES.run(connection, some)
    return len(ids)


def purge_removed(connection: sa.Connection, before: datetime, most: int = CHUNK) -> int:
    """Delete up to `most` subscriptions that were removed before a time and have no delivery any more; return how many.

    With all that is kept of them: lane, sums, replays. Until then their row says whose their log is.

    :param before: some time ago, for a commit that was under way at the removal may still add a delivery.
    """
    # In the order of an index, so that it is used; of an EXISTS a plan may make a look at all deliveries.
    delivery = sa.select(D.c.id).where(D.c.subscription_id == S.c.id).order_by(D.c.state, D.c.id).limit(1)
    is_empty = delivery.correlate(S).scalar_subquery().is_(None)
    removed = sa.select(S.c.id).where(S.c.deleted_at < before, is_empty).order_by(S.c.id).limit(most)
    ids = list(connection.scalars(removed))
    for some in chunks(ids):
        for column in _OF_SUBSCRIPTION:  # the lane first: see `lanes.lock`
            connection.execute(sa.delete(column.table).where(column.in_(some)))
        connection.execute(sa.delete(S).where(S.c.id.in_(some)))
    return len(ids)


_OF_SUBSCRIPTION: tuple[sa.Column[t.Any], ...] = tuple(
    t.cast("sa.Table", model.__table__).c.subscription_id for model in (Lane, Hour, Replay, Listener, Secret)
)


def _finished(connection: sa.Connection, before: str) -> t.Iterator[str]:
    """Yield messages before one that nothing is still to be done for, oldest first.

    A portion at a time, and in two statements: in one, PostgreSQL would guess how many have none, and sort them all.
    """
    old = first(in_range(sa.select(M.c.id), connection.dialect, {}, M.c.id, below=before), CHUNK)
    ids = list(connection.scalars(old))
    while ids:
        found = _PENDING.run(connection, ids)
        kept = {row.message_id for row in found if row.due_at is not None}
        kept.update(row.message_id for row in _BROKEN.run(connection, ids) if row.given_up is None)
        yield from (key for key in ids if key not in kept)
        ids = list(connection.scalars(old.where(M.c.id > ids[-1])))


_PENDING = KeyedStatement(
    D.c.message_id, lambda these: sa.select(D.c.message_id, D.c.due_at).distinct().where(these)
)
_BROKEN = KeyedStatement(B.c.message_id, lambda these: sa.select(B.c.message_id, B.c.given_up).where(these))
_DELIVERIES = KeyedStatement(D.c.message_id, lambda these: sa.select(D.c.id).where(these))
_FORGET_ATTEMPTS = KeyedStatement(A.c.delivery_id, lambda these: sa.delete(A).where(these))
_FORGET_DELIVERIES = KeyedStatement(D.c.id, lambda these: sa.delete(D).where(these))
_FORGET_ERRORS = KeyedStatement(B.c.message_id, lambda these: sa.delete(B).where(these))
_FORGET_MESSAGES = KeyedStatement(M.c.id, lambda these: sa.delete(M).where(these))


def broken(connection: sa.Connection) -> int:
    """Count the messages whose data could not be made, and which nobody has repaired or given up."""
    waiting = sa.select(sa.func.count()).select_from(B).where(B.c.given_up.is_(None))
    return connection.scalar(waiting) or 0
