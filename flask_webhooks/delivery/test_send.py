"""One test request, made at once: with the guard, signature and log of a real delivery, and marked as a test.

It is never retried and does not count for the receiver's health. The request is made first, and its three rows are
written afterwards in one transaction: so no worker can lease the delivery, and the request holds no connection.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from types import SimpleNamespace

from .. import payload
from ..catalog import RESERVED_CHANNEL, EventType
from ..errors import OtherEnvironmentError, PayloadError
from ..ids import uuid7
from ..messages import Row, delivery_row, message_row, payload_message, size_of
from ..models import Attempt, Delivery, Message, State, Trigger
from ..transport import Outbound
from .attempt import AttemptResult, make_attempt
from .destination import Destination, destinations
from .log_line import announce_attempt
from .request import DeliveryTask, headers, utcnow

if t.TYPE_CHECKING:
    from ..signing import Secret
    from ..state import AppState
    from ..transport import Reply

__all__ = ["TEST_EVENT", "Subject", "run_probe", "send_test_request"]

TEST_EVENT = f"{RESERVED_CHANNEL}.test"
LONGEST_STATUS = 255
"""Characters of the column `status`."""


@dataclass(frozen=True)
class Subject:
    """The event of a test."""

    event: str = TEST_EVENT
    data: t.Mapping[str, t.Any] | None = None
    """None: a short greeting."""
    entity_id: str | None = None
    """The key of the record that `data` was made from; None for an example."""


def send_test_request(
    state: AppState,
    subscription_id: str,
    subject: Subject,
    *,
    format: str | None,
    limit: float | None = None,
) -> str:
    """Send, write the log, and return the id of the delivery.

    :param format: the format of the subscription; None: that of the event.
    :param limit: seconds for the request, if fewer than the transport allows.
    :raises PayloadError: the data cannot be written as JSON or is too large, or the format fails.
    :raises OtherEnvironmentError: this app does not send for the environment of the subscription.
    """
    now = utcnow()
    with state.own_engine.connect() as connection:
        destination = destinations(state, connection, [subscription_id], now)[subscription_id]
    if not state.settings.sends_to(destination.recipient.environment):
        raise OtherEnvironmentError(destination.recipient.environment)
    event = state.catalog.events.get(subject.event) or _greeting(state)
    message = _message(state, destination, event, subject)
    delivery = delivery_row(event, message["id"], subscription_id, format=format, trigger=Trigger.TEST.value)
    task = DeliveryTask(
        id=delivery["id"],
        subscription_id=subscription_id,
        number=1,
        trigger=delivery["trigger"],
        format=delivery["format"],
        includes=frozenset(),
        message=SimpleNamespace(**message),
        body=_body(state, destination, event, SimpleNamespace(**message), delivery["format"]),
    )
    result = make_attempt(state, destination, task, "test", limit=limit)
    _write(state, message, delivery, result)
    announce_attempt(state, result)
    return task.id


def _greeting(state: AppState) -> EventType:
    """Return the event type of a test without an event of the catalogue."""
    return EventType(
        name=TEST_EVENT,
        channel=RESERVED_CHANNEL,
        event="test",
        title="Test",
        description="",
        on=frozenset(),
        when={},
        changed=frozenset(),
        ignore=frozenset(),
        transition=None,
        message="Webhook test successful.",
        schema=None,
        format="channel",
        formats=tuple(state.formats),
        retry=None,
        deprecated=None,
        sample=None,
    )


def run_probe(
    state: AppState, url: str, secrets: t.Sequence[Secret], *, limit: float | None = None
) -> tuple[Outbound, Reply]:
    """Send one test to a URL before a subscription has it; return the request and the reply.

    It has the headers of every delivery, and no log records it.
    """
    now = utcnow()
    message = SimpleNamespace(
        id=uuid7(), event=TEST_EVENT, occurred_at=now, sequence=int(now.timestamp() * 1_000_000)
    )
    greeting = {"event": TEST_EVENT, "message": "A webhook to this address is being set up."}
    body = payload.encode(greeting).encode()
    ours = headers(message, body, secrets, now, number=1, delivery=message.id, trigger="test")
    outbound = Outbound(url, ours, body)
    return outbound, state.transport.send(outbound, limit=limit)


def _message(state: AppState, destination: Destination, event: EventType, subject: Subject) -> Row:
    """Return the row of the message. It has the reserved channel, which no replay includes."""
    data = dict(subject.data) if subject.data is not None else {"message": "This is a test."}
    text = payload.encode(data)
    size, most = size_of(text), state.settings.payload_limit
    if subject.data is not None and size > most:  # a commit of the same record would refuse it too
        raise PayloadError(
            f"The data of {subject.event} has {size} bytes; at most {most} are sent (WEBHOOKS_PAYLOAD_LIMIT)."
        )
    now = utcnow()
    status = data.get("status")
    row = message_row(
        event,
        owner=destination.recipient.owner,
        environment=destination.recipient.environment,
        occurred_at=now,
        clock=int(now.timestamp() * 1_000_000),
        entity_id=subject.entity_id,
        status=str(status)[:LONGEST_STATUS] if isinstance(status, str | int) else None,
        data=text,
        extras=None,
        size=size,
        dedupe_key=None,
    )
    # The sequence of real messages counts changes of their object. A test changes nothing: its sequence is the time.
    sequence = row.pop("clock")
    return {**row, "channel": RESERVED_CHANNEL, "sequence": sequence}


def _body(state: AppState, destination: Destination, event: EventType, row: t.Any, format: str) -> bytes:
    channel = state.catalog.channels.get(event.channel)
    label = channel.label if channel is not None else "Webhook"
    message = payload_message(row, label, json.loads(row.data))
    try:
        return payload.render(state.formats[format], message, destination.recipient)
    except Exception as error:  # a custom format is the host's code and may raise anything
        raise PayloadError(payload.failed(format, error)) from error


def _write(state: AppState, message: Row, delivery: Row, result: AttemptResult) -> None:
    outcome = {
        "state": (State.DELIVERED if result.ok else State.FAILED).value,
        "attempts": 1,
        "reason": result.failure,
        "body": result.body or result.task.body,
        "finished_at": result.ended_at,
    }
    with state.own_engine.begin() as connection:
        for model, row in ((Message, message), (Delivery, delivery | outcome), (Attempt, result.row)):
            connection.execute(t.cast("t.Any", model.__table__).insert(), row)
