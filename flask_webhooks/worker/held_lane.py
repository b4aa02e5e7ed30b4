"""One lane that this worker holds: its buffer, how its receiver does, its terms and its lease.

The law of this room: there is one object for a lane. The scheduler holds it itself, prefetch and completer call its
methods, and nothing of it is kept elsewhere but in the database. Only the coordinator's thread calls the methods here;
senders read where to send.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from .. import pace
from ..delivery import AttemptResult, DeliveryTask, Destination, is_of_backfill
from ..health import Health
from ..outbox import Window
from ..pace import Burst
from .scheduler import FairScheduler, Lane

__all__ = ["TURN", "UNKNOWN", "HeldLane", "Scheduler"]

Scheduler: t.TypeAlias = "FairScheduler[HeldLane, DeliveryTask]"

TURN = 2.0
"""Seconds after which a lane is given up although it has more, if other lanes wait."""
TRUST = timedelta(hours=1)
"""Age of a success that makes a lane trusted from the start."""
SAVE = 1.0
"""Seconds between two writes of a receiver's good health; bad news is written at once."""
LONGEST_WAIT = pace.DAY
"""Seconds that a lane waits at most."""
UNKNOWN = Health(failures=-1)
"""Differs from every health: the row in the database is written anew."""
NEWS = "failures", "window_failed", "paused_until", "refusals", "waits_for"
"""What the next worker must know of a receiver: more than another success of one that does well."""


