"""Retries or cancels one delivery for a user. The state is a condition of each statement: two clicks act once."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ..models import (
    BROKEN_MESSAGES,
    DELIVERIES,
    SUBSCRIPTIONS,
    State,
    Trigger,
)
from ..sql.parameters import unindexed

__all__ = ["cancel", "is_broken", "retry"]


def retry(connection: sa.Connection, delivery_id: str, now: datetime) -> bool:
    """Make a delivery due at once, with its whole retry schedule again; return whether it is due now.

    It works from every state while the subscription is active, unless the message is broken. A delivery that is due
    already is not changed.
    """
    is_whole = ~sa.exists().where(BROKEN_MESSAGES.c.message_id == DELIVERIES.c.message_id)
    is_on = (
        sa.select(SUBSCRIPTIONS.c.id)
        .where(
            SUBSCRIPTIONS.c.id == DELIVERIES.c.subscription_id,
            SUBSCRIPTIONS.c.active,
            SUBSCRIPTIONS.c.deleted_at.is_(None),
        )
        .exists()
    )
    due = (
        sa.update(DELIVERIES)
        .where(
            DELIVERIES.c.id == delivery_id,
            is_on,
            is_whole,
            sa.or_(DELIVERIES.c.due_at.is_(None), DELIVERIES.c.due_at > now),
        )
        .values(
            state=State.PENDING.value,
            due_at=now,
            attempts=0,
            trigger=Trigger.MANUAL.value,
            reason=None,
            finished_at=None,
        )
    )
    if connection.execute(due).rowcount:
        return True
    # The state is no condition here: the planner could prefer the index of due deliveries to the primary key.
    found = connection.execute(
        sa.select(DELIVERIES.c.due_at).where(DELIVERIES.c.id == delivery_id, is_on)
    ).one_or_none()
    return found is not None and found.due_at is not None


def is_broken(connection: sa.Connection, delivery_id: str) -> bool:
    """Whether there is nothing to send: the data of its message could not be made, and was not repaired."""
    found = (
        sa.select(DELIVERIES.c.id)
        .join(BROKEN_MESSAGES, BROKEN_MESSAGES.c.message_id == DELIVERIES.c.message_id)
        .where(DELIVERIES.c.id == delivery_id)
    )
    return connection.scalar(found) is not None


def cancel(connection: sa.Connection, delivery_id: str, now: datetime) -> bool:
    """Cancel a delivery that is pending, held or broken; return whether it is cancelled now.

    A request that is in flight is not interrupted.
    """
    off = (
        sa.update(DELIVERIES)
        .where(
            DELIVERIES.c.id == delivery_id,
            unindexed(DELIVERIES.c.state).in_([State.PENDING.value, State.HELD.value, State.BROKEN.value]),
        )
        .values(state=State.CANCELLED.value, due_at=None, reason="by_hand", finished_at=now)
    )
    if connection.execute(off).rowcount:
        return True
    is_now = connection.scalar(sa.select(DELIVERIES.c.state).where(DELIVERIES.c.id == delivery_id))
    return is_now == State.CANCELLED
