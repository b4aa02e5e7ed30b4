"""What both HTTP doors, `api` and `console`, share: how they are mounted, where a request comes from, what refuses it.

The law of this room: it knows no route and writes no answer. A door reads its own input, says in its own words what was
refused, and renders; what both would have to decide alike is decided here.

==========  ================================================================================
`mounting`  our blueprints in the host's app
`origin`    which site made the browser send a request
`problems`  a refused request, as a value; and what must not stay behind of one that failed
==========  ================================================================================
"""

from __future__ import annotations

from .mounting import Door, host_of
from .origin import Initiator, initiator_of
from .problems import CODES, Refused, forget_request

__all__ = ["CODES", "Door", "Initiator", "Refused", "forget_request", "host_of", "initiator_of"]
