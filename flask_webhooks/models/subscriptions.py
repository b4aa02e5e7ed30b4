"""Who wants what, and where it goes: subscriptions with their listeners, secrets and lanes."""

from __future__ import annotations

import typing as t
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Base
from .types import LONG_TEXT, UUID, Id, Name, Word

__all__ = ["Lane", "Listener", "Owner", "Secret", "Subscription"]


SEALED: t.Final[t.Mapping[str, str]] = {"headers": "headers", "client_certificate": "certificate"}
"""Columns of a subscription that hold encrypted text, each with the place that the text is bound to. Whatever opens,
re-encrypts or clears such text goes by this list."""


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
    client_certificate: Mapped[str | None] = mapped_column(LONG_TEXT, default=None)
    """What we show its receiver under TLS, given by an operator: a sealed `transport.ClientCertificate`."""
    retry: Mapped[t.Any | None] = mapped_column(sa.JSON(none_as_null=True), default=None)
    """A schedule of its own ("standard", "none" or seconds); None: the event's or the app's."""
    rate_limit: Mapped[float | None] = mapped_column(sa.Double, default=None)
    """Requests a second, over all workers; None: unlimited."""
    details: Mapped[dict[str, t.Any]] = mapped_column("metadata", sa.JSON, default=dict)
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
    includes: Mapped[list[str]] = mapped_column(sa.JSON, default=list)


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
    """When it was last leased, or its receiver's health written: lanes take turns by it, and if it is in the future,
    the clock has been put back since."""
    sendable_at: Mapped[datetime | None] = mapped_column(default=None)
    """When the next request may start, by its rate limit, what its receiver asked for, or a fault of our side."""
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
    refusals: Mapped[int] = mapped_column(default=0, server_default="0")
    """Requests to slow down (429, or 503 with `Retry-After`) since the last success."""
    paced_rate: Mapped[float | None] = mapped_column(sa.Double, default=None)
    """Requests per second that its receiver accepts, as learnt at `paced_at`; see `pace`."""
    paced_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it last asked to slow down."""
    waits_for: Mapped[str | None] = mapped_column(sa.String(16), default=None)
    """Whom it waits for until `sendable_at`: `receiver`, which asks to slow down, or `sender`, a fault of our side."""
