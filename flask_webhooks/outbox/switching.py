"""Switching a subscription off and on: what becomes of its deliveries.

They may be any number, and the transaction that moves them keeps others waiting: the worker that writes results of that
lane, on SQLite all writers. So each call here moves a portion and returns how many it found. If that is fewer than it
was allowed, nothing is left; else another transaction has to go on. Workers do (`reconcile`), whatever has left it.

Each statement takes the lane's row first; see `leases.lock`.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

import sqlalchemy as sa

from ..models import DELIVERIES, SUBSCRIPTIONS, State
from ..sql.parameters import KeyedStatement, unindexed
from ..sql.ranges import first, in_range
from .deliveries import in_state
from .leases import lock
from .statements import chunks

__all__ = ["PORTION", "cancel_all", "discard_held", "find_inconsistent", "hold", "reconcile", "send_held"]

PORTION = 1_000
"""Deliveries that are moved at once: some ten milliseconds, up to a hundred on a busy machine."""


def hold(connection: sa.Connection, subscription_id: str, reason: str, most: int = PORTION) -> int:
    """Keep what is pending for a subscription that is off."""
    held = {"state": State.HELD.value, "due_at": None, "reason": reason}
    return _move(connection, subscription_id, State.PENDING, held, most)


def send_held(connection: sa.Connection, subscription_id: str, now: datetime, most: int = PORTION) -> int:
    """Make what was held due, oldest first."""
    due = {"state": State.PENDING.value, "due_at": now, "reason": None}
    return _move(connection, subscription_id, State.HELD, due, most)


def discard_held(connection: sa.Connection, subscription_id: str, now: datetime, most: int = PORTION) -> int:
    """Cancel what was held for a subscription that is off, and what is still to be held."""
    return cancel_all(connection, subscription_id, "discarded", now, most)


def cancel_all(
    connection: sa.Connection, subscription_id: str, reason: str, now: datetime, most: int = PORTION
) -> int:
    """Cancel what is pending, held or broken for a subscription that is removed."""
    off = {"state": State.CANCELLED.value, "due_at": None, "reason": reason, "finished_at": now}
    # What is broken stays with a subscription that is only off: an operator may still repair it.
    found = 0
    for state in (State.PENDING, State.HELD, *((State.BROKEN,) if reason == "removed" else ())):
        if found < most:
            found += _move(connection, subscription_id, state, off, most - found)
    return found


def _move(
    connection: sa.Connection, subscription_id: str, state: State, values: dict[str, t.Any], most: int
) -> int:
    lock(connection, subscription_id)
    ids = connection.scalars(first(_oldest(connection.dialect, subscription_id, state), most)).all()
    # Looks again: what is retried or cancelled by hand meanwhile takes no lane's row.
    is_still = unindexed(DELIVERIES.c.state) == state.value
    move = KeyedStatement(
        DELIVERIES.c.id, lambda these: sa.update(DELIVERIES).where(these, is_still).values(values)
    )
    for some in chunks(ids):
        move.run(connection, some)
    return len(ids)


def _oldest(dialect: sa.Dialect, subscription_id: t.Any, state: State) -> sa.Select[t.Any]:
    """Those of a state, in the order of an index: sorting 100,000 would take longer than moving a portion."""
    if state is State.PENDING:
        pending = sa.select(DELIVERIES.c.id).where(DELIVERIES.c.due_at.is_not(None))
        return in_range(
            pending,
            dialect,
            {DELIVERIES.c.subscription_id: subscription_id},
            DELIVERIES.c.due_at,
            DELIVERIES.c.id,
        )
    return in_state(dialect, subscription_id, state.value)


def reconcile(connection: sa.Connection, subscription_id: str, now: datetime, most: int = PORTION) -> int:
    """Move deliveries that do not fit how their subscription is switched: hold, send or cancel them.

    Looks how that is with the lane locked. What is held for one that is on is sent even if its owner chose to discard:
    that was about what was held then, and losing is worse than sending.
    """
    lock(connection, subscription_id)
    switch = sa.select(
        SUBSCRIPTIONS.c.active, SUBSCRIPTIONS.c.deleted_at, SUBSCRIPTIONS.c.disabled_reason
    ).where(SUBSCRIPTIONS.c.id == subscription_id)
    found = connection.execute(switch).one_or_none()
    if found is None or found.deleted_at is not None:
        return cancel_all(connection, subscription_id, "removed", now, most)
    if found.active:
        return send_held(connection, subscription_id, now, most)
    return hold(connection, subscription_id, found.disabled_reason or "off", most)


def find_inconsistent(connection: sa.Connection) -> list[str]:
    """Return subscriptions for which there is something to settle.

    That is what a switch has left because it was more than a portion, and what a commit leaves that began before the
    switch and ended after it. One or two probes of an index for each subscription; of an EXISTS
    MariaDB would make a look at all of that index.
    """

    def some(state: State) -> sa.ColumnElement[bool]:
        found = _oldest(connection.dialect, SUBSCRIPTIONS.c.id, state).limit(1)
        return found.correlate(SUBSCRIPTIONS).scalar_subquery().is_not(None)

    is_on, is_removed = (
        sa.and_(SUBSCRIPTIONS.c.active, SUBSCRIPTIONS.c.deleted_at.is_(None)),
        SUBSCRIPTIONS.c.deleted_at.is_not(None),
    )
    # Held although nothing holds it, or pending although it must not be sent.
    unfit = sa.or_(sa.and_(sa.or_(is_on, is_removed), some(State.HELD)), sa.and_(~is_on, some(State.PENDING)))
    return list(connection.scalars(sa.select(SUBSCRIPTIONS.c.id).where(unfit)))
