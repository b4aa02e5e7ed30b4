"""Does a worker grow? Its resident memory over 100,000 deliveries, in a process of its own.

python -m bench.memory [--deliveries 100000] [--database sqlite postgresql] [--json]

The yardstick is the same process after the first tenth, when its caches are filled.
"""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import sqlalchemy as sa

from bench.stage import fill, options, progress, scene, show, subscribe
from flask_webhooks.models import Attempt
from flask_webhooks.state import AppState
from tests.processes import Processes

MIB = 2**20


def measure(database: str, deliveries: int) -> dict[str, t.Any]:
    """One row of the table, in MiB."""
    with scene(database) as (state, url, folder):
        fill(state, subscribe(state, [f"{url}/{n}" for n in range(100)]), deliveries)
        with Processes(state, folder, "redis://127.0.0.1:1/0") as processes:
            worker = processes.start("flask", "webhooks", "deliver")
            seen: list[tuple[int, float]] = []
            while worker.is_alive:
                done = _done(state)
                progress(f"{done}/{deliveries}")
                if (now := resident(worker.pid)) is not None:
                    seen.append((done, now))
                time.sleep(0.5)
            assert worker.wait() == 0, worker.said
        progress("")
    early = max(now for done, now in seen if done <= deliveries * 0.1 or now is seen[0][1])
    return {
        "database": database,
        "deliveries": deliveries,
        "mib_after_a_tenth": round(early, 1),
        "mib_most": round(max(now for _, now in seen), 1),
        "growth_mib": round(max(now for _, now in seen) - early, 1),
    }


def resident(pid: int) -> float | None:
    """MiB of a process; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    size = next((line.split()[1] for line in lines if line.startswith("VmRSS")), None)
    return int(size) * 1024 / MIB if size else None


def _done(state: AppState) -> int:
    with state.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(Attempt)) or 0


def main() -> None:
    """Print the table."""
    chosen = options(__doc__, deliveries=100_000)
    for database in chosen.database:
        show(measure(database, chosen.deliveries), chosen.json)


if __name__ == "__main__":
    main()
