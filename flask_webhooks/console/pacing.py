"""How often one owner may have us send a request at once: what is sent on a click could be sent by a script.

Counted in each web process by itself, over a minute; owners that have been quiet for one are forgotten.
"""

from __future__ import annotations

import math
import threading
import time
import typing as t
from collections import deque

from .looks import span
from .pages import Page, Refused, Visit
from .words import _

__all__ = ["MOST", "Pace", "refusal", "wait_for"]

MOST = 20
"""Requests to somebody's address in a minute: more than anybody clicks."""
SPAN = 60.0
"""Seconds."""


class Pace:
    """When each owner sent lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, deque[float]] = {}

    def take(self, owner: str, now: float) -> float:
        """Take one turn; return 0, or the seconds after which there is one again.

        :param now: seconds of any steady clock.
        """
        with self._lock:
            for name in [name for name, sent in self._sent.items() if sent[-1] <= now - SPAN]:
                del self._sent[name]
            sent = self._sent.setdefault(owner, deque(maxlen=MOST))
            if len(sent) == MOST and sent[0] > now - SPAN:
                return sent[0] + SPAN - now
            sent.append(now)
            return 0.0


def wait_for(visit: Visit) -> float:
    """Return the seconds that the visitor's owner has to wait before the next request; 0: none, and it is counted."""
    pace = visit.state.app.extensions.setdefault("webhooks_console_pace", Pace())
    return t.cast("float", pace.take(visit.principal.account, time.monotonic()))


def refusal(visit: Visit, wait: float) -> Page:
    """Say so: in the place of the answer, or as a page.

    :raises Refused: without htmx.
    """
    text = _("That were many requests in a short time. Go on in %(time)s.", time=span(math.ceil(wait)))
    if not visit.is_partial:
        raise Refused(429, text)
    return Page("_wait.html", {"text": text}, 429, {"Retry-After": str(math.ceil(wait))})
