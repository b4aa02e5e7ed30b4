"""One batch of results: what is written of it, in four statements for any number of results."""

from __future__ import annotations

import logging
import typing as t
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from .. import outbox, pace
from ..delivery import AttemptResult
from ..health import Health, Reason, after
from ..models import SUBSCRIPTIONS, State, Trigger
from ..outbox import statistics
from .held_lane import HeldLane

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["BatchResult", "disable", "write_batch"]

logger = logging.getLogger("flask_webhooks.delivering")


@dataclass(slots=True)
class BatchResult:
    """What was written, and is announced after the commit."""

    kept: t.Sequence[AttemptResult]
    """Results of lanes that were still ours."""
    health: dict[str, Health] = field(default_factory=dict)
    """By lane."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many results, by lane."""
    paused: dict[str, Health] = field(default_factory=dict)
    """Those whose breaker has opened, or opened again."""
    disabled: dict[str, Reason] = field(default_factory=dict)
    """Subscriptions that were switched off."""
    closed: t.Sequence[str] = ()
    """Lanes that were given back."""


def write_batch(
    state: AppState,
    connection: sa.Connection,
    results: t.Sequence[AttemptResult],
    lanes: t.Mapping[str, HeldLane],
) -> BatchResult:
    """Write attempts, the states of their deliveries, and the sums. Faults of our own side leave no trace in it.

    :param lanes: those that are still ours; results of others are dropped.
    """
    ours = [result for result in results if result.task.subscription_id in lanes]
    batch = BatchResult([result for result in ours if not result.is_ours])
    # First of all: it decides which of the refused are deferred, and so what is written of them.
    reasons = _update_health(state, batch, ours, lanes)
    kept = batch.kept
    outbox.log(connection, [result.row for result in kept if result.is_logged])
    statistics.add(connection, _hourly_counts(result for result in kept if not result.is_cancelled))
    done = [result.task.id for result in kept if result.state == "delivered"]
    if done:
        outbox.succeed(connection, done, max(result.ended_at for result in kept))
    outbox.reschedule(connection, [_rescheduled(result) for result in kept if not result.ok])
    # Last: it locks rows of subscriptions, which are locked after lanes everywhere.
    for key, reason in reasons.items():
        if disable(connection, key, reason):
            batch.disabled[key] = reason
    return batch


def _update_health(
    state: AppState,
    batch: BatchResult,
    results: t.Iterable[AttemptResult],
    lanes: t.Mapping[str, HeldLane],
) -> dict[str, Reason]:
    """Decide what the results say about their receivers; return the reasons to disable."""
    by_lane: dict[str, list[AttemptResult]] = {}
    for result in results:
        by_lane.setdefault(result.task.subscription_id, []).append(result)
    reasons = {}
    for key, some in by_lane.items():
        lane = lanes[key]
        batch.counts[key] = len(some)
        health, reason = health_after(state, lane, some)
        batch.health[key] = health
        if health.pauses and health.paused_until != lane.health.paused_until:
            batch.paused[key] = health
        if reason is not None:
            reasons[key] = reason
    return reasons


def health_after(
    state: AppState, lane: HeldLane, results: t.Iterable[AttemptResult]
) -> tuple[Health, Reason | None]:
    """Return the health of one receiver after some results, and the reason to disable it if there is one.

    What is pace and not failure is deferred, as long as the receiver goes on taking others. Of the lane only what its
    receiver has taken lately is kept up: its health is what the database has, so it changes after the commit.
    """
    health, burst, reason = lane.health, lane.lately(), None
    for result in results:
        started = result.started_at or result.ended_at
        if result.is_ours:
            health = replace(health, waits_for="sender")
        # 429, or 503 with Retry-After: the receiver works, and only asks to slow down.
        elif result.wait is not None:
            result.is_deferred = pace.is_patient(health, burst)
            health, result.wait = pace.refused(
                health, burst, started=started, now=result.ended_at, asked=result.asked
            )
        else:
            health, hopeless = _after_one(state, lane, health, result)
            reason = Reason.GONE if result.verdict.gone else reason or hopeless
    return health, reason


def _after_one(
    state: AppState, lane: HeldLane, before: Health, result: AttemptResult
) -> tuple[Health, Reason | None]:
    # Nothing was sent, or the fault is ours: that says nothing about the receiver.
    if not result.counts:
        return before, None
    health, hopeless = after(
        before,
        ok=result.ok,
        now=result.ended_at,
        breaker=state.settings.breaker,
        disable_after=state.settings.disable_after,
        is_replay=result.task.trigger == Trigger.REPLAY,
    )
    if result.ok:
        started = result.started_at or result.ended_at
        health = pace.taken(before, health, lane.burst, started=started, now=result.ended_at)
    return health, hopeless


def _hourly_counts(results: t.Iterable[AttemptResult]) -> statistics.HourlyCounts:
    counts = statistics.HourlyCounts()
    for result in results:
        counts.add(
            result.task.subscription_id,
            result.ended_at,
            status=result.row["status"],
            seconds=result.seconds,
            state=result.state,
        )
    return counts


def _rescheduled(result: AttemptResult) -> outbox.Row:
    deferred, pending = result.is_deferred, result.state == "pending"
    return {
        "delivery": result.task.id,
        # Compared and set: a delivery that was moved since it was read stays as it was moved.
        "was_due": result.task.due_at,
        "next_state": State(result.state).value,
        "next_due": result.task.due_at if deferred else result.retry_at,
        "made": result.task.number - (result.is_cancelled or deferred),
        "why": "gone" if result.verdict.gone else result.failure,
        "sent": result.body,
        "ended": None if pending else result.ended_at,
    }


def disable(connection: sa.Connection, subscription_id: str, reason: Reason) -> bool:
    """Switch a subscription off; return whether it was on.

    What is pending for it is held afterwards (`Withdrawals`): it may be any number, and every other lane waits for this
    transaction.
    """
    now = outbox.now(connection)
    off = {"active": False, "disabled_reason": reason.value, "disabled_at": now, "updated_at": now}
    switched = connection.execute(
        sa.update(SUBSCRIPTIONS)
        .where(SUBSCRIPTIONS.c.id == subscription_id, SUBSCRIPTIONS.c.active)
        .values(**off, version=SUBSCRIPTIONS.c.version + 1)
    )
    if not switched.rowcount:
        return False  # its owner was quicker, and has dealt with what is pending
    logger.warning("subscription.disabled", extra={"subscription": subscription_id, "reason": reason.value})
    return True
