"""How a subscription performs, read from hourly sums and never from the rows of attempts."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from .. import outbox, queries, subscriptions
from ..health import Breaker, Health, health_of, why_paused
from ..ids import first_at
from ..models import State
from ..outbox import statistics
from ..outbox.statistics import Sums
from ..pace import rate_at
from ..web import Refused
from . import schemas
from .operations import Call, operation

LONGEST = 31 * 24
"""Hours of the longest window."""


@operation(
    "GET",
    "/subscriptions/<subscription_id>/stats",
    "Show statistics",
    right="read",
    query=schemas.StatsQuery,
    answer=schemas.Stats,
)
def get_stats(call: Call, subscription_id: str) -> t.Any:
    """Counts, success rate and durations, in whole hours up to the current one. Test requests are not counted."""
    subscriptions.find(call.session, subscription_id, owner=call.owner)
    window: str = call.query["window"]
    length = int(window[:-1]) * (24 if window[-1] == "d" else 1)
    if length > LONGEST:
        raise Refused(422, message := "The window may have at most 31 days.", fields={"window": [message]})
    now = datetime.now(UTC)
    # The current hour is included, although it is not over: otherwise the newest attempts would be missing.
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
    # An id contains its time, so the window is a range of the index (subscription, state, id).
    least = None if since is None else first_at(since)
    return outbox.count_in_state(connection, subscription_id, state.value, since=least)


def _health(
    connection: sa.Connection, subscription_id: str, now: datetime, breaker: Breaker | None
) -> dict[str, t.Any]:
    row = queries.lane_of(connection, subscription_id)
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
