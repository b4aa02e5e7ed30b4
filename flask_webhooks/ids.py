"""Identifiers: UUIDv7 (RFC 9562, section 5.7), so that ids sort by the time they were made.

Python gains `uuid.uuid7` in 3.14; this one serves 3.11 and newer alike.
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
"""Begins the dedupe keys of what a backfill has recorded, for one subscription alone."""
BACKFILL_KEY = (36, 64)
"""Characters of what follows: the subscription's id, and a digest of the row's primary key."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_lock = threading.Lock()
_last = 0
_random: list[int] = []
"""73 bits each, for the ids to come."""


def uuid7() -> str:
    """Return a new UUIDv7 in its canonical text form.

    Ids made by one process strictly increase: milliseconds, then a 74-bit counter that starts at a random
    value each millisecond (RFC 9562, section 6.2, method 2) with its top bit clear, so it cannot overflow.
    """
    global _last
    moment = (time.time_ns() // 1_000_000) << 74
    with _lock:
        if not _random:  # many at once: whoever asks the system has to wait for the interpreter afterwards
            drawn = os.urandom(2560)
            _random.extend(int.from_bytes(drawn[at : at + 10]) >> 7 for at in range(0, 2560, 10))
        value = moment | _random.pop()
        if value >> 74 <= _last >> 74:
            value = _last + 1 + (value & 0xFFFF_FFFF)
        _last = value
    digits = f"{value >> 74:012x}7{value >> 62 & 0xFFF:03x}{1 << 63 | value & ((1 << 62) - 1):016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_id(text: str) -> bool:
    """Say whether it is written as our ids are: PostgreSQL fails where it is asked for another."""
    return _ID.fullmatch(text) is not None


def _begin_anew_after_fork() -> None:
    """Make no id twice, and wait for no thread that is not here."""
    global _lock
    _lock = threading.Lock()
    _random.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)


def first_at(moment: datetime) -> str:
    """Return the lowest id that can be made at a moment: `id >= first_at(since)` uses the index on ids."""
    digits = f"{max(0, (moment - _EPOCH) // timedelta(milliseconds=1)):012x}"[-12:]
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def following(identifier: str) -> str:
    """Return the next id in order, whether it was ever made or not: the least one behind."""
    return str(uuid.UUID(int=min(uuid.UUID(identifier).int + 1, (1 << 128) - 1)))


def made_at(identifier: str) -> datetime:
    """Return when an id was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=int(identifier[:8] + identifier[9:13], 16))


def is_backfilled(dedupe_key: str | None) -> bool:
    """Whether a message is of a backfill: it was made for one subscription, and others have not missed it."""
    if dedupe_key is None:
        return False
    word, *rest = dedupe_key.split(":")
    return word == BACKFILL and tuple(map(len, rest)) == BACKFILL_KEY


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
