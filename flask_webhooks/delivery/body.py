"""The body of a delivery, as the API and the console show it afterwards.

A body is stored only after a failure. Otherwise it is rendered again, from the stored message, with the catalogue and
the formats of today. The law of this module: a body is shown exactly as it was sent, or not at all.
"""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass, field

import sqlalchemy as sa

from ..models import ATTEMPTS, BROKEN_MESSAGES, MESSAGES, Attempt, Delivery, State
from .destination import destinations
from .request import DeliveryTask, RequestError, render, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["CHANGED", "Body", "body_of"]

CHANGED = "changed"
"""Rendering it again gives other bytes than were sent: a label, a format or the catalogue has changed since."""
BROKEN = "broken"
"""The data of its message could not be rendered at the commit, and has not been repaired yet."""


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes that were sent last or will be sent, or the reason why they cannot be shown."""

    data: bytes | None = field(repr=False)
    reason: str | None = None
    """`CHANGED`, `BROKEN`, or the class of the failure that an attempt would have today."""

    def is_of(self, attempt: Attempt) -> bool:
        """Whether this attempt has sent exactly these bytes."""
        return self.data is not None and _digest(self.data) == attempt.body_sha256


def body_of(state: AppState, connection: sa.Connection, row: Delivery) -> Body:
    """Return the body of a delivery."""
    if row.body is not None:
        return Body(row.body)
    if row.state in (State.BROKEN, State.CANCELLED) and _is_broken(connection, row.message_id):
        return Body(None, BROKEN)
    found = destinations(state, connection, [row.subscription_id], utcnow())
    message = connection.execute(sa.select(MESSAGES).where(MESSAGES.c.id == row.message_id)).one_or_none()
    task = DeliveryTask.of(row, message, number=1)
    try:
        data = render(state, found[row.subscription_id].recipient, task)
    except RequestError as error:
        return Body(None, error.reason)
    # The last digest is found here and not by ORDER BY with LIMIT: for that PostgreSQL might read the log of all
    # deliveries from its end until it meets this one.
    attempts = connection.execute(
        sa.select(ATTEMPTS.c.id, ATTEMPTS.c.body_sha256).where(ATTEMPTS.c.delivery_id == row.id)
    ).all()
    digests = {each.id: each.body_sha256 for each in attempts if each.body_sha256}
    sent = digests[max(digests)] if digests else None
    return Body(data) if sent in (None, _digest(data)) else Body(None, CHANGED)


def _is_broken(connection: sa.Connection, message_id: str) -> bool:
    return (
        connection.scalar(
            sa.select(BROKEN_MESSAGES.c.message_id).where(BROKEN_MESSAGES.c.message_id == message_id)
        )
        is not None
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
