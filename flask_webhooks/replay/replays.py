"""A replay from its beginning to its end: `start`, then `enqueue_batches` again and again, or `stop`.

A batch queues what can be sent in the next seconds, each delivery due a moment after the one before: this bounds the
rate, and live events that fall due in between are sent in between. A batch is one short transaction whose first
statement locks the replay, so any number of processes may enqueue batches.
"""

from __future__ import annotations

import logging
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import outbox
from ..errors import ErrorText, OtherEnvironmentError, SubscriptionError
from ..ids import uuid7
from ..messages import delivery_row
from ..models import (
    DELIVERIES,
    MESSAGES,
    REPLAYS,
    SUBSCRIPTIONS,
    Replay,
    State,
    Subscription,
    Trigger,
)
from ..principal import ALL_OWNERS, Whose
from ..sql.ranges import first
from ..sql.transactions import repeated
from . import budget, filters
from .filters import MISSED, Filter

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["enqueue_batches", "find", "listened_to", "newest", "start", "stop"]

logger = logging.getLogger("flask_webhooks.replaying")

AHEAD = 5.0
"""Seconds of sending that one batch queues; a cancelled replay still sends at most these."""


def listened_to(state: AppState, subscription: Subscription) -> dict[str, set[str]]:
    """Return the event types that a subscription listens to today, with the includes of all its listeners."""
    found: dict[str, set[str]] = {}
    for listener in subscription.listeners:
        for event in state.catalog.expand(listener.event):
            found.setdefault(event.name, set()).update(listener.includes)
    return found


def find(session: Session, replay_id: str, *, owner: Whose) -> Replay | None:
    """Return a replay of the owner's."""
    found = session.get(Replay, replay_id)
    if found is None or owner is ALL_OWNERS:
        return found
    subscription = session.get(Subscription, found.subscription_id)
    return found if subscription is not None and subscription.owner == owner else None


def newest(session: Session, subscription_id: str, count: int) -> t.Sequence[Replay]:
    """Return the last replays of a subscription, the newest first."""
    mine = sa.select(Replay).where(Replay.subscription_id == subscription_id)
    return session.scalars(mine.order_by(Replay.id.desc()).limit(count)).all()


