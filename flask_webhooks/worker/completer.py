"""Results written back, many in one transaction, behind the fence of the lease."""

from __future__ import annotations

import logging
import typing as t
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from .. import outbox, pace, signals
from ..delivery import AttemptResult, announce_attempt, drop_answer, is_announced
from ..health import Breaker, Health, Reason, after, why_paused
from ..models import State, Subscription, Trigger
from ..outbox import statistics
from ..pace import Burst

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["VALUE_ERRORS", "BatchResult", "drop_unstorable", "send_signals", "write"]

logger = logging.getLogger("flask_webhooks.delivering")
S = t.cast("sa.Table", Subscription.__table__)

VALUE_ERRORS = (sa.exc.SQLAlchemyError, ValueError, TypeError, ArithmeticError)
"""What a value raises that the database, its driver, SQLAlchemy or arithmetic does not take."""


@dataclass(slots=True)
class BatchResult:
    """What was written, to be told after the commit."""

    kept: t.Sequence[AttemptResult]
    """Results of lanes that were still ours."""
    health: dict[str, Health]
    """By lane."""
    disabled: dict[str, Reason]
    """Subscriptions that were switched off."""
    paused: dict[str, Health] = field(default_factory=dict)
    """Those whose breaker has opened, or opened again."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many results, by lane."""
    closed: t.Sequence[str] = field(default=())
    """Lanes that were given back."""


def write(
    state: AppState,
    connection: sa.Connection,
    results: t.Sequence[AttemptResult],
    known: t.Mapping[str, Health],
    bursts: t.Mapping[str, Burst],
) -> BatchResult:
    """Write attempts, the states of their deliveries, and the sums: four statements for any number of results.

    Faults of our own side leave no trace in it.

    :param known: how the receivers of the lanes that are ours were doing; results of others are dropped.
    :param bursts: what they have taken lately.
    """
    ours = [result for result in results if result.task.subscription_id in known]
    outcome = BatchResult([result for result in ours if not result.is_ours], {}, {})
    reasons = _judge(state, outcome, ours, known, bursts)
    kept = outcome.kept
    outbox.log(connection, [result.row for result in kept if result.is_logged])
    statistics.add(connection, _tally(result for result in kept if not result.is_called_off))
    done = [result.task.id for result in kept if result.state == "delivered"]
    if done:
        outbox.succeed(connection, done, max(result.ended_at for result in kept))
    outbox.reschedule(connection, [_failed(result) for result in kept if not result.ok])
    for key, reason in reasons.items():
        if disable(connection, key, reason):
            outcome.disabled[key] = reason
    return outcome


def _judge(
    state: AppState,
    outcome: BatchResult,
    results: t.Sequence[AttemptResult],
    known: t.Mapping[str, Health],
    bursts: t.Mapping[str, Burst],
) -> dict[str, Reason]:
    """Decide what the results say about their receivers; return the reasons to disable."""
    reasons = {}
    for key, some in _by_lane(results).items():
        outcome.counts[key] = len(some)
        health, reason = update_health(state, known[key], some, bursts.get(key) or Burst())
        outcome.health[key] = health
        if health.pauses and health.paused_until != known[key].paused_until:
            outcome.paused[key] = health
        if reason is not None:
            reasons[key] = reason
    return reasons


def _by_lane(results: t.Iterable[AttemptResult]) -> dict[str, list[AttemptResult]]:
    by_lane: dict[str, list[AttemptResult]] = {}
    for result in results:
        by_lane.setdefault(result.task.subscription_id, []).append(result)
    return by_lane


def _tally(results: t.Iterable[AttemptResult]) -> statistics.HourlyCounts:
    tally = statistics.HourlyCounts()
    for result in results:
        tally.add(
            result.task.subscription_id,
            result.ended_at,
            status=result.row["status"],
            seconds=result.seconds,
            state=result.state,
        )
    return tally


def _failed(result: AttemptResult) -> outbox.Row:
    deferred, pending = result.is_deferred, result.state == "pending"
    return {
        "delivery": result.task.id,
        "was_due": result.task.due_at,
        "next_state": State(result.state).value,
        "next_due": result.task.due_at if deferred else result.retry_at,
        "made": result.task.number - (result.is_called_off or deferred),
        "why": "gone" if result.verdict.gone else result.failure,
        "sent": result.body,
        "ended": None if pending else result.ended_at,
    }


def update_health(
    state: AppState, known: Health, results: t.Iterable[AttemptResult], burst: Burst
) -> tuple[Health, Reason | None]:
    """Return the health of one receiver after some results, and the reason to disable it if there is one.

    What is pace and not failure is deferred, as long as the receiver goes on taking others.

    :param burst: what it has taken lately; kept up.
    """
    reason = None
    for result in results:
        if result.is_ours:
            known = replace(known, waits_for="sender")
            continue
        started = result.started_at or result.ended_at
        if result.wait is not None:
            result.is_deferred = pace.is_patient(known, burst)
            known, result.wait = pace.refused(
                known, burst, started=started, now=result.ended_at, told=result.asked
            )
            continue
        if result.verdict.gone:
            reason = Reason.GONE
        is_replay = result.task.trigger == Trigger.REPLAY
        if not result.counts:
            continue
        before = known
        known, hopeless = after(
            known,
            ok=result.ok,
            now=result.ended_at,
            breaker=state.settings.breaker,
            disable_after=state.settings.disable_after,
            is_replay=is_replay,
        )
        if result.ok:
            known = pace.taken(before, known, burst, started=started, now=result.ended_at)
        reason = reason or hopeless
    return known, reason


def disable(connection: sa.Connection, subscription_id: str, reason: Reason) -> bool:
    """Switch a subscription off; return whether it was on.

    What is pending for it is held afterwards (`Lanes.turn_away`): it may be any number, and everybody waits for this
    transaction.
    """
    now = outbox.now(connection)
    off = {"active": False, "disabled_reason": reason.value, "disabled_at": now, "updated_at": now}
    switched = connection.execute(
        sa.update(S).where(S.c.id == subscription_id, S.c.active).values(**off, version=S.c.version + 1)
    )
    if not switched.rowcount:
        return False  # its owner was quicker, and has dealt with what is pending
    logger.warning("subscription.disabled", extra={"subscription": subscription_id, "reason": reason.value})
    return True


def drop_unstorable(result: AttemptResult, error: Exception) -> bool:
    """Leave out of a result what the database may have refused; return False when nothing more can be left out.

    What was answered goes first. The last resort keeps the attempt out of the log, for the delivery's state must be
    written, or it would be sent again and again.
    """
    logger.error(
        "attempt.not_recorded",
        extra={"delivery_id": result.task.id, "reason": f"{type(error).__name__}: {error}"[:500]},
    )
    if drop_answer(result.row):
        return True
    was_logged, result.is_logged = result.is_logged, False
    return was_logged


def send_signals(state: AppState, outcome: BatchResult, owners: t.Mapping[str, str]) -> None:
    """Log each attempt in one line and send the signals, after the commit."""
    if is_announced():
        for result in outcome.kept:
            announce_attempt(state, result)
    for key, health in outcome.paused.items():
        told = {
            "subscription": key,
            "until": health.paused_until.isoformat() if health.paused_until else None,
            "failed": health.window_failed,
            "attempts": health.window_ok + health.window_failed,
            "reason": why_paused(health, state.settings.breaker or Breaker()),
        }
        logger.warning("subscription.paused", extra=told)
    for key, reason in outcome.disabled.items():
        signals.send(
            signals.subscription_disabled,
            state.app,
            subscription_id=key,
            owner=owners[key],
            reason=reason.value,
        )
