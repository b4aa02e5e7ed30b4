"""What happened and what became of it: messages, deliveries, attempts; rows that come in large numbers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .types import LONG_BINARY, LONG_TEXT, Id, Key, Name, Seconds, Word

__all__ = ["Attempt", "BrokenMessage", "Delivery", "Message", "State", "Trigger"]


class State(StrEnum):
    """The states of a delivery, and who moves it on."""

    PENDING = "pending"
    """Will be looked at when `due_at` has come: new or retrying. Moved on by the worker that holds its lane."""
    DELIVERED = "delivered"
    """A receiver answered 2xx. Final, but for a replay."""
    FAILED = "failed"
    """The schedule is used up, or it cannot be sent; `reason` says why. Final, but for a retry by hand."""
    HELD = "held"
    """Its subscription is off or disabled. Its owner sends or discards it when switching on again."""
    CANCELLED = "cancelled"
    """Cancelled by a user, or because its subscription was removed. Final."""
    BROKEN = "broken"
    """The data of its message could not be made: it waits until an operator repairs that or gives it up."""


class Trigger(StrEnum):
    """Why an attempt was made."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    REPLAY = "replay"
    TEST = "test"


class Message(Base):
    """One occurrence of an event type, its data frozen at commit. Its id is the idempotency key."""

    __tablename__ = "webhook_messages"
    __table_args__ = (
        sa.Index("ix_webhook_messages_of_owner", "owner", "environment", "id"),
        sa.Index("ix_webhook_messages_of_event", "owner", "event", "id"),
        sa.Index("ix_webhook_messages_of_object", "channel", "entity_id", "sequence"),
        sa.UniqueConstraint("owner", "environment", "event", "dedupe_key"),
    )

    id: Mapped[Id]
    event: Mapped[Name]
    channel: Mapped[Name]
    owner: Mapped[Name]
    environment: Mapped[Word]
    occurred_at: Mapped[datetime]
    sequence: Mapped[int] = mapped_column(sa.BigInteger)
    """Grows with every message about one object; see `outbox.recording.record`."""
    entity_id: Mapped[str | None] = mapped_column(sa.String(255), default=None)
    text: Mapped[str] = mapped_column(sa.Text)
    """The sentence for people: "Invoice created successfully." """
    transition: Mapped[str | None] = mapped_column(sa.String(64), default=None)
    status: Mapped[str | None] = mapped_column(sa.String(255), default=None)
    data: Mapped[str] = mapped_column(LONG_TEXT)
    """The main object, as JSON text."""
    extras: Mapped[str | None] = mapped_column(LONG_TEXT, default=None)
    """JSON text of every include that some listener asked for, by name, `changes` among them."""
    size: Mapped[int]
    """Bytes of `data` and `extras`."""
    dedupe_key: Mapped[str | None] = mapped_column(sa.String(200), default=None)
    """Not longer: with the other columns of its index it must fit into the 3,072 bytes that MySQL lets a key have."""


class BrokenMessage(Base):
    """A message whose data could not be made: a schema or property of the host's failed in the commit.

    A table of its own, which is empty while all is well: no commit and no look-up pays for it.
    """

    __tablename__ = "webhook_broken_messages"

    message_id: Mapped[Key] = mapped_column(primary_key=True)
    error: Mapped[str] = mapped_column(sa.Text)
    """What failed, for operators: it may show values of the row."""
    broken_at: Mapped[datetime]
    given_up: Mapped[str | None] = mapped_column(sa.String(64), default=None)
    """Why it was given up; None: it waits to be repaired."""


class Delivery(Base):
    """One message to one subscription."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("message_id", "subscription_id"),
        # What a worker asks: which lanes have work, and what is next in a lane.
        sa.Index(
            "ix_webhook_deliveries_due",
            "subscription_id",
            "due_at",
            "id",
            postgresql_where=sa.text("due_at IS NOT NULL"),
            sqlite_where=sa.text("due_at IS NOT NULL"),
        ),
        sa.Index("ix_webhook_deliveries_of_state", "subscription_id", "state", "id"),
    )

    id: Mapped[Id]
    message_id: Mapped[Key]
    subscription_id: Mapped[Key]
    state: Mapped[Word]
    due_at: Mapped[datetime | None]
    """When to look at it again; None exactly when it is not pending."""
    attempts: Mapped[int] = mapped_column(default=0)
    trigger: Mapped[Word] = mapped_column(default=Trigger.AUTOMATIC.value)
    """Of the next attempt."""
    format: Mapped[str] = mapped_column(sa.String(64))
    includes: Mapped[str | None] = mapped_column(sa.Text, default=None)
    """What its listener asked for when it was recorded: names with commas between; None for nothing."""
    reason: Mapped[str | None] = mapped_column(sa.String(64), default=None)
    """Class of the last failure, or why it was held or cancelled."""
    body: Mapped[bytes | None] = mapped_column(LONG_BINARY, default=None)
    """The exact bytes, kept from the first failed attempt on, so that every retry sends the same."""
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


class Attempt(Base):
    """One HTTP request for a delivery: what was sent and what came back. Times in seconds."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        sa.Index("ix_webhook_attempts_of_delivery", "delivery_id"),
        sa.Index("ix_webhook_attempts_of_subscription", "subscription_id", "started_at"),
    )

    id: Mapped[Id]
    delivery_id: Mapped[Key]
    subscription_id: Mapped[Key]
    number: Mapped[int]
    trigger: Mapped[Word]
    started_at: Mapped[datetime]
    status: Mapped[int | None]
    failure: Mapped[str | None] = mapped_column(sa.String(32))
    detail: Mapped[str] = mapped_column(sa.Text)
    """One line for the owner."""
    url: Mapped[str] = mapped_column(sa.String(2048))
    request_headers: Mapped[str] = mapped_column(sa.Text)
    """JSON object; the values of custom headers are masked."""
    body_sha256: Mapped[str] = mapped_column(sa.String(64))
    """Proves that a body rendered again is the one that was sent."""
    body_size: Mapped[int]
    response_headers: Mapped[str | None] = mapped_column(LONG_TEXT)
    response_body: Mapped[bytes | None] = mapped_column(LONG_BINARY)
    response_truncated: Mapped[bool]
    address: Mapped[str | None] = mapped_column(sa.String(64))
    dns_seconds: Mapped[Seconds | None]
    connect_seconds: Mapped[Seconds | None]
    tls_seconds: Mapped[Seconds | None]
    first_byte_seconds: Mapped[Seconds | None]
    total_seconds: Mapped[Seconds]
    worker: Mapped[Name]
