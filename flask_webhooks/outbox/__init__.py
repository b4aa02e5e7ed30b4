"""Every statement on the outbox: recording messages, and taking deliveries out. Each takes an open connection; few
commit, and say so.

============  ===============================================================
`recording`   messages and their deliveries, inside the host's transaction
`leases`      leases: taking, fencing, giving back; how receivers are doing
`deliveries`  what is next in a lane; attempts and what becomes of deliveries
`switching`   off and on: holding, sending or discarding what was held
`superseded`  what a backfill must not send any more
`workers`     heartbeats, backlog
`retention`   what is deleted when it is old
`statements`     the size of lists in statements, connections without a transaction
`statistics`  sums of attempts by hour
============  ===============================================================

**Sending** goes by *lanes*. A lane is the sending side of one subscription; a worker leases lanes, not single
deliveries. While it holds a lane no other worker sends for that subscription, so the limit of requests in flight and
the rate limit hold over all workers without counting, and claiming costs one UPDATE for many lanes instead of one for
each delivery. The lease carries a fencing token: results are written only for lanes that still carry it.

Whatever moves deliveries of a subscription locks its lane's row first: workers by the fence, switching by `lock`. So
they wait for each other in one order, and no two can deadlock.
"""

from ..sql.clock import Clock, now
from .deliveries import (
    Window,
    bodies,
    count_in_state,
    in_state,
    log,
    logged,
    messages,
    reschedule,
    select_due,
    still_due,
    succeed,
)
from .leases import Lease, fence, give_back, health, lease, lock, next_due, waiting
from .retention import purge, purge_messages, purge_removed
from .statements import CHUNK, Row, autocommit, chunks
from .superseded import ObjectVersion, find_outdated
from .switching import PORTION, cancel_all, discard_held, find_inconsistent, hold, reconcile, send_held
from .workers import (
    Elsewhere,
    backlog,
    broken,
    count,
    elsewhere,
    heartbeat,
    subscribed,
    unregister,
    waiting_for_us,
    workers,
)

__all__ = [
    "CHUNK",
    "PORTION",
    "Clock",
    "Elsewhere",
    "Lease",
    "ObjectVersion",
    "Row",
    "Window",
    "autocommit",
    "backlog",
    "bodies",
    "broken",
    "cancel_all",
    "chunks",
    "count",
    "count_in_state",
    "discard_held",
    "elsewhere",
    "fence",
    "find_inconsistent",
    "find_outdated",
    "give_back",
    "health",
    "heartbeat",
    "hold",
    "in_state",
    "lease",
    "lock",
    "log",
    "logged",
    "messages",
    "next_due",
    "now",
    "purge",
    "purge_messages",
    "purge_removed",
    "reconcile",
    "reschedule",
    "select_due",
    "send_held",
    "still_due",
    "subscribed",
    "succeed",
    "unregister",
    "waiting",
    "waiting_for_us",
    "workers",
]
