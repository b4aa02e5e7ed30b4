"""How a subscription performs: from sums by hour, never from the attempts."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from .. import models, subscriptions
from ..health import Breaker, Health, health_of, why_paused
from ..ids import first_at
from ..models import State
from ..outbox import statistics
from ..outbox.statistics import Sums
from ..pace import rate_at
from ..sql.ranges import count, in_range
from ..web import Refused
from . import schemas
from .operations import Call, operation

COUNTED = 10_000
"""What is counted at most, of what is not summed up: a range of an index, some milliseconds."""
LONGEST = 31 * 24
"""Hours."""
D, N = (t.cast("sa.Table", model.__table__) for model in (models.Delivery, models.Lane))


@operation(
    "GET",
    "/subscriptions/<subscription_id>/stats",
    "Show statistics",
    right="read",
    query=schemas.StatsQuery,
    answer=schemas.Stats,
)
def get_stats(call: Call, subscription_id: str) -> t.Any:
    """Counts, success rate and durations, in whole hours up to the current one. Tests are not in it."""
    subscriptions.find(call.session, subscription_id, owner=call.owner)
    window: str = call.query["window"]
    length = int(window[:-1]) * (24 if window[-1] == "d" else 1)
    if length > LONGEST:
        raise Refused(422, message := "At most 31 days.", fields={"window": [message]})
    now = datetime.now(UTC)
    until = statistics.hour_of(now) + timedelta(hours=1)
    since = until - timedelta(hours=length)
    connection = call.session.connection()
    by_hour = statistics.read(connection, subscription_id, since, until)
    total = Sums.of(by_hour.values())
    return {
        "window": window,
        "since": since,
        "until": now,
        "states": {
            "delivered": total.counts["delivered"],
            "failed": total.counts["failed"],
            "cancelled": _count(connection, subscription_id, State.CANCELLED, since),
            "pending": _count(connection, subscription_id, State.PENDING),
            "held": _count(connection, subscription_id, State.HELD),
            "broken": _count(connection, subscription_id, State.BROKEN),
        },
        **_figures(total),
        "success_rate": total.success_rate,
        "health": _health(connection, subscription_id, now, call.state.settings.breaker),
        "series": [_point(at, by_hour.get(at)) for at in (since + timedelta(hours=n) for n in range(length))],
    }


def _figures(sums: Sums) -> dict[str, t.Any]:
    p50, p95 = sums.percentile(0.5), sums.percentile(0.95)
    return {
        "attempts": sums.attempts,
        "p50": None if p50 is None else round(p50, 4),
        "p95": None if p95 is None else round(p95, 4),
    }


def _point(at: datetime, row: t.Mapping[str, int] | None) -> dict[str, t.Any]:
    sums = Sums.of([] if row is None else [row])
    return {"at": at, **_figures(sums), **{name: sums.counts[name] for name in statistics.OUTCOMES}}


def _count(
    connection: sa.Connection, subscription_id: str, state: State, since: datetime | None = None
) -> int:
    equal = {D.c.subscription_id: subscription_id, D.c.state: state.value}
    least = None if since is None else first_at(since)
    rows = in_range(sa.select(D.c.id), connection.dialect, equal, D.c.id, since=least)
    return count(connection, rows, COUNTED)


def _health(
    connection: sa.Connection, subscription_id: str, now: datetime, breaker: Breaker | None
) -> dict[str, t.Any]:
    row = connection.execute(sa.select(N).where(N.c.subscription_id == subscription_id)).one_or_none()
    health = Health() if row is None else health_of(row)
    names = ("failures", "failing_since", "succeeded_at", "paused_until")
    reason = why_paused(health, breaker or Breaker()) if health.is_paused(now) else None
    is_waiting = health.waits_for is not None and row is not None and row.sendable_at is not None
    return {name: getattr(health, name) for name in names} | {
        "paused_reason": reason,
        "waits_for": health.waits_for,
        "waits_until": row.sendable_at if is_waiting and row is not None else None,
        "paced_rate": rate_at(health, now),
    }
