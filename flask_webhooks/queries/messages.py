"""Pages of messages, and for each message its deliveries by subscription."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..config import ENVIRONMENTS
from ..models import BrokenMessage, Delivery, Message, Subscription
from ..principal import ALL_OWNERS, Whose
from ..sql.ranges import in_range
from .log import LogQuery, sifted

__all__ = ["error_of", "events_of", "list_messages", "message_of", "outcomes"]

_COLUMNS = (
    Message.id,
    Message.event,
    Message.channel,
    Message.owner,
    Message.environment,
    Message.occurred_at,
    Message.text,
    Message.entity_id,
    Message.sequence,
    Message.size,
)
"""All columns without the data, which may be large."""


def list_messages(session: Session, wanted: LogQuery, most: int) -> tuple[list[t.Any], str | None]:
    """Return up to `most` messages without their data, newest first, and the id at which the search gave up, if it did.

    Each range is one of an index, read from its end, so the cost does not depend on the length of the log.
    """
    found: t.Any = sa.select(*_COLUMNS)
    dialect = session.connection().dialect
    # An operator's list of all is the primary key; an owner's is one of the two indexes that begin with the owner.
    ranges: list[dict[t.Any, t.Any]] = [{}]
    if wanted.owner is not ALL_OWNERS and wanted.names is not None:
        ranges = [{Message.owner: wanted.owner, Message.event: name} for name in wanted.names]
    elif wanted.owner is not ALL_OWNERS:
        asked = [wanted.environment] if wanted.environment else list(ENVIRONMENTS)
        ranges = [{Message.owner: wanted.owner, Message.environment: each} for each in asked]

    def walks(below: str | None) -> list[sa.Select[t.Any]]:
        return [
            in_range(found, dialect, equal, Message.id, is_newest_first=True, below=below) for equal in ranges
        ]

    def is_wanted(row: t.Any) -> bool:
        is_in_environment = wanted.environment in ("", row.environment)
        return is_in_environment and (wanted.names is None or row.event in wanted.names)

    return sifted(session, walks, most, is_wanted, since=wanted.least, below=wanted.below)


def message_of(session: Session, message_id: str, *, owner: Whose) -> Message | None:
    """Return a message with its data; None if the owner has none with this id."""
    row = session.get(Message, message_id)
    return row if row is not None and owner in (ALL_OWNERS, row.owner) else None


def error_of(session: Session, message_id: str) -> str | None:
    """Return why the data of a message could not be rendered; None: it was, or has been repaired."""
    broken = session.get(BrokenMessage, message_id)
    return None if broken is None else broken.error


def events_of(session: Session, ids: t.Collection[str]) -> dict[str, str]:
    """Return the event types of messages by id, without those of purged ones."""
    return {
        key: event
        for key, event in session.execute(sa.select(Message.id, Message.event).where(Message.id.in_(ids)))
    }


def outcomes(
    session: Session, message: Message, behind: str, most: int
) -> tuple[t.Sequence[Subscription], dict[str, Delivery]]:
    """Return subscriptions of a message's owner in the order of their ids, and its deliveries by subscription.

    A removed subscription is included only if it has a delivery of the message.

    :param behind: the id after which they begin; empty: from the first.
    """
    mine = Delivery.message_id == message.id
    has_delivery = sa.exists().where(mine, Delivery.subscription_id == Subscription.id)
    found = sa.select(Subscription).where(
        Subscription.owner == message.owner, sa.or_(Subscription.deleted_at.is_(None), has_delivery)
    )
    if behind:
        found = found.where(Subscription.id > behind)
    rows = session.scalars(found.order_by(Subscription.id).limit(most)).all()
    # Without their bodies, which may be large: only states are shown.
    those = sa.select(Delivery).where(mine, Delivery.subscription_id.in_([row.id for row in rows]))
    deliveries = session.scalars(those.options(sa.orm.defer(Delivery.body)))
    return rows, {each.subscription_id: each for each in deliveries}
