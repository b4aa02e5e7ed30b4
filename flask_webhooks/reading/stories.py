"""One delivery with its message and every attempt."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..models import Attempt, Delivery, Message, Subscription
from ..principal import ALL_OWNERS, Whose

__all__ = ["Story", "story"]

MOST = 5
"""Attempts that a page shows; older ones are on the next."""
COUNTED = 10_000
"""Attempts of one delivery that are counted at most: replays add to them without end."""


@dataclass(frozen=True)
class Story:
    """What became of one message at one subscription."""

    delivery: Delivery
    message: Message | None
    """None: it has been purged."""
    subscription: Subscription
    attempts: tuple[Attempt, ...]
    """A page of them, in the order they were made."""
    older: int
    """How many were made before these."""


def story(session: Session, delivery_id: str, *, owner: Whose, before: str = "") -> Story | None:
    """Return a delivery of an owner's; None if there is none. Also of subscriptions that have been removed.

    :param before: only attempts that are older than this one; empty: the newest.
    """
    delivery = session.get(Delivery, delivery_id)
    subscription = session.get(Subscription, delivery.subscription_id) if delivery is not None else None
    if delivery is None or subscription is None or owner not in (ALL_OWNERS, subscription.owner):
        return None
    found = sa.select(Attempt).where(Attempt.delivery_id == delivery_id)
    if before:
        found = found.where(Attempt.id < before)
    attempts = tuple(reversed(session.scalars(found.order_by(Attempt.id.desc()).limit(MOST)).all()))
    older = _older(session, attempts[0]) if len(attempts) == MOST else 0
    return Story(delivery, session.get(Message, delivery.message_id), subscription, attempts, older)


def _older(session: Session, attempt: Attempt) -> int:
    """Count the attempts before this one."""
    before = sa.select(Attempt.id).where(Attempt.delivery_id == attempt.delivery_id, Attempt.id < attempt.id)
    some = before.limit(COUNTED).subquery()
    return session.scalar(sa.select(sa.func.count()).select_from(some)) or 0
