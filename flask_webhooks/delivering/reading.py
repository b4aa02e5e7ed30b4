"""Reading ahead: what is due in the lanes at hand becomes parcels in the rotation.

Each lane has its own share of what is read ahead, in number and in bytes, and no lane's share depends on another's
being used up: one that hangs fills its own and holds nobody up.
"""

from __future__ import annotations

import time
import typing as t

import sqlalchemy as sa

from .. import dispatch
from ..dispatch import Window
from ..models import Trigger
from .lanes import Held, Lanes
from .parcels import Parcel

__all__ = ["read"]

AHEAD = 1_000
"""Parcels that are read ahead, over all lanes, about."""
LEAST, MOST = 20, 500
"""Parcels that are read ahead for one lane."""
BYTES = 16 * 2**20
"""Bytes of messages that are read ahead, about: memory stays bounded whatever the messages weigh."""
AUTOMATIC = Trigger.AUTOMATIC.value


def read(lanes: Lanes, connection: sa.Connection) -> None:
    """Read on in the lanes that are about to run out of parcels."""
    windows = _windows(lanes)
    if not windows:
        return
    found = dispatch.heads(connection, windows, lanes.clock())
    chosen: list[sa.Row[t.Any]] = []
    for key, rows in found.items():
        room = BYTES // max(4, len(lanes.held))
        chosen += _note(lanes.held[key], rows, windows[key].most, room, lanes.again)
    if chosen:
        _take(lanes, connection, chosen)


def _windows(lanes: Lanes) -> dict[str, Window]:
    """Which lanes to read on, and how far. A lane that is being probed gets one parcel at a time."""
    share = min(MOST, max(LEAST, AHEAD // max(1, len(lanes.held))))
    now = time.monotonic()
    windows = {}
    for key, lane in lanes.held.items():
        if lane.is_closing or now < lane.read_at or lanes.rotation.queued(key) > share // 4:
            continue
        if not lane.health.is_probed:
            windows[key] = Window(share + (0 if lane.behind else len(lane.hands)), lane.behind)
        elif not lane.hands:
            windows[key] = Window(1)
    return windows


def _note(
    lane: Held, rows: t.Sequence[sa.Row[t.Any]], most: int, room: int, again: float
) -> list[sa.Row[t.Any]]:
    """Note how far a lane has been read; return what is new and fits into `room` bytes (one always does)."""
    lane.is_dry = len(rows) < most
    lane.read_at = time.monotonic() + again if lane.is_dry else 0.0
    # What commits late can be due earlier than what was read: after the last, begin anew.
    lane.behind = None if lane.is_dry else (rows[-1].due_at, rows[-1].id)
    fresh = [row for row in rows if row.id not in lane.hands]
    room -= lane.bytes
    for place, row in enumerate(fresh):
        room -= row.size or 0
        if room < 0 and (place or lane.hands):
            lane.behind, lane.is_dry = None, False  # the rest is read again when there is room
            lane.read_at = time.monotonic() + again
            return fresh[:place]
    return fresh


def _take(lanes: Lanes, connection: sa.Connection, rows: t.Sequence[sa.Row[t.Any]]) -> None:
    messages = dispatch.messages(connection, {row.message_id for row in rows})
    # A first automatic attempt has nothing to repeat, and needs no look.
    bodies = dispatch.bodies(connection, [row.id for row in rows if row.attempts or row.trigger != AUTOMATIC])
    now = time.monotonic()
    by_lane: dict[str, list[Parcel]] = {}
    for row in rows:
        parcel = _parcel(row, messages.get(row.message_id), bodies.get(row.id), now)
        by_lane.setdefault(row.subscription_id, []).append(parcel)
    for key, parcels in by_lane.items():
        lane = lanes.held[key]
        lane.hands.update((parcel.id, parcel) for parcel in parcels)
        lane.bytes += sum(parcel.size for parcel in parcels)
        lanes.rotation.extend(key, parcels)


def _parcel(row: sa.Row[t.Any], message: t.Any, body: bytes | None, now: float) -> Parcel:
    return Parcel(
        id=row.id,
        subscription_id=row.subscription_id,
        number=row.attempts + 1,
        trigger=row.trigger,
        format=row.format,
        includes=frozenset(row.includes.split(",")) if row.includes else frozenset(),
        message=message,
        body=body,
        due_at=row.due_at,
        size=(row.size or 0) + len(body or b""),
        read_at=now,
    )
