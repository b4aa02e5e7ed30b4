"""The door of RQ: one job, which delivers everything that is due, or wakes the thread that does.

A stock `rq worker webhooks` imports this module by name. It finds the app by `FLASK_APP`, or by the path in the job's
arguments, and delivers within the job. `flask webhooks worker` has loaded its app already, and delivers in a
`DeliveryThread` that runs in parallel with RQ; there the job only wakes that thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import threading
import time
import typing as t
import weakref
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Flask, has_app_context
from flask.cli import ScriptInfo

from . import outbox, replay
from .checks import refuse_missing_tables
from .errors import ConfigurationError
from .frames import emptied
from .shutdown import ShutdownFlag
from .state import AppState, state_of
from .worker import TRANSIENT_ERRORS, Coordinator, Report

__all__ = ["DeliveryThread", "deliver", "stopping", "worker_name"]

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Seconds after which a job in a stock worker ends at the next opportunity: other jobs may wait in the queue, and a
warm shutdown waits for the job, because RQ does not pass the signal to the process that it forked."""
LINGER = 6.0
"""Seconds that a job in a stock worker waits for the next delivery that falls due: enough for the first retry."""

BREATH = 0.02
"""Seconds between two runs of a delivery thread."""
SOON = 0.1
"""If a delivery falls due within so many seconds, the thread runs again at once instead of waiting to be woken: the
deliveries of a replay fall due one after the other."""

_engine: DeliveryThread | None = None
_pid: int | None = None
_ready: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


_names: dict[int, str] = {}
"""Worker names by process id: a forked child is another worker."""


def worker_name() -> str:
    """Return `host:random:pid`, the name of this worker in the log and on leases.

    It has a random part because in containers every worker is process 1, and several hosts may have the same name: two
    workers with one name would count as one, and the first to end would unregister both.
    """
    pid = os.getpid()
    return _names.get(pid) or _names.setdefault(pid, f"{socket.gethostname()}:{secrets.token_hex(4)}:{pid}")


class DeliveryThread:
    """The thread of a worker that delivers, each time it is woken, until nothing is due.

    It is not part of RQ's job: a job must end in time, and its run ends only when the slowest receiver has answered, so
    all other deliveries would wait for that one. Use it as a context manager; leaving it waits until nothing is due.

    :param stop: the worker's flag: once set, the thread finishes the attempts in flight and returns its other
        deliveries to the database.
    """

    def __init__(self, state: AppState, stop: ShutdownFlag) -> None:
        self._state, self._stop = state, stop
        self._clock = outbox.Clock()
        self._is_leaving = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhooks-engine", daemon=True)

    def __enter__(self) -> DeliveryThread:
        global _engine
        _engine = self
        self._thread.start()
        return self

    def __exit__(self, kind: t.Any, *_: object) -> None:
        global _engine
        _engine = None
        self._is_leaving = True
        self.wake()
        if kind is None:  # an exception means a second signal: end at once, without waiting
            self._thread.join()

    def wake(self) -> None:
        """Make the thread look for due deliveries: at once, or again after its current run."""
        self._woken.set()

    def _work(self) -> None:
        is_last = False
        with self._state.app.app_context():
            while not is_last:
                self._woken.wait()
                self._woken.clear()
                is_last = self._is_leaving or self._stop.is_set()
                try:
                    self._deliver()
                # Any exception: without this thread nothing would be sent. The next wake-up tries again.
                except Exception as error:
                    extra = {"worker": worker_name()}
                    logger.error("run.failed", extra=extra, exc_info=emptied(error))

    def _deliver(self) -> None:
        while not self._stop.is_set() and self._state.settings.enabled:
            self._state.bell.clear()
            report = Coordinator(self._state, holder=worker_name(), stop=self._stop, clock=self._clock).run()
            # Replays come second, so that a delivery which was just committed does not wait for their statements.
            queued = 0 if self._stop.is_set() else _replay(self._state)
            if not queued and (report.next_in is None or report.next_in > SOON):
                return
            if self._stop.wait(BREATH):
                self._state.bell.ring()  # for another worker


