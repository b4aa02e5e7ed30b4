"""Results written back in batches, each in one transaction behind the fence of the leases.

A result that could not be written stays here and is written when the database is back, if its lane is still ours. What
follows from a batch, in memory and for those who listen to signals, follows after its commit.
"""

from __future__ import annotations

import contextlib
import logging
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from .. import outbox, signals
from ..delivery import AttemptResult, DeliveryTask, announce_attempt, drop_response, is_announced
from ..health import Breaker, why_paused
from .batch import BatchResult, write_batch
from .lanes import Lanes
from .outage import TRANSIENT_ERRORS, is_cut_short
from .senders import Senders

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["VALUE_ERRORS", "Completer", "Report"]

logger = logging.getLogger("flask_webhooks.delivering")

VALUE_ERRORS = (sa.exc.SQLAlchemyError, ValueError, TypeError, ArithmeticError)
"""What a value raises that the database, its driver, SQLAlchemy or arithmetic does not take."""


@dataclass(slots=True)
class Report:
    """What a run has done."""

    delivered: int = 0
    failed: int = 0
    """Attempts that failed, whether or not they are retried."""
    lost: int = 0
    """Results dropped because another worker had taken the lane over."""
    next_due: datetime | None = None
    """When there is something to do again, by the database's clock."""
    next_in: float | None = None
    """Seconds until then when the run ended; below zero: it is overdue."""


def _due(task: DeliveryTask) -> tuple[datetime, str]:
    return task.due_at or datetime.min.replace(tzinfo=UTC), task.id


