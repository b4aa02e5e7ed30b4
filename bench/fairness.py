"""Receivers that hang: how long do the healthy ones wait?

python -m bench.fairness [--events 2000] [--backlog 10000] [--seconds 45] [--database sqlite postgresql] [--json]

First: one subscription hangs with 10,000 deliveries due, among 100 healthy ones. Then, through a worker as it runs in
production: three that hang begin five seconds apart, and a healthy one gets events for `--seconds`. Events for the
healthy ones become due at a steady pace. Measured is the time from being due to being sent; the yardstick is the same
without hanging receivers. The stock `rq worker` works in jobs of 30 seconds, each a process that loads the app anew.
"""

from __future__ import annotations

import contextlib
import time
import typing as t
from pathlib import Path

import sqlalchemy as sa

from bench.stage import fill, milliseconds, options, percentile, progress, scene, show, subscribe, working
from flask_webhooks.models import Attempt, Delivery
from flask_webhooks.queue import Embedded
from flask_webhooks.state import AppState
from tests.processes import Processes

PACE = 20
"""Batches a second in which events become due."""


def measure(database: str, events: int, backlog: int) -> dict[str, t.Any]:
    """One row of the table, in milliseconds."""
    without = _waits(database, events, 0)
    loaded = _waits(database, events, backlog)
    return {
        "database": database,
        "events": events,
        "hanging_backlog": backlog,
        "p95_ms": milliseconds(percentile(loaded, 0.95)),
        "p95_without_ms": milliseconds(percentile(without, 0.95)),
        "ratio": round(percentile(loaded, 0.95) / percentile(without, 0.95), 2),
    }


def _waits(database: str, events: int, backlog: int) -> list[float]:
    with scene(database) as (state, url, _):
        healthy = subscribe(state, [f"{url}/{n}" for n in range(100)])
        if backlog:
            fill(state, subscribe(state, [f"{url}/hang"]), backlog)
        each = max(1, events // (PACE * 10))
        with working(state):
            for start in range(0, events, each):
                progress(f"{start}/{events}")
                fill(state, healthy[start % 100 :] + healthy[: start % 100], each, analyze=False)
                time.sleep(1 / PACE)
            deadline = time.monotonic() + 60
            while len(found := _received(state, healthy)) < events and time.monotonic() < deadline:
                time.sleep(0.1)
        progress("")
        assert len(found) >= events, "deliveries to healthy receivers did not arrive in 60 s"
        return found


def measure_worker(database: str, kind: str, seconds: int, hanging: int) -> dict[str, t.Any]:
    """One row of the second table, in milliseconds."""
    with (
        scene(database) as (state, url, folder),
        _worker(state, folder, kind),
    ):
        [healthy] = subscribe(state, [f"{url}/alive"])
        warm = _warm_up(state, healthy)
        hangs = [f"{url}/hang/{n}" for n in range(hanging)]
        began, count = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            progress(f"{kind} {passed:.0f}/{seconds} s")
            if hangs and passed >= 5 * (hanging - len(hangs)):
                fill(state, subscribe(state, [hangs.pop()]), 1_000, analyze=False)
            fill(state, [healthy], 1, analyze=False)
            state.bell.ring()
            count += 1
            time.sleep(1 / PACE)
        while (
            len(found := _received(state, [healthy])[warm:]) < count
            and time.monotonic() - began < seconds + 60
        ):
            time.sleep(0.1)
    assert len(found) >= count, "healthy ones wait for ever"
    shown = {f"p{share}_ms": percentile(found, share / 100) for share in (50, 95, 99)} | {
        "max_ms": max(found)
    }
    case = {"database": database, "worker": kind, "hanging": hanging, "seconds": seconds, "events": count}
    return {**case, **{name: milliseconds(value) for name, value in shown.items()}}


def _warm_up(state: AppState, healthy: str) -> int:
    """Send until the worker has loaded the app and answers quickly; return how many events that took."""
    count, found = 0, [1.0]
    while not found or found[-1] > 0.5:
        fill(state, [healthy], 1, analyze=False)
        state.bell.ring()
        count += 1
        time.sleep(1 / PACE)
        found = _received(state, [healthy])
    return count


@contextlib.contextmanager
def _worker(state: AppState, folder: Path, kind: str) -> t.Iterator[None]:
    """A worker in a process of its own, with the settings that it comes with."""
    url = Embedded(folder / "valkey").start()
    object.__setattr__(state.bell, "_url", url)  # the scene is older than its Valkey
    settings = {"WEBHOOKS_TIMEOUT": [5, 15], "WEBHOOKS_BREAKER": True}
    with Processes(state, folder, url, **settings) as processes:
        processes.stock_worker() if kind == "stock" else processes.worker()
        yield
    Embedded(folder / "valkey").stop_if_last()


def _received(state: AppState, healthy: t.Sequence[str]) -> list[float]:
    """Seconds from being recorded to the request, for each delivery of a healthy one."""
    from flask_webhooks.ids import made_at

    with state.engine.connect() as connection:
        rows = connection.execute(
            sa.select(Delivery.id, Attempt.started_at)
            .join(Attempt, Attempt.delivery_id == Delivery.id)
            .where(Delivery.subscription_id.in_(healthy))
            .order_by(Delivery.id)
        ).all()
    return [(row.started_at - made_at(row.id)).total_seconds() for row in rows]


def main() -> None:
    """Print the table."""
    chosen = options(__doc__, events=2000, backlog=10_000, seconds=45)
    for database in chosen.database:
        show(measure(database, chosen.events, chosen.backlog), chosen.json)
        for kind, seconds, hanging in (
            ("ours", chosen.seconds // 3, 0),
            ("ours", chosen.seconds, 3),
            ("stock", chosen.seconds, 3),
        ):
            show(measure_worker(database, kind, seconds, hanging), chosen.json)


if __name__ == "__main__":
    main()
