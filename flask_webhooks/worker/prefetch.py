"""Reading ahead: what is due in the lanes at hand becomes tasks in the scheduler.

Each lane has its own share of what is read ahead, in number and in bytes: one that hangs fills its own and holds nobody
up. What all of them have together is bounded, whatever the messages weigh.
"""

from __future__ import annotations

import functools
import time
import typing as t

import sqlalchemy as sa

from .. import outbox
from ..delivery import DeliveryTask
from ..models import Trigger
from ..outbox import Window
from . import superseded
from .lanes import HeldLane, Lanes

__all__ = ["read"]

AHEAD = 1_000
"""Tasks that are read ahead, over all lanes, about."""
LEAST, MOST = 20, 500
"""Tasks that are read ahead for one lane."""
BUDGET = 32 * 2**20
"""Bytes that one worker buffers at most, over all lanes: the messages, and the bodies that are made of them.

Half is shared out; the rest is for the first task of lanes whose share it does not fit into. Lanes whose last attempt
failed have at most half of all, so that those that hang cannot keep others from being read."""
LIGHTEST = 1024
"""Bytes that any task takes."""
AUTOMATIC = Trigger.AUTOMATIC.value


def read(lanes: Lanes, connection: sa.Connection) -> None:
    """Read on in the lanes that are about to run out of tasks."""
    windows = _windows(lanes)
    if not windows:
        return
    found = outbox.select_due(connection, windows, lanes.clock())
    budget = Budget(lanes.held.values())
    chosen: list[sa.Row[t.Any]] = []
    for key, rows in sorted(found.items(), key=lambda each: lanes.held[each[0]].fed_at):
        chosen += _note(lanes.held[key], rows, windows[key].most, budget, lanes.again)
    if chosen:
        _take(lanes, connection, chosen)


class Budget:
    """What may still be read, in bytes."""

    def __init__(self, held: t.Collection[HeldLane], most: int = BUDGET) -> None:
        self._most, self._share = most, most // 2 // max(4, len(held))
        self._spent = sum(lane.bytes for lane in held)
        self._suspect = sum(lane.bytes for lane in held if lane.health.is_suspect)

    def spend(self, lane: HeldLane, weight: int, *, more: int) -> bool:
        """Whether a lane may have a task; then it is counted.

        Its first one only needs to fit into the budget; and if nothing at all is at hand, it always may.

        :param more: bytes that the lane has been given on top of those that it has buffered.
        """
        has_some = bool(lane.buffered) or more > 0
        if has_some and lane.bytes + more + weight > self._share:
            return False
        if self._spent and self._spent + weight > self._most:
            return False
        if lane.health.is_suspect:
            if self._suspect and self._suspect + weight > self._most // 2:
                return False
            self._suspect += weight
        self._spent += weight
        return True


def _windows(lanes: Lanes) -> dict[str, Window]:
    """Which lanes to read on, and how far. A lane that is being probed gets one task at a time."""
    share = min(MOST, max(LEAST, AHEAD // max(1, len(lanes.held))))
    now = time.monotonic()
    windows = {}
    for key, lane in lanes.held.items():
        # One that had no more waits until all is begun: what comes would have to wait behind it, too.
        enough = 0 if lane.is_dry else share // 4
        if lane.is_closing or now < lane.read_at or lanes.scheduler.queued(key) > enough:
            continue
        if lane.is_dry and lane.buffered and not lanes.scheduler.in_flight(key):
            continue  # all is done, and given back when that is written, in a moment
        if not lane.health.is_probed:
            windows[key] = Window(share + (0 if lane.behind else len(lane.buffered)), lane.behind)
        elif not lane.buffered:
            windows[key] = Window(1)
    return windows


def _note(
    lane: HeldLane, rows: t.Sequence[sa.Row[t.Any]], most: int, budget: Budget, again: float
) -> list[sa.Row[t.Any]]:
    """Note how far a lane has been read; return what is new and fits into the budget."""
    lane.is_dry = len(rows) < most
    lane.read_at = time.monotonic() + again if lane.is_dry else 0.0
    # What commits late can be due earlier than what was read: after the last, begin anew.
    lane.behind = None if lane.is_dry else (rows[-1].due_at, rows[-1].id)
    fresh = [row for row in rows if row.id not in lane.buffered]
    taken = 0
    for place, row in enumerate(fresh):
        weight = _weight(row)
        if not budget.spend(lane, weight, more=taken):
            lane.behind, lane.is_dry = None, False  # the rest is read again when there is room
            lane.read_at = time.monotonic() + again
            return fresh[:place]
        taken += weight
    return fresh


def _weight(row: sa.Row[t.Any]) -> int:
    """Bytes in memory, about: the message, and the body that is made of it or was sent before."""
    return LIGHTEST + 2 * (row.size or 0)


def _take(lanes: Lanes, connection: sa.Connection, rows: t.Sequence[sa.Row[t.Any]]) -> None:
    messages = outbox.messages(connection, {row.message_id for row in rows})
    # A first automatic attempt has nothing to repeat, and needs no look.
    bodies = outbox.bodies(connection, [row.id for row in rows if row.attempts or row.trigger != AUTOMATIC])
    now, wants = time.monotonic(), functools.cache(lanes.wants)
    by_lane: dict[str, list[DeliveryTask]] = {}
    for row in rows:
        message = messages.get(row.message_id)
        if message is not None and not wants(row.subscription_id, message.event, row.trigger):
            lanes.call_off(row.id, row.due_at, row.attempts)
            continue
        task = _task(row, message, bodies.get(row.id), now)
        by_lane.setdefault(row.subscription_id, []).append(task)
    for key, tasks in by_lane.items():
        lane = lanes.held[key]
        lane.buffered.update((task.id, task) for task in tasks)
        lane.bytes += sum(task.size for task in tasks)
        lane.fed_at = now
        superseded.mark(connection, key, lane, tasks)
        lanes.scheduler.extend(key, tasks)


def _task(row: sa.Row[t.Any], message: t.Any, body: bytes | None, now: float) -> DeliveryTask:
    return DeliveryTask(
        id=row.id,
        subscription_id=row.subscription_id,
        number=row.attempts + 1,
        trigger=row.trigger,
        format=row.format,
        includes=frozenset(row.includes.split(",")) if row.includes else frozenset(),
        message=message,
        body=body,
        due_at=row.due_at,
        size=_weight(row),
        read_at=now,
    )
