"""Deliveries sent again: one by hand, or many at a bounded rate.

The law of this room: a delivery is never copied. It is the same row, the same idempotency key and the same bytes; only
its state goes back to `pending`, so that a second click finds nothing to do. What was attempted before stays in the
log. Nothing here commits, but `enqueue_batches`.

==========  ======================================================
`filters`   which deliveries, and which messages were missed
`replays`   make a replay, queue its next few, cancel it
`budget`    how fast: what an owner and a host get together
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
