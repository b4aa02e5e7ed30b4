"""Repairs broken messages: makes their data anew from the current rows, or gives them up with a reason.

Each message has a transaction of its own, so one that still fails does not block the others. Two processes cannot
repair the same message: the first statement writes the row of the broken message, and so locks it.
"""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass
from datetime import UTC, date, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..capture import (
    UNKNOWN,
    UNREADABLE_OWNER,
    PendingEvent,
    deliveries_of,
    guarding,
    host_code,
    owner_of,
    registry_of,
    remade,
    storable,
    unfiltered,
)
from ..catalog import Kind
from ..errors import EmitError, OwnerMissingError
from ..models import (
    BROKEN_MESSAGES,
    DELIVERIES,
    MESSAGES,
    SUBSCRIPTIONS,
    State,
)
from ..outbox import recording
from ..sql.parameters import unindexed

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from ..catalog import EventType
    from ..outbox.recording import MatchedSubscription
    from ..state import AppState

__all__ = ["LONGEST_REASON", "Repair", "give_up", "list_broken", "repair_message"]

LONGEST_REASON = 64
"""Characters that the column of a delivery's reason holds."""


@dataclass(frozen=True)
class Repair:
    """The result for one message."""

    message_id: str
    event: str
    error: str | None
    """Why it is still broken; None: it is repaired, and its deliveries are due or held."""
    deliveries: int = 0
    """Deliveries that are due or held now."""


def list_broken(
    connection: sa.Connection, *, channel: str | None = None, after: str = "", most: int = 100
) -> t.Sequence[sa.Row[t.Any]]:
    """Return broken messages that were not given up, oldest first: their columns but the data, and `error`.

    :param after: only messages with a greater id; for the next page.
    """
    columns = [column for column in MESSAGES.c if column.name not in ("data", "extras")]
    found: sa.Select[t.Any] = sa.select(*columns, BROKEN_MESSAGES.c.error, BROKEN_MESSAGES.c.broken_at).join(
        BROKEN_MESSAGES, BROKEN_MESSAGES.c.message_id == MESSAGES.c.id
    )
    found = found.where(BROKEN_MESSAGES.c.given_up.is_(None))
    if channel is not None:
        found = found.where(MESSAGES.c.channel == channel)
    if after:
        found = found.where(BROKEN_MESSAGES.c.message_id > after)
    return connection.execute(found.order_by(BROKEN_MESSAGES.c.message_id).limit(most)).all()


def repair_message(state: AppState, message_id: str, *, dry_run: bool = False) -> Repair | None:
    """Make the data of a broken message anew and its deliveries due; None if it is not broken.

    :param dry_run: return the result, and roll everything back.
    """
    with Session(state.own_engine, info={"webhooks": False}, autoflush=False) as session:
        row = _lock_broken(session, message_id)
        if row is None:
            return None
        try:
            with guarding(session):
                item, message = _made_anew(state, session, row)
        except (EmitError, sa.exc.DBAPIError) as error:
            text = storable(_reason_of(session, row.event, error))
            session.connection().execute(
                sa.update(BROKEN_MESSAGES)
                .where(BROKEN_MESSAGES.c.message_id == message_id)
                .values(error=text)
            )
            found = Repair(message_id, row.event, text)
        else:
            found = Repair(message_id, row.event, None, _write(session.connection(), row, item, message))
        if dry_run:
            session.rollback()
        else:
            session.commit()
    if found.deliveries and not dry_run:
        state.bell.ring_soon()
    return found


def _reason_of(session: Session, event: str, error: EmitError | sa.exc.DBAPIError) -> str:
    """Return the reason to store. After an error of the database it rolls back: only a new transaction can store it."""
    if isinstance(error, EmitError):
        return str(error)
    if error.connection_invalidated:  # no fault of this message: the caller may try again
        raise error
    # PostgreSQL refuses every statement of a transaction after one has failed.
    session.rollback()
    return f"{event} cannot be serialised: {type(error).__name__}: {error.orig}."


def give_up(state: AppState, message_id: str, reason: str) -> bool:
    """Cancel the deliveries that wait for a broken message, with a reason; return whether it was broken."""
    with state.own_engine.begin() as connection:
        return _given_up(connection, message_id, reason)


def _given_up(connection: sa.Connection, message_id: str, reason: str) -> bool:
    mine = sa.update(BROKEN_MESSAGES).where(
        BROKEN_MESSAGES.c.message_id == message_id, BROKEN_MESSAGES.c.given_up.is_(None)
    )
    if not connection.execute(mine.values(given_up=reason)).rowcount:
        return False
    off = {"state": State.CANCELLED.value, "reason": reason, "finished_at": datetime.now(UTC)}
    connection.execute(sa.update(DELIVERIES).where(*_broken_deliveries(message_id)).values(off))
    return True


