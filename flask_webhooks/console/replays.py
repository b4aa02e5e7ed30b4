"""Replays: choose deliveries, count them, start, show progress, stop."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

from .. import models, subscriptions
from ..errors import SubscriptionError, SubscriptionMissingError
from ..replay import MODES, Filter, digest, find, listened_to, newest
from ..web import Refused, manual
from .event_picker import few
from .i18n import _, sentence_of
from .pages import Page, PageContext, Redirect, page
from .rendering import nothing

__all__ = ["count_replay", "new_replay", "replay", "start_replay", "stop_replay"]

SPANS: t.Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
SHOWN = 10
"""Replays that the page lists: the newest ones."""
LONGEST_NAME, MOST_EVENTS = 255, 100


@page("GET", "/webhooks/<uuid:subscription_id>/replay", right="write")
def new_replay(context: PageContext, subscription_id: object) -> Page:
    """Show the filter, and the previous replays."""
    row = subscriptions.find(context.session, str(subscription_id), owner=context.owner)
    return _wizard(context, row, _asked(context.query))


@page("POST", "/webhooks/<uuid:subscription_id>/replay/count", right="write")
def count_replay(context: PageContext, subscription_id: object) -> Page:
    """Show how many deliveries match the filter."""
    key = str(subscription_id)
    row = subscriptions.find(context.session, key, owner=context.owner)
    asked = _asked(context.form)
    total = manual.count_replay(context, key, _filter(context, asked))
    if context.is_partial:
        return Page("_replay_count.html", {"subscription": row, "asked": asked, "total": total})
    return _wizard(context, row, asked, total=total)


@page("POST", "/webhooks/<uuid:subscription_id>/replay", right="write")
def start_replay(context: PageContext, subscription_id: object) -> Page | Redirect:
    """Start a replay."""
    key = str(subscription_id)
    subscriptions.find(context.session, key, owner=context.owner)
    asked = _asked(context.form)
    try:
        found = manual.start_replay(context, key, _filter(context, asked))
    except SubscriptionMissingError:  # a SubscriptionError too, but shown as a page of its own
        raise
    except SubscriptionError as error:
        context.session.rollback()
        row = subscriptions.find(context.session, key, owner=context.owner)
        return _wizard(context, row, asked, status=409, fault=sentence_of(error))
    return Redirect("replay", {"replay_id": found.id}, notice="replaying")


@page("GET", "/replays/<uuid:replay_id>", right="read")
def replay(context: PageContext, replay_id: object) -> Page:
    """Show the progress of a replay."""
    row, subscription = _find(context, str(replay_id))
    values = {"replay": row, "subscription": subscription}
    return Page("_replay.html" if context.is_partial else "replay.html", values)


@page("POST", "/replays/<uuid:replay_id>/stop", right="write")
def stop_replay(context: PageContext, replay_id: object) -> Redirect:
    """Stop a replay: no further deliveries are queued."""
    row, _subscription = _find(context, str(replay_id))
    key = row.id
    manual.stop_replay(context, key)
    return Redirect("replay", {"replay_id": key}, notice="stopped")


def _find(context: PageContext, replay_id: str) -> tuple[models.Replay, models.Subscription]:
    row = find(context.session, replay_id, owner=context.owner)
    subscription = context.session.get(models.Subscription, row.subscription_id) if row is not None else None
    if row is None or subscription is None:
        raise nothing()
    return row, subscription


def _asked(sent: t.Any) -> dict[str, t.Any]:
    mode, span = sent.get("mode", "failed"), sent.get("time", "24h")
    return {
        "mode": mode if mode in MODES else "failed",
        "time": span if span in SPANS else "24h",
        "events": [name.strip()[:LONGEST_NAME] for name in sent.getlist("event")[:MOST_EVENTS]],
    }


def _filter(context: PageContext, asked: t.Mapping[str, t.Any]) -> Filter:
    now = datetime.now(UTC)
    events = tuple(filter(None, asked["events"]))
    # An empty filter means all events, so an unknown event must not be dropped from it.
    if not context.state.catalog.events.keys() >= set(events):
        raise Refused(404, _("There is no such event."))
    return Filter(
        states=MODES[asked["mode"]],
        events=events,
        since=now - SPANS[asked["time"]],
        until=now,
        digest=digest("console", asked["mode"], asked["time"], sorted(events)),
    )


def _wizard(
    context: PageContext,
    row: models.Subscription,
    asked: dict[str, t.Any],
    *,
    status: int = 200,
    **more: t.Any,
) -> Page:
    values = {
        "subscription": row,
        "asked": asked,
        "modes": _modes(context),
        "spans": list(SPANS),
        "events": few(sorted(listened_to(context.state, row))),
        "replays": newest(context.session, row.id, SHOWN),
        **more,
    }
    return Page("replay_new.html", values, status)


def _modes(context: PageContext) -> list[tuple[str, str, str]]:
    missed = _(
        "Events that this webhook listens to now but has no delivery of, because they happened before it was set up."
    )
    if context.state.settings.record != "all":
        missed += " " + _("Only events that matched a webhook were stored.")
    return [
        ("failed", _("Failed"), _("Deliveries that failed after all retries.")),
        ("held", _("Held"), _("Deliveries that were held while the webhook was off.")),
        (
            "all",
            _("Everything"),
            _("Including deliveries that succeeded. Your receiver gets the same webhook-id again."),
        ),
        ("missed", _("Missed"), missed),
    ]
