"""One attempt: builds the request, sends it, and decides what follows. It uses no database connection."""

from __future__ import annotations

import errno
import random
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .. import outcome, pace, retry
from ..outcome import Failure, Verdict
from ..transport import Reply
from .attempt_row import Row, attempt_row
from .destination import Destination
from .request import DeliveryTask, Request, RequestError, UnreadableError, build, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["OUTDATED", "AttemptResult", "cancelled_result", "crashed_result", "make_attempt"]

SHORTAGE = 5.0
"""Seconds that a delivery waits if the process has no memory or file descriptor left for a request."""
UNREADABLE = 30.0
"""Seconds that a delivery waits while our keys cannot decrypt its secret: a worker with other keys must be started."""
OUTDATED = "outdated"
"""Why a backfill's delivery was cancelled: a newer event of the same object goes to the same receiver."""


@dataclass(slots=True)
class AttemptResult:
    """The outcome of an attempt, ready to be written."""

    task: DeliveryTask
    ended_at: datetime
    verdict: Verdict
    failure: str | None = None
    """Class of the failure, or our reason for making no request."""
    counts: bool = False
    """Whether it counts for the receiver's health; a fault on our side does not."""
    seconds: float = 0.0
    body: bytes | None = field(default=None, repr=False)
    """The bytes that were sent."""
    row: Row = field(default_factory=dict, repr=False)
    """The attempt's row; empty where no attempt was made."""
    log: str = ""
    """One line for the operator; it may hold internal details that the owner must not see."""
    is_logged: bool = True
    """Whether the worker writes the row."""
    started_at: datetime | None = None
    wait: float | None = None
    """Seconds that the whole lane waits: the receiver asks to slow down, or our side can reach no receiver."""
    asked: float | None = None
    """Seconds of the receiver's `Retry-After`; None without one."""
    is_ours: bool = False
    """Whether the fault is on our side, whatever the class of the failure."""
    is_deferred: bool = False
    """Whether the delivery is tried again after `wait`, without using up an attempt of its schedule."""

    @property
    def ok(self) -> bool:
        """Whether the receiver accepted it."""
        return self.verdict.state == "delivered"

    @property
    def state(self) -> str:
        """The delivery's next state."""
        return "pending" if self.is_deferred else self.verdict.state

    @property
    def retry_at(self) -> datetime | None:
        """When the delivery is due again, counted from the end of the attempt."""
        wait = self.verdict.retry_in
        return None if wait is None else self.ended_at + timedelta(seconds=wait)

    @property
    def is_cancelled(self) -> bool:
        """Whether the delivery ended without a request."""
        return self.verdict.state == "cancelled"

    @property
    def is_unreachable(self) -> bool:
        """Whether the receiver was slow or unreachable: the scheduler then gives its lane fewer senders."""
        return self.failure in _UNREACHABLE


_UNREACHABLE = frozenset(
    {Failure.TIMEOUT, Failure.CONNECT, Failure.DNS, Failure.TLS, Failure.BLOCKED_ADDRESS}
)
_DELIVERED = Verdict("delivered")


def make_attempt(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    draw: t.Callable[[], float] = random.random,
    clock: t.Callable[[], datetime] = utcnow,
    limit: float | None = None,
) -> AttemptResult:
    """Make one attempt and return its outcome. No mistake of a customer or a receiver raises.

    :param draw: returns the random share of a retry's wait, from 0 to 1.
    :param limit: seconds for the request, if fewer than the transport allows.
    """
    started = clock()
    if task.is_outdated:
        return cancelled_result(task, started, OUTDATED)
    try:
        request = build(state, destination, task, started)
    except UnreadableError as error:
        # The keys are ours: neither the delivery's schedule nor the receiver's health may suffer from them.
        return _deferred(
            _unsendable_result(destination, task, worker, started, error, Verdict("pending")), UNREADABLE
        )
    except RequestError as error:
        verdict = _verdict_without_request(state, destination, task, error, draw)
        return _unsendable_result(destination, task, worker, started, error, verdict)
    send = state.transport.send
    reply = send(request.outbound) if limit is None else send(request.outbound, limit=limit)
    ended = clock()
    if reply.is_ours:  # such as our own DNS or network: it would fail for every receiver
        result = _sent_result(task, request, reply, started, ended, worker, Verdict("pending"))
        return _deferred(result, state.transport.patience)
    if reply.failure is None:
        return _sent_result(task, request, reply, started, ended, worker, _DELIVERED)
    hint = retry.retry_after(_header(reply, "retry-after"), ended)
    verdict = outcome.decide(
        status=reply.status,
        failure=reply.failure,
        attempts=task.number,
        schedule=schedule(state, destination, task),
        retry_after=hint,
        draw=draw(),
    )
    result = _sent_result(task, request, reply, started, ended, worker, verdict)
    # 429, or 503 with `Retry-After`, is about all requests to this receiver, so its whole lane waits.
    result.wait = pace.wait_of(hint, 1) if outcome.is_pace(reply.status, hint) else None
    result.asked = hint
    return result


