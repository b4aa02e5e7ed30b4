"""Lists of deliveries, newest first, by the most selective index: that of a message, of events, or of states.

The walk through messages has another order than that through deliveries, and a cursor belongs to its walk: it is the id
of a delivery, or `message_subscription` for a walk through messages.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ids import following
from ..models import DELIVERIES, Delivery, Message, State
from ..sql.parameters import KeyedStatement, apart
from ..sql.ranges import in_range
from . import log
from .deliveries import LINE, page
from .log import LogQuery, end_of, newest
from .messages import events_of

__all__ = ["DeliveryList", "goes_by_event", "list_deliveries"]

RARE = 1_000
"""An event with at most as many messages of an owner is rare."""
FIRST, LAST = "00000000-0000-7000-8000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"
"""The least and the largest possible id."""
_COLUMNS = tuple(getattr(Delivery, name) for name in LINE)
_ROWS = KeyedStatement(DELIVERIES.c.id, lambda these: sa.select(*_COLUMNS).where(these))


@dataclass(frozen=True)
class DeliveryList:
    """A page of deliveries: the columns `LINE`."""

    rows: t.Sequence[t.Any]
    """One more than was asked for if there is another page; then `next` is None."""
    events: t.Mapping[str, str]
    """Event types by message, of messages that have not been purged."""
    next: str | None
    """The cursor at which the search gave up; None: it did not."""
    cursor: t.Callable[[t.Any], str]
    """Returns the cursor that continues after a row."""


def list_deliveries(session: Session, wanted: LogQuery, count: int) -> DeliveryList:
    """Return a page of deliveries."""
    cursor, behind = _id, None
    rows: t.Sequence[t.Any]
    if wanted.message:  # it has one delivery for each subscription, so all of them are read
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
    """Whether a list walks through the messages of some events of an owner, and not through the deliveries in a state.

    Most deliveries are in the state `delivered`, so there the event is more selective. In other states it is if the
    event is rare. No index has both: a further index on a table that every commit writes would cost more than it saves
    here. `since` bounds deliveries and not messages: a replay may have made a delivery long after its message.
    """
    if wanted.message or not isinstance(wanted.owner, str) or wanted.names is None:
        return False
    if wanted.before:
        return "_" in wanted.before
    if wanted.since:  # older messages may have newer deliveries
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
        found = found.where(Delivery.id >= wanted.least)
    return found if wanted.limit is None else found.where(Delivery.id < wanted.limit)


def _of_message(session: Session, wanted: LogQuery, count: int) -> list[t.Any]:
    found = apart(_in_time(sa.select(*_COLUMNS).where(Delivery.message_id == wanted.message), wanted))
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
    """Return a SELECT for each event: an owner's messages up to `last`, a range of the index (owner, event, id)."""
    dialect, below = session.connection().dialect, following(last)
    return [
        in_range(
            sa.select(Message.id),
            dialect,
            {Message.owner: wanted.owner, Message.event: name},
            Message.id,
            is_newest_first=True,
            below=below,
        )
        for name in wanted.names or ()
    ]


def _by_event(session: Session, wanted: LogQuery, count: int) -> tuple[list[t.Any], str | None]:
    """Walk through the messages of some events: read a step of them, then their deliveries, until the page is full.

    These are two statements and no join: PostgreSQL would begin with the state if it estimates that few rows have it.
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
        # FIRST is below all subscriptions of the last message, so the next step begins with the message before it.
        message, subscription, step = ids[-1].id, FIRST, log.STEP
    return rows, f"{message}_{FIRST}"


def _of_messages(
    session: Session, wanted: LogQuery, ids: t.Sequence[str], behind: str, count: int
) -> list[t.Any]:
    """Return deliveries of some messages, newest message first; of the first message only those after `behind`."""
    if not ids:
        return []

    # `apart`: with a condition on an indexed column, PostgreSQL might not use the keys (decision 37).
    def make(these: sa.ColumnElement[bool]) -> sa.Select[t.Any]:
        found = apart(_in_time(sa.select(*_COLUMNS), wanted).where(these))
        is_behind = sa.or_(found.c.message_id < ids[0], found.c.subscription_id < behind)
        filters = [is_behind, found.c.subscription_id.in_(wanted.subscriptions or ())]
        if wanted.state:
            filters.append(found.c.state == wanted.state)
        order = found.c.message_id.desc(), found.c.subscription_id.desc()
        return sa.select(found).where(*filters).order_by(*order).limit(count + 1)

    return list(KeyedStatement(DELIVERIES.c.message_id, make).run(session.connection(), ids))
