"""One attempt: build the request, send it, decide what follows. It touches no database."""

from __future__ import annotations

import errno
import random
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .. import pace, retry
from ..retry import Failure, Verdict
from ..transport import Reply
from .attempt_log import Row, attempt_row
from .destination import Destination
from .request import DeliveryTask, Locked, Request, RequestError, build, utcnow

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["OUTDATED", "AttemptResult", "called_off", "crashed", "make_attempt"]

SHORTAGE = 5.0
"""Seconds to wait when there is no memory or no file descriptor left to make a request."""
LOCKED = 30.0
"""The same while our keys do not open something of the subscription: a worker that has others must be started."""
OUTDATED = "outdated"
"""Why a delivery of a backfill was cancelled: something newer about its object goes to the same receiver."""


@dataclass(slots=True)
class AttemptResult:
    """The outcome of an attempt, ready to be written."""

    task: DeliveryTask
    ended_at: datetime
    verdict: Verdict
    failure: str | None = None
    """Class of the failure, or our own reason."""
    counts: bool = False
    """Whether it says something about the receiver: our own faults do not."""
    seconds: float = 0.0
    body: bytes | None = field(default=None, repr=False)
    """What was sent."""
    row: Row = field(default_factory=dict, repr=False)
    """The attempt's row; empty where no attempt was made."""
    log: str = ""
    """One line for the operator, with what the owner does not get to see."""
    is_logged: bool = True
    """Whether the worker writes the row."""
    started_at: datetime | None = None
    wait: float | None = None
    """Seconds that the lane waits: the receiver asks to slow down, or our side can reach no receiver."""
    asked: float | None = None
    """Seconds that the receiver asks to wait, if it says so."""
    is_ours: bool = False
    """Whether our side can reach no receiver, whatever the class of the failure."""
    is_deferred: bool = False
    """Whether the same delivery is sent again after that wait, and this was no attempt of its schedule."""

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


def make_attempt(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    draw: t.Callable[[], float] = random.random,
    clock: t.Callable[[], datetime] = utcnow,
    limit: float | None = None,
) -> AttemptResult:
    """Make one attempt and return its outcome; raises nothing for what the customer or receiver does.

    :param limit: seconds, if fewer than an attempt has otherwise.
    """
    started = clock()
    if task.is_outdated:
        return called_off(task, started, OUTDATED)
    try:
        request = build(state, destination, task, started)
    except Locked as error:
        # The keys are ours, so that nothing is used up, neither of the schedule nor of the receiver's credit.
        return _deferred(_unsendable(destination, task, worker, started, error, Verdict("pending")), LOCKED)
    except RequestError as error:
        verdict = _after_unsendable(state, destination, task, error, draw)
        return _unsendable(destination, task, worker, started, error, verdict)
    send = state.transport.send
    reply = send(request.outbound) if limit is None else send(request.outbound, limit=limit)
    ended = clock()
    if reply.is_ours:
        result = _sent(task, request, reply, started, ended, worker, Verdict("pending"))
        return _deferred(result, state.transport.patience)
    if reply.failure is None:
        return _sent(task, request, reply, started, ended, worker, _DELIVERED)
    hint = retry.retry_after(_header(reply, "retry-after"), ended)
    verdict = retry.decide(
        status=reply.status,
        failure=reply.failure,
        attempts=task.number,
        schedule=schedule(state, destination, task),
        retry_after=hint,
        draw=draw(),
    )
    result = _sent(task, request, reply, started, ended, worker, verdict)
    result.wait = pace.wait_of(hint, 1) if retry.is_pace(reply.status, hint) else None
    result.asked = hint
    return result


def _sent(
    task: DeliveryTask,
    request: Request,
    reply: Reply,
    started: datetime,
    ended: datetime,
    worker: str,
    verdict: Verdict,
) -> AttemptResult:
    """An attempt that made a request, whatever came back."""
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


def _unsendable(
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    started: datetime,
    error: RequestError,
    verdict: Verdict,
) -> AttemptResult:
    """An attempt that made no request. It is logged like one, and does not count against the receiver."""
    url, reason, detail = destination.recipient.url, error.reason, str(error)
    return AttemptResult(
        task=task,
        ended_at=started,
        verdict=verdict,
        failure=reason,
        row=attempt_row(task, url=url, started=started, worker=worker, failure=reason, detail=detail),
        log=detail,
    )


def _after_unsendable(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    error: RequestError,
    draw: t.Callable[[], float],
) -> Verdict:
    if error.final:
        return Verdict("failed")
    waits = schedule(state, destination, task)
    return retry.decide(
        status=None, failure=Failure.POISON, attempts=task.number, schedule=waits, draw=draw()
    )


def _deferred(result: AttemptResult, wait: float) -> AttemptResult:
    """A fault of our own side: the delivery waits as it is, and no attempt was made.

    A test request is no delivery that waits, so its row is made all the same.
    """
    result.counts, result.is_logged, result.wait = False, False, wait
    result.is_ours = result.is_deferred = True
    return result


def called_off(task: DeliveryTask, now: datetime, reason: str) -> AttemptResult:
    """A delivery that must not be sent any more: it is cancelled, and no attempt stands in the log."""
    return AttemptResult(task, now, Verdict("cancelled"), failure=reason, is_logged=False)


def crashed(
    state: AppState,
    destination: Destination,
    task: DeliveryTask,
    worker: str,
    error: BaseException,
    now: datetime,
) -> AttemptResult:
    """An attempt that our own code did not survive: it must neither stop the others nor be lost."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        # The process had not enough of something, which says nothing about this delivery.
        made = AttemptResult(task, now, Verdict("pending"), failure=Failure.POISON.value, body=task.body)
        return _deferred(made, SHORTAGE)
    # Only its type: the message may hold values of the host's, and the owner reads the log of attempts.
    failed = RequestError(f"The attempt failed within the sender: {type(error).__name__}.")
    verdict = _after_unsendable(state, destination, task, failed, random.random)
    return _unsendable(destination, task, worker, now, failed, verdict)


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
