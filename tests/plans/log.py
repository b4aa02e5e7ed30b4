"""A log in the seven states in which PostgreSQL's statistics do not fit what is in the tables.

ANALYZE counts a table at some moment; what happens afterwards the planner learns only when it counts again. One
subscription has four fifths of all rows, as a large customer has.

=========  ==========================================================================
`pure`     all were delivered when the tables were counted; half as many more are pending now
`burst`    the same, with one in a hundred held when they were counted
`back`     all were delivered when they were counted; half of them were made pending again
`done`     all were pending when they were counted; they have been delivered since
`small`    twenty rows when they were counted
`never`    not counted
`warm`     not counted, and every plan was made and kept when there were 88 rows
=========  ==========================================================================
"""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from flask_webhooks.models import Subscription
from flask_webhooks.state import AppState
from tests.stage import subscribe

__all__ = ["KEPT", "STATES", "Log"]

KEPT = 88
"""Rows while plans are made that are kept."""
SMALL = 20
OTHERS = 20
"""Subscriptions in addition to the large one."""
TABLES = (
    "webhook_messages",
    "webhook_deliveries",
    "webhook_attempts",
    "webhook_lanes",
    "webhook_subscriptions",
)
_HEX = "lpad(to_hex({}), {}, '0')"


def _id(kind: int, begin: str = "CAST(:begin AS bigint)") -> str:
    """A UUIDv7 in the order of `n`."""
    head = _HEX.format(f"{begin} + n * 10", 12)
    return f"CAST({head} || '7{kind}00' || '8' || {_HEX.format('n', 15)} AS uuid)"


_FROM = "FROM generate_series(CAST(:low AS bigint), CAST(:high AS bigint) - 1) AS n"
_NUMBER = "CASE WHEN n % 5 = 0 THEN 2 + (n / 5) % CAST(:others AS integer) ELSE 1 END"
_KEY = f"(CAST(:keys AS uuid[]))[CAST({_NUMBER} AS integer)]"
_AT = "to_timestamp((CAST(:begin AS bigint) + n * 10) / 1000.0)"
_INSERTS = (
    f"""
    INSERT INTO webhook_messages (id, event, channel, owner, environment, occurred_at, sequence, entity_id, text,
                                  data, size, dedupe_key)
    SELECT {_id(1)}, CASE n % 97 WHEN 0 THEN 'invoices.paid' ELSE 'invoices.updated' END, 'invoices', '1', 'staging',
           {_AT}, n, CAST(n % 1000 AS text), 'x', '{{}}' || repeat(' ', 198), 200, CAST('k' || n AS text) {_FROM}
    """,
    f"""
    INSERT INTO webhook_deliveries (id, message_id, subscription_id, state, due_at, attempts, trigger, format)
    SELECT {_id(2)}, {_id(1)}, {_KEY}, CAST(:state AS varchar),
           CASE CAST(:state AS varchar) WHEN 'pending' THEN {_AT} END,
           CASE CAST(:state AS varchar) WHEN 'delivered' THEN 1 ELSE 0 END, 'automatic', 'channel' {_FROM}
    """,
)
_ATTEMPTS = f"""
    INSERT INTO webhook_attempts (id, delivery_id, subscription_id, number, trigger, started_at, status, detail, url,
                                  request_headers, body_sha256, body_size, response_truncated, total_seconds, worker)
    SELECT {_id(3)}, {_id(2)}, {_KEY}, 1, 'automatic', {_AT}, 200, 'x', 'http://127.0.0.1/', '{{}}', '0', 2, false,
           0.02, 'w' {_FROM}
"""
_FINISH = "UPDATE webhook_deliveries SET state = 'delivered', due_at = NULL, attempts = 1 WHERE id < :end"
_BACK = "UPDATE webhook_deliveries SET state = 'pending', due_at = now(), attempts = 0 WHERE id >= :start"


class Log:
    """The log of one app, to be brought into a state.

    :param rows: deliveries.
    """

    def __init__(self, state: AppState, rows: int) -> None:
        self.state, self.rows = state, rows
        self.begin = int((datetime.now(UTC) - timedelta(hours=20)).timestamp() * 1000)
        self.large: Subscription = subscribe(state, "http://127.0.0.1:1/", "invoices.*")
        self.others = [subscribe(state, "http://127.0.0.1:1/", "invoices.*") for _ in range(OTHERS)]

    def insert(self, low: int, high: int, state: str) -> None:
        """Write messages `low` to `high`, each with a delivery in a state; with an attempt, if it is delivered."""
        keys = "{" + ",".join(row.id for row in (self.large, *self.others)) + "}"
        values = {
            "begin": self.begin,
            "low": low,
            "high": high,
            "keys": keys,
            "others": OTHERS,
            "state": state,
        }
        texts = [*_INSERTS, *([_ATTEMPTS] if state == "delivered" else [])]
        with self.state.engine.begin() as connection:
            for text in texts:
                connection.execute(sa.text(text), values)

    def attempts(self, low: int, high: int) -> None:
        """Write an attempt for each of these deliveries."""
        keys = "{" + ",".join(row.id for row in (self.large, *self.others)) + "}"
        values = {"begin": self.begin, "low": low, "high": high, "keys": keys, "others": OTHERS}
        with self.state.engine.begin() as connection:
            connection.execute(sa.text(_ATTEMPTS), values)

    def move(self, text: str, **values: t.Any) -> None:
        """Change what is there."""
        with self.state.engine.begin() as connection:
            connection.execute(sa.text(text), values)

    def analyze(self) -> None:
        """Let the database count its rows."""
        with self.state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in TABLES:
                connection.exec_driver_sql(f"ANALYZE {table}")

    def delivery(self, n: int) -> str:
        """The id of the n-th delivery."""
        return self._made(2, n)

    def message(self, n: int) -> str:
        """The id of the n-th message."""
        return self._made(1, n)

    def _made(self, kind: int, n: int) -> str:
        text = f"{self.begin + n * 10:012x}7{kind}008{n:015x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _pure(log: Log) -> None:
    log.insert(0, log.rows // 2, "delivered")
    log.analyze()
    log.insert(log.rows // 2, log.rows, "pending")


def _burst(log: Log) -> None:
    half = log.rows // 2
    log.insert(0, half * 99 // 100, "delivered")
    log.insert(half * 99 // 100, half, "held")
    log.analyze()
    log.insert(half, log.rows, "pending")


def _back(log: Log) -> None:
    log.insert(0, log.rows, "delivered")
    log.analyze()
    log.move(_BACK, start=log.delivery(log.rows // 2))


def _done(log: Log) -> None:
    log.insert(0, log.rows, "pending")
    log.analyze()
    log.move(_FINISH, end=log.delivery(log.rows - 50))
    log.attempts(0, log.rows - 50)


def _small(log: Log) -> None:
    log.insert(0, SMALL, "delivered")
    log.analyze()
    _rest(log, SMALL)


def _never(log: Log) -> None:
    _rest(log, 0)


def _warm(log: Log) -> None:
    _rest(log, KEPT)


def _rest(log: Log, low: int) -> None:
    log.insert(low, log.rows // 2, "delivered")
    log.insert(log.rows // 2, log.rows, "pending")


STATES: t.Mapping[str, t.Callable[[Log], None]] = {
    "pure": _pure,
    "burst": _burst,
    "back": _back,
    "done": _done,
    "small": _small,
    "never": _never,
    "warm": _warm,
}
"""What brings an empty log into each state. Before `warm`, insert the first `KEPT` rows and let plans be made."""
