"""One attempt: build the request, send it, decide what follows. It touches no database."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import typing as t
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from .. import pace, retry
from ..ids import uuid7
from ..retry import Failure, Verdict
from ..transport import Reply
from .excerpts import body_excerpt, headers_excerpt
from .request import DeliveryTask, Destination, Locked, Request, RequestError, build, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["OUTDATED", "AttemptResult", "attempt", "called_off", "crashed"]

LONGEST_DETAIL = 1_000
SHORTAGE = 5.0
"""Seconds to wait when there is no memory or no file descriptor left to make a request."""
LOCKED = 30.0
"""The same while our keys do not open something of the subscription: a worker that has others must be started."""
OUTDATED = "outdated"
"""Why a delivery of a backfill was cancelled: something newer about its object goes to the same receiver."""


@dataclass(slots=True)
class AttemptResult:
    """What came of an attempt, ready to be written."""

    task: DeliveryTask
    ended_at: datetime
    ok: bool
    failure: str | None
    """Class of the failure, or our own reason."""
    counts: bool
    """Whether it says something about the receiver: our own faults do not."""
    seconds: float
    verdict: Verdict
    body: bytes | None = field(repr=False)
    """What was sent."""
    row: dict[str, t.Any] = field(repr=False)
    """The attempt's row."""
    log: str = ""
    """One line for the operator, with what the owner is not told."""
    is_logged: bool = True
    """Whether the row is written; see `completer.drop_unstorable`."""
    started_at: datetime | None = None
    wait: float | None = None
    """Seconds that the lane waits: the receiver asks to slow down, or our side can reach nobody."""
    asked: float | None = None
    """Seconds that the receiver asks to wait, if it says so."""
    is_ours: bool = False
    """Whether our side can reach nobody, whatever the class of the failure."""
    is_deferred: bool = False
    """Whether the same delivery is sent again after that wait, and this was no attempt of its schedule."""

    @property
    def state(self) -> str:
        """The delivery's next state."""
        return "pending" if self.is_deferred else self.verdict.state

    @property
    def is_called_off(self) -> bool:
        """Whether nothing was sent, nor ever will be: no attempt was made."""
        return self.verdict.state == "cancelled"

    @property
    def is_unreachable(self) -> bool:
        """Whether the receiver held us up or was not there: its lane is suspect."""
        return self.failure in _UNREACHABLE


_UNREACHABLE = frozenset(
    {Failure.TIMEOUT, Failure.CONNECT, Failure.DNS, Failure.TLS, Failure.BLOCKED_ADDRESS}
)


_DELIVERED = Verdict("delivered")


def attempt(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    draw: t.Callable[[], float] = random.random,
    clock: t.Callable[[], datetime] = utcnow,
    limit: float | None = None,
) -> AttemptResult:
    """Make one attempt and return what came of it; raises nothing for what the customer or receiver does.

    :param limit: seconds, if fewer than an attempt has otherwise.
    """
    started = clock()
    if task.is_outdated:
        return called_off(task, started, OUTDATED)
    try:
        request = build(state, destination, task, started)
    except Locked as error:
        made = _unsendable(state, destination, task, worker, started, error, draw)
        deferred = {"is_logged": False, "wait": LOCKED, "is_ours": True, "is_deferred": True}
        return replace(made, verdict=Verdict("pending"), **t.cast("t.Any", deferred))
    except RequestError as error:
        return _unsendable(state, destination, task, worker, started, error, draw)
    send = state.transport.send
    reply = send(request.outbound) if limit is None else send(request.outbound, limit=limit)
    ended = clock()
    if reply.is_ours:
        return _unreachable(state, task, request, reply, started, ended, worker)
    verdict, failure, hint, wait = _DELIVERED, None, None, None
    if reply.failure is not None:
        failure, hint = reply.failure.value, retry.retry_after(_header(reply, "retry-after"), ended)
        verdict = retry.decide(
            status=reply.status,
            failure=reply.failure,
            attempts=task.number,
            schedule=schedule(state, destination, task),
            retry_after=hint,
            draw=draw(),
        )
        wait = pace.wait_of(hint, 1) if retry.is_pace(reply.status, hint) else None
    return AttemptResult(
        task=task,
        ended_at=ended,
        ok=failure is None,
        failure=failure,
        counts=True,
        seconds=reply.timings.total,
        verdict=verdict,
        body=request.outbound.body,
        row=_row(task, request, reply, started, worker),
        log=reply.log,
        started_at=started,
        wait=wait,
        asked=hint,
    )


def _unreachable(
    state: AppState,
    task: DeliveryTask,
    request: Request,
    reply: Reply,
    started: datetime,
    ended: datetime,
    worker: str,
) -> AttemptResult:
    """What comes of a fault of our side: the delivery waits as it is, and no attempt was made."""
    return AttemptResult(
        task=task,
        ended_at=ended,
        ok=False,
        failure=reply.failure.value if reply.failure is not None else None,
        counts=False,
        seconds=reply.timings.total,
        verdict=Verdict("pending"),
        body=request.outbound.body,
        row=_row(task, request, reply, started, worker),
        log=reply.log,
        is_logged=False,
        started_at=started,
        wait=state.transport.patience,
        is_ours=True,
        is_deferred=True,
    )


