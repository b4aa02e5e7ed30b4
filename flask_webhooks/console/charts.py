"""The charts of a webhook's page: what they draw, as a part of the page and as numbers.

The template names the series of each chart in its key, with text and colour; the script draws those.
"""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

from .. import queries, subscriptions
from ..outbox.statistics import OUTCOMES
from ..queries import WINDOWS, Series
from .pages import Page, PageContext, Raw, page

__all__ = ["charts", "window_of"]


@page("GET", "/webhooks/<uuid:subscription_id>/charts", right="read")
def charts(context: PageContext, subscription_id: object) -> Page | Raw:
    """Show the charts of a window, as a part of the page; with `?as=json` return only their numbers."""
    row = subscriptions.find(context.session, str(subscription_id), owner=context.owner)
    window = window_of(context)
    found = queries.series(context.session.connection(), row.id, window, datetime.now(UTC))
    if context.query.get("as") == "json":
        return Raw(json.dumps(_numbers(found)), "application/json")
    return Page(
        "_charts.html", {"subscription": row, "series": found, "window": window, "windows": list(WINDOWS)}
    )


def window_of(context: PageContext) -> str:
    """Return the window that was asked for; a day for one that does not exist."""
    asked = context.query.get("window", "24h")
    return asked if asked in WINDOWS else "24h"


def _numbers(series: Series) -> dict[str, t.Any]:
    sums = [point.sums for point in series.points]
    found: dict[str, t.Any] = {"at": [int(point.at.timestamp()) for point in series.points]}
    for name in OUTCOMES:
        found[name] = [each.counts[name] for each in sums]
    found["succeeded"] = [each.succeeded for each in sums]
    found["failures"] = [each.failed for each in sums]
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        values = [each.percentile(share) for each in sums]
        found[name] = [round(value * 1000, 1) if value is not None else None for value in values]
    return found
