"""Heartbeats of workers, and the backlog that they find."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..models import BROKEN_MESSAGES, DELIVERIES, LANES, SUBSCRIPTIONS, WORKERS
from .leases import environment_values, is_of_environments, lanes_with_work
from .statements import is_mysql

__all__ = [
    "Elsewhere",
    "backlog",
    "broken",
    "count",
    "elsewhere",
    "heartbeat",
    "subscribed",
    "unregister",
    "waiting_for_us",
    "workers",
]


def heartbeat(connection: sa.Connection, worker: str, now: datetime) -> None:
    """Write that a worker lives, and forget those that have not been seen for a day."""
    # The UPDATE first: a heartbeat is the first one of its worker once, and every 15 seconds it is not.
    seen = connection.execute(sa.update(WORKERS).where(WORKERS.c.name == worker).values(seen_at=now))
    if not seen.rowcount:
        row = {"name": worker, "started_at": now, "seen_at": now, "delivered": 0, "failed": 0}
        connection.execute(WORKERS.insert(), row)
    # A worker that was killed has not unregistered itself.
    connection.execute(sa.delete(WORKERS).where(WORKERS.c.seen_at < now - timedelta(days=1)))


def count(connection: sa.Connection, worker: str, delivered: int, failed: int) -> None:
    """Add to what a worker has done; nothing if it has no heartbeat."""
    connection.execute(
        sa.update(WORKERS)
        .where(WORKERS.c.name == worker)
        .values(delivered=WORKERS.c.delivered + delivered, failed=WORKERS.c.failed + failed)
    )


def unregister(connection: sa.Connection, worker: str) -> None:
    """Forget a worker that ends in good order."""
    connection.execute(sa.delete(WORKERS).where(WORKERS.c.name == worker))


def workers(connection: sa.Connection) -> list[sa.Row[t.Any]]:
    """Return the workers that were seen lately, the newest heartbeat first."""
    return list(connection.execute(sa.select(WORKERS).order_by(WORKERS.c.seen_at.desc())))


def backlog(
    connection: sa.Connection, now: datetime, environments: t.Collection[str] | None = None
) -> list[sa.Row[t.Any]]:
    """Return, for each lane with pending deliveries, its subscription and since when the first is due.

    :param environments: of which subscriptions; None: all.
    """
    work = lanes_with_work(is_mysql(connection.dialect)).subquery("work")
    found = sa.select(work.c.key, work.c.due_at)
    if environments is not None:
        found = found.where(is_of_environments(work.c.key))
    return list(connection.execute(found, environment_values(environments)))


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
    work = lanes_with_work(is_mysql(connection.dialect)).subquery("work")
    pending = (
        sa.select(sa.func.count())
        .where(DELIVERIES.c.subscription_id == work.c.key, DELIVERIES.c.due_at.is_not(None))
        .correlate(work)
        .scalar_subquery()
    )
    found = (
        sa.select(SUBSCRIPTIONS.c.environment, pending)
        .join(work, work.c.key == SUBSCRIPTIONS.c.id)
        .where(SUBSCRIPTIONS.c.environment.not_in(sorted(environments)))
    )
    counts: dict[str, list[int]] = {}
    for environment, deliveries in connection.execute(found):
        counts.setdefault(environment, []).append(deliveries)
    return [Elsewhere(name, len(some), sum(some)) for name, some in sorted(counts.items())]


def subscribed(connection: sa.Connection) -> dict[str, int]:
    """Count the active subscriptions of each environment."""
    found = (
        sa.select(SUBSCRIPTIONS.c.environment, sa.func.count())
        .where(SUBSCRIPTIONS.c.active, SUBSCRIPTIONS.c.deleted_at.is_(None))
        .group_by(SUBSCRIPTIONS.c.environment)
        .order_by(SUBSCRIPTIONS.c.environment)
    )
    return {name: count for name, count in connection.execute(found)}


def waiting_for_us(connection: sa.Connection, now: datetime) -> int:
    """Count the lanes that wait because our side can reach no receiver: its proxy, name server, network or resources.

    One that has had no worker for long is not among them: whether our side could reach it today is not known.
    """
    lately = sa.and_(LANES.c.waits_for == "sender", LANES.c.sendable_at > now - timedelta(minutes=5))
    return connection.scalar(sa.select(sa.func.count()).select_from(LANES).where(lately)) or 0


def broken(connection: sa.Connection) -> int:
    """Count the messages whose data could not be made, and which were neither repaired nor given up."""
    waiting = (
        sa.select(sa.func.count()).select_from(BROKEN_MESSAGES).where(BROKEN_MESSAGES.c.given_up.is_(None))
    )
    return connection.scalar(waiting) or 0
