"""What both HTTP doors, `api` and `console`, share: who calls, from where, and what is done once.

The law of this room: it knows no route and writes no answer. A door reads its own input, says in its own words what was
refused, and renders; what both would have to decide alike is decided here.

=============  ================================================================================
`mounting`     our blueprints in the host's app
`origin`       which site made the browser send a request
`context`      an authenticated request, and the session that it is answered in
`idempotency`  what is sent again does nothing again
`manual`       a test, a retry, a replay
`problems`     a refused request, as a value; and what must not stay behind of one that failed
=============  ================================================================================
"""

from __future__ import annotations

from . import idempotency, manual
from .context import RequestContext, current_state, run_in_session, version_of
from .mounting import Door, host_of, protect
from .origin import Initiator, initiator_of
from .problems import CODES, Refused, forget_request, headers_of, log_unreadable, seconds_to_wait

__all__ = [
    "CODES",
    "Door",
    "Initiator",
    "Refused",
    "RequestContext",
    "current_state",
    "forget_request",
    "headers_of",
    "host_of",
    "idempotency",
    "initiator_of",
    "log_unreadable",
    "manual",
    "protect",
    "run_in_session",
    "seconds_to_wait",
    "version_of",
]
