"""The one place where rows of messages, rows of deliveries and `payload.Message` are made.

The law of this room: whoever records a message (a commit, a replay, a repair, a test request) or shows one (a worker,
an example) gets it from here, so that each column of these rows is filled, and each field for formats read, in one
function. Nothing here asks a database or calls a host's code; `outbox` writes the rows.
"""

from __future__ import annotations

import functools
import re
import typing as t
from datetime import datetime

from . import payload
from .ids import uuid7
from .models import State, Trigger

if t.TYPE_CHECKING:
    from .catalog import EventType

__all__ = ["Row", "delivery_row", "message_row", "payload_message", "size_of"]

Row = dict[str, t.Any]
# As text: an enum looks its values up slowly, and a commit makes a row for each subscription.
_PENDING, _AUTOMATIC = State.PENDING.value, Trigger.AUTOMATIC.value


def message_row(
    event: EventType,
    *,
    owner: str,
    environment: str,
    occurred_at: datetime,
    clock: int,
    entity_id: str | None,
    status: str | None,
    data: str,
    extras: str | None,
    size: int,
    dedupe_key: str | None,
) -> Row:
    """Return a new row of `models.Message`, which `outbox.recording.record` takes.

    :param clock: when it happened, in microseconds: the statement that writes the row makes its `sequence` of it.
    :param data: JSON text of the main object.
    :param extras: JSON text of what listeners asked for besides, all of it together.
    :param size: bytes of both.
    """
    return {
        "id": uuid7(),
        "event": event.name,
        "channel": event.channel,
        "owner": owner,
        "environment": environment,
        "occurred_at": occurred_at,
        "clock": clock,
        "entity_id": entity_id,
        "text": event.message,
        "transition": event.transition,
        "status": status,
        "data": data,
        "extras": extras,
        "size": size,
        "dedupe_key": dedupe_key,
    }


def delivery_row(
    event: EventType,
    message_id: str,
    subscription_id: str,
    *,
    format: str | None,
    includes: t.Collection[str] = (),
    state: str = _PENDING,
    reason: str | None = None,
    due_at: datetime | None = None,
    trigger: str = _AUTOMATIC,
) -> Row:
    """Return a new row of `models.Delivery`.

    :param format: what the subscription chose; the event's own is taken where it does not allow that.
    :param includes: what its listeners ask for, of what the event has.
    :param due_at: for a pending one.
    """
    return {
        "id": uuid7(),
        "message_id": message_id,
        "subscription_id": subscription_id,
        "state": state,
        "due_at": due_at,
        "attempts": 0,
        "trigger": trigger,
        "format": format if format in event.formats else event.format,
        "includes": ",".join(sorted(includes)) if includes else None,
        "reason": reason,
    }


def payload_message(row: t.Any, label: str, data: t.Any) -> payload.Message:
    """Return a message as formats see it.

    :param row: has the columns of `models.Message` as attributes.
    :param label: what its channel calls one of its records: `Business Loan`.
    :param data: the main object with what the receiver's listeners asked for.
    """
    channel, _, name = row.event.partition(".")
    return payload.Message(
        id=row.id,
        event=row.event,
        channel=channel,
        name=name,
        text=row.text,
        environment=row.environment,
        occurred_at=row.occurred_at,
        sequence=row.sequence,
        owner=row.owner,
        entity_type=_entity_type(label),
        entity_id=row.entity_id,
        transition=row.transition,
        status=row.status,
        data=data,
    )


@functools.cache
def _entity_type(label: str) -> str:
    """`Business Loan` to `business_loan`."""
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", label)).strip("_").lower()


def size_of(*texts: str | None) -> int:
    """Return the bytes that texts have in UTF-8 together."""
    size = 0
    for text in texts:
        if text:
            size += len(text) if text.isascii() else len(text.encode())
    return size
