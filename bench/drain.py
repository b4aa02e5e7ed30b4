"""Draining a backlog: one worker process with the full attempt log, compared to bare `requests` posting the same bytes.

python -m bench.drain [--deliveries 10000] [--subscriptions 1 100 1000] [--database sqlite postgresql] [--json]
    --delay 100      receivers answer after so many milliseconds; the yardstick is what the concurrency allows
    --workers 2      several worker processes at once, compared to one
    --database debian
                     Debian's PostgreSQL, which is older than the wheel's
    --bursts 4       bursts one after the other; the database's statistics are always older than the burst:
                     deliver, ANALYZE, purge, burst; the yardstick is the first one
    --pin            keep the worker, and bare `requests` too, on one core, as `taskset -c 1` does
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa

from bench.stage import bare, drain, fill, progress, scene, show, subscribe
from flask_webhooks import outbox
from flask_webhooks.models import Attempt, Delivery
from flask_webhooks.state import AppState
from tests.processes import Processes
from tests.stage import wait_until


@contextlib.contextmanager
def pinned(is_wanted: bool) -> t.Iterator[None]:
    """Keep this process, not the receiver and the database, on the last of its cores."""
    if not is_wanted:
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def one(database: str, subscriptions: int, count: int, delay: float, pin: bool) -> dict[str, t.Any]:
    """One worker in this process."""
    with scene(database, delay=delay) as (state, url, _), pinned(pin):
        fill(state, subscribe(state, [f"{url}/{n}" for n in range(subscriptions)]), count)
        settings = state.settings
        threads = min(settings.concurrency, subscriptions * settings.subscription_concurrency)
        yardstick = threads / delay if delay else bare(url, min(count, 5000), threads)
        ours = drain(state)
        with state.engine.connect() as connection:
            logged = connection.scalar(sa.select(sa.func.count()).select_from(Attempt))
        assert logged == count, "every attempt is in the log"
    return {
        "database": database,
        "subscriptions": subscriptions,
        "deliveries": count,
        "per_second": round(ours),
        "allowed_per_second" if delay else "bare_requests_per_second": round(yardstick),
        "threads": threads,
        "ratio": round(ours / yardstick, 2),
    }


def several(database: str, subscriptions: int, count: int, delay: float, workers: int) -> dict[str, t.Any]:
    """Worker processes side by side: the time from the first attempt to the last."""
    rates = {}
    for number in (1, workers):
        with scene(database, delay=delay) as (state, url, folder):
            fill(state, subscribe(state, [f"{url}/{n}" for n in range(subscriptions)]), count)
            settings: dict[str, t.Any] = {"WEBHOOKS_BREAKER": True, "WEBHOOKS_TIMEOUT": [5, 15]}
            with Processes(state, folder, "redis://127.0.0.1:1/0", **settings) as processes:
                progress(f"{number} workers")
                for _ in range(number):
                    processes.start("flask", "webhooks", "deliver")
                wait_until(lambda state=state: _left(state) == 0, 600)
                rates[number] = _rate(state)
                progress("")
    return {
        "database": database,
        "subscriptions": subscriptions,
        "deliveries": count,
        "delay_ms": round(delay * 1000),
        "one_worker_per_second": round(rates[1]),
        f"{workers}_workers_per_second": round(rates[workers]),
        "ratio": round(rates[workers] / rates[1], 2),
    }


def bursts(database: str, subscriptions: int, count: int, number: int) -> dict[str, t.Any]:
    """One worker in this process and a burst after the other, into tables that were counted when nothing was due."""
    rates: list[float] = []
    with scene(database) as (state, url, _):
        keys = subscribe(state, [f"{url}/{n}" for n in range(subscriptions)])
        for _ in range(number):
            fill(state, keys, count, analyze=False)
            rates.append(drain(state))
            with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("ANALYZE"))
            with state.engine.begin() as connection:
                outbox.purge_messages(connection, datetime.now(UTC), count // 2)
    return {
        "database": database,
        "subscriptions": subscriptions,
        "deliveries": count,
        "per_second": [round(rate) for rate in rates],
        "ratio": round(min(rates) / rates[0], 2),
    }


def _left(state: AppState) -> int:
    time.sleep(0.1)  # counting costs the workers something too
    with state.engine.connect() as connection:
        left = sa.select(sa.func.count()).select_from(Delivery).where(Delivery.due_at.is_not(None))
        return connection.scalar(left) or 0


def _rate(state: AppState) -> float:
    """Attempts a second from when the last worker had begun: what starting a process takes is not counted."""
    with state.engine.connect() as connection:
        firsts = sa.select(sa.func.min(Attempt.started_at)).group_by(Attempt.worker)
        began = max(connection.scalars(firsts))
        count, ended = connection.execute(
            sa.select(sa.func.count(), sa.func.max(Attempt.started_at)).where(Attempt.started_at >= began)
        ).one()
    return float(count / max((ended - began).total_seconds(), 0.001))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--subscriptions", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--delay", type=int, default=0, metavar="MS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bursts", type=int, default=0)
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.pin and options.workers > 1:
        parser.error("--pin is for one worker, the one in this process. Leave --workers out.")
    delay = options.delay / 1000
    for database in options.database:
        for subscriptions in options.subscriptions:
            if options.bursts:
                row = bursts(database, subscriptions, options.deliveries, options.bursts)
            elif options.workers > 1:
                row = several(database, subscriptions, options.deliveries, delay, options.workers)
            else:
                row = one(database, subscriptions, options.deliveries, delay, options.pin)
            show(row, options.json)


if __name__ == "__main__":
    sys.exit(main())
