"""Results written back, many in one transaction, behind the fence of the lease."""

from __future__ import annotations

import logging
import typing as t
from dataclasses import asdict

import sqlalchemy as sa

from .. import health, hours, outbox, signals
from ..health import Health
from ..models import State, Subscription, Trigger
from .attempting import Result, due_again
from .parcels import utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["announce", "disable", "write"]

logger = logging.getLogger("flask_webhooks.delivering")
S = t.cast("sa.Table", Subscription.__table__)


def write(connection: sa.Connection, results: t.Sequence[Result]) -> None:
    """Write attempts, the states of their deliveries, and the sums: four statements for any number of results."""
    outbox.log(connection, [result.row for result in results])
    hours.add(connection, _tally(results))
    done = [result.parcel.id for result in results if result.verdict.state == "delivered"]
    if done:
        outbox.succeed(connection, done, utcnow())
    outbox.reschedule(connection, [_failed(result) for result in results if not result.ok])


def _tally(results: t.Iterable[Result]) -> hours.Tally:
    tally = hours.Tally()
    for result in results:
        tally.add(
            result.parcel.subscription_id,
            result.ended_at,
            status=result.row["status"],
            seconds=result.seconds,
            state=result.verdict.state,
        )
    return tally


def _failed(result: Result) -> outbox.Row:
    pending = result.verdict.state == "pending"
    return {
        "delivery": result.parcel.id,
        "state": (State.PENDING if pending else State.FAILED).value,
        "due_at": due_again(result),
        "attempts": result.parcel.number,
        "reason": "gone" if result.verdict.gone else result.failure,
        "body": result.body,
        "finished_at": None if pending else result.ended_at,
    }


def judge(state: AppState, known: Health, results: t.Iterable[Result]) -> tuple[Health, health.Reason | None]:
    """Return the health of one receiver after some results, and the reason to disable it if there is one."""
    reason = None
    for result in results:
        if result.verdict.gone:
            reason = health.Reason.GONE
        if not result.counts or result.parcel.trigger == Trigger.REPLAY:
            continue  # a replay says nothing of how it is doing with what happens now
        known, hopeless = health.after(
            known,
            ok=result.ok,
            now=result.ended_at,
            breaker=state.settings.breaker,
            disable_after=state.settings.disable_after,
        )
        reason = reason or hopeless
    return known, reason


def health_row(lane: str, known: Health) -> outbox.Row:
    """The columns of a lane that say how its receiver is doing."""
    return {"lane": lane, **asdict(known)}


def disable(connection: sa.Connection, subscription_id: str, reason: health.Reason) -> None:
    """Switch a subscription off and hold what is pending for it."""
    now = utcnow()
    off = {"active": False, "disabled_reason": reason.value, "disabled_at": now, "updated_at": now}
    connection.execute(
        sa.update(S).where(S.c.id == subscription_id, S.c.active).values(**off, version=S.c.version + 1)
    )
    held = outbox.hold(connection, subscription_id, reason.value)
    logger.warning(
        "subscription.disabled",
        extra={"subscription": subscription_id, "reason": reason.value, "held": held},
    )


def announce(state: AppState, results: t.Iterable[Result]) -> None:
    """Log each attempt in one line and send the signals, after the commit."""
    for result in results:
        parcel, row = result.parcel, result.row
        event = parcel.message.event if parcel.message is not None else ""
        named = {"delivery_id": parcel.id, "subscription_id": parcel.subscription_id, "event": event}
        logger.info(
            "delivery.attempted",
            extra={
                **named,
                "number": parcel.number,
                "trigger": parcel.trigger,
                "status": row["status"],
                "failure": result.failure,
                "seconds": round(result.seconds, 4),
                "state": result.verdict.state,
            },
        )
        signals.send(
            signals.delivery_attempted,
            state.app,
            **named,
            number=parcel.number,
            status=row["status"],
            failure=result.failure,
        )
        if result.verdict.state == "delivered":
            signals.send(signals.delivery_delivered, state.app, **named, attempts=parcel.number)
        elif result.verdict.state == "failed":
            signals.send(signals.delivery_failed, state.app, **named, reason=result.failure)
