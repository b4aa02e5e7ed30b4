"""A backfill never sends what is older than what was sent: its deliveries are looked at again before they go.

What a backfill has recorded waits, because it goes at a bounded rate and is retried like any other delivery. Meanwhile
the same object may change, and the newer event may be sent first. The law of this room: when anything newer about an
object goes to a receiver, the backfilled event about it is not sent any more.

All that is sent to one receiver passes through one lane, and so through one worker. So it is enough to
ask the database when a backfilled delivery is read, and to compare it with what is read into the same lane after it.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

from .. import outbox
from ..delivery import DeliveryTask, is_of_backfill
from .lanes import HeldLane

__all__ = ["mark"]


def mark(connection: sa.Connection, key: str, lane: HeldLane, tasks: t.Sequence[DeliveryTask]) -> None:
    """Mark what has become out of date, among tasks that were just read and those that wait in the lane."""
    if lane.backfilled:
        for task in tasks:
            older = lane.backfilled.get(task.entity) if task.message is not None else None
            if older is not None and older.message.sequence < task.message.sequence:
                older.is_outdated = True
    fresh = {task.id: task for task in tasks if is_of_backfill(task)}
    if not fresh:
        return
    told = [outbox.Told(each.id, *each.entity, each.message.sequence) for each in fresh.values()]
    for identifier in outbox.outdated(connection, key, told):
        fresh[identifier].is_outdated = True
    lane.backfilled.update((each.entity, each) for each in fresh.values())
