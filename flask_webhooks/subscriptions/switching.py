"""Switches subscriptions: off holds the pending deliveries; on sends or discards the held ones, as the owner says."""

from __future__ import annotations

import typing as t
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import outbox
from ..errors import ErrorText
from ..models import Lane, State, Subscription
from .validation_errors import ValidationErrors

__all__ = ["HEALTHY", "check_held", "switch"]

COUNTED = 10_000
"""Held deliveries that are counted at most before they are sent or discarded."""
HEALTHY: dict[str, t.Any] = {
    "failures": 0,
    "failing_since": None,
    "succeeded_at": None,
    "paused_until": None,
    "pauses": 0,
    "window_at": None,
    "window_ok": 0,
    "window_failed": 0,
    "refusals": 0,
    "paced_rate": None,
    "paced_at": None,
    "waits_for": None,
    "sendable_at": None,
}
"""The health of a lane when its subscription is switched on: earlier failures do not count."""


def check_held(
    session: Session, row: Subscription, active: bool, held: str | None, faults: ValidationErrors
) -> None:
    """Refuse to switch on without a choice for the held deliveries, and such a choice without switching on."""
    if held not in (None, "send", "discard"):
        faults.add("held", ErrorText("unknown_held"))
    elif held is not None and (row.active or not active):
        faults.add("held", ErrorText("held_without_active"))
    elif active and not row.active and held is None and (count := _count_held(session, row.id)):
        faults.add("held", _said_of_held(count))


def _said_of_held(count: int) -> ErrorText:
    if count == 1:
        return ErrorText("one_held")
    return ErrorText("many_held", count=count) if count == COUNTED else ErrorText("some_held", count=count)


def _count_held(session: Session, subscription_id: str) -> int:
    """Count the held deliveries, and pending ones that workers have yet to hold; counting ends at `COUNTED`."""
    connection, total = session.connection(), 0
    for state in (State.HELD, State.PENDING):
        total += outbox.count_in_state(connection, subscription_id, state.value, COUNTED - total)
    return total


def switch(session: Session, row: Subscription, active: bool, held: str | None, now: datetime) -> None:
    """Switch off and hold pending deliveries, or switch on, reset the lane's health and send the held ones.

    It locks the lane's row before the subscription's, in the order of a worker that disables a subscription.
    """
    connection = session.connection()
    if row.active and not active:
        outbox.hold(connection, row.id, "off")
    elif active and not row.active:
        session.execute(sa.update(Lane).where(Lane.subscription_id == row.id).values(**HEALTHY))
        if held != "discard":  # `changes` has discarded them already
            # Also without `held`: a delivery that was recorded after `check_held` would stay held for ever.
            outbox.send_held(connection, row.id, now)
        row.disabled_reason = row.disabled_at = None
