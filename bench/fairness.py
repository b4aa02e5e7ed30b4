"""One subscription hangs with 10,000 deliveries due, among 100 healthy ones: how long do the healthy ones wait?

python -m bench.fairness [--events 2000] [--backlog 10000] [--database sqlite postgresql] [--json]

Events for the healthy ones become due at a steady pace; measured is the time from being due to being received, at the
95th percentile, with the hanging one and, as the yardstick, without it.
"""

from __future__ import annotations

import threading
import time
import typing as t

import sqlalchemy as sa

from bench.stage import fill, options, percentile, progress, scene, show, subscribe
from flask_webhooks.delivering import Run
from flask_webhooks.models import Attempt, Delivery
from flask_webhooks.state import AppState
from flask_webhooks.stop import Stop

PACE = 20
"""Batches a second in which events become due."""


def measure(database: str, events: int, backlog: int) -> dict[str, t.Any]:
    """One row of the table, in milliseconds."""
    without = _waits(database, events, 0)
    beside = _waits(database, events, backlog)
    return {
        "database": database,
        "events": events,
        "hanging_backlog": backlog,
        "p95_ms": round(percentile(beside, 0.95) * 1000, 1),
        "p95_without_ms": round(percentile(without, 0.95) * 1000, 1),
        "ratio": round(percentile(beside, 0.95) / percentile(without, 0.95), 2),
    }


def _waits(database: str, events: int, backlog: int) -> list[float]:
    with scene(database) as (state, url, _):
        healthy = subscribe(state, [f"{url}/{n}" for n in range(100)])
        if backlog:
            fill(state, subscribe(state, [f"{url}/hang"]), backlog)
        stop = Stop()
        run = threading.Thread(target=_work, args=(state, stop))
        run.start()
        each = max(1, events // (PACE * 10))
        for start in range(0, events, each):
            progress(f"{start}/{events}")
            fill(state, healthy[start % 100 :] + healthy[: start % 100], each, analyze=False)
            time.sleep(1 / PACE)
        deadline = time.monotonic() + 60
        while len(found := _received(state, healthy)) < events and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        run.join()
        progress("")
        assert len(found) >= events, "healthy ones wait for ever"
        return found


def _work(state: AppState, stop: Stop) -> None:
    while not stop.is_set():
        Run(state, holder="bench", stop=stop).run()
        stop.wait(0.02)


def _received(state: AppState, healthy: t.Sequence[str]) -> list[float]:
    """Seconds from being recorded to the request, for each delivery of a healthy one."""
    from flask_webhooks.ids import made_at

    with state.engine.connect() as connection:
        rows = connection.execute(
            sa.select(Delivery.id, Attempt.started_at)
            .join(Attempt, Attempt.delivery_id == Delivery.id)
            .where(Delivery.subscription_id.in_(healthy))
        ).all()
    return [(row.started_at - made_at(row.id)).total_seconds() for row in rows]


def main() -> None:
    """Print the table."""
    chosen = options(__doc__, events=2000, backlog=10_000)
    for database in chosen.database:
        show(measure(database, chosen.events, chosen.backlog), chosen.json)


if __name__ == "__main__":
    main()
