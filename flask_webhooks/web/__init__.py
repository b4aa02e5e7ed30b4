"""What both HTTP doors, `api` and `console`, share: the caller, the origin of a request, idempotency, manual actions.

The law of this room: it has no route and renders no page. A door reads its own input, words its own refusals and
renders; decisions that must be the same in both are made here.

=============  ================================================================================
`mounting`     the blueprints in the host's app
`origin`       which site made the browser send a request
`context`      an authenticated request and its session
`idempotency`  answers a repeated request without repeating what it did
`manual`       tests, retries and replays, which callers start
`problems`     a refused request as a value; removes the data of a failed one from its exception
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