@dataclass(slots=True, eq=False, kw_only=True)
class HeldLane(Lane[DeliveryTask]):
    """A lane that this worker holds."""

    scheduler: Scheduler = field(repr=False)
    destination: Destination
    health: Health
    saved: Health
    """As it stood in the database when it was last looked at."""
    saved_at: float = 0.0
    since: float = field(default_factory=time.monotonic)
    """Monotonic seconds when it was leased."""
    buffered: dict[str, DeliveryTask] = field(default_factory=dict)
    """Deliveries read and not yet written back: those in `queue`, those in flight, and those that are done."""
    backfilled: dict[tuple[str, str], DeliveryTask] = field(default_factory=dict)
    """Of `buffered`, what a backfill sends, by what it is about."""
    bytes: int = 0
    """What the buffered ones weigh."""
    behind: tuple[datetime, str] | None = None
    """How far it has been read."""
    read_at: float = 0.0
    """Monotonic seconds before which it is not read again."""
    fed_at: float = 0.0
    """Monotonic seconds when it was last given tasks."""
    is_dry: bool = False
    """The database had nothing more for it when it was last read."""
    burst: Burst = field(default_factory=Burst)
    """What its receiver has taken lately."""

    # ---- the buffer ------------------------------------------------------------------------------------

    def window(self, share: int, now: float) -> Window | None:
        """Return how far to read on; None: not now. A lane that is being probed gets one task at a time.

        :param share: tasks that it may have of what is read ahead.
        """
        # One that had no more waits until all is begun: what comes would have to wait behind it, too.
        enough = 0 if self.is_dry else share // 4
        if self.is_closing or now < self.read_at or len(self.queue) > enough:
            return None
        if self.is_dry and self.buffered and not self.in_flight:
            return None  # all is done, and the lane is given back when that is written, in a moment
        if not self.health.is_probed:
            return Window(share + (0 if self.behind else len(self.buffered)), self.behind)
        return None if self.buffered else Window(1)

    def note_read(self, rows: t.Sequence[sa.Row[t.Any]], most: int, again_at: float) -> list[sa.Row[t.Any]]:
        """Note how far it has been read, and return what is new.

        :param most: how many were asked for: when fewer came, there are no more.
        :param again_at: when a lane without more is read again.
        """
        self.is_dry = len(rows) < most
        self.read_at = again_at if self.is_dry else 0.0
        # What commits late can be due earlier than what was read: after the last, begin anew.
        self.behind = None if self.is_dry else (rows[-1].due_at, rows[-1].id)
        return [row for row in rows if row.id not in self.buffered]

    def read_anew(self, again_at: float) -> None:
        """Have what did not fit into memory read again when there is room."""
        self.behind, self.is_dry, self.read_at = None, False, again_at

    def take(self, tasks: t.Sequence[DeliveryTask], now: float) -> None:
        """Buffer tasks that were just read, and have them sent."""
        self.buffered.update((task.id, task) for task in tasks)
        self.backfilled.update((task.entity, task) for task in tasks if is_of_backfill(task))
        self.bytes += sum(task.size for task in tasks)
        self.fed_at = now
        self.scheduler.extend(self, tasks)

    def drop(self, tasks: t.Container[DeliveryTask]) -> list[DeliveryTask]:
        """Take back those of these tasks that have not begun, and return them."""
        dropped = self.scheduler.drop(self, tasks)
        for task in dropped:
            self.release_body(task)
        return dropped

    def put_away(self, result: AttemptResult) -> None:
        """Forget a task whose result is written; one that is sent again soon keeps its body."""
        if result.is_deferred:
            result.task.body = result.body
        else:
            self.release_body(result.task)

    def put_back(self, task: DeliveryTask) -> None:
        """Have a task sent again, before all others; if the lane is closing, by the worker that takes it next."""
        if not self.scheduler.put_back(self, task):
            self.release_body(task)
            self.is_dry = False

    def release_body(self, task: DeliveryTask) -> None:
        """Forget a task."""
        if self.buffered.pop(task.id, None) is not None:
            self.bytes -= task.size
        if self.backfilled and task.message is not None and self.backfilled.get(task.entity) is task:
            del self.backfilled[task.entity]

    def close(self) -> None:
        """Take nothing more; what was read and not begun stays due in the database."""
        for task in self.scheduler.remove(self):
            self.release_body(task)
            # The receiver of one that is refused meanwhile has these others to take, so that it is deferred.
            self.is_dry = False

    def is_finished(self, written: t.Collection[str] = ()) -> bool:
        """Whether it can be given back, supposing that these deliveries are written."""
        return (self.is_closing or self.is_dry) and not self.buffered.keys() - written

    def is_starving(self, now: float) -> bool:
        """Whether it has work for which there has been no memory for a while."""
        return not self.buffered and not self.is_dry and now - max(self.since, self.fed_at) > TURN

    # ---- how its receiver does -------------------------------------------------------------------------

    def learn(self, health: Health, now: datetime) -> None:
        """Note how its receiver does; a lane that was probed gets its full terms again when that is over."""
        was, self.health = self.health, health
        is_paced = (was.paced_at, was.paced_rate) != (health.paced_at, health.paced_rate)
        if (was.is_probed != health.is_probed or is_paced) and not self.is_closing:
            self.restore_terms(now)

    def lately(self) -> Burst:
        """Return what its receiver has taken lately, and whether there is more for it."""
        self.burst.has_others = len(self.buffered) > 1 or not self.is_dry
        return self.burst

    def hold(self, until: float) -> None:
        """Start nothing before a time, in monotonic seconds; `row_to_save` has it for the next worker."""
        self.scheduler.hold(self, until)

    # ---- its terms -------------------------------------------------------------------------------------

    def open(self, sendable_at: datetime | None, now: datetime, *, is_avoided: bool) -> None:
        """Have the scheduler take it up.

        :param sendable_at: when its rate or its receiver allows the next request, as the last worker left it.
        :param is_avoided: it was slow in this run before.
        """
        rate, health = self._rate(now, pace.FIRST_WAIT), self.health
        not_before = 0.0
        if sendable_at is not None and rate is not None:
            # Never later than one interval, whatever the clocks of two machines say.
            ahead = max((sendable_at - now).total_seconds(), 0.0)
            not_before = time.monotonic() + min(ahead, 1 / rate)
        self.scheduler.add(
            self,
            rate=rate,
            even=rate is not None and rate != self.destination.rate,
            suspect=health.is_suspect or is_avoided,
            trusted=health.succeeded_at is not None and now - health.succeeded_at < TRUST,
            cap=1 if health.is_probed else None,
            not_before=not_before,
        )

    def redirect(self, destination: Destination, now: datetime) -> None:
        """Send to a destination as its owner has changed it."""
        was, self.destination = self.destination, destination
        if (destination.rate != was.rate or self.health.paced_rate) and not self.is_closing:
            self.restore_terms(now)
        self.behind = None  # what was committed late may be due before what has been read

    def restore_terms(self, now: datetime) -> None:
        """Give it the terms that it should have: after a probe that succeeded, or for a new rate."""
        rate = self._rate(now, self.burst.wait)
        is_learnt = rate is not None and rate != self.destination.rate
        slots = pace.slots_at(rate, self.burst) if rate is not None and is_learnt else None
        self.scheduler.set_terms(self, rate=rate, cap=1 if self.health.is_probed else slots, even=is_learnt)

    def _rate(self, now: datetime, wait: float) -> float | None:
        """Requests a second: what its owner allows, or what its receiver has been learnt to take if that is less."""
        learnt = pace.rate_at(self.health, now, wait)
        return min((rate for rate in (self.destination.rate, learnt) if rate is not None), default=None)

    # ---- its lease -------------------------------------------------------------------------------------

    def renew(self, until: float) -> None:
        """Note a longer lease, in monotonic seconds."""
        if not self.is_closing:
            self.scheduler.renew(self, until)

    def row_to_save(self, health: Health, *, is_last: bool, now: datetime) -> dict[str, t.Any] | None:
        """Return the row of how its receiver does and when it may be sent to; None: it is not worth a write.

        :param is_last: the lane is given back with it.
        """
        moment = time.monotonic()
        # Not with every batch: at full speed that would be one more row to write for each lane.
        if not (is_last or moment - self.saved_at > SAVE or self._is_news(health)):
            return None
        sendable_at = self._sendable_at(moment, now)
        if health == self.saved and not self.destination.rate and sendable_at is None:
            return None
        self.saved, self.saved_at = health, moment
        # `asdict` takes ten times as long, which counts at a thousand lanes a second.
        columns = {name: getattr(health, name) for name in Health.__dataclass_fields__}
        return {"lane": self.key, **columns, "sendable_at": sendable_at, "served_at": now}

    def _is_news(self, health: Health) -> bool:
        return any(getattr(health, name) != getattr(self.saved, name) for name in NEWS)

    def _sendable_at(self, moment: float, now: datetime) -> datetime | None:
        ahead = self.start_at - moment
        if self.destination.rate is None and ahead <= 0:
            return None
        return now + timedelta(seconds=min(max(0.0, ahead), LONGEST_WAIT))
