"""Workers, backlog and the worst receivers, for operators."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import outbox
from ..models import (
    DELIVERIES,
    LANES,
    MESSAGES,
    SUBSCRIPTIONS,
    WORKERS,
)

__all__ = ["ALIVE", "EngineStatus", "engine_status", "has_worker"]

ALIVE = timedelta(minutes=2)
"""A worker without a heartbeat for this long counts as dead: it has missed eight of them."""
COUNTED = 100_000
"""Pending deliveries that are counted at most."""


@dataclass(frozen=True)
class EngineStatus:
    """The state of sending in all environments that this app sends for."""

    workers: t.Sequence[sa.Row[t.Any]]
    """Columns of `Worker`, the newest heartbeat first."""
    pending: int
    """Waiting deliveries, including retries; counting ends at `COUNTED`."""
    lanes: int
    """Subscriptions with waiting deliveries."""
    oldest_due: datetime | None
    """The earliest time at which a waiting delivery was or will be due."""
    oldest_message: datetime | None
    """When the oldest stored message occurred."""
    elsewhere: t.Sequence[outbox.Elsewhere]
    """Deliveries of environments that this app does not send for; the other fields do not count them."""
    broken: int
    """Messages whose data could not be rendered, and which wait for repair."""
    waiting_for_us: int
    """Subscriptions whose sending waits because our side can reach no receiver."""
    failing: t.Sequence[sa.Row[t.Any]]
    """`id`, `url`, `owner`, `failures`, `failing_since`, `paused_until` of the worst receivers, worst first."""

    def lag(self, now: datetime) -> timedelta:
        """Return how long the oldest due delivery has been waiting."""
        return max(now - self.oldest_due, timedelta(0)) if self.oldest_due is not None else timedelta(0)


def has_worker(connection: sa.Connection, now: datetime | None = None) -> bool:
    """Whether a worker has been seen lately."""
    since = (now or outbox.now(connection)) - ALIVE
    return connection.scalar(sa.select(WORKERS.c.name).where(WORKERS.c.seen_at > since).limit(1)) is not None


def engine_status(
    connection: sa.Connection,
    now: datetime,
    worst: int = 10,
    environments: t.Collection[str] | None = None,
) -> EngineStatus:
    """Return the state of sending.

    :param worst: receivers in `failing`.
    :param environments: the environments that this app sends for; None: all.
    """
    waiting = outbox.backlog(connection, now, environments)
    others = outbox.elsewhere(connection, environments)
    # The index on `due_at` has the deliveries of all environments, so as many more are counted and subtracted below.
    elsewhere = sum(each.deliveries for each in others)
    some = (
        sa.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.due_at.is_not(None))
        .limit(COUNTED + elsewhere)
        .subquery()
    )
    failing: t.Any = (
        sa.select(
            SUBSCRIPTIONS.c.id,
            SUBSCRIPTIONS.c.url,
            SUBSCRIPTIONS.c.owner,
            LANES.c.failures,
            LANES.c.failing_since,
            LANES.c.paused_until,
        )
        .join(LANES, LANES.c.subscription_id == SUBSCRIPTIONS.c.id)
        .where(LANES.c.failures > 0, SUBSCRIPTIONS.c.deleted_at.is_(None))
        .order_by(LANES.c.failures.desc())
        .limit(worst)
    )
    # By id, which is the order of time: the primary key begins with it.
    oldest = connection.scalar(sa.select(MESSAGES.c.occurred_at).order_by(MESSAGES.c.id).limit(1))
    return EngineStatus(
        workers=outbox.workers(connection),
        pending=max(0, (connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0) - elsewhere),
        lanes=len(waiting),
        oldest_due=min((row.due_at for row in waiting), default=None),
        oldest_message=oldest,
        elsewhere=others,
        broken=outbox.broken(connection),
        waiting_for_us=outbox.waiting_for_us(connection, now),
        failing=connection.execute(failing).all(),
    )
