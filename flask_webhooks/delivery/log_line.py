"""The log line of an attempt, and the signals that the host's own code may listen to.

The law of this module: an attempt is announced after the commit of its row, never before: a receiver of a signal that
looks the attempt up must find it.
"""

from __future__ import annotations

import logging
import typing as t

from .. import signals
from .attempt import AttemptResult

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["announce_attempt", "is_announced"]

logger = logging.getLogger("flask_webhooks.delivering")
"""Its name is what hosts configure; the room had that name once."""


def is_announced() -> bool:
    """Whether a logger or a signal receiver wants attempts: a worker may make thousands a second."""
    return signals.is_anybody() or logger.isEnabledFor(logging.INFO)


def announce_attempt(state: AppState, result: AttemptResult) -> None:
    """Log one attempt and send its signals."""
    task, row = result.task, result.row
    ids = {"delivery_id": task.id, "subscription_id": task.subscription_id}
    if result.is_cancelled:  # no request was made, so there is no attempt that a signal could report
        logger.info("delivery.cancelled", extra={**ids, "reason": result.failure})
        return
    named = {**ids, "event": task.message.event if task.message is not None else ""}
    if logger.isEnabledFor(logging.INFO):
        fields = {
            "number": task.number,
            "trigger": task.trigger,
            "status": row["status"],
            "failure": result.failure,
            "seconds": round(result.seconds, 4),
            "state": result.state,
            "detail": result.log,
        }
        logger.info("delivery.attempted", extra={**named, **fields})
    signals.send(
        signals.delivery_attempted,
        state.app,
        **named,
        number=task.number,
        status=row["status"],
        failure=result.failure,
    )
    if result.state == "delivered":
        signals.send(signals.delivery_delivered, state.app, **named, attempts=task.number)
    elif result.state == "failed":
        signals.send(signals.delivery_failed, state.app, **named, reason=result.failure)
