"""Lists of subscriptions, and the fields of one that all doors show."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..errors import SecretError
from ..models import Listener, Subscription
from ..principal import ALL_OWNERS, Whose
from . import headers
from .input import PLAIN

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["listed", "listened_to", "shown"]

_AS_THEY_ARE = (
    *("id", "owner", "url", "environment", "format", *PLAIN),
    *("disabled_reason", "disabled_at", "created_at", "updated_at"),
)


def shown(state: AppState, row: Subscription) -> dict[str, t.Any]:
    """Return what all doors show of a subscription: the names of its headers, and nothing of its secrets."""
    listeners = sorted(row.listeners, key=lambda each: each.event)
    return {
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        "events": [{"event": each.event, "includes": each.includes} for each in listeners],
        "channels": [each.event[:-2] for each in listeners if each.event.endswith(".*")],
        "headers": _header_names(state, row),
        "metadata": row.details,
        "note": _note(state, row),
    }


def _note(state: AppState, row: Subscription) -> str | None:
    ours = state.settings.only_environment
    if ours in (None, row.environment):
        return None
    return (
        f"Events of this application are for {ours}: a subscription for {row.environment} gets none of them."
    )


def _header_names(state: AppState, row: Subscription) -> list[str]:
    try:
        return headers.names(state.vault, row.headers, row.id)
    except SecretError:  # a list must not fail because a key is gone; each attempt logs that
        return []


def listed(
    session: Session,
    *,
    owner: Whose,
    environment: str | None = None,
    active: bool | None = None,
    before: str | None = None,
    most: int | None = None,
) -> t.Sequence[Subscription]:
    """Return subscriptions that have not been removed, newest first.

    :param before: the id of the last one that has been seen.
    """
    conditions: list[sa.ColumnElement[bool]] = [Subscription.deleted_at.is_(None)]
    if owner is not ALL_OWNERS:
        conditions.append(Subscription.owner == owner)
    if environment is not None:
        conditions.append(Subscription.environment == environment)
    if active is not None:
        conditions.append(Subscription.active == active)
    if before is not None:
        conditions.append(Subscription.id < before)
    found = sa.select(Subscription).where(*conditions).order_by(Subscription.id.desc()).limit(most)
    return session.scalars(found).all()


def listened_to(session: Session, owner: str, environment: str, *, besides: str | None) -> t.Sequence[str]:
    """Return the patterns of events that an owner's active subscriptions listen to.

    :param besides: the id of one that is left out; None for all of them.
    """
    return session.scalars(
        sa.select(Listener.event)
        .distinct()
        .join(Subscription, Subscription.id == Listener.subscription_id)
        .where(
            Listener.owner == owner,
            Subscription.environment == environment,
            Subscription.active,
            Subscription.deleted_at.is_(None),
            sa.true() if besides is None else Subscription.id != besides,
        )
    ).all()
