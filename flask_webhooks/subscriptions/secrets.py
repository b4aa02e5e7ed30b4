"""Reveals and rotates the signing secrets of a subscription; during a rotation old and new ones sign together."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import models, signing
from ..errors import ErrorText, SecretError, SubscriptionError
from ..ids import uuid7
from . import validation
from .validation_errors import ValidationErrors

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["LONGEST_OVERLAP", "OVERLAP", "reveal", "reveal_one", "rotate", "secret_id"]

OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)
MOST_SECRETS = 50
"""Secrets that sign at once. Any number, but for the header: each adds 48 bytes to it (`v1a` 93), and nginx, Apache and
gunicorn take 8 KiB for one, Node.js 16 KiB for all."""


def reveal(
    state: AppState, subscription: models.Subscription, now: datetime
) -> list[tuple[models.Secret, signing.Secret]]:
    """Return the secrets in force, the current one first.

    :raises SecretError: one was sealed with a key that is not configured any more.
    """
    return [(row, signing.parse(_open(state, row))) for row in _in_force(subscription, now)]


def reveal_one(state: AppState, subscription: models.Subscription, secret_id: str) -> signing.Secret | None:
    """Return one secret; None if it is not kept any more."""
    found = next((row for row in subscription.secrets if row.id == secret_id), None)
    return signing.parse(_open(state, found)) if found is not None else None


def secret_id(session: Session, subscription: models.Subscription) -> str:
    """Return the id of the current secret."""
    mine = models.Secret.subscription_id == subscription.id, models.Secret.expires_at.is_(None)
    return str(session.scalar(sa.select(models.Secret.id).where(*mine)))


def _in_force(subscription: models.Subscription, now: datetime) -> list[models.Secret]:
    current = [row for row in subscription.secrets if row.expires_at is None or row.expires_at > now]
    return sorted(current, key=lambda row: (row.expires_at is None, row.id), reverse=True)


def _open(state: AppState, row: models.Secret) -> str:
    return state.vault.open(row.sealed, signing.place_of("secret", row.subscription_id, row.id))


def _text(state: AppState, row: models.Secret) -> str | None:
    """Return the secret in the clear; None if no key opens it: a rotation must still be possible then."""
    try:
        return _open(state, row)
    except SecretError:
        return None


def add(
    state: AppState, session: Session, subscription_id: str, secret: signing.Secret, now: datetime
) -> None:
    """Seal a secret and keep it as the current one."""
    key = uuid7()
    sealed = state.vault.seal(secret.text, signing.place_of("secret", subscription_id, key))
    session.add(models.Secret(id=key, subscription_id=subscription_id, sealed=sealed, created_at=now))


def rotate(
    state: AppState,
    session: Session,
    subscription: models.Subscription,
    *,
    now: datetime,
    overlap: timedelta = OVERLAP,
    secret: str | None = None,
) -> signing.Secret:
    """Put a new secret in force and return it; the old ones go on signing for as long as `overlap`.

    Call it with the subscription locked (see `changes.find`).

    :param secret: the customer's own, of the subscription's signature scheme; None makes one.
    :raises SubscriptionError: a secret that is refused, an overlap out of bounds, too many secrets in force.
    """
    faults = ValidationErrors()
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        faults.add("overlap", ErrorText("overlap_range", most=LONGEST_OVERLAP // timedelta(seconds=1)))
    new = validation.secret(secret, t.cast("t.Literal['v1', 'v1a']", subscription.signature), faults)
    faults.raise_if_any()
    assert new is not None  # noqa: S101  # raise_if_any() has raised otherwise
    in_force = _in_force(subscription, now)
    if any(_text(state, row) == new.text for row in in_force):
        raise SubscriptionError(text := ErrorText("secret_in_force"), {"secret": [text]})
    if overlap and len(in_force) >= MOST_SECRETS:
        text = ErrorText("too_many_secrets", count=len(in_force))
        raise SubscriptionError(text, {"overlap": [text]})
    ends = now + overlap
    for row in in_force:
        row.expires_at = ends if row.expires_at is None else min(row.expires_at, ends)
    session.execute(
        sa.delete(models.Secret).where(
            models.Secret.subscription_id == subscription.id, models.Secret.expires_at <= now
        ),
        execution_options={"synchronize_session": False},
    )
    add(state, session, subscription.id, new, now)
    subscription.version += 1
    subscription.updated_at = now
    session.flush()
    return new
