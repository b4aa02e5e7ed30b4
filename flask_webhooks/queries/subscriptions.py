"""Subscriptions with the health of their receivers: three statements for any number of them."""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import outbox
from ..config import ENVIRONMENTS
from ..models import (
    ATTEMPTS,
    DELIVERIES,
    HOURS,
    LANES,
    Listener,
    State,
    Subscription,
)
from ..outbox.statistics import Sums, hour_of
from ..principal import ALL_OWNERS, Whose

__all__ = [
    "Overview",
    "SubscriptionStatus",
    "has_log",
    "ids_by_pattern",
    "ids_with_log",
    "lane_of",
    "oldest_waiting",
    "one_overview",
    "overviews",
    "owner_of",
    "some_of",
    "with_certificate",
    "with_log",
]

REMOVED = 25
"""Removed subscriptions of each environment, the newest ones, whose deliveries a list includes. For older ones the
caller has to name the subscription."""
PATTERNS = 20_000
"""Listeners that the page of events reads to count its subscriptions."""
SPARK = 24
"""Hours that a sparkline shows."""


class SubscriptionStatus(enum.StrEnum):
    """The condition of a subscription, the most urgent first."""

    DISABLED = "disabled"
    """Switched off by us; `Subscription.disabled_reason` says why."""
    OFF = "off"
    PAUSED = "paused"
    """The breaker is open until `Lane.paused_until`."""
    FAILING = "failing"
    """Its last attempts failed."""
    ON = "on"


@dataclass(frozen=True)
class Overview:
    """One subscription with its last 24 hours."""

    subscription: Subscription
    lane: sa.Row[t.Any] | None
    """None: nothing was ever sent."""
    spark: tuple[Sums, ...]
    """The last 24 hours, the current one last."""
    last_at: datetime | None
    """When the last request was made, including tests."""
    standing: SubscriptionStatus

    @property
    def day(self) -> Sums:
        """The sums of all 24 hours."""
        return Sums.of(hour.counts for hour in self.spark)

    @property
    def peak(self) -> int:
        """Attempts of its busiest hour."""
        return max(hour.attempts for hour in self.spark)


def overviews(
    session: Session,
    *,
    owner: Whose,
    now: datetime,
    text: str = "",
    environment: str = "",
    standing: str = "",
    before: str = "",
    most: int = 100,
) -> list[Overview]:
    """Return subscriptions that have not been removed, newest first.

    :param text: part of the URL or the description.
    :param standing: one of `SubscriptionStatus`; empty for any.
    :param before: the id after which the page begins.
    """
    found = sa.select(Subscription).where(Subscription.deleted_at.is_(None))
    if owner is not ALL_OWNERS:
        found = found.where(Subscription.owner == owner)
    if environment:
        found = found.where(Subscription.environment == environment)
    if text:
        is_in = [
            column.icontains(text, autoescape=True) for column in (Subscription.url, Subscription.description)
        ]
        found = found.where(sa.or_(*is_in))
    if standing:
        found = found.outerjoin(LANES, LANES.c.subscription_id == Subscription.id).where(
            _stands(standing, now)
        )
    if before:
        found = found.where(Subscription.id < before)
    rows = session.scalars(found.order_by(Subscription.id.desc()).limit(most)).all()
    return _described(session, rows, now)


def one_overview(session: Session, subscription: Subscription, now: datetime) -> Overview:
    """Return the overview of one subscription."""
    return _described(session, [subscription], now)[0]


def _described(session: Session, rows: t.Sequence[Subscription], now: datetime) -> list[Overview]:
    ids = [row.id for row in rows]
    # Three statements for all of them: one for each subscription would be hundreds on a page.
    connection = session.connection()
    lanes = {
        row.subscription_id: row
        for row in connection.execute(sa.select(LANES).where(LANES.c.subscription_id.in_(ids)))
    }
    first = hour_of(now) - timedelta(hours=SPARK - 1)
    hours: dict[tuple[str, datetime], t.Mapping[str, int]] = {}
    for row in connection.execute(
        sa.select(HOURS).where(HOURS.c.subscription_id.in_(ids), HOURS.c.hour >= first)
    ).mappings():
        hours[row["subscription_id"], row["hour"]] = t.cast("t.Mapping[str, int]", row)
    last = _last_attempts(connection, ids)
    return [
        Overview(
            subscription=row,
            lane=lanes.get(row.id),
            spark=tuple(_hour(hours.get((row.id, first + timedelta(hours=n)))) for n in range(SPARK)),
            last_at=last.get(row.id),
            standing=standing(row, lanes.get(row.id), now),
        )
        for row in rows
    ]


def _hour(row: t.Mapping[str, int] | None) -> Sums:
    return Sums.of([row] if row is not None else [])


def _last_attempts(connection: sa.Connection, ids: t.Sequence[str]) -> dict[str, datetime]:
    """Return when each subscription was last sent to: one probe of the index (subscription, started_at) for each."""
    newest = (
        sa.select(ATTEMPTS.c.started_at)
        .where(ATTEMPTS.c.subscription_id == Subscription.id)
        .order_by(ATTEMPTS.c.started_at.desc())
        .limit(1)
        .correlate(Subscription)
        .scalar_subquery()
    )
    rows = connection.execute(sa.select(Subscription.id, newest.label("at")).where(Subscription.id.in_(ids)))
    return {row.id: row.at for row in rows if row.at is not None}