def deliver(app_path: str) -> dict[str, t.Any]:
    """Deliver until nothing is due or the job's time is up; in the latter case ring again, for the next job.

    :param app_path: the app to import if `FLASK_APP` is not set: `package` or `module:factory`.
    :return: the numbers of `delivered` and `failed` deliveries; empty if the job only woke the `DeliveryThread`.
    """
    if _engine is not None:
        _engine.wake()
        return {}
    app = _load(app_path)
    with contextlib.ExitStack() as stack:
        if not has_app_context():
            stack.enter_context(app.app_context())
        state = state_of(app)
        _renew_after_fork(state)
        if not _is_ready(state):
            return {}
        stop = stack.enter_context(stopping())
        try:
            total = _work(state, stop)
        except Exception as error:  # RQ logs it with its frames, whose variables may hold secrets
            emptied(error)
            raise
    return {"delivered": total.delivered, "failed": total.failed}


def _is_ready(state: AppState) -> bool:
    """Whether our tables exist; checked until they do. A run without them would retry for minutes."""
    if state.engine not in _ready:
        try:
            refuse_missing_tables(state.engine)
        except ConfigurationError as error:
            logger.error("worker.not_ready", extra={"reason": str(error)})  # one sentence
            return False
        _ready.add(state.engine)
    return True


def _replay(state: AppState) -> int:
    """Make the next deliveries of running replays due; return how many."""
    # The database is unreachable: the next run logs it, and waits.
    with contextlib.suppress(*TRANSIENT_ERRORS):
        return replay.enqueue_batches(state)
    return 0


def _is_due(report: Report) -> bool:
    return report.next_in is not None and report.next_in <= 0


def _work(state: AppState, stop: ShutdownFlag) -> Report:
    total, until = Report(), time.monotonic() + SECONDS
    while True:
        state.bell.clear()  # a commit from now on rings again
        if state.settings.enabled:
            _replay(state)
        report = Coordinator(state, holder=worker_name(), stop=stop).run(
            seconds=max(0.0, until - time.monotonic())
        )
        total.delivered += report.delivered
        total.failed += report.failed
        if not state.settings.enabled or not _linger(state, report, stop, until):
            break
    _go_on(state, report, stop)
    return total


def _linger(state: AppState, report: Report, stop: ShutdownFlag, until: float) -> bool:
    """Wait for a delivery that falls due soon, as a stock worker has no sweep; return False if there is none."""
    if report.next_in is None:
        return False
    due = time.monotonic() + max(0.0, report.next_in)
    if report.next_in > LINGER or due > until:
        return False
    while time.monotonic() < due and not state.bell.is_rung():
        if stop.wait(min(0.1, max(0.0, due - time.monotonic()))):
            return False
    return True


def _go_on(state: AppState, report: Report, stop: ShutdownFlag) -> None:
    """Ring for the deliveries that are left, or have RQ's scheduler ring when the next one falls due."""
    if report.next_in is None or not state.settings.enabled:
        return
    if _is_due(report) or stop.is_set():
        state.bell.ring()
    else:
        state.bell.wake_at(datetime.now(UTC) + timedelta(seconds=report.next_in))


@functools.cache
def _load(app_path: str) -> Flask:
    path = os.environ.get("FLASK_APP") or app_path
    return ScriptInfo(app_import_path=path).load_app()


def _renew_after_fork(state: AppState) -> None:
    """Dispose of the parent's database connections in a forked child, which must not use them."""
    global _pid
    if _pid is not None and _pid != os.getpid():
        state.engine.dispose(close=False)
    _pid = os.getpid()


def _call(handler: t.Callable[..., t.Any], number: int, frame: t.Any) -> None:
    """Call the previous signal handler. RQ's writes to Redis, whose absence must not break off the current run."""
    try:
        handler(number, frame)
    except Exception as error:
        logger.warning("signal.handler_failed", extra={"reason": str(error)})


@contextlib.contextmanager
def stopping() -> t.Iterator[ShutdownFlag]:
    """Yield a flag that SIGTERM and SIGINT set, in addition to calling the previous handlers; a second signal exits."""
    stop = ShutdownFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: t.Any) -> None:
        first = not stop.is_set()
        stop.set()
        handler = before[signal.Signals(number)]
        if callable(handler) and handler is not signal.default_int_handler:
            _call(handler, number, frame)  # RQ's: warm shutdown at the first signal, hard at the second
        elif first:
            logger.warning("worker.stopping", extra={"worker": worker_name()})
        else:
            raise SystemExit(128 + number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
