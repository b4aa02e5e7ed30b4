"""The page for operators: backlog, workers, the receivers that fail most, and broken messages."""

from __future__ import annotations

from .. import outbox, queries
from ..config import ENVIRONMENTS
from ..errors import QueueError
from ..ids import is_id
from ..queries.status import ALIVE
from ..replay.repair import list_broken, repair_message
from .pages import Page, PageContext, Redirect, page

__all__ = ["operator", "repair"]

SHOWN = 20
"""Broken messages on the page: the oldest ones. One request repairs at most as many, so that it does not time out."""


@page("GET", "/operator", right="read", operators=True)
def operator(context: PageContext) -> Page:
    """Show lag, backlog, queue, workers, the worst receivers, retention."""
    queue = _depth(context)  # asks Redis before a database connection is held
    now = outbox.now(context.session.connection())
    ours = context.state.settings.sent_environments
    found = queries.engine_status(context.session.connection(), now, environments=ours)
    values = {
        "engine": found,
        "lag": found.lag(now),
        "queue": queue,
        "queue_name": context.state.settings.queue,
        "now": now,
        "alive": ALIVE,
        "broken": list_broken(context.session.connection(), most=SHOWN) if found.broken else [],
        "sends_for": sorted(ours or ENVIRONMENTS),
    }
    return Page("_operator.html" if context.is_partial else "operator.html", values)


@page("POST", "/operator/repair", right="write", operators=True)
def repair(context: PageContext) -> Redirect:
    """Make the data of the broken messages on the page again."""
    context.session.rollback()  # returns the connection: each repair takes one of its own
    found = [repair_message(context.state, key) for key in context.form.getlist("id")[:SHOWN] if is_id(key)]
    is_done = all(each is None or each.error is None for each in found)
    return Redirect("operator", {}, notice="repaired" if is_done else "still_broken")


def _depth(context: PageContext) -> int | None:
    """Return the number of jobs in the queue; None: Redis cannot be reached."""
    try:
        return context.state.bell.depth()
    except QueueError:
        return None
