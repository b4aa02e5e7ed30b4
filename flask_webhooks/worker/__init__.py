"""The delivery engine: from due deliveries to signed requests and recorded attempts.

=============  ===============================================
`senders`      the threads that make attempts
`lanes`        the lanes that a worker holds, and for how long
`prefetch`     what is due becomes tasks
`superseded`   what a backfill must not send any more
`completer`    results written back in batches
`coordinator`  the coordinator: all of this, again and again
`outage`       when the database cannot be reached
`test_send`    one test request, now
=============  ===============================================
"""

from .coordinator import Coordinator, Report
from .lanes import lease_length
from .outage import TRANSIENT_ERRORS, OutageBackoff, first_line

__all__ = ["TRANSIENT_ERRORS", "Coordinator", "OutageBackoff", "Report", "first_line", "lease_length"]