def _sent_result(
    task: DeliveryTask,
    request: Request,
    reply: Reply,
    started: datetime,
    ended: datetime,
    worker: str,
    verdict: Verdict,
) -> AttemptResult:
    """Return the result of an attempt whose request was sent, whatever the outcome."""
    url, failure = request.outbound.url, reply.failure.value if reply.failure is not None else None
    return AttemptResult(
        task=task,
        ended_at=ended,
        verdict=verdict,
        failure=failure,
        counts=True,
        seconds=reply.timings.total,
        body=request.outbound.body,
        row=attempt_row(
            task,
            url=url,
            started=started,
            worker=worker,
            failure=failure,
            detail=reply.detail,
            sent=request,
            reply=reply,
        ),
        log=reply.log,
        started_at=started,
    )


def _unsendable_result(
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    started: datetime,
    error: RequestError,
    verdict: Verdict,
) -> AttemptResult:
    """Return the result of an attempt that could not make its request.

    It has a row in the log, so that the owner sees the reason; it does not count for the receiver's health.
    """
    url, reason, detail = destination.recipient.url, error.reason, str(error)
    return AttemptResult(
        task=task,
        ended_at=started,
        verdict=verdict,
        failure=reason,
        row=attempt_row(task, url=url, started=started, worker=worker, failure=reason, detail=detail),
        log=detail,
    )


def _verdict_without_request(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    error: RequestError,
    draw: t.Callable[[], float],
) -> Verdict:
    if error.final:
        return Verdict("failed")
    waits = schedule(state, destination, task)
    return outcome.decide(
        status=None, failure=Failure.POISON, attempts=task.number, schedule=waits, draw=draw()
    )


def _deferred(result: AttemptResult, wait: float) -> AttemptResult:
    """Turn a result into a deferral: the fault is on our side, so the delivery waits and its attempt does not count.

    The row stays in the result: a worker does not write it, but a test request does, because it is never repeated.
    """
    result.counts, result.is_logged, result.wait = False, False, wait
    result.is_ours = result.is_deferred = True
    return result


def cancelled_result(task: DeliveryTask, now: datetime, reason: str) -> AttemptResult:
    """Return the result of a delivery that must not be sent any more; the log gets no attempt."""
    return AttemptResult(task, now, Verdict("cancelled"), failure=reason, is_logged=False)


def crashed_result(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    error: BaseException,
    now: datetime,
) -> AttemptResult:
    """Return the result of an attempt in which our own code raised: the sender goes on, and the delivery is retried."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        # The whole process lacks memory or descriptors: this delivery would succeed at another time.
        made = AttemptResult(task, now, Verdict("pending"), failure=Failure.POISON.value, body=task.body)
        return _deferred(made, SHORTAGE)
    # Only the type: the message may contain data of the host, and the owner can read the log of attempts.
    failed = RequestError(f"The attempt failed within the sender: {type(error).__name__}.")
    verdict = _verdict_without_request(state, destination, task, failed, random.random)
    return _unsendable_result(destination, task, worker, now, failed, verdict)


def schedule(state: AppState, destination: Destination, task: DeliveryTask) -> t.Sequence[float]:
    """Return the subscription's own schedule, else the event's, else the app's: seconds before each retry."""
    if destination.retry is not None:
        return destination.retry
    event = state.catalog.events.get(task.message.event) if task.message is not None else None
    if event is not None and event.retry is not None:
        return retry.schedule(event.retry)
    return state.settings.retry


def _header(reply: Reply, name: str) -> str | None:
    # `Reply.headers` keeps the spelling of the receiver, and names are case-insensitive (RFC 9110, section 5.1).
    return next((value for key, value in reply.headers.items() if key.lower() == name), None)
