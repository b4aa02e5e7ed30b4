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

from .. import outbox
from ..catalog import RESERVED_CHANNEL
from ..ids import BACKFILL, BACKFILL_KEY, first_at, following
from ..models import (
    BROKEN_MESSAGES,
    DELIVERIES,
    MESSAGES,
    State,
    Subscription,
)
from ..sql import ranges
from ..sql.parameters import unindexed
from ..sql.ranges import in_range

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
    """Of what was asked for, before defaults such as "until now": the same replay asked for twice has the same."""


def digest(*asked: t.Any) -> str:
    """Return a digest of what was asked for, in words that do not change: two requests with the same are one replay."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def delivered(
    dialect: sa.Dialect, subscription_id: str, wanted: Filter, state: str, cursor: str | None
) -> sa.Select[t.Any]:
    """Select the ids of deliveries in a state, behind the cursor. Tests are left out."""
    since, below = _span(wanted, cursor)
    found = outbox.in_state(dialect, subscription_id, state, since=since, below=below)
    found = found.where(DELIVERIES.c.trigger != "test")
    if state == State.CANCELLED:  # a broken message that was given up has nothing to send
        found = found.where(_is_whole(DELIVERIES.c.message_id))
    if wanted.events:  # no join, of which PostgreSQL might take the other end first
        event = (
            sa.select(MESSAGES.c.event)
            .where(MESSAGES.c.id == DELIVERIES.c.message_id)
            .correlate(DELIVERIES)
            .scalar_subquery()
        )
        found = found.where(event.in_(wanted.events))
    return found


def _span(wanted: Filter, cursor: str | None) -> tuple[str, str]:
    """Return the least id, and the first that is too large."""
    since = first_at(wanted.since)
    return since if cursor is None else max(since, following(cursor)), first_at(wanted.until)


def _is_whole(message: sa.Column[t.Any]) -> sa.ColumnElement[bool]:
    """Whether a message is not broken."""
    of_message = sa.select(BROKEN_MESSAGES.c.message_id).where(BROKEN_MESSAGES.c.message_id == message)
    return of_message.correlate(message.table).scalar_subquery().is_(None)


def missed(
    dialect: sa.Dialect,
    subscription: Subscription,
    wanted: Filter,
    listened: t.Collection[str],
    cursor: str | None,
) -> sa.Select[t.Any]:
    """Select messages that the subscription has no delivery of, behind the cursor.

    :param listened: the event types that it listens to today.
    """
    events = set(listened) & set(wanted.events) if wanted.events else set(listened)
    backfilled = ":".join([BACKFILL, *("_" * length for length in BACKFILL_KEY)])
    delivery = (  # one probe for each message: of an EXISTS PostgreSQL might make a join with all deliveries
        sa.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.message_id == MESSAGES.c.id, DELIVERIES.c.subscription_id == subscription.id)
        .correlate(MESSAGES)
        .scalar_subquery()
    )
    found = sa.select(MESSAGES.c.id, MESSAGES.c.event).where(
        MESSAGES.c.channel != RESERVED_CHANNEL,  # tests
        unindexed(MESSAGES.c.event).in_(sorted(events)),
        # A backfill's message is for the one subscription that asked for it, whose id is in its key.
        sa.or_(MESSAGES.c.dedupe_key.is_(None), MESSAGES.c.dedupe_key.not_like(backfilled)),
        delivery.is_(None),
        _is_whole(MESSAGES.c.id),
    )
    equal = {MESSAGES.c.owner: subscription.owner, MESSAGES.c.environment: subscription.environment}
    since, below = _span(wanted, cursor)
    return in_range(found, dialect, equal, MESSAGES.c.id, since=since, below=below)


def count(
    connection: sa.Connection, subscription: Subscription, wanted: Filter, listened: t.Collection[str]
) -> int:
    """Return how many match; counting ends at `COUNTED`."""
    # State by state: each is a range of its own, and counting can end before the last.
    total = 0
    for state in wanted.states:
        matching = (
            missed(connection.dialect, subscription, wanted, listened, None)
            if state == MISSED
            else delivered(connection.dialect, subscription.id, wanted, state, None)
        )
        total += ranges.count(connection, matching, COUNTED - total)
        if total >= COUNTED:
            break
    return total
