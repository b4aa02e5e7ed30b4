"""Does the length of the backlog matter? The rate of draining out of 1,000,000 due deliveries, compared to 10,000.

python -m bench.backlog [--rows 1000000] [--seconds 4] [--database sqlite postgresql] [--plans] [--json]

`--plans` prints how the database answers the worker's questions over the large backlog.
"""

from __future__ import annotations

import sys
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from bench.stage import drain, fill, options, scene, show, subscribe
from flask_webhooks import outbox
from flask_webhooks.outbox import Window
from flask_webhooks.state import AppState


def measure(database: str, rows: int, seconds: int, plans: bool) -> dict[str, t.Any]:
    """One row of the table."""
    rates = {}
    for count in (10_000, rows):
        with scene(database) as (state, url, _):
            subscriptions = subscribe(state, [f"{url}/{n}" for n in range(100)])
            fill(state, subscriptions, count)
            if plans and count == rows:
                tell_plans(state, subscriptions)
            rates[count] = drain(state, seconds=float(seconds))
    return {
        "database": database,
        "rows": rows,
        "per_second": round(rates[rows]),
        "per_second_of_10000": round(rates[10_000]),
        "ratio": round(rates[rows] / rates[10_000], 2),
    }


def tell_plans(state: AppState, subscriptions: t.Sequence[str]) -> None:
    """Print the plan of each statement that looks for work."""
    now = datetime.now(UTC)
    with state.engine.connect() as connection:

        def explain(name: str, ask: t.Callable[[], object]) -> None:
            print(f"\n-- {name}", flush=True)

            @sa.event.listens_for(connection, "before_cursor_execute", retval=True)
            def prefix(_: t.Any, __: t.Any, statement: str, parameters: t.Any, *___: t.Any) -> t.Any:
                words = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) "
                if connection.dialect.name == "sqlite":
                    words = "EXPLAIN QUERY PLAN "
                raw = connection.connection.dbapi_connection.cursor()
                raw.execute(words + statement, parameters)
                for row in raw.fetchall():
                    print("   ", row[-1])
                raw.close()
                return statement, parameters

            try:
                ask()
            finally:
                sa.event.remove(connection, "before_cursor_execute", prefix)

        long = timedelta(seconds=45)
        explain("lanes with work that are free", lambda: outbox.waiting(connection, now, long, 64))
        explain("when is something due", lambda: outbox.next_due(connection, now, long))
        window = Window(20)
        explain(
            "what is next in a lane", lambda: outbox.select_due(connection, {subscriptions[0]: window}, now)
        )
        last = outbox.select_due(connection, {subscriptions[0]: window}, now)[subscriptions[0]][-1]
        behind = Window(20, (last.due_at, last.id))
        explain("and behind it", lambda: outbox.select_due(connection, {subscriptions[0]: behind}, now))


def main() -> None:
    """Print the table."""
    plans = "--plans" in sys.argv
    if plans:
        sys.argv.remove("--plans")
    chosen = options(__doc__, rows=1_000_000, seconds=4)
    for database in chosen.database:
        show(measure(database, chosen.rows, chosen.seconds, plans), chosen.json)


if __name__ == "__main__":
    main()
