"""What the work itself has to remember: workers, sums by hour, replays, limits, answers to repeated requests."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .types import LONG_TEXT, UUID, Id, Key, Word

__all__ = ["HOUR_BUCKETS", "Hour", "IdempotentReply", "Replay", "Throttle", "Worker"]

HOUR_BUCKETS = 24
"""Classes of duration in `Hour`: see `outbox.statistics.BOUNDS`."""


class Worker(Base):
    """The heartbeat of one worker process."""

    __tablename__ = "webhook_workers"

    name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    delivered: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    failed: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class Hour(Base):
    """What one subscription's attempts came to in one hour: statistics need not look at the attempts themselves.

    Written in the transaction that writes the attempts, by whoever holds the lane, so that it never waits. Tests are
    not in it.
    """

    __tablename__ = "webhook_hours"

    subscription_id: Mapped[str] = mapped_column(UUID, primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    """When it begins."""
    delivered: Mapped[int] = mapped_column(default=0)
    """Deliveries that succeeded."""
    failed: Mapped[int] = mapped_column(default=0)
    """Deliveries whose schedule was used up."""
    ok: Mapped[int] = mapped_column(default=0)
    """Attempts answered 2xx; the next four count the others, each attempt once."""
    redirected: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    """4xx."""
    broken: Mapped[int] = mapped_column(default=0)
    """5xx."""
    unanswered: Mapped[int] = mapped_column(default=0)
    """No complete answer, or no request."""


for _number in range(HOUR_BUCKETS):
    setattr(
        Hour,
        f"took_{_number}",
        mapped_column("took_" + str(_number), sa.Integer, default=0, server_default="0", nullable=False),
    )


class Replay(Base):
    """Deliveries of one subscription that are sent again, a few at a time."""

    __tablename__ = "webhook_replays"
    __table_args__ = (
        sa.Index("ix_webhook_replays_of", "subscription_id", "id"),
        sa.Index("ix_webhook_replays_running", "state", "next_at"),
    )

    id: Mapped[Id]
    subscription_id: Mapped[Key]
    state: Mapped[Word]
    """`running`, `done`, `cancelled`."""
    states: Mapped[list[str]] = mapped_column(sa.JSON)
    """Which deliveries: states of `State`, and `missed`."""
    events: Mapped[list[str]] = mapped_column(sa.JSON)
    """Which event types; empty: all that it listens to."""
    since: Mapped[datetime]
    until: Mapped[datetime]
    digest: Mapped[str] = mapped_column(sa.String(64))
    """Of what was asked for: the same asked again while it runs is the same replay."""
    total: Mapped[int]
    """Deliveries that matched when it was made."""
    queued: Mapped[int] = mapped_column(default=0)
    """Deliveries made due so far."""
    stage: Mapped[int] = mapped_column(default=0)
    """Which of `states` is being worked through."""
    cursor: Mapped[str | None] = mapped_column(UUID, default=None)
    """How far."""
    next_at: Mapped[datetime]
    """When to queue the next few."""
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


class Throttle(Base):
    """What one owner has taken of what is limited: see `throttle`."""

    __tablename__ = "webhook_throttles"

    owner: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    """What is limited: `requests`, `creations`, `place 0`, ...; a retry's place is its delivery's id without dashes."""
    free_at: Mapped[int] = mapped_column(sa.BigInteger)
    """When all of it is free again: microseconds since 1970, so that one statement can add to it on each database."""


class IdempotentReply(Base):
    """What a request of the API that carried an `Idempotency-Key`, or a form of the console, has made."""

    __tablename__ = "webhook_replies"
    __table_args__ = (sa.Index("ix_webhook_replies_of_age", "created_at"),)

    owner: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64))
    """SHA-256 of the request: the key cannot be taken for another one."""
    status: Mapped[int]
    sealed: Mapped[str] = mapped_column(LONG_TEXT)
    """The ids of what it made, as a JSON list: nothing of the answer itself, which may be large or a secret."""
    created_at: Mapped[datetime]
