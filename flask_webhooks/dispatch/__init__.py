"""Every statement that takes deliveries out of the outbox. Each takes an open connection; few commit, and say so.

==============  ============================================================================
`lanes`         leases: taking, fencing, giving back; how receivers are doing
`sending`       what is next in a lane; attempts and what becomes of deliveries
`switching`     off and on: holding, sending or discarding what was held
`newer`         what a backfill must not send any more
`housekeeping`  heartbeats, backlog, purging
`clock`         what time it is, by the database
`tables`        the tables, by one letter each
==============  ============================================================================

**Sending** goes by *lanes*. A lane is the sending side of one subscription; a worker leases lanes, not single
deliveries. While it holds a lane nobody else sends for that subscription, so the limit of requests in flight and the
rate limit hold over all workers without counting, and claiming costs one UPDATE for many lanes instead of one for
each delivery. The lease carries a fencing token: results are written only for lanes that still carry it.

Who moves deliveries of a subscription takes its lane's row first: workers by the fence, switching by `lock`. So they
wait for each other in one order, and never crosswise.
"""

from .clock import Clock, now
from .housekeeping import (
    Elsewhere,
    backlog,
    beat,
    broken,
    count,
    elsewhere,
    purge,
    purge_removed,
    sign_off,
    subscribed,
    waiting_for_us,
    workers,
)
from .lanes import Lease, fence, give_back, health, lease, lock, next_due, waiting
from .newer import Told, outdated
from .sending import Window, bodies, heads, log, logged, messages, reschedule, still_due, succeed
from .switching import PORTION, cancel_all, discard_held, hold, send_held, settle, stranded
from .tables import CHUNK, Row, chunks, looking

__all__ = [
    "CHUNK",
    "PORTION",
    "Clock",
    "Elsewhere",
    "Lease",
    "Row",
    "Told",
    "Window",
    "backlog",
    "beat",
    "bodies",
    "broken",
    "cancel_all",
    "chunks",
    "count",
    "discard_held",
    "elsewhere",
    "fence",
    "give_back",
    "heads",
    "health",
    "hold",
    "lease",
    "lock",
    "log",
    "logged",
    "looking",
    "messages",
    "next_due",
    "now",
    "outdated",
    "purge",
    "purge_removed",
    "reschedule",
    "send_held",
    "settle",
    "sign_off",
    "still_due",
    "stranded",
    "subscribed",
    "succeed",
    "waiting",
    "waiting_for_us",
    "workers",
]
