"""Identifiers: UUIDv7 (RFC 9562, section 5.7), so that ids sort by the time of their creation.

Python has `uuid.uuid7` since 3.14; this implementation serves all versions from 3.11 on.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

__all__ = ["BACKFILL", "BACKFILL_KEY", "first_at", "following", "is_backfilled", "is_id", "made_at", "uuid7"]

BACKFILL = "backfill"
"""Prefix of the dedupe keys of messages that a backfill recorded, for one subscription alone."""
BACKFILL_KEY = (36, 64)
"""Lengths of the two parts after the prefix: the subscription's id, and a digest of the row's primary key."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_lock = threading.Lock()
_last = 0
_random: list[int] = []
"""Random numbers of 73 bits, drawn in advance for the next ids."""


def uuid7() -> str:
    """Return a new UUIDv7 in its canonical text form.

    Ids made by one process strictly increase: milliseconds, then a 74-bit counter that starts at a random
    value each millisecond (RFC 9562, section 6.2, method 2) with its top bit clear, so it cannot overflow.
    """
    global _last
    moment = (time.time_ns() // 1_000_000) << 74
    with _lock:
        # Draw many at once: the system call releases the GIL, and the thread has to wait to get it back.
        if not _random:
            drawn = os.urandom(2560)
            _random.extend(int.from_bytes(drawn[at : at + 10]) >> 7 for at in range(0, 2560, 10))
        value = moment | _random.pop()
        if value >> 74 <= _last >> 74:
            value = _last + 1 + (value & 0xFFFF_FFFF)
        _last = value
    digits = f"{value >> 74:012x}7{value >> 62 & 0xFFF:03x}{1 << 63 | value & ((1 << 62) - 1):016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_id(text: str) -> bool:
    """Whether a text has the form of our ids. PostgreSQL raises an error for a text that is no UUID."""
    return _ID.fullmatch(text) is not None


def _begin_anew_after_fork() -> None:
    """Drop the parent's random numbers, which would make its ids again, and its lock, which a lost thread may hold."""
    global _lock
    _lock = threading.Lock()
    _random.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)


def first_at(moment: datetime) -> str:
    """Return the lowest id that can be created at a moment: `id >= first_at(since)` uses the index on ids."""
    digits = f"{max(0, (moment - _EPOCH) // timedelta(milliseconds=1)):012x}"[-12:]
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def following(identifier: str) -> str:
    """Return the smallest id that sorts after this one, whether it exists or not."""
    return str(uuid.UUID(int=min(uuid.UUID(identifier).int + 1, (1 << 128) - 1)))


def made_at(identifier: str) -> datetime:
    """Return the time at which an id was created, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=int(identifier[:8] + identifier[9:13], 16))


def is_backfilled(dedupe_key: str | None) -> bool:
    """Whether a message comes from a backfill: it was made for one subscription, and others did not miss it."""
    if dedupe_key is None:
        return False
    word, *rest = dedupe_key.split(":")
    return word == BACKFILL and tuple(map(len, rest)) == BACKFILL_KEY


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
