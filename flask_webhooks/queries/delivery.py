"""One delivery with its message and every attempt."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..models import Attempt, Delivery, Message, Subscription
from ..principal import ALL_OWNERS, Whose
from ..sql.parameters import apart
from ..sql.ranges import count

__all__ = ["DeliveryDetail", "attempt_of", "attempts_of", "delivery_detail", "delivery_of"]

MOST = 5
"""Attempts on a page; older ones are on the next."""
COUNTED = 10_000
"""Attempts of one delivery that are counted at most: replays can add any number."""


@dataclass(frozen=True)
class DeliveryDetail:
    """One delivery with its message, its subscription and a page of its attempts."""

    delivery: Delivery
    message: Message | None
    """None: it has been purged."""
    subscription: Subscription
    attempts: tuple[Attempt, ...]
    """A page of attempts, in the order of time."""
    older: int
    """Number of attempts before these."""


def delivery_of(session: Session, delivery_id: str, *, owner: Whose) -> tuple[Delivery, Subscription] | None:
    """Return a delivery with its subscription, also a removed one; None if the owner has none with this id."""
    # `populate_existing`: the session may have read the row before a statement of `outbox` changed it.
    delivery = session.get(Delivery, delivery_id, populate_existing=True)
    subscription = session.get(Subscription, delivery.subscription_id) if delivery is not None else None
    if delivery is None or subscription is None or owner not in (ALL_OWNERS, subscription.owner):
        return None
    return delivery, subscription


def delivery_detail(
    session: Session, delivery_id: str, *, owner: Whose, before: str = ""
) -> DeliveryDetail | None:
    """Return a delivery in detail, also of a removed subscription; None if the owner has none with this id.

    :param before: only attempts that are older than this one; empty: the newest.
    """
    found = delivery_of(session, delivery_id, owner=owner)
    if found is None:
        return None
    delivery, subscription = found
    # Read newest first, as a page of the index, and shown in the order of time.
    attempts = tuple(reversed(attempts_of(session, delivery_id, MOST, before)))
    # A page that is not full is the last one, so there is nothing to count.
    older = _older(session, attempts[0]) if len(attempts) == MOST else 0
    return DeliveryDetail(delivery, session.get(Message, delivery.message_id), subscription, attempts, older)


def attempts_of(session: Session, delivery_id: str, most: int, before: str = "") -> list[Attempt]:
    """Return the newest attempts of a delivery, the newest first.

    :param before: only those that are older than this one; empty: all.
    """
    found = _ids_of(delivery_id, before)
    ids = session.scalars(found.order_by(found.selected_columns.id.desc()).limit(most)).all()
    rows = sa.select(Attempt).where(Attempt.id.in_(ids)).order_by(Attempt.id.desc())
    return list(session.scalars(rows)) if ids else []


def attempt_of(session: Session, delivery_id: str, attempt_id: str | None) -> Attempt | None:
    """Return one attempt of a delivery; the last one without an id; None if the delivery has no such attempt."""
    if attempt_id:
        attempt = session.get(Attempt, attempt_id)
        return attempt if attempt is not None and attempt.delivery_id == delivery_id else None
    return next(iter(attempts_of(session, delivery_id, 1)), None)


def _ids_of(delivery_id: str, before: str) -> sa.Select[t.Any]:
    """Return a SELECT of ids behind a fence: PostgreSQL might otherwise search the whole log from its end."""
    all_of_them = apart(sa.select(Attempt.id).where(Attempt.delivery_id == delivery_id))
    found = sa.select(all_of_them.c.id)
    return found.where(all_of_them.c.id < before) if before else found


def _older(session: Session, attempt: Attempt) -> int:
    """Count the attempts before this one."""
    return count(session.connection(), _ids_of(attempt.delivery_id, attempt.id), COUNTED)
