"""What happened: pages of messages, and where each message went."""

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

D, M, S = Delivery, Message, Subscription
_COLUMNS = (
    M.id,
    M.event,
    M.channel,
    M.owner,
    M.environment,
    M.occurred_at,
    M.text,
    M.entity_id,
    M.sequence,
    M.size,
)
"""All but the data, which may be large."""


def list_messages(session: Session, wanted: LogQuery, most: int) -> tuple[list[t.Any], str | None]:
    """Return up to `most` messages without their data, newest first, and where the search gave up.

    Each range is one of an index, read from its end: the log's length does not matter.
    """
    found: t.Any = sa.select(*_COLUMNS)
    dialect = session.connection().dialect
    # An operator's list of all is the primary key; an owner's is one of the two indexes that begin with the owner.
    ranges: list[dict[t.Any, t.Any]] = [{}]
    if wanted.owner is not ALL_OWNERS and wanted.names is not None:
        ranges = [{M.owner: wanted.owner, M.event: name} for name in wanted.names]
    elif wanted.owner is not ALL_OWNERS:
        asked = [wanted.environment] if wanted.environment else list(ENVIRONMENTS)
        ranges = [{M.owner: wanted.owner, M.environment: each} for each in asked]

    def walks(below: str | None) -> list[sa.Select[t.Any]]:
        return [in_range(found, dialect, equal, M.id, is_newest_first=True, below=below) for equal in ranges]

    def is_wanted(row: t.Any) -> bool:
        is_there = wanted.environment in ("", row.environment)
        return is_there and (wanted.names is None or row.event in wanted.names)

    return sifted(session, walks, most, is_wanted, since=wanted.least, below=wanted.below)


def message_of(session: Session, message_id: str, *, owner: Whose) -> Message | None:
    """Return a message of an owner's with its data; None if there is none."""
    row = session.get(M, message_id)
    return row if row is not None and owner in (ALL_OWNERS, row.owner) else None


def error_of(session: Session, message_id: str) -> str | None:
    """Return why the data of a message could not be made; None: it could, or was repaired."""
    broken = session.get(BrokenMessage, message_id)
    return None if broken is None else broken.error


def events_of(session: Session, ids: t.Collection[str]) -> dict[str, str]:
    """Return the event types of some messages, by id; one that was purged is not among them."""
    return {key: event for key, event in session.execute(sa.select(M.id, M.event).where(M.id.in_(ids)))}


def outcomes(
    session: Session, message: Message, behind: str, most: int
) -> tuple[t.Sequence[Subscription], dict[str, Delivery]]:
    """Return subscriptions of a message's owner in the order of their ids, and its deliveries by subscription.

    Of removed subscriptions only those that have a delivery of it.

    :param behind: the id after which they begin; empty: from the first.
    """
    mine = D.message_id == message.id
    has_delivery = sa.exists().where(mine, D.subscription_id == S.id)
    found = sa.select(S).where(S.owner == message.owner, sa.or_(S.deleted_at.is_(None), has_delivery))
    if behind:
        found = found.where(S.id > behind)
    rows = session.scalars(found.order_by(S.id).limit(most)).all()
    # Without their bodies, which may be large: only states are shown.
    those = sa.select(D).where(mine, D.subscription_id.in_([row.id for row in rows]))
    deliveries = session.scalars(those.options(sa.orm.defer(D.body)))
    return rows, {each.subscription_id: each for each in deliveries}
