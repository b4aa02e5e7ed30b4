"""For operators: is everything being sent, by whom, and who makes trouble."""

from __future__ import annotations

from .. import dispatch, reading
from ..config import ENVIRONMENTS
from ..errors import QueueError
from ..reading.engine import ALIVE
from .pages import Page, Visit, page

__all__ = ["operator"]


@page("GET", "/operator", right="read", operators=True)
def operator(visit: Visit) -> Page:
    """Show lag, backlog, queue, workers, the worst receivers, retention."""
    queue = _depth(visit)  # Redis is asked before a connection is held
    now = dispatch.now(visit.session.connection())
    ours = visit.state.settings.sent_environments
    found = reading.engine(visit.session.connection(), now, environments=ours)
    values = {
        "engine": found,
        "lag": found.lag(now),
        "queue": queue,
        "queue_name": visit.state.settings.queue,
        "now": now,
        "alive": ALIVE,
        "sends_for": sorted(ours or ENVIRONMENTS),
    }
    return Page("_operator.html" if visit.is_partial else "operator.html", values)


def _depth(visit: Visit) -> int | None:
    """Return how many wake-ups wait in the queue; None: Redis cannot be reached."""
    try:
        return visit.state.bell.depth()
    except QueueError:
        return None
