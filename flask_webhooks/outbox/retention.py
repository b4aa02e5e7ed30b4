"""What is deleted when it is old, and in which order: the one place that knows.

=====================  ======================================================================================
`purge_messages`       messages that occurred before, with their deliveries, attempts and errors
`purge_removed`        subscriptions that were removed before and have no delivery left, with all kept of them
`purge_hours`          sums of hours that began before
`purge_replays`        replays that ended before
`purge_answers`        what the API answered under idempotency keys, after a day
`purge_rates`          the rates of owners who may ask again as often as ever, after some seconds
=====================  ======================================================================================

The law of this room: rows that come in large numbers are deleted in batches, each in a transaction of its own, oldest
first and children before their parents: nothing is locked for long, and a purge that breaks off leaves no orphan.
"""

from __future__ import annotations

import itertools
import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..ids import first_at
from ..models import (
    ATTEMPTS,
    BROKEN_MESSAGES,
    DELIVERIES,
    HOURS,
    IDEMPOTENT_REPLIES,
    LANES,
    LISTENERS,
    MESSAGES,
    REPLAYS,
    SECRETS,
    SUBSCRIPTIONS,
    THROTTLES,
)
from ..sql import clock
from ..sql.parameters import KeyedStatement
from ..sql.ranges import first, in_range
from .statements import CHUNK, chunks

__all__ = [
    "purge",
    "purge_answers",
    "purge_hours",
    "purge_messages",
    "purge_rates",
    "purge_removed",
    "purge_replays",
]

BATCH = 1_000
"""Messages that one transaction deletes."""
STRAGGLING = timedelta(hours=1)
"""How long after the removal of a subscription a commit that had begun before may still add a delivery to it."""
ANSWERS = timedelta(days=1)
"""How long the API repeats an answer to a request that has the same idempotency key."""
RATES = timedelta(seconds=20)
"""How long a rate is kept that holds no request up any more: a request that read the clock before still finds it."""


def purge(
    engine: sa.Engine, before: datetime, now: datetime, *, is_log_only: bool = False
) -> t.Iterator[int]:
    """Delete what is older than `before`, and what has an age of its own; everything if the iterator is used up.

    A caller that has no more time leaves the iterator: what was deleted so far is committed, the rest waits.

    :param is_log_only: leave sums, replays, answers and rates alone.
    :return: how many messages each batch has deleted; 0 for one of removed subscriptions.
    """
    # Messages first: a removed subscription can go only when its last delivery has gone.
    while gone := _committed(engine, purge_messages, before):
        yield gone
    while _committed(engine, purge_removed, max(before, now - STRAGGLING)) == CHUNK:
        yield 0
    if is_log_only:
        return
    # These are few, some rows for each subscription or owner: one transaction for all.
    with engine.begin() as connection:
        purge_hours(connection, before)
        purge_replays(connection, before)
        purge_answers(connection, now - ANSWERS)
        purge_rates(connection, clock.now(connection) - RATES)


def _committed(engine: sa.Engine, step: t.Callable[[sa.Connection, datetime], int], before: datetime) -> int:
    with engine.begin() as connection:
        return step(connection, before)


# ---- messages --------------------------------------------------------------------------------------------


def purge_messages(connection: sa.Connection, before: datetime, most: int = BATCH) -> int:
    """Delete up to `most` messages that occurred before a time, with their deliveries and attempts; return how many.

    Messages that still have a pending delivery stay, and broken ones that an operator may repair. Held deliveries keep
    no message: they age like finished ones.
    """
    ids = list(itertools.islice(_finished(connection, first_at(before)), most))
    for some in chunks(ids):
        for part in chunks(list(_DELIVERIES.run(connection, some).scalars())):
            _DELETE_ATTEMPTS.run(connection, part)
            _DELETE_DELIVERIES.run(connection, part)
        _DELETE_ERRORS.run(connection, some)
        _DELETE_MESSAGES.run(connection, some)
    return len(ids)


