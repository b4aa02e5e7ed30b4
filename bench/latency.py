"""From commit to receipt on an idle system: a warm `flask webhooks worker`, a real Valkey, one event at a time.

python -m bench.latency [--events 200] [--database sqlite postgresql] [--json]

The yardstick: the same bytes posted by `requests` in the process that commits, a lower bound for any outbox.
"""

from __future__ import annotations

import random
import threading
import time
import typing as t

import requests

from bench.stage import DATA, milliseconds, options, percentile, progress, scene, show, subscribe
from flask_webhooks import Webhooks
from flask_webhooks.queue import Embedded
from tests.host import db
from tests.processes import Processes
from tests.receivers import Received, Receiver, ok


class Stopwatch(Receiver):
    """A receiver that notes when a request has come in."""

    def __init__(self) -> None:
        super().__init__(ok())
        self.came = threading.Event()
        self.at = 0.0

    def record(self, received: Received) -> None:
        self.at = time.perf_counter()
        self.came.set()


def measure(database: str, events: int) -> dict[str, t.Any]:
    """One row of the table, in milliseconds."""
    hooks = Webhooks()
    with (
        Stopwatch() as receiver,
        scene(database, webhooks=hooks) as (state, _, folder),
    ):
        url = Embedded(folder / "valkey").start()
        subscribe(state, [receiver.url()])
        object.__setattr__(state.bell, "_url", url)  # the scene is older than its Valkey
        with Processes(state, folder, url) as processes:
            processes.worker()
            with state.app.app_context():
                for _ in range(10):
                    _one(hooks, receiver)
                times, commits = [], []
                for number in range(events):
                    progress(f"{number}/{events}")
                    time.sleep(random.uniform(0.005, 0.05))  # idle in between, and not in step with anything
                    whole, commit = _one(hooks, receiver)
                    times.append(whole)
                    commits.append(commit)
        Embedded(folder / "valkey").stop_if_last()
        progress("")
        least = [_bare(receiver) for _ in range(events)]
    return {
        "database": database,
        "events": events,
        "p50_ms": milliseconds(percentile(times, 0.5)),
        "p99_ms": milliseconds(percentile(times, 0.99)),
        "commit_alone_p50_ms": milliseconds(percentile(commits, 0.5)),
        "bare_post_p50_ms": milliseconds(percentile(least, 0.5)),
        "bare_post_p99_ms": milliseconds(percentile(least, 0.99)),
    }


def _one(hooks: Webhooks, receiver: Stopwatch) -> tuple[float, float]:
    """Seconds from before the commit to the receipt, and of the commit alone."""
    receiver.came.clear()
    hooks.emit("reports.ready", {"text": DATA}, owner="1")
    began = time.perf_counter()
    db.session.commit()
    ended = time.perf_counter()
    assert receiver.came.wait(30), "nothing came"
    return receiver.at - began, ended - began


def _bare(receiver: Stopwatch) -> float:
    receiver.came.clear()
    began = time.perf_counter()
    requests.post(receiver.url(), json={"text": DATA}, timeout=5)
    return receiver.at - began


def main() -> None:
    """Print the table."""
    chosen = options(__doc__, events=200)
    for database in chosen.database:
        show(measure(database, chosen.events), chosen.json)


if __name__ == "__main__":
    main()
