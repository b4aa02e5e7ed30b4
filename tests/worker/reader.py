"""The reading half of a worker, without its senders."""

from __future__ import annotations

from flask_webhooks.delivery import utcnow
from flask_webhooks.state import AppState
from flask_webhooks.worker.held_lane import Scheduler
from flask_webhooks.worker.lanes import Lanes
from flask_webhooks.worker.prefetch import read
from flask_webhooks.worker.scheduler import FairScheduler


class Reader:
    """Takes lanes and reads ahead."""

    def __init__(self, state: AppState) -> None:
        self.scheduler: Scheduler = FairScheduler(cap=4)
        self.lanes = Lanes(state, "test", self.scheduler, utcnow)
        self._engine = state.engine

    def read(self, lanes: int) -> None:
        with self._engine.connect() as connection:
            self.lanes.take(connection, lanes)
            read(self.lanes, connection)

    @property
    def bytes(self) -> int:
        return sum(lane.bytes for lane in self.lanes.held.values())

    @property
    def fed(self) -> set[str]:
        return {key for key, lane in self.lanes.held.items() if lane.buffered}

    def take_back(self) -> None:
        """Drop what the lanes have buffered, as if it were done."""
        for lane in self.lanes.held.values():
            lane.drop(set(lane.buffered.values()))
            lane.read_at = 0.0
