"""A new subscription among many dead ones: how long until its first event is sent?

python -m bench.newcomers [--dead 500] [--backlog 20] [--newcomers 20] [--database sqlite postgresql] [--json]

Each dead subscription hangs and has a backlog, and its last attempt failed. Measured is the time from recording to the
first attempt, for one new subscription after the other. The yardstick is the same without the dead ones.

The second row is about owners: 100 new subscriptions of one owner hang, and those that are measured are
another owner's. Their p95 is to be at most 1,000 ms.
"""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa

from bench.stage import fill, milliseconds, options, percentile, progress, scene, show, subscribe, working
from flask_webhooks.ids import made_at
from flask_webhooks.models import Attempt, Delivery, Lane
from flask_webhooks.state import AppState


def measure(database: str, dead: int, backlog: int, newcomers: int) -> dict[str, t.Any]:
    """One row of the table, in milliseconds."""
    without, loaded = (_waits(database, count, backlog, newcomers) for count in (0, dead))
    return {
        "database": database,
        "dead": dead,
        "newcomers": newcomers,
        "p50_ms": milliseconds(percentile(loaded, 0.5)),
        "most_ms": milliseconds(max(loaded)),
        "p50_without_ms": milliseconds(percentile(without, 0.5)),
        "most_without_ms": milliseconds(max(without)),
    }


def measure_owners(database: str, backlog: int, newcomers: int, hanging: int = 100) -> dict[str, t.Any]:
    """One row of the table, in milliseconds: what one owner's hanging receivers cost another."""
    waits = _waits(database, hanging, backlog, newcomers, is_known=False, owner="2")
    return {
        "database": database,
        "hanging": hanging,
        "newcomers": newcomers,
        "p50_ms": milliseconds(percentile(waits, 0.5)),
        "p95_ms": milliseconds(percentile(waits, 0.95)),
        "most_ms": milliseconds(max(waits)),
    }


def _waits(
    database: str, dead: int, backlog: int, newcomers: int, *, is_known: bool = True, owner: str = "1"
) -> list[float]:
    with scene(database) as (state, url, _):
        if dead and not is_known:
            fill(state, subscribe(state, [f"{url}/hang"] * dead), dead * backlog)
        elif dead:
            failing = subscribe(state, [f"{url}/hang"] * dead)
            fill(state, failing, dead * backlog)
            lanes = [
                {"subscription_id": key, "failures": 3, "served_at": datetime.now(UTC)} for key in failing
            ]
            with state.engine.begin() as connection:
                connection.execute(sa.insert(t.cast("sa.Table", Lane.__table__)), lanes)
        waits = []
        with working(state):
            time.sleep(3.0)  # the worker has taken all that it takes of the dead ones
            for number in range(newcomers):
                progress(f"{number}/{newcomers}")
                [key] = subscribe(state, [f"{url}/{number}"], owner=owner)
                fill(state, [key], 1, analyze=False)
                waits.append(_wait(state, key))
        progress("")
        return waits


def _wait(state: AppState, key: str) -> float:
    """Seconds from being recorded to the request."""
    deadline = time.monotonic() + 600
    found = (
        sa.select(Delivery.id, Attempt.started_at)
        .join(Attempt, Attempt.delivery_id == Delivery.id)
        .where(Delivery.subscription_id == key)
    )
    while time.monotonic() < deadline:
        with state.engine.connect() as connection:
            row = connection.execute(found).first()
        if row is not None:
            return (row.started_at - made_at(row.id)).total_seconds()
        time.sleep(0.05)
    raise AssertionError("the new one waits for ever")


def main() -> None:
    """Print the table."""
    chosen = options(__doc__, dead=500, backlog=20, newcomers=20)
    for database in chosen.database:
        show(measure(database, chosen.dead, chosen.backlog, chosen.newcomers), chosen.json)
        show(measure_owners(database, chosen.backlog, chosen.newcomers), chosen.json)


if __name__ == "__main__":
    main()