def has_log() -> sa.ColumnElement[bool]:
    """Whether a subscription exists, or was removed and still has deliveries: one probe of an index for each."""
    some = (
        sa.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.subscription_id == Subscription.id)
        .order_by(DELIVERIES.c.state, DELIVERIES.c.id)
        .limit(1)
    )
    return sa.or_(
        Subscription.deleted_at.is_(None), some.correlate(Subscription).scalar_subquery().is_not(None)
    )


def standing(subscription: Subscription, lane: sa.Row[t.Any] | None, now: datetime) -> SubscriptionStatus:
    """Return the condition of a subscription."""
    # The most urgent first: a subscription that is off and was failing is off.
    if not subscription.active:
        return SubscriptionStatus.DISABLED if subscription.disabled_reason else SubscriptionStatus.OFF
    if lane is not None and lane.paused_until is not None and lane.paused_until > now:
        return SubscriptionStatus.PAUSED
    if lane is not None and lane.failures:
        return SubscriptionStatus.FAILING
    return SubscriptionStatus.ON


def _stands(name: str, now: datetime) -> sa.ColumnElement[bool]:
    """Return `standing` as a condition in SQL."""
    paused = sa.and_(LANES.c.paused_until.is_not(None), LANES.c.paused_until > now)
    failing = sa.func.coalesce(LANES.c.failures, 0) > 0
    by_hand = sa.func.coalesce(Subscription.disabled_reason, "") == ""
    conditions = {
        SubscriptionStatus.DISABLED: sa.and_(~Subscription.active, ~by_hand),
        SubscriptionStatus.OFF: sa.and_(~Subscription.active, by_hand),
        SubscriptionStatus.PAUSED: sa.and_(Subscription.active, paused),
        SubscriptionStatus.FAILING: sa.and_(Subscription.active, sa.not_(paused), failing),
        SubscriptionStatus.ON: sa.and_(Subscription.active, sa.not_(paused), sa.not_(failing)),
    }
    return conditions[SubscriptionStatus(name)]


def oldest_waiting(connection: sa.Connection, subscription_id: str, state: State) -> str | None:
    """Return the id of the oldest delivery of a subscription in a state."""
    oldest = outbox.in_state(connection.dialect, subscription_id, state.value).limit(1)
    return t.cast("str | None", connection.scalar(oldest))


def with_log(session: Session, *, owner: Whose, most: int) -> t.Sequence[Subscription]:
    """Return subscriptions that have a log or may get one, newest first, removed ones last."""
    found = sa.select(Subscription).where(has_log())
    # False sorts before true on each database, so removed ones come last.
    found = found.order_by(Subscription.deleted_at.is_not(None), Subscription.id.desc())
    if owner is not ALL_OWNERS:
        found = found.where(Subscription.owner == owner)
    return session.scalars(found.limit(most)).all()


def ids_with_log(session: Session, owner: str, *, subscription_id: str | None = None) -> list[str]:
    """Return the ids of an owner's subscriptions whose deliveries are listed: of removed ones the newest `REMOVED`.

    :param subscription_id: only this one, if it is the owner's.
    """
    found = sa.select(Subscription.id).where(Subscription.owner == owner)
    if subscription_id is not None:
        return list(session.scalars(found.where(Subscription.id == subscription_id)))
    keys = list(session.scalars(found.where(Subscription.deleted_at.is_(None))))
    removed = found.where(Subscription.deleted_at.is_not(None), has_log())
    removed = removed.order_by(Subscription.id.desc()).limit(REMOVED)
    # Each environment is a range of an index, read from its end.
    parts = [removed.where(Subscription.environment == each).subquery().select() for each in ENVIRONMENTS]
    return [*keys, *session.scalars(sa.union_all(*parts))]


def owner_of(session: Session, subscription_id: str) -> str | None:
    """Return the owner of a subscription, also of a removed one; None if it does not exist."""
    return session.scalar(sa.select(Subscription.owner).where(Subscription.id == subscription_id))


def lane_of(connection: sa.Connection, subscription_id: str) -> sa.Row[t.Any] | None:
    """Return the row of `Lane` of a subscription; None: nothing was ever sent."""
    return connection.execute(
        sa.select(LANES).where(LANES.c.subscription_id == subscription_id)
    ).one_or_none()


def some_of(session: Session, ids: t.Collection[str]) -> t.Sequence[Subscription]:
    """Return subscriptions by their ids, newest first."""
    found = sa.select(Subscription).where(Subscription.id.in_(ids))
    return session.scalars(found.order_by(Subscription.id.desc())).all()


def ids_by_pattern(session: Session, *, owner: Whose) -> dict[str, set[str]]:
    """Return the ids of the subscriptions that listen to each pattern; those of `PATTERNS` listeners at most."""
    rows = sa.select(Listener.event, Listener.subscription_id).join(
        Subscription, Subscription.id == Listener.subscription_id
    )
    rows = rows.where(Subscription.deleted_at.is_(None))
    if owner is not ALL_OWNERS:
        rows = rows.where(Listener.owner == owner)
    found: dict[str, set[str]] = {}
    for pattern, key in session.execute(rows.limit(PATTERNS)):
        found.setdefault(pattern, set()).add(key)
    return found


def with_certificate(session: Session) -> t.Sequence[Subscription]:
    """Return the subscriptions that have a client certificate, newest first."""
    found = sa.select(Subscription).where(Subscription.client_certificate.is_not(None))
    return session.scalars(found.order_by(Subscription.id.desc())).all()
