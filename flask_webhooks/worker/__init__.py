"""The delivery engine: from due deliveries to signed requests and recorded attempts.

=============  ======================================================
`coordinator`  one run: read, send, complete, again and again
`held_lane`    one lane: its buffer, health, terms and lease
`lanes`        all that a worker holds: taken, kept, given back
`search`       when to look for more of them
`prefetch`     what is due becomes delivery tasks
`withdrawals`  what is not to be sent any more
`scheduler`    in memory: whose delivery goes next
`senders`      the threads that make attempts
`completer`    results written back, and what follows from them
`batch`        what is written of one batch of results
`outage`       when the database cannot be reached
`maintenance`  a thread of its own: heartbeat, sweep, purge
=============  ======================================================
"""

from .coordinator import Coordinator, Report
from .lanes import lease_length
from .maintenance import Maintenance, is_stalled, reconcile_all
from .outage import TRANSIENT_ERRORS, OutageBackoff, first_line

__all__ = [
    "TRANSIENT_ERRORS",
    "Coordinator",
    "Maintenance",
    "OutageBackoff",
    "Report",
    "first_line",
    "is_stalled",
    "lease_length",
    "reconcile_all",
]
