"""Workers, backlog, the worst receivers: what an operator looks at."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import outbox
from ..models import Delivery, Lane, Message, Subscription, Worker

__all__ = ["ALIVE", "EngineStatus", "engine_status", "has_worker"]

D, M, N, S, W = (
    t.cast("sa.Table", model.__table__) for model in (Delivery, Message, Lane, Subscription, Worker)
)
ALIVE = timedelta(minutes=2)
"""A worker that has not been seen for as long is taken for dead: eight missed heartbeats."""
COUNTED = 100_000
"""Pending deliveries that are counted at most."""


@dataclass(frozen=True)
class EngineStatus:
    """How the sending is going."""

    workers: t.Sequence[sa.Row[t.Any]]
    """Columns of `Worker`, the newest heartbeat first."""
    pending: int
    """Deliveries that wait, retries among them; counting ends at `COUNTED`."""
    lanes: int
    """Subscriptions that they wait for."""
    oldest_due: datetime | None
    """The earliest time at which something waiting was or will be due."""
    oldest_message: datetime | None
    """When the oldest message that is kept occurred."""
    elsewhere: t.Sequence[outbox.Elsewhere]
    """What waits for environments that this app does not send for; not among the others."""
    broken: int
    """Messages whose data could not be made, and which wait for repair."""
    waiting_for_us: int
    """Subscriptions that wait because our side can reach no receiver."""
    failing: t.Sequence[sa.Row[t.Any]]
    """`id`, `url`, `owner`, `failures`, `failing_since`, `paused_until` of the worst receivers, worst first."""

    def lag(self, now: datetime) -> timedelta:
        """How long the first that is due has been waiting."""
        return max(now - self.oldest_due, timedelta(0)) if self.oldest_due is not None else timedelta(0)


def has_worker(connection: sa.Connection, now: datetime | None = None) -> bool:
    """Whether a worker has been seen lately."""
    since = (now or outbox.now(connection)) - ALIVE
    return connection.scalar(sa.select(W.c.name).where(W.c.seen_at > since).limit(1)) is not None


def engine_status(
    connection: sa.Connection,
    now: datetime,
    worst: int = 10,
    environments: t.Collection[str] | None = None,
) -> EngineStatus:
    """Return how the sending is going.

    :param environments: those that this app sends for; None: all.
    """
    waiting = outbox.backlog(connection, now, environments)
    others = outbox.elsewhere(connection, environments)
    # They are pending as well, and are counted in the same index: that many more are read, and taken off again.
    elsewhere = sum(each.deliveries for each in others)
    some = sa.select(D.c.id).where(D.c.due_at.is_not(None)).limit(COUNTED + elsewhere).subquery()
    failing: t.Any = (
        sa.select(S.c.id, S.c.url, S.c.owner, N.c.failures, N.c.failing_since, N.c.paused_until)
        .join(N, N.c.subscription_id == S.c.id)
        .where(N.c.failures > 0, S.c.deleted_at.is_(None))
        .order_by(N.c.failures.desc())
        .limit(worst)
    )
    # By id, which is the order of time: the primary key begins with it.
    oldest = connection.scalar(sa.select(M.c.occurred_at).order_by(M.c.id).limit(1))
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