class Completer:
    """What one run has to write.

    :param report: kept up.
    """

    def __init__(self, state: AppState, lanes: Lanes, senders: Senders, report: Report) -> None:
        self._state, self._lanes, self._senders, self._report = state, lanes, senders, report
        self.unwritten: list[AttemptResult] = []
        self._unacknowledged: tuple[t.Sequence[AttemptResult], BatchResult] | None = None
        """What a transaction has written whose COMMIT has not been acknowledged."""
        self._counted = 0, 0
        """What has been added to the worker's row as delivered and failed."""

    def gather(self) -> None:
        """Take what the senders have, after a short wait."""
        self.unwritten += self._senders.gather()

    def complete(self) -> None:
        """Wait for results, write what has come, renew the leases, close lanes that have nothing more."""
        self.gather()
        if self.unwritten or self._lanes.is_renewal_due or self._lanes.finished():
            self.write()

    def write(self) -> None:
        """Write all that has been gathered."""
        self._record(self.unwritten)
        self._senders.mark_written()

    def recover(self) -> None:
        """After an outage: learn what it has left of the last transaction and of the leases, and write what waits."""
        self.gather()
        unacknowledged = self._unacknowledged
        with self._state.own_engine.begin() as connection:
            self._lanes.set_clock(connection)
            if unacknowledged is not None and not self._is_committed(connection, unacknowledged[1]):
                unacknowledged = None
            self._lanes.recover_leases(connection)
        self._unacknowledged = None
        if unacknowledged is not None:
            self._after_commit(*unacknowledged)
        self.write()
        for lane in self._lanes.held.values():
            self._lanes.scheduler.release(lane)

    def _is_committed(self, connection: sa.Connection, batch: BatchResult) -> bool:
        """Whether the connection broke only after the COMMIT had reached the server."""
        written = [result.row["id"] for result in batch.kept if result.is_logged]
        if not outbox.logged(connection, written):
            return False
        for key in batch.closed:
            self._lanes.held[key].close()
        # The health that was decided then is in the database, or what has been written over it since.
        batch.health.clear()
        return True

    # ---- one transaction -------------------------------------------------------------------------------

    def _record(self, results: t.Sequence[AttemptResult]) -> None:
        """Write results, lanes' health, and what leases end: one transaction behind the fence."""
        try:
            batch = self._transact(results)
        except TRANSIENT_ERRORS as error:
            if len(results) < 2 or not is_cut_short(error):
                raise
            self._record_halves(results)
        except VALUE_ERRORS as error:
            self._lanes.doubt()
            if not results:
                raise
            self._record_singly(results, error)
        else:
            self._after_commit(results, batch)

    def _transact(self, results: t.Sequence[AttemptResult]) -> BatchResult:
        lanes = self._lanes
        closing = lanes.finished({result.task.id for result in results})
        keys = {result.task.subscription_id for result in results}
        counted, is_renewal_due = self._counted, lanes.is_renewal_due
        with self._state.own_engine.begin() as connection:
            # First of all statements: with these rows locked no other worker can take a lane before the commit.
            ours = lanes.fence(connection, keys.union(closing))
            batch = write_batch(self._state, connection, results, ours)
            lanes.hold(results)
            lanes.save(connection, batch.health, closing)
            if is_renewal_due:
                counted = self.count(connection)
            batch.closed = closing
            # Until the commit returns it is not known whether it took place: `recover` asks the database.
            self._unacknowledged = tuple(results), batch
        self._unacknowledged, self._counted = None, counted
        return batch

    def _record_halves(self, results: t.Sequence[AttemptResult]) -> None:
        """The database had no time for so many at once: whole, they would be tried for ever."""
        self._lanes.doubt()
        self._unacknowledged = None  # cut short by the server, which has undone it
        middle = len(results) // 2
        self._record(results[:middle])
        self._record(results[middle:])

    def _record_singly(self, results: t.Sequence[AttemptResult], error: Exception) -> None:
        """Something in the batch cannot be written: it must not stop the others."""
        self._unacknowledged = None
        if len(results) > 1:
            for result in results:
                self._record([result])
        elif drop_unstorable(results[0], error):
            self._record(results)
        else:
            raise error

    def count(self, connection: sa.Connection) -> tuple[int, int]:
        """Add what has been done since the last time to the worker's row; return what has been added in all."""
        delivered, failed = self._report.delivered, self._report.failed
        outbox.count(connection, self._lanes.holder, delivered - self._counted[0], failed - self._counted[1])
        return delivered, failed

    # ---- after the commit ------------------------------------------------------------------------------

    def _after_commit(self, results: t.Sequence[AttemptResult], batch: BatchResult) -> None:
        """Release the tasks of written results, and do what follows for their lanes."""
        held = self._lanes.held
        done = {result.task.id for result in results}
        self.unwritten = [result for result in self.unwritten if result.task.id not in done]
        # Before anything is put back: the next worker may have them already.
        for key in batch.closed:
            held[key].close()
        for result in results:
            if (lane := held.get(result.task.subscription_id)) is not None:
                lane.put_away(result)
        # Backwards, so that what was due first is the first again.
        for task in sorted((each.task for each in results if each.is_deferred), key=_due, reverse=True):
            if (lane := held.get(task.subscription_id)) is not None:
                lane.put_back(task)
        self._add_up(results, batch)
        for key, count in batch.counts.items():
            self._go_on(key, count, batch)
        owners = {key: held[key].owner for key in batch.disabled}
        self._lanes.forget(batch.closed)
        # In a context of its own: what receivers do with `db.session` ends with it.
        with self._state.app.app_context() if signals.is_anybody() else contextlib.nullcontext():
            announce(self._state, batch, owners)

    def _add_up(self, results: t.Sequence[AttemptResult], batch: BatchResult) -> None:
        self._report.delivered += sum(result.ok for result in batch.kept)
        self._report.failed += sum(
            not (result.ok or result.is_cancelled or result.is_deferred) for result in batch.kept
        )
        self._report.lost += len(results) - sum(batch.counts.values())

    def _go_on(self, key: str, count: int, batch: BatchResult) -> None:
        """Let a lane go on as its receiver does now."""
        lanes, lane = self._lanes, self._lanes.held[key]
        if key in batch.health:
            lane.learn(batch.health[key], lanes.clock())
        if key in batch.disabled:
            lanes.switch_off(lane)
        elif lane.health.is_paused(lanes.clock()):
            lane.close()
        # Last, because a lane that was halted after failures must not go on before it is closed or probed.
        lanes.scheduler.release(lane, count)


def drop_unstorable(result: AttemptResult, error: Exception) -> bool:
    """Leave out of a result what the database may have refused; return False when nothing more can be left out.

    What was answered goes first. The last resort keeps the attempt out of the log, for the delivery's state must be
    written, or it would be sent again and again.
    """
    logger.error(
        "attempt.not_recorded",
        extra={"delivery_id": result.task.id, "reason": f"{type(error).__name__}: {error}"[:500]},
    )
    if drop_response(result.row):
        return True
    was_logged, result.is_logged = result.is_logged, False
    return was_logged


def announce(state: AppState, batch: BatchResult, owners: t.Mapping[str, str]) -> None:
    """Log each attempt in one line and send the signals, after the commit."""
    if is_announced():
        for result in batch.kept:
            announce_attempt(state, result)
    for key, health in batch.paused.items():
        fields = {
            "subscription": key,
            "until": health.paused_until.isoformat() if health.paused_until else None,
            "failed": health.window_failed,
            "attempts": health.window_ok + health.window_failed,
            "reason": why_paused(health, state.settings.breaker or Breaker()),
        }
        logger.warning("subscription.paused", extra=fields)
    for key, reason in batch.disabled.items():
        signals.send(
            signals.subscription_disabled,
            state.app,
            subscription_id=key,
            owner=owners[key],
            reason=reason.value,
        )
