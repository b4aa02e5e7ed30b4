"""The signing secret: shown with the right to it and only on request, rotated with an overlap."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .. import subscriptions
from ..errors import SecretError, SubscriptionError, SubscriptionMissingError
from ..models import Subscription
from ..signing import Secret
from . import once
from .i18n import sentence_of
from .pages import Page, PageContext, Redirect, page

__all__ = ["OVERLAPS", "renewed", "reveal", "rotate", "secrets_of", "shown_secrets"]

OVERLAPS = (0, 3600, 86_400, 3 * 86_400, 7 * 86_400)
"""Overlaps to choose from, in seconds; a day by default, as in the API."""


@dataclass(frozen=True)
class ShownSecret:
    """A valid secret, as a page shows it."""

    created_at: datetime
    expires_at: datetime | None
    """None for the current one."""
    text: str = field(repr=False)
    """Empty while it is hidden."""
    is_public: bool
    """Whether `text` is the public key of a pair, which can only verify."""


def shown_secrets(
    context: PageContext, row: Subscription, now: datetime, *, clear: bool = False
) -> list[ShownSecret]:
    """Return the valid secrets, the current one first.

    :param clear: with their texts.
    """
    if clear:
        return [
            ShownSecret(kept.created_at, kept.expires_at, secret.shown, secret.public is not None)
            for kept, secret in subscriptions.reveal(context.state, row, now)
        ]
    current = [kept for kept in row.secrets if kept.expires_at is None or kept.expires_at > now]
    current.sort(key=lambda kept: (kept.expires_at is None, kept.id), reverse=True)
    public = _public(context, row, now)
    return [ShownSecret(kept.created_at, kept.expires_at, "", kept.id in public) for kept in current]


def _public(context: PageContext, row: Subscription, now: datetime) -> set[str]:
    """Return the ids of the secrets that are key pairs. If one cannot be decrypted, the scheme of new ones decides."""
    try:
        return {kept.id for kept, secret in subscriptions.reveal(context.state, row, now) if secret.public}
    except SecretError:
        return {kept.id for kept in row.secrets} if row.signature == "v1a" else set()


@page("POST", "/webhooks/<uuid:subscription_id>/secret", right="secrets", stores=False)
def reveal(context: PageContext, subscription_id: object) -> Page:
    """Show the secrets. It is a POST, so that neither the browser's history nor a link shows them again."""
    row = subscriptions.find(context.session, str(subscription_id), owner=context.owner)
    return _page(context, row)


@page("POST", "/webhooks/<uuid:subscription_id>/rotate", right="secrets", stores=False)
def rotate(context: PageContext, subscription_id: object) -> Page | Redirect:
    """Rotate to a new secret and show it."""
    key = str(subscription_id)
    given = context.form.get("overlap", "86400")
    overlap = (
        int(given) if re.fullmatch(r"[0-9]{1,9}", given) else -1
    )  # `rotate` refuses -1 with a sentence for the field
    row = subscriptions.find(context.session, key, owner=context.owner, to_change=True)
    try:
        subscriptions.rotate(
            context.state,
            context.session,
            row,
            now=datetime.now(UTC),
            overlap=timedelta(seconds=overlap),
        )
    except SubscriptionError as error:
        context.session.rollback()  # ends the lock on the row
        row = subscriptions.find(context.session, key, owner=context.owner)
        return _page(context, row, fault=sentence_of(error), status=422)
    if not context.is_partial:  # a redirect, so that a reload of the page does not rotate again
        return Redirect("renewed", {"subscription_id": key, once.SHOWN_ONCE: once.show_once(context, [key])})
    context.session.commit()
    context.session.expire(row, ["secrets"])
    return _page(context, row, is_new=True)


@page("GET", "/webhooks/<uuid:subscription_id>/renewed", right="secrets", stores=False)
def renewed(context: PageContext, subscription_id: object) -> Page:
    """Show the secrets once after a rotation; later the page says that they are hidden."""
    key = str(subscription_id)
    is_new = once.shown_once(context) == [key]
    row = subscriptions.find(context.session, key, owner=context.owner)
    return _page(context, row, is_new=is_new, is_clear=is_new)


def secrets_of(context: PageContext, key: str) -> list[Secret] | None:
    """Return the secrets that a webhook signs with; None if it is not the visitor's, or one cannot be decrypted."""
    try:
        row = subscriptions.find(context.session, key, owner=context.owner)
        return [secret for _kept, secret in subscriptions.reveal(context.state, row, datetime.now(UTC))]
    except (SubscriptionMissingError, SecretError):
        return None


def _page(context: PageContext, row: Subscription, status: int = 200, **more: t.Any) -> Page:
    values = {
        "subscription": row,
        "secrets": shown_secrets(
            context, row, datetime.now(UTC), clear="fault" not in more and more.get("is_clear", True)
        ),
        "overlaps": OVERLAPS,
        "is_clear": True,
        **more,
    }
    return Page("_secret.html" if context.is_partial else "secret.html", values, status)
