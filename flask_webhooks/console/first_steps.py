"""The steps after a webhook is created: store its secret, verify its signatures, receive a test."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from .. import queries, subscriptions
from ..errors import SubscriptionMissingError
from ..models import State, Subscription
from ..queries import LogQuery
from . import once
from .pages import Page, PageContext, Redirect, page
from .secrets import OVERLAPS, shown_secrets
from .snippets import snippets

__all__ = ["arrive", "set_up"]


def arrive(context: PageContext, key: str, secret_id: str) -> Redirect:
    """Redirect to the steps of a webhook, which show its secret once."""
    try:
        row = subscriptions.find(context.session, key, owner=context.owner)
    except SubscriptionMissingError:  # it was created by an earlier submission, and removed since
        return Redirect("index")
    # None: the secret was rotated since, and has expired. The page of the webhook can show the new one.
    if subscriptions.reveal_one(context.state, row, secret_id) is None:
        return Redirect("webhook", {"subscription_id": key})
    context.session.rollback()  # on SQLite a transaction that has read may not be able to write
    return Redirect(
        "set_up", {"subscription_id": key, once.SHOWN_ONCE: once.show_once(context, [key, secret_id])}
    )


@page("GET", "/webhooks/<uuid:subscription_id>/set-up", right="write", stores=False)
def set_up(context: PageContext, subscription_id: object) -> Page:
    """Show the steps and which of them are done; the secret only directly after the webhook was created."""
    made = once.shown_once(context)
    row = subscriptions.find(context.session, str(subscription_id), owner=context.owner)
    connection = context.session.connection()
    delivered = LogQuery(subscriptions=(row.id,), state=State.DELIVERED)
    values: dict[str, t.Any] = {
        "subscription": row,
        "secret": _secret(context, row, made),
        "secrets": shown_secrets(context, row, datetime.now(UTC)),
        "overlaps": OVERLAPS,
        "snippets": snippets(row),
        "has_arrived": bool(queries.search(connection, delivered, 1).entries),
    }
    return Page("set_up.html", values)


def _secret(context: PageContext, row: Subscription, made: t.Sequence[str] | None) -> str:
    if made is None or made[0] != row.id:
        return ""
    found = subscriptions.reveal_one(context.state, row, made[1])
    return found.shown if found is not None else ""