def _broken_deliveries(message_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition for the deliveries that wait for a repair; it reads no index of states (decision 37)."""
    return DELIVERIES.c.message_id == message_id, unindexed(DELIVERIES.c.state) == State.BROKEN.value


def _lock_broken(session: Session, message_id: str) -> sa.Row[t.Any] | None:
    connection = session.connection()
    mine = sa.update(BROKEN_MESSAGES).where(
        BROKEN_MESSAGES.c.message_id == message_id, BROKEN_MESSAGES.c.given_up.is_(None)
    )
    # It changes nothing, but locks the row also on SQLite, which has no SELECT ... FOR UPDATE.
    connection.execute(mine.values(broken_at=BROKEN_MESSAGES.c.broken_at))
    found = sa.select(MESSAGES).join(BROKEN_MESSAGES, BROKEN_MESSAGES.c.message_id == MESSAGES.c.id)
    return connection.execute(
        found.where(MESSAGES.c.id == message_id, BROKEN_MESSAGES.c.given_up.is_(None))
    ).one_or_none()


# ---- making it anew --------------------------------------------------------------------------------------


def _made_anew(state: AppState, session: Session, row: sa.Row[t.Any]) -> tuple[PendingEvent, recording.Row]:
    event = state.catalog.events.get(row.event)
    if event is None:
        raise EmitError(
            f"The catalogue has no event {row.event} any more. Put it back, or give the message up."
        )
    bound = state.bound[event.channel]
    text = row.data if row.data != "null" else None
    obj = None if text is not None else _row_of(session, bound, event, row.entity_id)
    owner = row.owner
    if obj is not None and bound.owner_path is not None:
        owner = _owner(session, bound, event, row)
    listeners = _matches_of(state, session.connection(), row, owner)
    item = PendingEvent(
        event, owner, bound, obj, {}, text, row.entity_id, row.status, row.dedupe_key, listeners
    )
    message = remade(state, item)
    if row.environment != UNKNOWN:  # it was chosen at the commit, and the deliveries belong to it
        message["environment"] = row.environment
    return item, {**message, "id": row.id}


def _row_of(session: Session, bound: BoundChannel, event: EventType, key: str | None) -> t.Any:
    if event.on and event.on <= {Kind.DELETED, Kind.MOVED_OUT}:
        raise EmitError(
            f"{event.name} is about a row that has been deleted, so its data cannot be made anew. {_GIVE_UP}"
        )
    if bound.model is None or key is None:
        raise EmitError(
            f"The message of {event.name} names no row of a model, so its data cannot be made anew. {_GIVE_UP}"
        )
    mapper: t.Any = sa.inspect(bound.model)
    columns = mapper.primary_key
    # Commas separate the columns of a key; the value of a single column may contain commas.
    parts = [key] if len(columns) == 1 else key.split(",")
    row = None
    if len(parts) == len(columns):
        identity = tuple(_typed(column, part) for column, part in zip(columns, parts, strict=True))
        with unfiltered(session):
            row = _get(session, bound.model, identity, key)
    if row is None:
        raise EmitError(
            f"The row {key} of {bound.model.__name__} no longer exists, so its data cannot be made anew. {_GIVE_UP}"
        )
    return row


def _get(session: Session, model: type, identity: tuple[t.Any, ...], key: str) -> t.Any:
    try:
        return session.get(model, identity)
    except sa.exc.DBAPIError:
        raise
    except Exception as error:  # a column's type may raise anything for a text that it cannot convert
        said = getattr(error, "orig", error)
        raise EmitError(f"{key} is not a valid key of {model.__name__}: {said}. {_GIVE_UP}") from error


_GIVE_UP = "Give the message up."


def _typed(column: sa.Column[t.Any], text: str) -> t.Any:
    """Convert the text in `entity_id` to the type of a key column; a text that it refuses is returned unchanged."""
    try:
        kind: t.Any = column.type.python_type
        if issubclass(kind, enum.Enum):
            return next((member for member in kind if str(member) == text), text)
        if issubclass(kind, date):
            return kind.fromisoformat(text)
        return text == "True" if kind is bool else kind(text)
    except (NotImplementedError, ValueError, TypeError, ArithmeticError):
        return text


def _owner(session: Session, bound: BoundChannel, event: EventType, row: sa.Row[t.Any]) -> str:
    """Return the owner of the row. It must be the owner at the commit: no owner may get another owner's data."""
    try:
        owner = _current_owner(session, bound, event, row.entity_id)
    except EmitError:
        raise
    except Exception as error:  # a property of the host's
        raise EmitError(
            f"The owner of {event.name} cannot be read: {type(error).__name__}: {error}."
        ) from error
    before: str = row.owner
    if before == UNREADABLE_OWNER:
        if owner is None:
            raise OwnerMissingError(f"The row of {event.name} has no owner. {_GIVE_UP}", event=event.name)
        return owner
    if owner is None and event.on:  # for an event that the host emits, the call may have named the owner
        raise OwnerMissingError(
            f"The row of {event.name} has no owner any more. {_GIVE_UP}", event=event.name
        )
    if owner not in (None, before):
        raise EmitError(f"The row of {event.name} belongs to another owner now. {_GIVE_UP}")
    return before


def _current_owner(session: Session, bound: BoundChannel, event: EventType, key: str) -> str | None:
    """Read the owner without the host's filters, in a separate session: a dump must not see the rows that they hide."""
    info = {"webhooks": False}
    connection = session.connection()
    with (
        Session(connection, autoflush=False, info=info, join_transaction_mode="rollback_only") as our_session,
        guarding(our_session),
        unfiltered(our_session),
    ):
        obj = _row_of(our_session, bound, event, key)
        return host_code.owned(bound, obj, owner_of, bound, obj)


def _matches_of(
    state: AppState, connection: sa.Connection, row: sa.Row[t.Any], owner: str
) -> list[MatchedSubscription]:
    """Return the subscriptions that it was recorded for; if its owner could not be read, those that match now."""
    if row.owner == UNREADABLE_OWNER:
        # The commit recorded no deliveries: without an owner it could not look subscriptions up.
        patterns = registry_of(state).patterns(frozenset({row.event}))
        found, _ = recording.find_matches(connection, {owner}, patterns)
        by_id: dict[str, MatchedSubscription] = {}
        for each in (wanted for some in found.values() for wanted in some):
            known = by_id.get(each.subscription_id)
            by_id[each.subscription_id] = each if known is None else known.joined(each)
        return [each for each in by_id.values() if row.environment in (UNKNOWN, each.environment)]
    columns = (
        DELIVERIES.c.subscription_id,
        SUBSCRIPTIONS.c.environment,
        SUBSCRIPTIONS.c.active,
        SUBSCRIPTIONS.c.format,
        DELIVERIES.c.includes,
    )
    waiting = sa.select(*columns).join(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == DELIVERIES.c.subscription_id)
    waiting = waiting.where(*_broken_deliveries(row.id))
    return [
        recording.MatchedSubscription(
            key, owner, environment, active, chosen, frozenset((includes or "").split(",")) - {""}
        )
        for key, environment, active, chosen, includes in connection.execute(waiting)
    ]


def _write(connection: sa.Connection, row: sa.Row[t.Any], item: PendingEvent, message: recording.Row) -> int:
    names = ("owner", "environment", "data", "extras", "size", "status", "entity_id")
    connection.execute(
        sa.update(MESSAGES).where(MESSAGES.c.id == row.id).values({name: message[name] for name in names})
    )
    connection.execute(sa.delete(BROKEN_MESSAGES).where(BROKEN_MESSAGES.c.message_id == row.id))
    now = datetime.now(UTC)
    if row.owner == UNREADABLE_OWNER:  # the commit recorded no deliveries
        deliveries = deliveries_of(item, message, now)
        if deliveries:
            connection.execute(DELIVERIES.insert(), deliveries)
        return len(deliveries)
    return _release(connection, row.id, message["environment"], now)


def _release(connection: sa.Connection, message_id: str, environment: str, now: datetime) -> int:
    """Make each waiting delivery due, held or cancelled, as its subscription is now; count those not cancelled."""
    columns = (
        DELIVERIES.c.id,
        SUBSCRIPTIONS.c.environment,
        SUBSCRIPTIONS.c.active,
        SUBSCRIPTIONS.c.deleted_at,
        SUBSCRIPTIONS.c.disabled_reason,
    )
    waiting = sa.select(*columns).outerjoin(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == DELIVERIES.c.subscription_id)
    waiting = waiting.where(*_broken_deliveries(message_id))
    count = 0
    for key, theirs, active, deleted_at, disabled in connection.execute(waiting).all():
        if theirs is None or deleted_at is not None:
            values = {"state": State.CANCELLED.value, "reason": "removed", "finished_at": now}
        elif theirs != environment:
            values = {"state": State.CANCELLED.value, "reason": "other_environment", "finished_at": now}
        elif active:
            values = {"state": State.PENDING.value, "reason": None, "due_at": now}
        else:
            values = {"state": State.HELD.value, "reason": disabled or "off"}
        count += values["state"] != State.CANCELLED.value
        # The state is a condition again: a user may have cancelled the delivery since it was read.
        still = DELIVERIES.c.id == key, unindexed(DELIVERIES.c.state) == State.BROKEN.value
        connection.execute(sa.update(DELIVERIES).where(*still).values(values))
    return count
