"""The log of deliveries: filtered, updated live, and loaded page by page while the visitor scrolls."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

from .. import queries
from ..ids import uuid7
from ..models import State, Subscription
from ..principal import ALL_OWNERS
from ..queries import LogQuery
from .event_picker import few
from .pages import Page, PageContext, page

__all__ = ["deliveries", "live"]

MOST = 40
WEBHOOKS = 200
"""Webhooks to choose from, including removed ones, whose log is kept."""
LIVE = 200
"""The most lines of the live part; older ones are on the next page."""
SPANS: t.Mapping[str, timedelta] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
STATUSES = ("2xx", "3xx", "4xx", "5xx", "none")
_FIELDS = ("webhook", "state", "event", "time", "status", "q")


@page("GET", "/deliveries", right="read")
def deliveries(context: PageContext) -> Page:
    """Show the log; for htmx only its next part."""
    query = {name: context.query.get(name, "").strip() for name in _FIELDS}
    known = queries.with_log(context.session, owner=context.owner, most=WEBHOOKS)
    before = context.identifier("before")
    found = queries.search(context.session.connection(), _wanted(context, query, known, before=before), MOST)
    values = {
        "slice": found,
        "query": {name: value for name, value in query.items() if value},
        # The live part shows what is newer than the last line of this page, so that it can also change these lines.
        "anchor": (found.entries[-1].row.id if found.entries else uuid7()) if not before else "",
        "newest": found.entries[0].row.id if found.entries else "",
        "subscriptions": {row.id: row for row in known},
        "channels": context.state.catalog.channels,
        "events": few(_patterns(context)),
        "states": [state.value for state in State],
        "spans": list(SPANS),
        "statuses": STATUSES,
        "is_first": not before,
    }
    return Page("_older.html" if context.is_partial and before else "deliveries.html", values)


@page("GET", "/deliveries/live", right="read")
def live(context: PageContext) -> Page:
    """Show the deliveries that are newer than an anchor: new lines, and lines whose state has changed."""
    query = {name: context.query.get(name, "").strip() for name in _FIELDS}
    known = queries.with_log(context.session, owner=context.owner, most=WEBHOOKS)
    anchor = context.identifier("anchor") or uuid7()
    found = queries.search(context.session.connection(), _wanted(context, query, known, anchor=anchor), LIVE)
    values = {
        "slice": found,
        "query": {name: value for name, value in query.items() if value},
        "anchor": anchor,
        "newest": found.entries[0].row.id if found.entries else "",
        "seen": context.identifier("newest"),
        "subscriptions": {row.id: row for row in known},
    }
    return Page("_live.html", values)


def _wanted(
    context: PageContext,
    query: t.Mapping[str, str],
    known: t.Sequence[Subscription],
    *,
    before: str = "",
    anchor: str = "",
) -> LogQuery:
    ids: tuple[str, ...] | None = tuple(row.id for row in known)
    if query["webhook"]:
        ids = tuple(row.id for row in known if row.id == query["webhook"])
    elif context.owner is ALL_OWNERS:
        ids = None
    span = SPANS.get(query["time"])
    status = query["status"]
    # `isdigit` alone accepts digits of all scripts, and superscripts, which `int` refuses.
    return LogQuery(
        owner=context.owner,
        subscriptions=ids,
        state=query["state"] if query["state"] in set(State) else "",
        event=query["event"][:255],
        since=datetime.now(UTC) - span if span is not None else None,
        status=status
        if status in STATUSES or (status.isascii() and status.isdigit() and len(status) == 3)
        else "",
        text=query["q"].lower()[:36],  # ids have 36 characters
        before=before,
        anchor=anchor,
    )


def _patterns(context: PageContext) -> t.Iterator[str]:
    """Yield the patterns that the log can be filtered by: channels and their events."""
    for channel in context.state.catalog.channels.values():
        if channel.events:
            yield f"{channel.name}.*"
            yield from (event.name for event in channel.events.values())
