"""The delivery engine: from due deliveries to signed requests and recorded attempts.

=============  ==================================================
`coordinator`  one run: read, send, complete, again and again
`lanes`        the lanes that a worker holds, and for how long
`prefetch`     what is due becomes delivery tasks
`superseded`   what a backfill must not send any more
`scheduler`    in memory: whose delivery goes next
`senders`      the threads that make attempts
`completer`    results written back in batches
`outage`       when the database cannot be reached
`maintenance`  the thread beside all this: heartbeat, sweep, purge
=============  ==================================================
"""

from .coordinator import Coordinator, Report
from .lanes import lease_length
from .maintenance import Maintenance, is_stalled, settle
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
    "settle",
]
