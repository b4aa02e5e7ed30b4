"""Deliveries sent again: one by hand, or many at a bounded rate.

The law of this room: a delivery is never copied. It is the same row, the same idempotency key and the same bytes; only
its state goes back to `pending`, so that a second click finds nothing to do. What was attempted before stays in the
log. Nothing here commits, but `turn`.

===========  ================================================
`filtering`  which deliveries, and which messages were missed
`running`    make a replay, queue its next few, cancel it
`budget`     how fast: what an owner and a host get together
`by_hand`    one delivery: retry, cancel
===========  ================================================
"""

from __future__ import annotations

from .by_hand import cancel, is_broken, retry
from .filtering import MODES, STATES, Filter, count, digest
from .running import find, listened_to, purge, start, stop, turn

__all__ = [
    "MODES",
    "STATES",
    "Filter",
    "cancel",
    "count",
    "digest",
    "find",
    "is_broken",
    "listened_to",
    "purge",
    "retry",
    "start",
    "stop",
    "turn",
]