def _finished(connection: sa.Connection, before: str) -> t.Iterator[str]:
    """Yield the ids of messages below an id for which nothing is still to be done, oldest first.

    A portion at a time, and in two statements: in one, PostgreSQL would guess how many have none, and sort them all.
    """
    old = first(
        in_range(sa.select(MESSAGES.c.id), connection.dialect, {}, MESSAGES.c.id, below=before), CHUNK
    )
    ids = list(connection.scalars(old))
    while ids:
        found = _PENDING.run(connection, ids)
        kept = {row.message_id for row in found if row.due_at is not None}
        kept.update(row.message_id for row in _BROKEN.run(connection, ids) if row.given_up is None)
        yield from (key for key in ids if key not in kept)
        ids = list(connection.scalars(old.where(MESSAGES.c.id > ids[-1])))


_PENDING = KeyedStatement(
    DELIVERIES.c.message_id,
    lambda these: sa.select(DELIVERIES.c.message_id, DELIVERIES.c.due_at).distinct().where(these),
)
_BROKEN = KeyedStatement(
    BROKEN_MESSAGES.c.message_id,
    lambda these: sa.select(BROKEN_MESSAGES.c.message_id, BROKEN_MESSAGES.c.given_up).where(these),
)
_DELIVERIES = KeyedStatement(DELIVERIES.c.message_id, lambda these: sa.select(DELIVERIES.c.id).where(these))
_DELETE_ATTEMPTS = KeyedStatement(ATTEMPTS.c.delivery_id, lambda these: sa.delete(ATTEMPTS).where(these))
_DELETE_DELIVERIES = KeyedStatement(DELIVERIES.c.id, lambda these: sa.delete(DELIVERIES).where(these))
_DELETE_ERRORS = KeyedStatement(
    BROKEN_MESSAGES.c.message_id, lambda these: sa.delete(BROKEN_MESSAGES).where(these)
)
_DELETE_MESSAGES = KeyedStatement(MESSAGES.c.id, lambda these: sa.delete(MESSAGES).where(these))


# ---- subscriptions ---------------------------------------------------------------------------------------


def purge_removed(connection: sa.Connection, before: datetime, most: int = CHUNK) -> int:
    """Delete up to `most` subscriptions that were removed before a time and have no delivery any more; return how many.

    Until then their row says whose their log is.
    """
    # In the order of an index, so that it is used; of an EXISTS a plan may make a look at all deliveries.
    delivery = (
        sa.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.subscription_id == SUBSCRIPTIONS.c.id)
        .order_by(DELIVERIES.c.state, DELIVERIES.c.id)
        .limit(1)
    )
    is_empty = delivery.correlate(SUBSCRIPTIONS).scalar_subquery().is_(None)
    removed = (
        sa.select(SUBSCRIPTIONS.c.id)
        .where(SUBSCRIPTIONS.c.deleted_at < before, is_empty)
        .order_by(SUBSCRIPTIONS.c.id)
        .limit(most)
    )
    ids = list(connection.scalars(removed))
    for some in chunks(ids):
        for column in _OF_SUBSCRIPTION:  # the lane first: see `leases.lock`
            connection.execute(sa.delete(column.table).where(column.in_(some)))
        connection.execute(sa.delete(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.id.in_(some)))
    return len(ids)


_OF_SUBSCRIPTION: tuple[sa.Column[t.Any], ...] = tuple(
    table.c.subscription_id for table in (LANES, HOURS, REPLAYS, LISTENERS, SECRETS)
)


# ---- what is few -----------------------------------------------------------------------------------------


def purge_hours(connection: sa.Connection, before: datetime) -> int:
    """Delete sums of hours that began before a time; return how many rows."""
    return connection.execute(sa.delete(HOURS).where(HOURS.c.hour < before)).rowcount


def purge_replays(connection: sa.Connection, before: datetime) -> int:
    """Delete replays that ended before a time; return how many."""
    return connection.execute(sa.delete(REPLAYS).where(REPLAYS.c.finished_at < before)).rowcount


def purge_answers(connection: sa.Connection, before: datetime) -> int:
    """Delete answers to requests with an idempotency key that came before a time; return how many."""
    return connection.execute(
        sa.delete(IDEMPOTENT_REPLIES).where(IDEMPOTENT_REPLIES.c.created_at < before)
    ).rowcount


def purge_rates(connection: sa.Connection, before: datetime) -> int:
    """Delete the rates of owners who have had all their turns again since a time; return how many."""
    return connection.execute(
        sa.delete(THROTTLES).where(THROTTLES.c.free_at < clock.microseconds(before))
    ).rowcount
