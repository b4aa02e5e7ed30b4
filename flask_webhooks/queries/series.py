"""Sums over time, in as many points as a chart shows.

Steps of an hour or more come from the hourly sums (`outbox.statistics`). Only the window of one hour reads attempts, at
most `MOST` of them.
"""

from __future__ import annotations

import bisect
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..models import ATTEMPTS, HOUR_BUCKETS
from ..outbox import statistics
from ..outbox.statistics import BOUNDS, OUTCOMES, Sums, hour_of

__all__ = ["WINDOWS", "Point", "Series", "series"]

HOUR = timedelta(hours=1)
MOST = 50_000
"""Attempts that the window of one hour reads, the newest ones: 14 a second."""


@dataclass(frozen=True)
class Window:
    """The length of a chart, and of its steps."""

    length: timedelta
    step: timedelta


WINDOWS: t.Mapping[str, Window] = {
    "1h": Window(HOUR, timedelta(minutes=5)),
    "24h": Window(24 * HOUR, HOUR),
    "7d": Window(168 * HOUR, 4 * HOUR),
    "30d": Window(720 * HOUR, 24 * HOUR),
}


@dataclass(frozen=True)
class Point:
    """One step of a chart."""

    at: datetime
    """When it begins."""
    sums: Sums


@dataclass(frozen=True)
class Series:
    """A window, oldest first, without gaps."""

    window: str
    points: tuple[Point, ...]

    @property
    def total(self) -> Sums:
        """The sums of the whole window."""
        return Sums.of(point.sums.counts for point in self.points)


def series(connection: sa.Connection, subscription_id: str, window: str, now: datetime) -> Series:
    """Return the outcomes of a subscription's attempts over time.

    :param window: a key of `WINDOWS`.
    """
    shape = WINDOWS[window]
    if shape.step < HOUR:  # finer than the hourly sums
        return Series(window, tuple(_recent(connection, subscription_id, shape, now)))
    until = hour_of(now) + HOUR
    since = until - shape.length
    rows = statistics.read(connection, subscription_id, since, until)
    points = []
    for number in range(shape.length // shape.step):
        begin = since + number * shape.step
        inside = [row for hour, row in rows.items() if begin <= hour < begin + shape.step]
        points.append(Point(begin, Sums.of(inside)))
    return Series(window, tuple(points))


def _recent(
    connection: sa.Connection, subscription_id: str, shape: Window, now: datetime
) -> t.Iterator[Point]:
    # Steps begin at whole multiples of five minutes, so that a chart that is drawn again shows the same steps.
    minute = now.replace(second=0, microsecond=0)
    until = minute - timedelta(minutes=minute.minute % 5) + shape.step
    since = until - shape.length
    rows = connection.execute(
        sa.select(ATTEMPTS.c.started_at, ATTEMPTS.c.status, ATTEMPTS.c.total_seconds)
        .where(
            ATTEMPTS.c.subscription_id == subscription_id,
            ATTEMPTS.c.started_at >= since,
            ATTEMPTS.c.trigger != "test",
        )
        .order_by(ATTEMPTS.c.started_at.desc())
        .limit(MOST)
    ).all()
    steps: list[dict[str, int]] = [_empty() for _ in range(shape.length // shape.step)]
    for row in rows:
        # The clock of a worker may be ahead of ours: such an attempt counts in the last step.
        number = min((row.started_at - since) // shape.step, len(steps) - 1)
        counts = steps[number]
        counts[statistics.outcome_of(row.status)] += 1
        counts[f"took_{bisect.bisect_left(BOUNDS, row.total_seconds)}"] += 1
    for number, counts in enumerate(steps):
        yield Point(since + number * shape.step, Sums(counts))


def _empty() -> dict[str, int]:
    names = ("delivered", "failed", *OUTCOMES, *(f"took_{number}" for number in range(HOUR_BUCKETS)))
    return dict.fromkeys(names, 0)
