"""The tables: columns and indexes only, no workflow.

They belong to a `DeclarativeBase` of our own, so that importing a model needs no app; `attach` copies them into the
host's metadata, where `db.create_all()` and Alembic's autogenerate find them. They are read and written through
the host's own engine and session, in the host's own transactions.

Rows that come in large numbers (messages, deliveries, attempts) carry no foreign keys: they are written inside the
host's commit, where each check would cost a lock and a look-up, and they are purged in batches from the oldest on.
"""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from .ids import uuid7

__all__ = [
    "Attempt",
    "Base",
    "Delivery",
    "Hour",
    "IdempotentReply",
    "Lane",
    "Listener",
    "Message",
    "Owner",
    "Replay",
    "Secret",
    "State",
    "Subscription",
    "Trigger",
    "Worker",
    "attach",
]


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
    """Somebody, or the removal of the subscription, called it off. Final."""


class Trigger(StrEnum):
    """Why an attempt was made."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    REPLAY = "replay"
    TEST = "test"


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment: an aware datetime in UTC with microseconds, also where the database knows no time zones."""

    impl = sa.DateTime
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[t.Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


HOUR_BUCKETS = 24
"""Classes of duration in `Hour`: see `hours.BOUNDS`."""
PLAIN_INSTANT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
LONG_BINARY = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
UUID = sa.Uuid(as_uuid=False)

Id = t.Annotated[str, mapped_column(UUID, primary_key=True, default=uuid7)]
Key = t.Annotated[str, mapped_column(UUID)]
Name = t.Annotated[str, mapped_column(sa.String(255))]
Word = t.Annotated[str, mapped_column(sa.String(32))]
Seconds = t.Annotated[float, mapped_column(sa.Double)]


class Base(DeclarativeBase):
    """Root of the tables; its metadata is copied into the host's by `attach`."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Instant(), dict[str, t.Any]: sa.JSON(), list[str]: sa.JSON()}


class Subscription(Base):
    """A destination URL of one owner: what it listens to, how it is signed, whether it is on."""

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (sa.Index("ix_webhook_subscriptions_of_owner", "owner", "environment", "id"),)

    id: Mapped[Id]
    owner: Mapped[Name]
    environment: Mapped[Word]
    url: Mapped[str] = mapped_column(sa.String(2048))
    description: Mapped[str] = mapped_column(sa.String(1024), default="")
    active: Mapped[bool] = mapped_column(default=True)
    format: Mapped[str | None] = mapped_column(sa.String(64), default=None)
    """The envelope it asked for; None: the one that the catalogue gives each event."""
    headers: Mapped[str | None] = mapped_column(LONG_TEXT, default=None)
    """Custom headers, a sealed JSON object."""
    retry: Mapped[t.Any | None] = mapped_column(sa.JSON(none_as_null=True), default=None)
    """A schedule of its own ("standard", "none" or seconds); None: the event's or the app's."""
    rate_limit: Mapped[float | None] = mapped_column(sa.Double, default=None)
    """Requests a second, over all workers; None: unlimited."""
    details: Mapped[dict[str, t.Any]] = mapped_column("metadata", default=dict)
    """The customer's own notes, `metadata` in the API."""
    signature: Mapped[str] = mapped_column(sa.String(8), default="v1")
    """Scheme of new secrets: `v1` (HMAC-SHA256) or `v1a` (ed25519)."""
    disabled_reason: Mapped[str | None] = mapped_column(sa.String(64), default=None)
    """Why we switched it off (`gone`, `failing`); None while it is on or its owner switched it off."""
    disabled_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)
    """Grows with each change made through the API: its ETag."""
    deleted_at: Mapped[datetime | None] = mapped_column(default=None)
    """Removed subscriptions keep their row, so that their log stays readable until it is purged."""

    listeners: Mapped[list[Listener]] = relationship(
        cascade="all, delete-orphan", order_by="Listener.event", lazy="selectin"
    )
    secrets: Mapped[list[Secret]] = relationship(cascade="all, delete-orphan", order_by="Secret.id")


