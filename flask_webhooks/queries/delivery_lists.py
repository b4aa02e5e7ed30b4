"""Lists of deliveries, newest first, by the walk that tells most: of a message, of events, or in a state.

Two walks have an order of their own, and a cursor keeps to its walk: a delivery's id, or `message_subscription` where
messages are walked through.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ids import following
from ..models import Delivery, Message, State
from ..sql.parameters import KeyedStatement, apart
from ..sql.ranges import in_range
from . import log
from .deliveries import LINE, page
from .log import LogQuery, end_of, newest
from .messages import events_of

__all__ = ["DeliveryList", "goes_by_event", "list_deliveries"]

D, M = Delivery, Message
RARE = 1_000
"""Messages up to which an event is rare for an owner."""
FIRST, LAST = "00000000-0000-7000-8000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"
"""The ids before and behind all others."""
_COLUMNS = tuple(getattr(D, name) for name in LINE)
_TABLE = t.cast("sa.Table", D.__table__)
_ROWS = KeyedStatement(_TABLE.c.id, lambda these: sa.select(*_COLUMNS).where(these))


@dataclass(frozen=True)
class DeliveryList:
    """A page of deliveries: the columns `LINE`."""

    rows: t.Sequence[t.Any]
    """One more than was asked for if there is another page and `next` is None."""
    events: t.Mapping[str, str]
    """Event types by message, of messages that have not been purged."""
    next: str | None
    """Where the search gave up, and may go on."""
    cursor: t.Callable[[t.Any], str]
    """Returns where a list goes on behind a row."""


def list_deliveries(session: Session, wanted: LogQuery, count: int) -> DeliveryList:
    """Return a page of deliveries."""
    # Each walk has an order of its own, which its cursor keeps to.
    cursor, behind = _id, None
    rows: t.Sequence[t.Any]
    if wanted.message:  # it has some deliveries, one for each subscription: no walk
        rows = _of_message(session, wanted, count)
    elif goes_by_event(session, wanted):
        cursor = _place
        rows, behind = _by_event(session, wanted, count)
    else:
        connection = session.connection()
        ids, behind, _ = page(connection, wanted, count, log.REACH)
        rows = sorted(_ROWS.run(connection, ids), key=_id, reverse=True)
    return DeliveryList(rows, events_of(session, {row.message_id for row in rows}), behind, cursor)


def goes_by_event(session: Session, wanted: LogQuery) -> bool:
    """Say whether a list walks the messages of some events of an owner, or the deliveries in a state.

    Most deliveries are delivered, so there the event tells more. Elsewhere it does if it is rare: no index knows both,
    and one more on the table that every commit writes is not worth what it would spare this list. A beginning in time
    bounds deliveries alone: a replay may have made them long after the message.
    """
    if wanted.message or not isinstance(wanted.owner, str) or wanted.names is None:
        return False
    if wanted.before:
        return "_" in wanted.before
    if wanted.since:  # messages from before may have deliveries from after
        return False
    if wanted.state in ("", State.DELIVERED):
        return True
    return end_of(session, _messages(session, wanted, LAST), RARE) is None


def _id(row: t.Any) -> str:
    return str(row.id)


def _place(row: t.Any) -> str:
    return f"{row.message_id}_{row.subscription_id}"


def _in_time(found: sa.Select[t.Any], wanted: LogQuery) -> sa.Select[t.Any]:
    if wanted.least:
        found = found.where(D.id >= wanted.least)
    return found if wanted.limit is None else found.where(D.id < wanted.limit)


def _of_message(session: Session, wanted: LogQuery, count: int) -> list[t.Any]:
    found = apart(_in_time(sa.select(*_COLUMNS).where(D.message_id == wanted.message), wanted))
    filters: list[sa.ColumnElement[bool]] = []
    if wanted.subscriptions is not None:
        filters.append(found.c.subscription_id.in_(wanted.subscriptions))
    if wanted.state:
        filters.append(found.c.state == wanted.state)
    if wanted.before:
        filters.append(found.c.id < wanted.before)
    ordered = sa.select(found).where(*filters).order_by(found.c.id.desc())
    return list(session.execute(ordered.limit(count + 1)))


def _messages(session: Session, wanted: LogQuery, last: str) -> list[sa.Select[t.Any]]:
    """Select the messages of an owner up to one of them: each event is a range of (owner, event, id)."""
    dialect, below = session.connection().dialect, following(last)
    return [
        in_range(
            sa.select(M.id),
            dialect,
            {M.owner: wanted.owner, M.event: name},
            M.id,
            is_newest_first=True,
            below=below,
        )
        for name in wanted.names or ()
    ]


def _by_event(session: Session, wanted: LogQuery, count: int) -> tuple[list[t.Any], str | None]:
    """Walk the messages of some events: a step of those, then what they led to, until a page is full.

    Never both in one statement: PostgreSQL would look for the state first where it believes that hardly any has it.
    """
    message, _, subscription = (wanted.before or f"{LAST}_{LAST}").partition("_")
    if wanted.limit is not None:  # a delivery is never older than its message
        message = min(message, wanted.limit)
    rows: list[t.Any] = []
    left, step = log.REACH, count + 1
    while left > 0 and len(rows) <= count:
        ids = newest(session, _messages(session, wanted, message), min(step, left))
        rows += _of_messages(session, wanted, [row.id for row in ids], subscription, count)
        left -= len(ids)
        if len(ids) < step:
            return rows, None
        # Behind all subscriptions of the last message, so the next step begins at the one before it.
        message, subscription, step = ids[-1].id, FIRST, log.STEP
    return rows, f"{message}_{FIRST}"


def _of_messages(
    session: Session, wanted: LogQuery, ids: t.Sequence[str], behind: str, count: int
) -> list[t.Any]:
    """Return deliveries of some messages, newest message first; of the first one those behind a subscription."""
    if not ids:
        return []

    # `apart`: beside keys no condition may stand that an index could seem to answer (decision 37).
    def make(these: sa.ColumnElement[bool]) -> sa.Select[t.Any]:
        found = apart(_in_time(sa.select(*_COLUMNS), wanted).where(these))
        is_behind = sa.or_(found.c.message_id < ids[0], found.c.subscription_id < behind)
        filters = [is_behind, found.c.subscription_id.in_(wanted.subscriptions or ())]
        if wanted.state:
            filters.append(found.c.state == wanted.state)
        order = found.c.message_id.desc(), found.c.subscription_id.desc()
        return sa.select(found).where(*filters).order_by(*order).limit(count + 1)

    return list(KeyedStatement(_TABLE.c.message_id, make).run(session.connection(), ids))