def start(
    state: AppState, session: Session, subscription: Subscription, wanted: Filter
) -> tuple[Replay, bool]:
    """Return a replay that begins with the next batch, and whether it is a new one.

    Call it with the owner's row locked: then two equal requests make one replay. The caller commits and rings the bell.

    :raises SubscriptionError: it is switched off, or another replay of it is running.
    """
    if not subscription.active:
        raise SubscriptionError(ErrorText("switched_off"))
    if not state.settings.sends_to(subscription.environment):
        raise OtherEnvironmentError(subscription.environment)
    # One at a time for each subscription: two would queue the same deliveries.
    running = session.scalars(
        sa.select(Replay).where(Replay.subscription_id == subscription.id, Replay.state == "running")
    ).first()
    if running is not None:
        if running.digest == wanted.digest:
            return running, False
        raise SubscriptionError(ErrorText("replay_running", id=running.id))
    listened = listened_to(state, subscription)
    now = datetime.now(UTC)
    before = session.execute(_running().where(REPLAYS.c.state != "running", REPLAYS.c.next_at > now)).all()
    row = Replay(
        id=uuid7(),
        subscription_id=subscription.id,
        state="running",
        states=list(wanted.states),
        events=list(wanted.events),
        since=wanted.since,
        until=wanted.until,
        digest=wanted.digest,
        total=filters.count(session.connection(), subscription, wanted, listened),
        next_at=budget.begins_at(now, subscription, before),
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row, True


def stop(connection: sa.Connection, replay_id: str, now: datetime) -> None:
    """Cancel a replay: it queues no more deliveries. A replay that has ended is not changed."""
    connection.execute(
        sa.update(REPLAYS)
        .where(REPLAYS.c.id == replay_id, REPLAYS.c.state == "running")
        .values(state="cancelled", finished_at=now)
    )


def enqueue_batches(state: AppState) -> int:
    """Queue the next few deliveries of every replay whose time has come; return how many. Commits."""
    with state.own_engine.connect() as connection:
        now = outbox.now(connection)
        running = connection.execute(_running().where(REPLAYS.c.state == "running")).all()
    # The other replays wait for workers of their environment.
    ours = [row for row in running if row.environment is None or state.settings.sends_to(row.environment)]
    due = [row for row in ours if row.next_at <= now]
    # Names are looked up before a transaction begins: a name server may take seconds.
    hosts = budget.hosts_of(state, running) if due else {}
    return sum(_enqueue_next(state, row.id, now, budget.rate_of(state, row, running, hosts)) for row in due)


def _running() -> sa.Select[t.Any]:
    places = (
        REPLAYS.c.id,
        REPLAYS.c.next_at,
        SUBSCRIPTIONS.c.owner,
        SUBSCRIPTIONS.c.url,
        SUBSCRIPTIONS.c.environment,
    )
    return sa.select(*places).outerjoin(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == REPLAYS.c.subscription_id)


def _enqueue_next(state: AppState, replay_id: str, now: datetime, rate: float) -> int:
    count = repeated(state.own_engine, lambda session: _enqueue_batch(state, session, replay_id, now, rate))
    if count:
        state.bell.ring()
    return count


def _enqueue_batch(state: AppState, session: Session, replay_id: str, now: datetime, rate: float) -> int:
    if not _lock_unless_taken(session, replay_id):
        return 0
    # The first statement writes: on SQLite only a write locks. Other processes leave the replay alone until `next_at`.
    mine = session.execute(
        sa.update(REPLAYS)
        .where(REPLAYS.c.id == replay_id, REPLAYS.c.state == "running", REPLAYS.c.next_at <= now)
        .values(next_at=now + timedelta(seconds=max(AHEAD, 1 / rate)))
    )
    if not t.cast("t.Any", mine).rowcount:
        return 0  # cancelled meanwhile, or another process has taken this batch
    replay = session.get_one(Replay, replay_id)
    subscription = session.get(Subscription, replay.subscription_id)
    if subscription is None or subscription.deleted_at is not None or not subscription.active:
        replay.state, replay.finished_at = "cancelled", now
        session.commit()
        return 0
    count = _fill_batch(state, session, replay, subscription, now, rate)
    session.commit()
    return count


def _lock_unless_taken(session: Session, replay_id: str) -> bool:
    """Lock a replay unless another process has locked it; return whether the caller may go on.

    On SQLite the write that follows takes the only lock. The key is the only condition: on MariaDB an UPDATE with a
    condition on the state locks the index of states first, and two of them end in a deadlock.
    """
    if session.get_bind().dialect.name == "sqlite":
        return True
    free = sa.select(REPLAYS.c.id).where(REPLAYS.c.id == replay_id).with_for_update(skip_locked=True)
    return session.scalar(free) is not None


def _fill_batch(
    state: AppState, session: Session, replay: Replay, subscription: Subscription, now: datetime, rate: float
) -> int:
    """Queue one batch, stage by stage; end the replay when no stage has more.

    :param rate: deliveries a second: the replay's share of the rate of its owner and of its destination's host.
    """
    room = max(1, int(rate * AHEAD))
    listened = listened_to(state, subscription)
    wanted = Filter(tuple(replay.states), tuple(replay.events), replay.since, replay.until)
    queued = 0
    while queued < room and replay.stage < len(wanted.states):
        step = replay.states[replay.stage]
        # Spread due times bound the rate, and live events are sent in between.
        times = [now + timedelta(seconds=(queued + n) / rate) for n in range(room - queued)]
        if step == MISSED:
            found = _enqueue_missed(state, session, subscription, wanted, listened, replay.cursor, times)
        else:
            found = _enqueue_again(state, session, subscription, wanted, step, replay.cursor, times)
        queued += len(found)
        if len(found) < len(times):  # this state has no more: the next stage begins with its oldest delivery
            replay.stage, replay.cursor = replay.stage + 1, None
        else:
            replay.cursor = found[-1]
    replay.queued += queued
    if replay.stage >= len(wanted.states):
        replay.state, replay.finished_at = "done", now
        # The last delivery is sent then, and another replay may begin.
        replay.next_at = now + timedelta(seconds=queued / rate)
    logger.info("replay.turned", extra={"replay": replay.id, "queued": queued, "state": replay.state})
    return queued


_AGAIN = (
    sa.update(DELIVERIES)
    # A user may have retried it since the batch was read: then it is due, and keeps its time.
    .where(DELIVERIES.c.id == sa.bindparam("delivery"), DELIVERIES.c.due_at.is_(None))
    .values(
        state=State.PENDING.value,
        due_at=sa.bindparam("due"),
        attempts=0,
        trigger=Trigger.REPLAY.value,
        reason=None,
        finished_at=None,
    )
)


def _enqueue_again(
    state: AppState,
    session: Session,
    subscription: Subscription,
    wanted: Filter,
    step: str,
    cursor: str | None,
    times: t.Sequence[datetime],
) -> list[str]:
    """Make due the next deliveries whose event is still listened to; return the ids of all that were read."""
    connection = session.connection()
    found = filters.delivered(connection.dialect, subscription.id, wanted, step, cursor)
    ids = list(connection.scalars(first(found, len(times))))
    listened = _still_listened(state, connection, subscription, ids)
    if listened:
        rows = [{"delivery": key, "due": due} for key, due in zip(listened, times, strict=False)]
        connection.execute(_AGAIN, rows)
    return ids


def _still_listened(
    state: AppState, connection: sa.Connection, subscription: Subscription, ids: t.Sequence[str]
) -> list[str]:
    """Return those deliveries whose event the subscription listens to: a worker would cancel the others.

    The log would then call a delivery cancelled that had been delivered.
    """
    patterns = {listener.event for listener in subscription.listeners}
    if not patterns:
        return list(ids)
    events = sa.select(DELIVERIES.c.id, MESSAGES.c.event).join(
        MESSAGES, MESSAGES.c.id == DELIVERIES.c.message_id
    )
    found: dict[str, str] = {}
    for some in outbox.chunks(ids):
        found.update(
            (row.id, row.event) for row in connection.execute(events.where(DELIVERIES.c.id.in_(some)))
        )
    return [key for key in ids if key in found and state.catalog.is_listened(found[key], patterns)]


def _enqueue_missed(
    state: AppState,
    session: Session,
    subscription: Subscription,
    wanted: Filter,
    listened: t.Mapping[str, set[str]],
    cursor: str | None,
    times: t.Sequence[datetime],
) -> list[str]:
    connection = session.connection()
    rows = connection.execute(
        first(filters.missed(connection.dialect, subscription, wanted, listened, cursor), len(times))
    ).all()
    deliveries = []
    for row, due in zip(rows, times, strict=False):
        event = state.catalog.events[row.event]
        deliveries.append(
            delivery_row(
                event,
                row.id,
                subscription.id,
                format=subscription.format,
                includes=listened[row.event],
                due_at=due,
                trigger=Trigger.REPLAY.value,
            )
        )
    if deliveries:
        connection.execute(DELIVERIES.insert(), deliveries)
    return [row.id for row in rows]