def called_off(task: DeliveryTask, now: datetime, reason: str) -> AttemptResult:
    """What comes of a delivery that must not be sent any more: it is cancelled, and no attempt stands in the log."""
    return AttemptResult(
        task=task,
        ended_at=now,
        ok=False,
        failure=reason,
        counts=False,
        seconds=0.0,
        verdict=Verdict("cancelled"),
        body=None,
        row={},
        is_logged=False,
    )


def crashed(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    error: BaseException,
    now: datetime,
) -> AttemptResult:
    """What came of an attempt that our own code did not survive: it must neither stop the others nor be lost."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return _postponed(task, now)
    trouble = RequestError(f"The attempt failed within the sender: {type(error).__name__}.")
    return _unsendable(state, destination, task, worker, now, trouble, random.random)


def _postponed(task: DeliveryTask, now: datetime) -> AttemptResult:
    """What comes of an attempt for which this process had not enough of something: nothing, and it is made again."""
    return AttemptResult(
        task=task,
        ended_at=now,
        ok=False,
        failure=Failure.POISON.value,
        counts=False,
        seconds=0.0,
        verdict=Verdict("pending"),
        body=task.body,
        row={},
        is_logged=False,
        wait=SHORTAGE,
        is_ours=True,
        is_deferred=True,
    )


def schedule(state: AppState, destination: Destination, task: DeliveryTask) -> t.Sequence[float]:
    """The subscription's own schedule, else the event's, else the app's."""
    if destination.retry is not None:
        return destination.retry
    event = state.catalog.events.get(task.message.event) if task.message is not None else None
    if event is not None and event.retry is not None:
        return retry.schedule(event.retry)
    return state.settings.retry


def _header(reply: Reply, name: str) -> str | None:
    return next((value for key, value in reply.headers.items() if key.lower() == name), None)


def _row(
    task: DeliveryTask, request: Request, reply: Reply, started: datetime, worker: str
) -> dict[str, t.Any]:
    body = request.outbound.body
    timings = reply.timings
    sent, detail = json.dumps(request.logged), clean(reply.detail)
    came = headers_excerpt(reply.headers)
    kept = body_excerpt(reply.body, request.outbound.url, sent, detail, came)
    return {
        "id": uuid7(),
        "delivery_id": task.id,
        "subscription_id": task.subscription_id,
        "number": task.number,
        "trigger": task.trigger,
        "started_at": started,
        "status": reply.status,
        "failure": reply.failure.value if reply.failure is not None else None,
        "detail": detail,
        "url": request.outbound.url,
        "request_headers": sent,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body_size": len(body),
        "response_headers": came,
        "response_body": kept or None,
        "response_truncated": reply.truncated or len(kept) < len(reply.body),
        "address": reply.address,
        "dns_seconds": timings.dns,
        "connect_seconds": timings.connect,
        "tls_seconds": timings.tls,
        "first_byte_seconds": timings.first_byte,
        "total_seconds": timings.total,
        "worker": worker,
    }


def _unsendable(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    started: datetime,
    error: RequestError,
    draw: t.Callable[[], float],
) -> AttemptResult:
    """An attempt that made no request. It is logged like one, and does not count against the receiver."""
    verdict = Verdict("failed")
    if not error.final:
        waits = schedule(state, destination, task)
        verdict = retry.decide(
            status=None, failure=Failure.POISON, attempts=task.number, schedule=waits, draw=draw()
        )
    row = {
        "id": uuid7(),
        "delivery_id": task.id,
        "subscription_id": task.subscription_id,
        "number": task.number,
        "trigger": task.trigger,
        "started_at": started,
        "status": None,
        "failure": error.reason,
        "detail": clean(str(error)),
        "url": destination.recipient.url,
        "request_headers": "{}",
        "body_sha256": "",
        "body_size": 0,
        "response_headers": None,
        "response_body": None,
        "response_truncated": False,
        "address": None,
        "dns_seconds": None,
        "connect_seconds": None,
        "tls_seconds": None,
        "first_byte_seconds": None,
        "total_seconds": 0.0,
        "worker": worker,
    }
    return AttemptResult(
        task=task,
        ended_at=started,
        ok=False,
        failure=error.reason,
        counts=False,
        seconds=0.0,
        verdict=verdict,
        body=None,
        row=row,
        log=str(error),
    )


def clean(text: str) -> str:
    """Without what a database does not take (PostgreSQL: NUL, halves of surrogate pairs), and not too long."""
    text = text[:LONGEST_DETAIL]
    if text.isascii() and text.isprintable():  # as nearly always
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


def due_again(result: AttemptResult) -> datetime | None:
    """When the delivery is due again, counted from the end of the attempt."""
    wait = result.verdict.retry_in
    return None if wait is None else result.ended_at + timedelta(seconds=wait)
