"""What is next in a lane, and what became of it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ..models import ATTEMPTS, DELIVERIES, MESSAGES, SUBSCRIPTIONS, State, Trigger, text
from ..sql import parameters
from ..sql.parameters import KeyedStatement, unindexed
from ..sql.ranges import count, in_range
from .statements import Row, chunks

__all__ = [
    "Window",
    "bodies",
    "count_in_state",
    "in_state",
    "log",
    "logged",
    "messages",
    "reschedule",
    "select_due",
    "still_due",
    "succeed",
]


COUNTED = 10_000
"""Deliveries that are counted at most: a range of an index, some milliseconds."""


def in_state(
    dialect: sa.Dialect,
    subscription_id: str,
    state: str,
    *,
    since: str | None = None,
    below: str | None = None,
    is_newest_first: bool = False,
) -> sa.Select[t.Any]:
    """Select the ids of the deliveries of a subscription in a state: a range of an index, in the order of ids.

    :param since: the least id; newest first it does not end the range.
    :param below: the first id that is too large.
    """
    equal = {DELIVERIES.c.subscription_id: subscription_id, DELIVERIES.c.state: state}
    return in_range(
        sa.select(DELIVERIES.c.id),
        dialect,
        equal,
        DELIVERIES.c.id,
        is_newest_first=is_newest_first,
        since=since,
        below=below,
    )


def count_in_state(
    connection: sa.Connection, subscription_id: str, state: str, most: int = COUNTED, since: str | None = None
) -> int:
    """Return how many deliveries of a subscription are in a state; counting ends at `most`.

    :param since: the least id of those that are counted.
    """
    return count(connection, in_state(connection.dialect, subscription_id, state, since=since), most)


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a lane to read: behind a place, at most so many."""

    most: int
    behind: tuple[datetime, str] | None = None
    """`due_at` and id of the last delivery read; None: from the start."""


