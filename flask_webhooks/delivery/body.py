"""The body of a delivery, for those who look at it afterwards.

It is kept only after a failure; else it is made again, of the message as it was frozen and of the catalogue and the
formats as they are today. The law of this room: what was sent is shown as it was sent, or not at all.
"""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass, field

import sqlalchemy as sa

from ..models import Attempt, BrokenMessage, Delivery, Message, State
from .destination import destinations
from .request import DeliveryTask, RequestError, render, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["CHANGED", "Body", "body_of"]

A, B, M = (t.cast("sa.Table", model.__table__) for model in (Attempt, BrokenMessage, Message))
CHANGED = "changed"
"""Made again it is another than was sent: since then a label, a format or the catalogue has changed."""
BROKEN = "broken"
"""Its data could not be rendered at the commit, and has not been repaired yet."""


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent last or will be sent, or why it cannot be shown."""

    data: bytes | None = field(repr=False)
    reason: str | None = None
    """`CHANGED`, `BROKEN`, or the class of failure that sending it would have."""

    def is_of(self, attempt: Attempt) -> bool:
        """Whether it is what was sent in this attempt."""
        return self.data is not None and _digest(self.data) == attempt.body_sha256


def body_of(state: AppState, connection: sa.Connection, row: Delivery) -> Body:
    """Return the body of a delivery."""
    if row.body is not None:
        return Body(row.body)
    if row.state in (State.BROKEN, State.CANCELLED) and _is_broken(connection, row.message_id):
        return Body(None, BROKEN)
    found = destinations(state, connection, [row.subscription_id], utcnow())
    message = connection.execute(sa.select(M).where(M.c.id == row.message_id)).one_or_none()
    task = DeliveryTask.of(row, message, number=1)
    try:
        data = render(state, found[row.subscription_id].recipient, task)
    except RequestError as error:
        return Body(None, error.reason)
    # All of them: to find the last, PostgreSQL might walk the whole log from its end.
    attempts = connection.execute(sa.select(A.c.id, A.c.body_sha256).where(A.c.delivery_id == row.id)).all()
    sent = max(((each.id, each.body_sha256) for each in attempts if each.body_sha256), default=(None, None))[
        1
    ]
    return Body(data) if sent in (None, _digest(data)) else Body(None, CHANGED)


def _is_broken(connection: sa.Connection, message_id: str) -> bool:
    return connection.scalar(sa.select(B.c.message_id).where(B.c.message_id == message_id)) is not None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