class Owner(Base):
    """One owner in one environment: the row that a change of its subscriptions locks first.

    Exclusivity and limits look at all subscriptions of an owner; without one row to wait for, two requests that
    come together would each see the other's not.
    """

    __tablename__ = "webhook_owners"

    owner: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    environment: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    changes: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class Listener(Base):
    """One event type, `channel.*` or `*` that a subscription wants, with the includes it asks for."""

    __tablename__ = "webhook_listeners"
    __table_args__ = (
        sa.UniqueConstraint("subscription_id", "event"),
        sa.Index("ix_webhook_listeners_wanted", "owner", "event"),
        # Whether a bulk statement matters to anybody at all.
        sa.Index("ix_webhook_listeners_of_event", "event"),
    )

    id: Mapped[Id]
    subscription_id: Mapped[str] = mapped_column(
        UUID, sa.ForeignKey("webhook_subscriptions.id", ondelete="CASCADE")
    )
    owner: Mapped[Name]
    """The subscription's owner, repeated here so that one index answers who wants an event."""
    event: Mapped[Name]
    includes: Mapped[list[str]] = mapped_column(default=list)


class Secret(Base):
    """A signing secret, sealed. Several overlap while one is being rotated."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (sa.Index("ix_webhook_secrets_of", "subscription_id"),)

    id: Mapped[Id]
    subscription_id: Mapped[str] = mapped_column(
        UUID, sa.ForeignKey("webhook_subscriptions.id", ondelete="CASCADE")
    )
    sealed: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it stops signing; None for the current one."""


class Lane(Base):
    """The sending side of one subscription: which worker holds it, and how its receiver is doing.

    Kept apart from the subscription, because workers write it all the time: a change made through the API must not
    wait for them, nor they for it.
    """

    __tablename__ = "webhook_lanes"

    subscription_id: Mapped[str] = mapped_column(UUID, primary_key=True)
    token: Mapped[str | None] = mapped_column(UUID, default=None)
    """The fencing token of the lease; results count only while it stands here."""
    holder: Mapped[str | None] = mapped_column(sa.String(255), default=None)
    """The worker that has the lease."""
    leased_until: Mapped[datetime | None] = mapped_column(default=None)
    served_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it was last leased: lanes take turns by it."""
    sendable_at: Mapped[datetime | None] = mapped_column(default=None)
    """With a rate limit: when the next request may start."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts in a row that failed."""
    failing_since: Mapped[datetime | None] = mapped_column(default=None)
    """When the first of them ended."""
    succeeded_at: Mapped[datetime | None] = mapped_column(default=None)
    paused_until: Mapped[datetime | None] = mapped_column(default=None)
    """The breaker: nothing is sent before; then one probe."""
    pauses: Mapped[int] = mapped_column(default=0)
    """Pauses in a row; each doubles the next."""
    window_at: Mapped[datetime | None] = mapped_column(default=None)
    """Since when the two counts below run."""
    window_ok: Mapped[int] = mapped_column(default=0)
    window_failed: Mapped[int] = mapped_column(default=0)


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
    """Grows with every message about one object; see `outbox.record`."""
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
    dedupe_key: Mapped[str | None] = mapped_column(sa.String(255), default=None)


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
    states: Mapped[list[str]]
    """Which deliveries: states of `State`, and `missed`."""
    events: Mapped[list[str]]
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


class IdempotentReply(Base):
    """The first answer to a request of the API that carried an `Idempotency-Key`."""

    __tablename__ = "webhook_replies"
    __table_args__ = (sa.Index("ix_webhook_replies_of_age", "created_at"),)

    owner: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64))
    """SHA-256 of the request: the key cannot be taken for another one."""
    status: Mapped[int]
    sealed: Mapped[str] = mapped_column(LONG_TEXT)
    """Headers and body, sealed: the answer to a creation holds the secret."""
    created_at: Mapped[datetime]


def attach(metadata: sa.MetaData) -> None:
    """Copy the tables into the host's `metadata`; a second call changes nothing.

    The copies use SQLAlchemy's own column types, so that a generated migration needs no import of ours.
    """
    for table in Base.metadata.sorted_tables:
        if table.name in metadata.tables:
            continue
        copy = table.to_metadata(metadata)
        for column in copy.columns:
            if isinstance(column.type, Instant):
                column.type = PLAIN_INSTANT
