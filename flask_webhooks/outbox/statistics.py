"""Statistics, summed up as attempts are written: one row for each subscription and hour.

The law of this room: nothing here looks at attempts. A duration falls into one of 24 classes, each half as long again
as the one before, so a percentile read from them is off by a fifth at most; in return a day of a million attempts is
24 rows.
"""

from __future__ import annotations

import bisect
import typing as t
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ..models import HOUR_BUCKETS, HOURS, SUBSCRIPTIONS
from ..outcome import Failure
from ..sql import parameters

__all__ = [
    "BOUNDS",
    "OUTCOMES",
    "HourlyCounts",
    "Sums",
    "add",
    "counts_of_hour",
    "hour_of",
    "percentile",
    "read",
]

BOUNDS = tuple(0.002 * 1.5**n for n in range(HOUR_BUCKETS - 1))
"""Seconds: upper ends of the classes but the last. 2 ms, 3 ms, 4.5 ms, … 15 s: the attempt's own limit."""
OUTCOMES = ("ok", "redirected", "refused", "broken", "unanswered")
"""Columns that count answers: 2xx, 3xx, 4xx, 5xx, and no complete answer."""
_SUCCESSES = tuple(
    name for number, name in enumerate(OUTCOMES[:-1], start=2) if Failure.of_status(100 * number) is None
)
_TOOK = tuple(f"took_{number}" for number in range(HOUR_BUCKETS))
_COUNTS = ("delivered", "failed", *OUTCOMES, *_TOOK)
_ZEROS: dict[str, t.Any] = dict.fromkeys(_COUNTS, 0)


class HourlyCounts:
    """What some results add, by subscription and hour."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, datetime], dict[str, t.Any]] = {}

    def add(
        self, subscription_id: str, ended_at: datetime, *, status: int | None, seconds: float, state: str
    ) -> None:
        """Count one attempt.

        :param status: None without a complete answer.
        :param state: what became of the delivery.
        """
        key = (subscription_id, hour_of(ended_at))
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = {"subscription_id": subscription_id, "hour": key[1]}
        for name in (outcome_of(status), _TOOK[bisect.bisect_left(BOUNDS, seconds)], state):
            if name in _ZEROS:  # a delivery that is still pending is not counted
                row[name] = row.get(name, 0) + 1

    def rows(self) -> list[dict[str, t.Any]]:
        """Return the rows to add, without the counts that are zero: most are, and each costs something to send.

        They are in a fixed order, so that two writers cannot wait for each other.
        """
        return [self._rows[key] for key in sorted(self._rows)]


def outcome_of(status: int | None) -> str:
    """Return the column that counts an answer."""
    if status is None or not 200 <= status < 600:
        return "unanswered"
    return OUTCOMES[status // 100 - 2]


def hour_of(moment: datetime) -> datetime:
    """Return when the hour of a moment began."""
    return moment.replace(minute=0, second=0, microsecond=0)


def add(connection: sa.Connection, tally: HourlyCounts) -> None:
    """Add to the sums: one executemany, on PostgreSQL one statement."""
    rows = tally.rows()
    if not rows:
        return
    dialect = connection.dialect.name
    if dialect == "postgresql":  # one parameter for all rows: an executemany would prepare and send each
        connection.execute(_upsert(dialect), {"rows": parameters.rows(rows)})
    else:
        connection.execute(_upsert(dialect), [_ZEROS | row for row in rows])


_statements: dict[str, t.Any] = {}


def _upsert(dialect: str) -> t.Any:
    if dialect not in _statements:
        if dialect in ("mysql", "mariadb"):
            into: t.Any = mysql.insert(HOURS)
            grown = {name: HOURS.c[name] + into.inserted[name] for name in _COUNTS}
            _statements[dialect] = into.on_duplicate_key_update(grown)
        else:
            into = sqlite.insert(HOURS)
            if dialect == "postgresql":
                given = parameters.unpacked("rows", HOURS, HOURS.c.keys())
                # A row has no key for a count that is zero.
                counts = [sa.func.coalesce(given.c[name], 0) for name in _COUNTS]
                names = ["subscription_id", "hour", *_COUNTS]
                values = sa.select(given.c.subscription_id, given.c.hour, *counts)
                into = postgresql.insert(HOURS).from_select(names, values, False)
            grown = {name: HOURS.c[name] + into.excluded[name] for name in _COUNTS}
            _statements[dialect] = into.on_conflict_do_update(
                index_elements=[HOURS.c.subscription_id, HOURS.c.hour], set_=grown
            )
    return _statements[dialect]


@dataclass(frozen=True)
class Sums:
    """The counts of one hour, or of several together."""

    counts: t.Mapping[str, int]

    @classmethod
    def of(cls, rows: t.Iterable[t.Mapping[str, int]]) -> Sums:
        """Add rows up."""
        total = dict.fromkeys(_COUNTS, 0)
        for row in rows:
            for name in _COUNTS:
                total[name] += row.get(name, 0)
        return cls(total)

    @property
    def attempts(self) -> int:
        """All of them."""
        return sum(self.counts[name] for name in OUTCOMES)

    @property
    def succeeded(self) -> int:
        """Attempts with an answer of a class that `outcome` takes for a success."""
        return sum(self.counts[name] for name in _SUCCESSES)

    @property
    def failed(self) -> int:
        """The other attempts."""
        return self.attempts - self.succeeded

    @property
    def success_rate(self) -> float | None:
        """The share of attempts that succeeded; None without any."""
        return self.succeeded / self.attempts if self.attempts else None

    def percentile(self, share: float) -> float | None:
        """Return the seconds that this share of attempts took at most, about; None without any."""
        return percentile([self.counts[name] for name in _TOOK], share)


def percentile(counts: t.Sequence[int], share: float) -> float | None:
    """Return the value below which a share lies, by interpolation within its class; see `BOUNDS`.

    >>> percentile([0, 100] + [0] * 22, 0.5)
    0.0025
    """
    wanted = sum(counts) * share
    if not wanted:
        return None
    # Evenly spread within its class: nothing is known of where in it the durations lie.
    seen = 0
    for number, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = BOUNDS[number - 1] if number else 0.0
            # The last class has no upper end: it is taken to be as wide as the others are, in proportion.
            high = BOUNDS[number] if number < len(BOUNDS) else BOUNDS[-1] * 1.5
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return None


def counts_of_hour(connection: sa.Connection, now: datetime) -> dict[str, int]:
    """Return how deliveries and attempts of the current hour ended, of all subscriptions; test sends are not counted.

    One lookup of the primary key for each subscription.

    :return: `delivered`, `failed`, and each of `OUTCOMES`.
    """
    names = ("delivered", "failed", *OUTCOMES)
    sums = sa.select(*(sa.func.coalesce(sa.func.sum(HOURS.c[name]), 0).label(name) for name in names))
    same = sa.and_(HOURS.c.subscription_id == SUBSCRIPTIONS.c.id, HOURS.c.hour == hour_of(now))
    row = connection.execute(sums.select_from(SUBSCRIPTIONS.join(HOURS, same))).one()
    return {name: int(getattr(row, name)) for name in names}


def read(
    connection: sa.Connection, subscription_id: str, since: datetime, until: datetime
) -> dict[datetime, t.Mapping[str, int]]:
    """Return the rows of the hours from `since` to before `until`, by hour: a range of the primary key."""
    rows = connection.execute(
        sa.select(HOURS).where(
            HOURS.c.subscription_id == subscription_id, HOURS.c.hour >= since, HOURS.c.hour < until
        )
    )
    return {row["hour"]: t.cast("t.Mapping[str, int]", row) for row in rows.mappings()}
