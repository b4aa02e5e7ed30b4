"""The request of a delivery: rendered, signed and addressed.

The law of this module: every retry sends the same bytes, with a new signature over its own timestamp.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa

from .. import outcome, payload, signing
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
    "Request",
    "RequestError",
    "UnreadableError",
    "build",
    "headers",
    "is_of_backfill",
    "render",
    "utcnow",
]

MASK = "•••"
"""Replaces values in the log: of custom headers, and of any header of ours that is not in `SHOWN`."""
SHOWN = frozenset(
    (
        "Content-Type",
        "User-Agent",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "webhook-event",
        "webhook-occurred-at",
        "webhook-sequence",
        "webhook-attempt",
        "webhook-delivery",
        "webhook-trigger",
    )
)
"""Headers whose values the log keeps. All others are masked, so that one that is added cannot show a credential."""
_ASKED_FOR = frozenset({Trigger.REPLAY.value, Trigger.MANUAL.value})


def _version() -> str:
    from importlib.metadata import version

    return version("flask-webhooks")


USER_AGENT = f"Flask-Webhooks/{_version()}"


@dataclass(slots=True, eq=False)
class DeliveryTask:
    """A delivery in a worker's hands, with its message."""

    id: str
    subscription_id: str
    number: int
    """Number of the next attempt, from 1."""
    trigger: str
    format: str
    includes: frozenset[str]
    message: t.Any
    """The row of the message; None if it has been purged."""
    body: bytes | None = field(repr=False)
    """The bytes of the previous attempt; None before the first one."""
    due_at: datetime | None = None
    """The value that was read: the result is written only if the row still has it (compare-and-set)."""
    size: int = 0
    """Approximate bytes in memory."""
    read_at: float = 0.0
    """When it was read, in seconds of the monotonic clock."""
    is_outdated: bool = False
    """Whether a backfill made it and a newer event of its object goes to the same receiver: it is then cancelled."""

    @classmethod
    def of(cls, row: t.Any, message: t.Any, *, number: int, body: bytes | None = None) -> DeliveryTask:
        """Return the task of a row of the deliveries."""
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
        """The object of its message: channel and key."""
        return self.message.channel, self.message.entity_id


@dataclass(slots=True)
class Request:
    """A request that is ready to be sent, and its headers for the log."""

    outbound: Outbound
    logged: t.Mapping[str, str]
    """The headers, with `MASK` for all values but those of `SHOWN`."""


class RequestError(Exception):
    """No request can be made of a task: now, or ever if `final`."""

    def __init__(
        self, message: str, *, reason: str = outcome.Failure.POISON.value, final: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


class UnreadableError(RequestError):
    """Our keys cannot decrypt a secret, the custom headers or the certificate, so the delivery waits for others."""


def build(state: AppState, destination: Destination, task: DeliveryTask, now: datetime) -> Request:
    """Render, sign and address a task.

    :raises RequestError: its event or format no longer exists, its secret cannot be decrypted, or its format raises.
    """
    if destination.problem:
        raise (UnreadableError if destination.is_unreadable else RequestError)(destination.problem)
    # The headers need the message: of a purged one `render` refuses the task, even if a body is stored.
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
    logged = ours
    if own or not SHOWN.issuperset(ours):
        logged = {name: value if name in SHOWN else MASK for name, value in ours.items()}
        logged.update(dict.fromkeys(own, MASK))
    url, identity = destination.recipient.url, destination.identity
    if identity is not None and not identity.fits(
        url
    ):  # the URL has another host now: it must not see the certificate
        identity = None
    # Ours come last, so that no custom header replaces one of them.
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
    """Return our own headers, all in ASCII; `receiving.verify` reads them.

    Those about the event and the attempt are not signed: Standard Webhooks signs the id, the timestamp and the body.

    :raises SecretError: there is no secret.
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
    """Return why a request is made, in words for receivers: `live`, `replay`, `backfill` or `test`.

    The log's words name the workflow that made the attempt; a receiver wants to know whether the event is new.
    """
    message = task.message
    if message.channel == RESERVED_CHANNEL:
        return "test"
    if task.trigger in _ASKED_FOR:
        return "replay"
    return "backfill" if message.dedupe_key and is_backfilled(message.dedupe_key) else "live"


def is_of_backfill(task: DeliveryTask) -> bool:
    """Whether a backfill sends it; not if it is retried or replayed: whoever does that wants the old event again."""
    message = task.message
    return bool(message is not None and message.dedupe_key and _trigger(task) == "backfill")


def render(state: AppState, recipient: payload.Recipient, task: DeliveryTask) -> bytes:
    """Return the body of a task.

    :raises RequestError: as `build`. An unknown event or format is retried by the schedule: during a deployment an
        old worker reads events of the new web process.
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
    # A format of the host may use `current_app` or its database. Ours do not, so they skip the cost of a context.
    is_ours = make is payload.FORMATS.get(task.format)
    try:
        with contextlib.nullcontext() if is_ours else state.app.app_context():
            return payload.render(make, _message(state, task, row), recipient)
    except MemoryError:
        raise  # the process lacks memory, which is no fault of the format: see `attempt.crashed_result`
    except Exception as error:  # a custom format is the host's code and may raise anything
        raise RequestError(payload.failed(task.format, error)) from error


def _message(state: AppState, task: DeliveryTask, row: sa.Row[t.Any]) -> payload.Message:
    data = json.loads(row.data)
    if task.includes and row.extras and isinstance(data, dict):
        extras = json.loads(row.extras)
        data.update((name, value) for name, value in extras.items() if name in task.includes)
    return payload_message(row, state.catalog.channels[row.channel].label, data)


def utcnow() -> datetime:
    """Return the current time: the default clock of this room."""
    return datetime.now(UTC)
