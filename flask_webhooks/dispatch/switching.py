"""Switching a subscription off and on: what becomes of its deliveries.

Each statement takes the lane's row first; see `lanes.lock`.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ..models import State
from .lanes import lock
from .tables import D, S

__all__ = ["cancel_all", "discard_held", "hold", "hold_if_off", "release", "send_held", "stranded"]


def hold(connection: sa.Connection, subscription_id: str, reason: str) -> int:
    """Keep what is pending for a subscription that is off; return how many."""
    lock(connection, subscription_id)
    pending = sa.update(D).where(D.c.subscription_id == subscription_id, D.c.due_at.is_not(None))
    return connection.execute(pending.values(state=State.HELD.value, due_at=None, reason=reason)).rowcount


def hold_if_off(connection: sa.Connection, subscription_id: str, now: datetime) -> None:
    """Deal with work that was recorded while its subscription was being switched off or removed.

    Looks again with the lane locked: if the subscription has been switched on meanwhile, its work stays due.
    """
    lock(connection, subscription_id)
    state = sa.select(S.c.active, S.c.deleted_at).where(S.c.id == subscription_id)
    found = connection.execute(state).one_or_none()
    if found is None or found.deleted_at is not None:
        cancel_all(connection, subscription_id, "removed", now)
    elif not found.active:
        hold(connection, subscription_id, "off")


def send_held(connection: sa.Connection, subscription_id: str, now: datetime) -> int:
    """Make what was held due, oldest first; return how many."""
    lock(connection, subscription_id)
    released = _held(subscription_id).values(state=State.PENDING.value, due_at=now, reason=None)
    return connection.execute(released).rowcount


def stranded(connection: sa.Connection) -> list[str]:
    """Return active subscriptions for which something is held, which no switch will look at any more.

    A commit that began while its subscription was off and ended after it had been switched on leaves such deliveries.
    One probe of the index (subscription, state) for each active subscription; of an EXISTS MariaDB would make a look at
    all of that index.
    """
    held = sa.select(D.c.id).where(D.c.subscription_id == S.c.id, D.c.state == State.HELD.value).limit(1)
    is_held = held.correlate(S).scalar_subquery().is_not(None)
    return list(connection.scalars(sa.select(S.c.id).where(S.c.active, S.c.deleted_at.is_(None), is_held)))


def release(connection: sa.Connection, subscription_id: str, now: datetime) -> int:
    """Send what is stranded, unless the subscription has been switched off meanwhile; return how much.

    Sent even if its owner chose to discard: that was about what was held then, and losing is worse than sending.
    """
    lock(connection, subscription_id)
    is_on = sa.select(S.c.id).where(S.c.id == subscription_id, S.c.active, S.c.deleted_at.is_(None))
    return send_held(connection, subscription_id, now) if connection.scalar(is_on) is not None else 0


def discard_held(connection: sa.Connection, subscription_id: str, now: datetime) -> int:
    """Cancel what was held; return how many."""
    lock(connection, subscription_id)
    dropped = _held(subscription_id).values(
        state=State.CANCELLED.value, due_at=None, reason="discarded", finished_at=now
    )
    return connection.execute(dropped).rowcount


def _held(subscription_id: str) -> sa.Update:
    return sa.update(D).where(D.c.subscription_id == subscription_id, D.c.state == State.HELD.value)


def cancel_all(connection: sa.Connection, subscription_id: str, reason: str, now: datetime) -> int:
    """Cancel all that is pending or held for a subscription that is being removed; return how many."""
    lock(connection, subscription_id)
    unfinished = sa.update(D).where(
        D.c.subscription_id == subscription_id, D.c.state.in_([State.PENDING.value, State.HELD.value])
    )
    cancelled = unfinished.values(state=State.CANCELLED.value, due_at=None, reason=reason, finished_at=now)
    return connection.execute(cancelled).rowcount
