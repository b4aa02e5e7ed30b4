"""The request that is made of a delivery: rendered, signed and addressed.

The law of this room: the same bytes on every retry, and a signature of their own for each.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa

from .. import payload, retry, signing
from ..catalog import RESERVED_CHANNEL
from ..errors import SecretError
from ..ids import is_backfilled
from ..messages import payload_message
from ..models import Trigger
from ..transport import Outbound
from .destination import Destination

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = [
    "MASK",
    "USER_AGENT",
    "DeliveryTask",
    "Locked",
    "Request",
    "RequestError",
    "build",
    "headers",
    "is_of_backfill",
    "render",
    "utcnow",
]

MASK = "•••"
"""Stands in the log for the values of custom headers: they may hold credentials."""
_ASKED_FOR = frozenset({Trigger.REPLAY.value, Trigger.MANUAL.value})


def _version() -> str:
    from importlib.metadata import version

    return version("flask-webhooks")


USER_AGENT = f"Flask-Webhooks/{_version()}"


@dataclass(slots=True, eq=False)
class DeliveryTask:
    """A delivery that is to be sent, with its message."""

    id: str
    subscription_id: str
    number: int
    """Of the attempt that comes next, from 1."""
    trigger: str
    format: str
    includes: frozenset[str]
    message: t.Any
    """The row of the message; None if it has been purged."""
    body: bytes | None = field(repr=False)
    """What was sent before, if it was tried before."""
    due_at: datetime | None = None
    """As it was read: a change that is made meanwhile is not overwritten."""
    size: int = 0
    """Bytes in memory, about."""
    read_at: float = 0.0
    """Monotonic seconds when it was read."""
    is_outdated: bool = False
    """Of a backfill, and something newer about its object goes to the same receiver; see `outdated`."""

    @classmethod
    def of(cls, row: t.Any, message: t.Any, *, number: int, body: bytes | None = None) -> DeliveryTask:
        """Return the task that a row of the deliveries is."""
        return cls(
            id=row.id,
            subscription_id=row.subscription_id,
            number=number,
            trigger=row.trigger,
            format=row.format,
            includes=frozenset(row.includes.split(",")) if row.includes else frozenset(),
            message=message,
            body=body,
            due_at=row.due_at,
        )

    @property
    def entity(self) -> tuple[str, str]:
        """What its message is about: channel and key."""
        return self.message.channel, self.message.entity_id


@dataclass(slots=True)
class Request:
    """A request that is ready to go, and what the log keeps of it."""

    outbound: Outbound
    logged: t.Mapping[str, str]
    """The headers with the values of custom ones masked: they may hold credentials."""


class RequestError(Exception):
    """This task cannot be made into a request, now or (when `final`) ever."""

    def __init__(
        self, message: str, *, reason: str = retry.Failure.POISON.value, final: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


class Locked(RequestError):
    """Its secret, custom headers or certificate do not open. The keys are ours, so the delivery waits for them."""


def build(state: AppState, destination: Destination, task: DeliveryTask, now: datetime) -> Request:
    """Render, sign and address a task; the same bytes on every retry, a fresh signature.

    :raises RequestError: its event or format is gone, its secret does not open, its format raises.
    """
    if destination.problem:
        raise (Locked if destination.is_locked else RequestError)(destination.problem)
    body = task.body if task.message is not None else None
    if body is None:
        body = render(state, destination.recipient, task)
    try:
        ours = headers(
            task.message,
            body,
            destination.secrets,
            now,
            number=task.number,
            delivery=task.id,
            trigger=_trigger(task),
        )
    except SecretError as error:
        raise RequestError(str(error)) from error
    own = destination.headers
    logged = {**ours, **dict.fromkeys(own, MASK)} if own else ours
    url, identity = destination.recipient.url, destination.identity
    if identity is not None and not identity.fits(url):  # its owner has moved it elsewhere
        identity = None
    return Request(Outbound(url, {**own, **ours} if own else ours, body, identity), logged)


def headers(
    message: t.Any,
    body: bytes,
    secrets: t.Sequence[signing.Secret],
    now: datetime,
    *,
    number: int,
    delivery: str,
    trigger: str,
) -> dict[str, str]:
    """Return the headers that are ours.

    What describes the event and this attempt is not signed: Standard Webhooks signs the id, the timestamp and the
    body. All of it is ASCII. `receiving.verify` reads it.

    :raises SecretError: without a secret.
    """
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        **signing.headers(message.id, body, now, secrets),
        "webhook-event": message.event,
        "webhook-occurred-at": payload.timestamp(message.occurred_at),
        "webhook-sequence": str(message.sequence),
        "webhook-attempt": str(number),
        "webhook-delivery": delivery,
        "webhook-trigger": trigger,
    }


def _trigger(task: DeliveryTask) -> str:
    """Why a request is made, in words for receivers: `live`, `replay`, `backfill` or `test`.

    The log's words say which of our workflows made the attempt; a receiver wants to know whether the event is new.
    """
    message = task.message
    if message.channel == RESERVED_CHANNEL:
        return "test"
    if task.trigger in _ASKED_FOR:
        return "replay"
    return "backfill" if message.dedupe_key and is_backfilled(message.dedupe_key) else "live"


def is_of_backfill(task: DeliveryTask) -> bool:
    """Whether a backfill sends it, and not a person who has it sent again and wants history as it was."""
    message = task.message
    return bool(message is not None and message.dedupe_key and _trigger(task) == "backfill")


def render(state: AppState, recipient: payload.Recipient, task: DeliveryTask) -> bytes:
    """Return the body of a task.

    :raises RequestError: as `build`. An event or format that is gone is tried again by the schedule: during a
        deployment an old worker meets the new web process's events.
    """
    row = task.message
    if row is None:
        raise RequestError("The message has been purged.", reason="purged", final=True)
    event = state.catalog.events.get(row.event)
    if event is None:
        raise RequestError(
            f"The event {row.event} is not in this worker's catalogue.", reason="unknown_event"
        )
    make = state.formats.get(task.format)
    if make is None:
        raise RequestError(
            f"The format {task.format!r} is not registered in this worker.", reason="unknown_format"
        )
    # The host's own may want its app, or the database; ours do without, which spares some microseconds.
    is_ours = make is payload.FORMATS.get(task.format)
    try:
        with contextlib.nullcontext() if is_ours else state.app.app_context():
            return payload.render(make, _message(state, task, row), recipient)
    except MemoryError:
        raise  # no fault of the format
    except Exception as error:  # a custom format is the host's code and may raise anything
        raise RequestError(payload.failed(task.format, error)) from error


def _message(state: AppState, task: DeliveryTask, row: sa.Row[t.Any]) -> payload.Message:
    data = json.loads(row.data)
    if task.includes and row.extras and isinstance(data, dict):
        extras = json.loads(row.extras)
        data.update((name, value) for name, value in extras.items() if name in task.includes)
    return payload_message(row, state.catalog.channels[row.channel].label, data)


def utcnow() -> datetime:
    """The clock of this room."""
    return datetime.now(UTC)
