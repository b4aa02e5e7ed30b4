"""Reading ahead: what is due in the lanes at hand becomes tasks in the scheduler.

Each lane has its own share of what is read ahead, in number and in bytes: one that hangs fills its own and holds no
other up. What all of them have together is bounded, whatever the messages weigh.

A backfill never sends what is older than what was sent. What it has recorded waits, because it goes at a bounded rate
and is retried like any other delivery; meanwhile the same object may change, and the newer event may be sent first. So
when anything newer about an object goes to a receiver, the backfilled event about it is not sent any more. All that is
sent to one receiver passes through one lane, and so through one worker: it is enough to ask the database when a
backfilled delivery is read, and to compare it with what is read into the same lane after it.
"""

from __future__ import annotations

import time
import typing as t

import sqlalchemy as sa

from .. import outbox
from ..delivery import DeliveryTask, is_of_backfill
from ..models import Trigger
from .held_lane import HeldLane
from .lanes import Lanes

__all__ = ["BUDGET", "read"]

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
    now = time.monotonic()
    # The fewer lanes there are, the more each reads ahead: one alone must fill a batch.
    share = min(MOST, max(LEAST, AHEAD // max(1, len(lanes.held))))
    windows = {
        key: window for key, lane in lanes.held.items() if (window := lane.window(share, now)) is not None
    }
    if not windows:
        return
    found = outbox.select_due(connection, windows, lanes.clock())
    # The lanes that are not read on count as well: what they have buffered is in memory too.
    budget = Budget(lanes.held.values())
    again_at = time.monotonic() + lanes.search.again
    chosen: dict[HeldLane, list[sa.Row[t.Any]]] = {}
    # Those that have waited longest come first, so that each has its turn where there is not memory enough for all.
    for lane in sorted((lanes.held[key] for key in found), key=lambda each: each.fed_at):
        fresh = lane.note_read(found[lane.key], windows[lane.key].most, again_at)
        chosen[lane] = _fitting(lane, fresh, budget, again_at)
    if rows := [row for some in chosen.values() for row in some]:
        messages = outbox.messages(connection, {row.message_id for row in rows})
        # A first automatic attempt has nothing to repeat, and needs no look.
        bodies = outbox.bodies(
            connection, [row.id for row in rows if row.attempts or row.trigger != AUTOMATIC]
        )
        for lane, some in chosen.items():
            _take(lanes, connection, lane, some, messages, bodies)


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


def _fitting(
    lane: HeldLane, fresh: list[sa.Row[t.Any]], budget: Budget, again_at: float
) -> list[sa.Row[t.Any]]:
    """Return as many of the rows of a lane as fit into the budget."""
    taken = 0
    for place, row in enumerate(fresh):
        weight = _weight(row)
        if not budget.spend(lane, weight, more=taken):
            lane.read_anew(again_at)
            return fresh[:place]
        taken += weight
    return fresh


def _weight(row: sa.Row[t.Any]) -> int:
    """Bytes in memory, about: the message, and the body that is made of it or was sent before."""
    return LIGHTEST + 2 * (row.size or 0)


def _take(
    lanes: Lanes,
    connection: sa.Connection,
    lane: HeldLane,
    rows: t.Sequence[sa.Row[t.Any]],
    messages: t.Mapping[str, t.Any],
    bodies: t.Mapping[str, bytes],
) -> None:
    """Give a lane the tasks that these rows are, without those that its subscription does not listen to any more."""
    now, tasks, wanted = time.monotonic(), [], {}
    for row in rows:
        message = messages.get(row.message_id)
        if message is not None:
            asked = message.event, row.trigger
            # Matching patterns costs more than the look-up, and a lane mostly has few event types.
            if asked not in wanted:
                wanted[asked] = lanes.wants(lane, *asked)
            if not wanted[asked]:
                lanes.withdrawals.deselect(row.id, row.due_at, row.attempts)
                continue
        task = DeliveryTask.of(row, message, number=row.attempts + 1, body=bodies.get(row.id))
        task.size, task.read_at = _weight(row), now
        tasks.append(task)
    if tasks:
        _mark_outdated(connection, lane, tasks)
        lane.take(tasks, now)


def _mark_outdated(connection: sa.Connection, lane: HeldLane, tasks: t.Sequence[DeliveryTask]) -> None:
    """Mark what a newer event has overtaken, among tasks that were just read and those that wait in the lane."""
    if lane.backfilled:
        for task in tasks:
            older = lane.backfilled.get(task.entity) if task.message is not None else None
            if older is not None and older.message.sequence < task.message.sequence:
                older.is_outdated = True
    fresh = {task.id: task for task in tasks if is_of_backfill(task)}
    if fresh:
        known = [
            outbox.ObjectVersion(each.id, *each.entity, each.message.sequence) for each in fresh.values()
        ]
        for identifier in outbox.find_outdated(connection, lane.key, known):
            fresh[identifier].is_outdated = True
