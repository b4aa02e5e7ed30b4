"""One test request, now: the same guard, signature and log as a real delivery, marked as a test.

It is never retried and says nothing about the receiver's health. The attempt comes first and is written afterwards, in
one transaction: no worker can take it up meanwhile, and no connection is held while it is under way.
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
from .announce import announce_attempt
from .attempt import AttemptResult, make_attempt
from .destination import Destination, destinations
from .request import DeliveryTask, headers, utcnow

if t.TYPE_CHECKING:
    from ..signing import Secret
    from ..state import AppState
    from ..transport import Reply

__all__ = ["TEST_EVENT", "Subject", "run_probe", "send_test_request"]

TEST_EVENT = f"{RESERVED_CHANNEL}.test"
LONGEST_STATUS = 255
"""Characters of a status: what the column holds."""


@dataclass(frozen=True)
class Subject:
    """What the test is about."""

    event: str = TEST_EVENT
    data: t.Mapping[str, t.Any] | None = None
    """None: a greeting."""
    entity_id: str | None = None
    """The real record that `data` was made of."""


def send_test_request(
    state: AppState,
    subscription_id: str,
    subject: Subject,
    *,
    format: str | None,
    limit: float | None = None,
) -> str:
    """Send, write the log, and return the id of the delivery.

    :param format: what the subscription asked for; None: what the event's own is.
    :param limit: seconds that it may take, if fewer than an attempt has otherwise.
    :raises PayloadError: the data cannot be written as JSON or is too large, or the format fails.
    :raises OtherEnvironmentError: it is of an environment that this app does not send for.
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
    """The event of a test that is about no event of the catalogue."""
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
    """Send one test to a URL that belongs to no subscription yet, and return what was sent and what came back.

    It has the headers of every delivery, and is in no log.
    """
    now = utcnow()
    message = SimpleNamespace(
        id=uuid7(), event=TEST_EVENT, occurred_at=now, sequence=int(now.timestamp() * 1_000_000)
    )
    greeting = {"event": TEST_EVENT, "message": "Somebody is setting up a webhook to this address."}
    body = payload.encode(greeting).encode()
    ours = headers(message, body, secrets, now, number=1, delivery=message.id, trigger="test")
    outbound = Outbound(url, ours, body)
    return outbound, state.transport.send(outbound, limit=limit)


def _message(state: AppState, destination: Destination, event: EventType, subject: Subject) -> Row:
    """Return the row of the message. Its channel is the reserved one, which keeps tests out of replays."""
    data = dict(subject.data) if subject.data is not None else {"message": "This is a test."}
    text = payload.encode(data)
    size, most = size_of(text), state.settings.payload_limit
    if subject.data is not None and size > most:  # as a commit of the same record says
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
    # A test is not counted among the messages about its object: its sequence is the clock.
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
