"""Which deliveries a replay is about, in the order they were recorded.

Ids are made in the order of time, so a window of time is a range of ids, and the index (subscription, state, id) has it
sorted already.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ..catalog.names import RESERVED_CHANNEL
from ..ids import BACKFILL, BACKFILL_KEY, first_at
from ..models import BrokenMessage, Delivery, Message, State, Subscription

__all__ = [
    "MISSED",
    "MODES",
    "STATES",
    "Filter",
    "count",
    "delivered",
    "digest",
    "missed",
]

B, D, M = (t.cast("sa.Table", model.__table__) for model in (BrokenMessage, Delivery, Message))

MISSED = "missed"
"""Not a state: messages that the subscription listens to today and has no delivery of."""
STATES = (State.FAILED.value, State.HELD.value, State.DELIVERED.value, State.CANCELLED.value, MISSED)
MODES: t.Mapping[str, tuple[str, ...]] = {
    "failed": (State.FAILED.value,),
    "held": (State.HELD.value,),
    "all": (State.FAILED.value, State.HELD.value, State.DELIVERED.value, State.CANCELLED.value),
    "missed": (MISSED,),
}
"""Short names for what is mostly wanted."""
COUNTED = 100_000
"""Deliveries that are counted at most before a replay."""


@dataclass(frozen=True)
class Filter:
    """What is asked for."""

    states: tuple[str, ...]
    """Among `STATES`."""
    events: tuple[str, ...]
    """Event types; empty: all."""
    since: datetime
    until: datetime

    digest: str = ""
    """Of what was asked for, before defaults such as "until now": tells two replays apart."""


def digest(*told: t.Any) -> str:
    """Return what tells one replay from another: of what somebody asked for, in words that do not change."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def delivered(subscription_id: str, wanted: Filter, state: str, cursor: str | None) -> sa.Select[t.Any]:
    """Select the ids of deliveries in a state, behind the cursor. Tests are left out."""
    found = (
        sa.select(D.c.id)
        .where(
            D.c.subscription_id == subscription_id,
            D.c.state == state,
            D.c.id >= first_at(wanted.since),
            D.c.id < first_at(wanted.until),
            D.c.trigger != "test",
        )
        .order_by(D.c.id)
    )
    if state == State.CANCELLED:  # a broken message that was given up has nothing to send
        found = found.where(~sa.exists().where(B.c.message_id == D.c.message_id))
    if cursor is not None:
        found = found.where(D.c.id > cursor)
    if wanted.events:
        found = found.join(M, M.c.id == D.c.message_id).where(M.c.event.in_(wanted.events))
    return found


def missed(
    subscription: Subscription, wanted: Filter, listened: t.Collection[str], cursor: str | None
) -> sa.Select[t.Any]:
    """Select messages that the subscription has no delivery of, behind the cursor.

    :param listened: the event types that it listens to today.
    """
    events = set(listened) & set(wanted.events) if wanted.events else set(listened)
    backfilled = ":".join([BACKFILL, *("_" * length for length in BACKFILL_KEY)])
    has_one = (
        sa.select(D.c.id)
        .where(D.c.message_id == M.c.id, D.c.subscription_id == subscription.id)
        .correlate(M)
        .exists()
    )
    found = (
        sa.select(M.c.id, M.c.event)
        .where(
            M.c.owner == subscription.owner,
            M.c.environment == subscription.environment,
            M.c.id >= first_at(wanted.since),
            M.c.id < first_at(wanted.until),
            M.c.channel != RESERVED_CHANNEL,
            M.c.event.in_(sorted(events)),
            sa.or_(M.c.dedupe_key.is_(None), M.c.dedupe_key.not_like(backfilled)),
            ~has_one,
            ~sa.exists().where(B.c.message_id == M.c.id),
        )
        .order_by(M.c.id)
    )
    return found if cursor is None else found.where(M.c.id > cursor)


def count(
    connection: sa.Connection, subscription: Subscription, wanted: Filter, listened: t.Collection[str]
) -> int:
    """Return how many match; counting ends at `COUNTED`."""
    total = 0
    for state in wanted.states:
        matching = (
            missed(subscription, wanted, listened, None)
            if state == MISSED
            else delivered(subscription.id, wanted, state, None)
        )
        some = matching.order_by(None).limit(COUNTED - total).subquery()
        total += connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
        if total >= COUNTED:
            break
    return total