_COLUMNS = (
    DELIVERIES.c.id,
    DELIVERIES.c.message_id,
    DELIVERIES.c.subscription_id,
    DELIVERIES.c.due_at,
    DELIVERIES.c.attempts,
    DELIVERIES.c.trigger,
    DELIVERIES.c.format,
    DELIVERIES.c.includes,
    MESSAGES.c.size,
)
_lane = sa.bindparam("lane", type_=DELIVERIES.c.subscription_id.type)
_HEAD = (
    sa.select(*_COLUMNS)
    .select_from(DELIVERIES.outerjoin(MESSAGES, MESSAGES.c.id == DELIVERIES.c.message_id))
    .where(
        # What is pending for one that is off is still to be held.
        sa.exists().where(
            SUBSCRIPTIONS.c.id == _lane, SUBSCRIPTIONS.c.active, SUBSCRIPTIONS.c.deleted_at.is_(None)
        ),
        DELIVERIES.c.subscription_id == _lane,
        DELIVERIES.c.due_at <= sa.bindparam("now", type_=DELIVERIES.c.due_at.type),
    )
    .order_by(DELIVERIES.c.due_at, DELIVERIES.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_due, _id = (
    sa.bindparam("due", type_=DELIVERIES.c.due_at.type),
    sa.bindparam("id", type_=DELIVERIES.c.id.type),
)
_HEAD_BEHIND = _HEAD.where(
    DELIVERIES.c.due_at >= _due,  # says to MySQL what it does not see in the next line
    sa.or_(DELIVERIES.c.due_at > _due, sa.and_(DELIVERIES.c.due_at == _due, DELIVERIES.c.id > _id)),
)

# All lanes in one round trip. A UNION ALL of one SELECT for each lane does the same in three times the time, most of
# it spent in putting the statement together. Keys come as text: psycopg would make objects of them.
_HEADS = text(
    """
    SELECT CAST(d.id AS text), CAST(d.message_id AS text), CAST(d.subscription_id AS text),
           d.due_at, d.attempts, d.trigger, d.format, d.includes, m.size
    FROM unnest(
        CAST(:lanes AS uuid[]), CAST(:most AS integer[]), CAST(:due AS timestamptz[]), CAST(:ids AS uuid[])
    ) AS w (lane, most, due, id)
    JOIN webhook_subscriptions AS s ON s.id = w.lane AND s.active AND s.deleted_at IS NULL
    CROSS JOIN LATERAL (
        SELECT id, message_id, subscription_id, due_at, attempts, trigger, format, includes
        FROM webhook_deliveries
        WHERE subscription_id = w.lane AND due_at <= :now AND (due_at, id) > (w.due, w.id)
        ORDER BY due_at, id
        LIMIT w.most
    ) AS d
    LEFT JOIN webhook_messages AS m ON m.id = d.message_id
    ORDER BY d.due_at, d.id
    """
).columns(
    *(sa.column(each.name, sa.Text() if isinstance(each.type, sa.Uuid) else each.type) for each in _COLUMNS)
)
_START = ("-infinity", "00000000-0000-0000-0000-000000000000")


def select_due(
    connection: sa.Connection, windows: t.Mapping[str, Window], now: datetime
) -> dict[str, list[sa.Row[t.Any]]]:
    """Return what is next in some lanes, in the order it fell due, with the size of its message.

    Nothing for subscriptions that are off by now: a worker that has not learned it yet must not go on.
    """
    found: dict[str, list[sa.Row[t.Any]]] = {key: [] for key in windows}
    if connection.dialect.name == "postgresql":
        places = [
            (window.behind[0].isoformat(), window.behind[1]) if window.behind else _START
            for window in windows.values()
        ]
        values = {
            "lanes": list(windows),
            "most": [window.most for window in windows.values()],
            "due": [due for due, _ in places],
            "ids": [identifier for _, identifier in places],
            "now": now,
        }
        for row in connection.execute(_HEADS, values).all():
            found[row.subscription_id].append(row)
        return found
    for key, window in windows.items():
        values = {"lane": key, "now": now, "most": window.most}
        if window.behind is None:
            found[key] = list(connection.execute(_HEAD, values))
        else:
            due, identifier = window.behind
            found[key] = list(connection.execute(_HEAD_BEHIND, {**values, "due": due, "id": identifier}))
    return found


_BODIES = KeyedStatement(
    DELIVERIES.c.id,
    lambda these: sa.select(DELIVERIES.c.id, DELIVERIES.c.body).where(these, DELIVERIES.c.body.is_not(None)),
)


def bodies(connection: sa.Connection, ids: t.Sequence[str]) -> dict[str, bytes]:
    """Return the bytes that deliveries were first sent with, where they are kept."""
    found: dict[str, bytes] = {}
    for some in chunks(ids):
        found.update((row.id, row.body) for row in _BODIES.run(connection, some))
    return found


_MESSAGES = KeyedStatement(MESSAGES.c.id, lambda these: sa.select(MESSAGES).where(these))


def messages(connection: sa.Connection, ids: t.Collection[str]) -> dict[str, sa.Row[t.Any]]:
    """Return messages by id."""
    found: dict[str, sa.Row[t.Any]] = {}
    for some in chunks(sorted(ids)):
        found.update((row.id, row) for row in _MESSAGES.run(connection, some).all())
    return found


_STILL_DUE = KeyedStatement(
    DELIVERIES.c.id, lambda these: sa.select(DELIVERIES.c.id, DELIVERIES.c.due_at).where(these)
)


def still_due(connection: sa.Connection, ids: t.Sequence[str]) -> set[str]:
    """Return which of these deliveries are still pending: not cancelled, held or finished since they were read."""
    found: set[str] = set()
    for some in chunks(ids):
        found.update(row.id for row in _STILL_DUE.run(connection, some) if row.due_at is not None)
    return found


# No IN: SQLAlchemy takes none in a statement for many rows.
_is_open = sa.or_(*(unindexed(DELIVERIES.c.state) == state.value for state in (State.PENDING, State.HELD)))
# `due_at` is set exactly while it is pending. A retry that made it due at another time meanwhile, such as by
# hand, is not overruled.
_is_pending = DELIVERIES.c.due_at.is_not(None)
_is_moved = sa.or_(
    ~_is_pending, DELIVERIES.c.due_at != sa.bindparam("was_due", type_=DELIVERIES.c.due_at.type)
)
_RETRY = (
    sa.update(DELIVERIES)
    .where(DELIVERIES.c.id == sa.bindparam("delivery"), _is_open)
    # In this order: MySQL and MariaDB set one column after the other, and what looks at one that is set sees its new
    # value. So nothing looks at any column but itself and `due_at`, which comes last.
    .ordered_values(
        (
            DELIVERIES.c.state,
            sa.case(
                (_is_moved, DELIVERIES.c.state),
                else_=sa.bindparam("next_state", type_=DELIVERIES.c.state.type),
            ),
        ),
        (DELIVERIES.c.attempts, sa.bindparam("made")),
        # A replay stays one until it succeeds: its retries say no more of how the receiver does now than its first try.
        (
            DELIVERIES.c.trigger,
            sa.case(
                (sa.or_(_is_moved, DELIVERIES.c.trigger == Trigger.REPLAY.value), DELIVERIES.c.trigger),
                else_=Trigger.AUTOMATIC.value,
            ),
        ),
        (
            DELIVERIES.c.reason,
            sa.case(
                (_is_pending, sa.bindparam("why", type_=DELIVERIES.c.reason.type)), else_=DELIVERIES.c.reason
            ),
        ),
        (
            DELIVERIES.c.body,
            sa.func.coalesce(DELIVERIES.c.body, sa.bindparam("sent", type_=DELIVERIES.c.body.type)),
        ),
        (
            DELIVERIES.c.finished_at,
            sa.case(
                (_is_moved, DELIVERIES.c.finished_at),
                else_=sa.bindparam("ended", type_=DELIVERIES.c.finished_at.type),
            ),
        ),
        (
            DELIVERIES.c.due_at,
            sa.case(
                (_is_moved, DELIVERIES.c.due_at),
                else_=sa.bindparam("next_due", type_=DELIVERIES.c.due_at.type),
            ),
        ),
    )
)
_LOG = ATTEMPTS.insert()


_LOG_PACKED = ATTEMPTS.insert().from_select(
    ATTEMPTS.c.keys(), sa.select(parameters.unpacked("rows", ATTEMPTS, ATTEMPTS.c.keys())), False
)


def log(connection: sa.Connection, attempts: t.Sequence[Row]) -> None:
    """Write attempts: rows with every column of `Attempt`."""
    if not attempts:
        return
    if connection.dialect.name == "postgresql":
        for some in _portions(attempts):
            connection.execute(_LOG_PACKED, {"rows": parameters.rows(some)})
    else:
        connection.execute(_LOG, attempts)


def _portions(attempts: t.Sequence[Row], most: int = 8 * 2**20) -> t.Iterator[t.Sequence[Row]]:
    """Cut attempts where their answers come to so many bytes: one parameter is no place for hundreds of MiB."""
    start = weight = 0
    for end, row in enumerate(attempts):
        weight += len(row["response_body"] or b"")
        if weight > most and end > start:
            yield attempts[start:end]
            start, weight = end, len(row["response_body"] or b"")
    yield attempts[start:]


_LOGGED = KeyedStatement(ATTEMPTS.c.id, lambda these: sa.select(ATTEMPTS.c.id).where(these))


def logged(connection: sa.Connection, ids: t.Sequence[str]) -> set[str]:
    """Return which attempts are in the log: asked when the connection broke while they were being written."""
    found: set[str] = set()
    for some in chunks(ids):
        found.update(_LOGGED.run(connection, some).scalars())
    return found


_SUCCEED = KeyedStatement(
    DELIVERIES.c.id,
    lambda these: (
        sa.update(DELIVERIES)
        .where(these, _is_open)
        .values(
            state=State.DELIVERED.value,
            due_at=None,
            attempts=DELIVERIES.c.attempts + 1,
            reason=None,
            finished_at=sa.bindparam("now", type_=DELIVERIES.c.finished_at.type),
        )
    ),
)


def succeed(connection: sa.Connection, ids: t.Sequence[str], now: datetime) -> None:
    """Mark deliveries delivered: one statement for 500.

    One that was cancelled meanwhile stays cancelled; one that was held meanwhile is delivered all the same, or it
    would be sent again when its subscription is switched on.
    """
    for some in chunks(sorted(ids)):
        _SUCCEED.run(connection, some, now=now)


def reschedule(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Write what becomes of deliveries that failed: when they are due again, or that they are not.

    A row has `delivery`, `was_due` (as it was read), `next_state`, `next_due`, `made` (attempts), `why`, `sent` (the
    body, kept once) and `ended`.
    """
    if rows:
        connection.execute(_RETRY, rows)
