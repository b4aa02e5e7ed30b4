"""The page of one webhook: the health of its receiver, its latest deliveries, and its actions."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

from .. import models, outbox, queries
from ..delivery import TEST_EVENT
from ..ids import made_at
from ..models import State
from ..outbox.statistics import OUTCOMES
from ..queries import WINDOWS, LogQuery, Series
from ..retry import schedule
from .event_picker import Names, count_events, few
from .pages import Page, PageContext, Raw, page
from .secrets import OVERLAPS, shown_secrets
from .snippets import snippets
from .webhooks import overview_of, standing_note

__all__ = ["charts", "webhook"]

RECENT = 8


@page("GET", "/webhooks/<uuid:subscription_id>", right="read")
def webhook(visit: PageContext, subscription_id: object) -> Page:
    """Show a webhook."""
    now = datetime.now(UTC)
    overview = overview_of(visit, str(subscription_id))
    row = overview.subscription
    connection = visit.session.connection()
    window = _window(visit)
    oldest = queries.oldest_waiting(connection, row.id, State.PENDING)
    values = {
        "overview": overview,
        "tagged": _other_environment(visit, row.environment),
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
        "secrets": shown_secrets(visit, row, now),
        "overlaps": OVERLAPS,
        "snippets": snippets(row),
        "events": count_events(visit.state.catalog, [listener.event for listener in row.listeners]),
        "test_events": _test_events(visit, row),
        "waits": _waits(visit, row),
    }
    return Page("webhook.html", values)


@page("GET", "/webhooks/<uuid:subscription_id>/charts", right="read")
def charts(visit: PageContext, subscription_id: object) -> Page | Raw:
    """Show the charts of a window, as a part of the page; with `?as=json` return only their numbers."""
    row = overview_of(visit, str(subscription_id)).subscription
    window = _window(visit)
    found = queries.series(visit.session.connection(), row.id, window, datetime.now(UTC))
    if visit.query.get("as") == "json":
        return Raw(json.dumps(_numbers(found)), "application/json")
    return Page(
        "_charts.html", {"subscription": row, "series": found, "window": window, "windows": list(WINDOWS)}
    )


def _window(visit: PageContext) -> str:
    asked = visit.query.get("window", "24h")
    return asked if asked in WINDOWS else "24h"


def _numbers(series: Series) -> dict[str, t.Any]:
    sums = [point.sums for point in series.points]
    found: dict[str, t.Any] = {"at": [int(point.at.timestamp()) for point in series.points]}
    for name in OUTCOMES:
        found[name] = [each.counts[name] for each in sums]
    found["failures"] = [each.attempts - each.counts["ok"] for each in sums]
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        values = [each.percentile(share) for each in sums]
        found[name] = [round(value * 1000, 1) if value is not None else None for value in values]
    return found


def _other_environment(visit: PageContext, environment: str) -> str:
    """Return the only environment of this app's events, if the webhook's differs from it; else an empty text."""
    tagged = visit.state.settings.only_environment
    return tagged if tagged is not None and tagged != environment else ""


def _test_events(visit: PageContext, row: models.Subscription) -> Names:
    expand = visit.state.catalog.expand
    names = sorted({event.name for listener in row.listeners for event in expand(listener.event)})
    return few([TEST_EVENT, *names])


def _waits(visit: PageContext, row: models.Subscription) -> tuple[float, ...]:
    return schedule(row.retry) if row.retry is not None else visit.state.settings.retry
