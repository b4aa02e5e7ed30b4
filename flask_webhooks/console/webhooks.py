"""Webhooks: the first page, which lists them with their health; the page of each, with charts; switching, removing."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import models, outbox, queries, subscriptions
from ..delivery import TEST_EVENT
from ..errors import SubscriptionError
from ..ids import made_at
from ..models import State
from ..queries import WINDOWS, LogQuery, Overview, SubscriptionStatus
from ..retry import schedule
from ..subscriptions import SubscriptionInput
from .charts import window_of
from .event_picker import Names, count_events, few
from .form import settings_of
from .i18n import _
from .pages import Page, PageContext, Redirect, page
from .secrets import OVERLAPS, shown_secrets
from .snippets import snippets

__all__ = ["held_count", "index", "remove", "switch", "webhook"]

MOST = 50
"""Webhooks on a page of the list."""
RECENT = 8
"""Deliveries on the page of a webhook."""
STATES = ("on", "failing", "paused", "disabled", "off")


@page("GET", "/", right="read")
def index(context: PageContext) -> Page:
    """List webhooks."""
    query = {name: context.query.get(name, "").strip() for name in ("q", "environment", "state")}
    before = context.identifier("before")
    found = queries.overviews(
        context.session,
        owner=context.owner,
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
        "catalog": context.state.catalog,
    }
    return Page("_webhooks.html" if context.is_partial else "webhooks.html", values)


def overview_of(context: PageContext, subscription_id: str) -> Overview:
    """Return one webhook with its health.

    :raises SubscriptionMissingError: it does not exist, or belongs to another owner.
    """
    row = subscriptions.find(context.session, subscription_id, owner=context.owner)
    return queries.one_overview(context.session, row, datetime.now(UTC))


# ---- the page of one -------------------------------------------------------------------------------------


@page("GET", "/webhooks/<uuid:subscription_id>", right="read")
def webhook(context: PageContext, subscription_id: object) -> Page:
    """Show a webhook."""
    now = datetime.now(UTC)
    overview = overview_of(context, str(subscription_id))
    row = overview.subscription
    connection = context.session.connection()
    window = window_of(context)
    oldest = queries.oldest_waiting(connection, row.id, State.PENDING)
    values = {
        "overview": overview,
        "tagged": _other_environment(context, row.environment),
        "subscription": row,
        "note": standing_note(overview),
        "week": queries.series(connection, row.id, "7d", now).total,
        "oldest": made_at(oldest) if oldest is not None else None,
        "pending": outbox.count_in_state(connection, row.id, State.PENDING.value),
        "held": outbox.count_in_state(connection, row.id, State.HELD.value),
        "recent": queries.search(connection, LogQuery(subscriptions=(row.id,)), RECENT).entries,
        "window": window,
        "windows": list(WINDOWS),
        "series": queries.series(connection, row.id, window, now),
        "secrets": shown_secrets(context, row, now),
        "overlaps": OVERLAPS,
        "snippets": snippets(row),
        "events": count_events(context.state.catalog, [listener.event for listener in row.listeners]),
        "test_events": _test_events(context, row),
        "settings_shown": settings_of(row, _waits(context, row)),
    }
    return Page("webhook.html", values)


def _other_environment(context: PageContext, environment: str) -> str:
    """Return the only environment of this app's events, if the webhook's differs from it; else an empty text."""
    tagged = context.state.settings.only_environment
    return tagged if tagged is not None and tagged != environment else ""


def _test_events(context: PageContext, row: models.Subscription) -> Names:
    expand = context.state.catalog.expand
    names = sorted({event.name for listener in row.listeners for event in expand(listener.event)})
    return few([TEST_EVENT, *names])


def _waits(context: PageContext, row: models.Subscription) -> tuple[float, ...]:
    return schedule(row.retry) if row.retry is not None else context.state.settings.retry


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


# ---- changing one ----------------------------------------------------------------------------------------


@page("POST", "/webhooks/<uuid:subscription_id>/switch", right="write")
def switch(context: PageContext, subscription_id: object) -> Page | Redirect:
    """Switch a webhook on or off. If deliveries are held, redirect to its page, which asks what to do with them."""
    key = str(subscription_id)
    on = context.form.get("active") == "on"
    held = context.form.get("held") or None
    try:
        given = SubscriptionInput(active=on, held=held)
        subscriptions.change(context.state, context.session, key, given, owner=context.owner)
    except SubscriptionError as error:
        if "held" not in error.fields:
            raise
        context.session.rollback()  # nothing was changed, but the rows are locked
        return Redirect("webhook", {"subscription_id": key, "_anchor": "held"})
    context.session.flush()
    if context.is_partial and context.form.get("place") == "list":
        context.session.commit()
        return Page(
            "_webhook_row.html", {"overview": overview_of(context, key), "catalog": context.state.catalog}
        )
    return Redirect("webhook", {"subscription_id": key}, notice="on" if on else "off")


@page("POST", "/webhooks/<uuid:subscription_id>/remove", right="write")
def remove(context: PageContext, subscription_id: object) -> Redirect:
    """Remove a webhook; its pending and held deliveries are cancelled."""
    subscriptions.remove(context.state, context.session, str(subscription_id), owner=context.owner)
    return Redirect("index", notice="removed")


def held_count(context: PageContext, subscription_id: str) -> int:
    """Return the number of deliveries that are held while the webhook is off."""
    return outbox.count_in_state(context.session.connection(), subscription_id, State.HELD.value)
