"""One delivery, moved by hand. Each statement says which state it must be in, so that two clicks are one."""

from __future__ import annotations

import typing as t
from datetime import datetime

import sqlalchemy as sa

from ..models import BrokenMessage, Delivery, State, Subscription, Trigger
from ..sql.parameters import unindexed

__all__ = ["cancel", "is_broken", "retry"]

B, D, S = (t.cast("sa.Table", model.__table__) for model in (BrokenMessage, Delivery, Subscription))


def retry(connection: sa.Connection, delivery_id: str, now: datetime) -> bool:
    """Make a delivery due at once, with its whole schedule before it again; say whether it was possible.

    Possible from every state while its subscription is on, unless its message is broken. One that is due already stays
    as it is.
    """
    is_whole = ~sa.exists().where(B.c.message_id == D.c.message_id)
    is_on = (
        sa.select(S.c.id).where(S.c.id == D.c.subscription_id, S.c.active, S.c.deleted_at.is_(None)).exists()
    )
    due = (
        sa.update(D)
        .where(D.c.id == delivery_id, is_on, is_whole, sa.or_(D.c.due_at.is_(None), D.c.due_at > now))
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
    # The state is no condition next to the key: the index of what is due could seem to answer that faster.
    found = connection.execute(sa.select(D.c.due_at).where(D.c.id == delivery_id, is_on)).one_or_none()
    return found is not None and found.due_at is not None


def is_broken(connection: sa.Connection, delivery_id: str) -> bool:
    """Say whether there is nothing to send: the data of its message could not be made, and was not repaired."""
    found = sa.select(D.c.id).join(B, B.c.message_id == D.c.message_id).where(D.c.id == delivery_id)
    return connection.scalar(found) is not None


def cancel(connection: sa.Connection, delivery_id: str, now: datetime) -> bool:
    """Call off a delivery that is pending, held or broken; say whether it is cancelled now.

    A request that is under way already is not called back.
    """
    off = (
        sa.update(D)
        .where(
            D.c.id == delivery_id,
            unindexed(D.c.state).in_([State.PENDING.value, State.HELD.value, State.BROKEN.value]),
        )
        .values(state=State.CANCELLED.value, due_at=None, reason="by_hand", finished_at=now)
    )
    if connection.execute(off).rowcount:
        return True
    is_now = connection.scalar(sa.select(D.c.state).where(D.c.id == delivery_id))
    return is_now == State.CANCELLED
