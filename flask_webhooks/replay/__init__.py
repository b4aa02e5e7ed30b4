"""Sends deliveries again: one at a user's request, or many at a bounded rate.

The law of this room: a delivery is never copied. It is the same row, the same idempotency key and the same bytes; only
its state returns to `pending`, so a second click finds nothing to do. Earlier attempts stay in the log. Only
`enqueue_batches`, `backfill` and `repair` commit; elsewhere the caller does.

==========  ======================================================
`filters`   which deliveries, and which messages were missed
`replays`   make a replay, queue its next few, cancel it
`budget`    the rate that one owner and one host share
`manual`    one delivery: retry, cancel
`backfill`  messages that were missed, recorded afterwards
`repair`    broken messages, made anew from their rows or given up
==========  ======================================================
"""

from __future__ import annotations

from .filters import MODES, STATES, Filter, count, digest
from .manual import cancel, is_broken, retry
from .replays import enqueue_batches, find, listened_to, newest, start, stop

__all__ = [
    "MODES",
    "STATES",
    "Filter",
    "cancel",
    "count",
    "digest",
    "enqueue_batches",
    "find",
    "is_broken",
    "listened_to",
    "newest",
    "retry",
    "start",
    "stop",
]
