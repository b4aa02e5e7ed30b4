"""The first page, which lists webhooks with their health; switching a webhook on and off; removing it."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import outbox, queries, subscriptions
from ..errors import SubscriptionError
from ..models import State
from ..queries import Overview, SubscriptionStatus
from ..subscriptions import SubscriptionInput
from .i18n import _
from .pages import Page, PageContext, Redirect, page

__all__ = ["index", "remove", "switch"]

MOST = 50
STATES = ("on", "failing", "paused", "disabled", "off")


@page("GET", "/", right="read")
def index(visit: PageContext) -> Page:
    """List webhooks."""
    query = {name: visit.query.get(name, "").strip() for name in ("q", "environment", "state")}
    before = visit.identifier("before")
    found = queries.overviews(
        visit.session,
        owner=visit.owner,
        now=datetime.now(UTC),
        text=query["q"][:200],
        environment=query["environment"],
        standing=query["state"] if query["state"] in STATES else "",
        before=before,
        most=MOST + 1,
    )
    shown = found[:MOST]
    values = {
        "overviews": shown,
        "next": shown[-1].subscription.id if len(found) > MOST else None,
        "is_first": not found and not before and not any(query.values()),
        "query": query,
        "states": STATES,
        "catalog": visit.state.catalog,
    }
    return Page("_webhooks.html" if visit.is_partial else "webhooks.html", values)


def overview_of(visit: PageContext, subscription_id: str) -> Overview:
    """Return one webhook with its health.

    :raises SubscriptionMissingError: it does not exist, or belongs to another owner.
    """
    row = subscriptions.find(visit.session, subscription_id, owner=visit.owner)
    return queries.one_overview(visit.session, row, datetime.now(UTC))


@page("POST", "/webhooks/<uuid:subscription_id>/switch", right="write")
def switch(visit: PageContext, subscription_id: object) -> Page | Redirect:
    """Switch a webhook on or off. If deliveries are held, redirect to its page, which asks whether to send them."""
    key = str(subscription_id)
    on = visit.form.get("active") == "on"
    held = visit.form.get("held") or None
    try:
        given = SubscriptionInput(active=on, held=held)
        subscriptions.change(visit.state, visit.session, key, given, owner=visit.owner)
    except SubscriptionError as error:
        if "held" not in error.fields:
            raise
        visit.session.rollback()
        return Redirect("webhook", {"subscription_id": key, "_anchor": "held"})
    visit.session.flush()
    if visit.is_partial and visit.form.get("place") == "list":
        visit.session.commit()
        return Page(
            "_webhook_row.html", {"overview": overview_of(visit, key), "catalog": visit.state.catalog}
        )
    return Redirect("webhook", {"subscription_id": key}, notice="on" if on else "off")


@page("POST", "/webhooks/<uuid:subscription_id>/remove", right="write")
def remove(visit: PageContext, subscription_id: object) -> Redirect:
    """Remove a webhook; its pending and held deliveries are cancelled."""
    subscriptions.remove(visit.state, visit.session, str(subscription_id), owner=visit.owner)
    return Redirect("index", notice="removed")


def held_count(visit: PageContext, subscription_id: str) -> int:
    """Return the number of deliveries that are held while the webhook is off."""
    return outbox.count_in_state(visit.session.connection(), subscription_id, State.HELD.value)


def standing_note(overview: Overview) -> str:
    """Return one sentence on why a webhook is not simply on; empty if it is."""
    row = overview.subscription
    if overview.standing is SubscriptionStatus.DISABLED:
        if row.disabled_reason == "gone":
            return _("Your receiver answered 410 Gone, so we switched this webhook off. Events are held.")
        return _("Your receiver failed for too long, so we switched this webhook off. Events are held.")
    if overview.standing is SubscriptionStatus.OFF:
        return _("Switched off manually. Events are held.")
    lane = overview.lane
    if overview.standing is SubscriptionStatus.PAUSED and lane is not None:
        if lane.pauses == 1:
            attempts = lane.window_ok + lane.window_failed
            return _(
                "%(failed)s of %(all)s recent requests failed. We wait for a while, then try a single request.",
                failed=lane.window_failed,
                all=attempts,
            )
        return _("Most of the recent requests failed. We wait for a while, then try a single request.")
    if lane is not None and lane.waits_for == "receiver":
        return _(
            "Your receiver asks us to slow down. We wait as requested and send less often; nothing is lost."
        )
    if lane is not None and lane.waits_for == "sender":
        return _(
            "We cannot reach any receiver because of a fault on our side. Deliveries wait and continue by themselves."
        )
    return ""
