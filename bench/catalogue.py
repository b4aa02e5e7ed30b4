"""Reading a catalogue of 31 channels with 310 events, and matching an event with 10,000 subscriptions.

python -m bench.catalogue [--subscriptions 10000] [--rounds 30] [--database sqlite postgresql] [--json]

The yardstick of the loader is PyYAML alone on the same text; that of the look-up, the same among 100
subscriptions, and the plan that the database makes for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
import yaml
from flask import Flask

from bench.api import databases
from example_app import CATALOG
from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import load
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Listener, Subscription
from flask_webhooks.outbox import recording
from flask_webhooks.state import AppState, state_of
from tests.host import db, make_host

EVENTS = ("invoices.*", "clients.created", "reports.ready")
EACH = 10
"""Subscriptions of one owner."""

CHANNEL = """\
  resource_{n}:
    title: Resources {n}
    label: Resource {n}
    model: shop.models:Resource{n}
    schema: shop.schemas:Resource{n}Schema
    owner: client.business_id
    includes: [client, lines, author]
    events:
      created:
      updated: {{ignore: [updated_at]}}
      deleted:
"""
EVENT = (
    "      step_{n}: {{when: {{status: {{from: [sent, overdue], to: paid_{n}}}}}, transition: STEP_{n}}}\n"
)


def catalogue(channels: int, events: int) -> str:
    """Return a catalogue of so many channels with so many events each."""
    steps = "".join(EVENT.format(n=n) for n in range(events - 3))
    return "version: 1\nchannels:\n" + "".join(CHANNEL.format(n=n) + steps for n in range(channels))


def milliseconds(act: t.Callable[[], object], rounds: int) -> dict[str, float]:
    """Return best and median of some rounds, and the median of the processor's time, which others do not disturb."""
    taken, worked = [], []
    for _ in range(rounds):
        start, cpu = time.perf_counter(), time.process_time()
        act()
        worked.append((time.process_time() - cpu) * 1000)
        taken.append((time.perf_counter() - start) * 1000)
    return {
        "best": round(min(taken), 3),
        "median": round(statistics.median(taken), 3),
        "cpu": round(statistics.median(worked), 3),
    }


def loading(rounds: int) -> dict[str, t.Any]:
    """Load catalogues: a large one by its text, and the example app's with its models."""
    text = catalogue(31, 10)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "webhooks.yaml").write_text(text)
        found = load("webhooks.yaml", root=root)
        return {
            "channels": len(found.channels),
            "events": len(found.events),
            "yaml_alone_ms": milliseconds(lambda: yaml.load(text, yaml.CSafeLoader), rounds),
            "load_ms": milliseconds(lambda: load("webhooks.yaml", root=root), rounds),
            "example_app_with_models_ms": milliseconds(
                lambda: open_catalog(CATALOG, root=CATALOG.parent), rounds
            ),
        }


def fill(state: AppState, count: int) -> None:
    """Make subscriptions with three listeners each, ten of every owner; the statistics are brought up to date."""
    now = datetime.now(UTC)
    ids = [uuid7() for _ in range(count)]
    common = {"environment": "staging", "url": "https://example.com/", "created_at": now, "updated_at": now}
    rows = [{"id": key, "owner": str(at // EACH), **common} for at, key in enumerate(ids)]
    heard = [
        {
            "id": uuid7(),
            "subscription_id": row["id"],
            "owner": row["owner"],
            "event": event,
            "includes": [],
        }
        for row in rows
        for event in EVENTS
    ]
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Subscription), rows)
        connection.execute(sa.insert(Listener), heard)
    with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def look_up(state: AppState, owner: str) -> int:
    """Ask who wants one event of an owner, as a commit does; return how many there are."""
    patterns = state.catalog.patterns("invoices.created")
    with state.engine.connect() as connection:
        found, _ = recording.find_matches(connection, {owner}, patterns)
    return sum(map(len, found.values()))


def plan(state: AppState, owner: str) -> str:
    """Return the database's plan for the very statement of `look_up`."""
    seen: list[tuple[str, t.Any]] = []

    def note(*args: t.Any) -> None:
        seen.append((args[2], args[3]))

    sa.event.listen(state.engine, "before_cursor_execute", note)
    try:
        look_up(state, owner)
    finally:
        sa.event.remove(state.engine, "before_cursor_execute", note)
    [(statement, parameters)] = [each for each in seen if "webhook_listeners" in each[0]]
    is_sqlite = state.engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"
    with state.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


def matching(app: Flask, count: int, rounds: int) -> dict[str, t.Any]:
    """Time the look-up among so many subscriptions."""
    state = state_of(app)
    fill(state, count)
    owner = str(count // EACH // 2)
    assert look_up(state, owner) == EACH
    return {
        "subscriptions": count,
        "listeners": count * len(EVENTS),
        "found": EACH,
        "look_up_ms": milliseconds(lambda: look_up(state, owner), rounds * 10),
        "plan": plan(state, owner).splitlines(),
    }


@contextlib.contextmanager
def app_on(url: str, folder: Path) -> t.Iterator[Flask]:
    """Yield the tests' host app on an empty database."""
    app = make_host(url, folder)
    yield app
    state_of(app).transport.close()
    with app.app_context():
        db.engine.dispose()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--subscriptions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    found: dict[str, t.Any] = {"loading": loading(words.rounds), "matching": {}}
    for kind in words.database:
        with tempfile.TemporaryDirectory() as folder, databases(kind, Path(folder)) as urls:
            for count in (100, words.subscriptions):
                with app_on(next(urls), Path(folder)) as app:
                    found["matching"][f"{kind}, {count}"] = matching(app, count, words.rounds)
    print(json.dumps(found, indent=2) if words.json else tell(found))


def tell(found: t.Mapping[str, t.Any]) -> str:
    """Return the numbers for people."""
    read = found["loading"]
    lines = [
        f"{read['channels']} channels with {read['events']} events (best / median / processor alone, target 50 ms)",
        *(
            f"  {name:28} {read[name]['best']:8.2f} / {read[name]['median']:.2f} / {read[name]['cpu']:.2f} ms"
            for name in read
            if "_ms" in name
        ),
        "who listens to one event of one owner",
    ]
    for name, row in found["matching"].items():
        times = row["look_up_ms"]
        lines.append(f"  {name:28} {times['best']:8.2f} / {times['median']:.2f} / {times['cpu']:.2f} ms")
        if row["subscriptions"] > 100:
            lines += [f"      {line}" for line in row["plan"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
