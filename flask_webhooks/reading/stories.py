"""One delivery with its message and every attempt."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..models import Attempt, Delivery, Message, Subscription
from ..principal import ALL_OWNERS, Whose

__all__ = ["Story", "story"]

MOST = 200
"""Attempts that are shown, the newest: replays add to them without end."""


@dataclass(frozen=True)
class Story:
    """What became of one message at one subscription."""

    delivery: Delivery
    message: Message | None
    """None: it has been purged."""
    subscription: Subscription
    attempts: tuple[Attempt, ...]
    """In the order they were made."""


def story(session: Session, delivery_id: str, *, owner: Whose) -> Story | None:
    """Return a delivery of an owner's; None if there is none. Also of subscriptions that have been removed."""
    delivery = session.get(Delivery, delivery_id)
    subscription = session.get(Subscription, delivery.subscription_id) if delivery is not None else None
    if delivery is None or subscription is None or owner not in (ALL_OWNERS, subscription.owner):
        return None
    newest = (
        sa.select(Attempt)
        .where(Attempt.delivery_id == delivery_id)
        .order_by(Attempt.started_at.desc())
        .limit(MOST)
    )
    attempts = tuple(reversed(session.scalars(newest).all()))
    return Story(delivery, session.get(Message, delivery.message_id), subscription, attempts)
