"""RQ's door: the one job, which works through everything that is due, or wakes the engine that does.

A stock `rq worker webhooks` imports this module by name. It finds the app through `FLASK_APP`, or through the path
that the job carries, and delivers in the job. `flask webhooks worker` has its app loaded already and a
`DeliveryThread` that delivers beside RQ; there the job only wakes it.
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
"""After which a job in a stock worker ends as soon as nobody notices it: others may wait in the queue, and a warm
shutdown waits for it, for the process that RQ forks is not told."""
LINGER = 6.0
"""Seconds that a job in a stock worker waits for the next delivery to fall due: as long as the first retry takes."""

BREATH = 0.02
"""Seconds between two runs of an engine."""
SOON = 0.1
"""Seconds for which an engine goes on looking rather than wait for the sweep: replays fall due one after the other."""

_engine: DeliveryThread | None = None
_pid: int | None = None
_ready: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


_names: dict[int, str] = {}
"""By process: a forked child is another worker."""


def worker_name() -> str:
    """`host:chance:pid`, as it stands in the log and on leases.

    By chance too, because in containers all are process 1, and hosts may have one name (`vm:1`): two workers of one
    name would be counted as one, and the first to end would sign off both.
    """
    pid = os.getpid()
    return _names.get(pid) or _names.setdefault(pid, f"{socket.gethostname()}:{secrets.token_hex(4)}:{pid}")


class DeliveryThread:
    """The thread of a worker that delivers whenever it is woken, as long as there is something to do.

    Beside RQ, not in its job: a job must end in time, and with it the run, for which everybody has to wait who is
    delivered to while a receiver hangs. Use it as a context manager; leaving it waits until nothing is due.

    :param stop: the worker's own: finish what is under way, give back the rest.
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
        if kind is None:  # else a second signal, which means at once
            self._thread.join()

    def wake(self) -> None:
        """Look for what is due, now or once more."""
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
                except (
                    Exception
                ) as error:  # the sweep wakes it again; without this thread nothing would be sent
                    extra = {"worker": worker_name()}
                    logger.error("run.failed", extra=extra, exc_info=emptied(error))

    def _deliver(self) -> None:
        while not self._stop.is_set() and self._state.settings.enabled:
            self._state.bell.clear()
            report = Coordinator(self._state, holder=worker_name(), stop=self._stop, clock=self._clock).run()
            # Replays afterwards: what was just committed does not wait for that look.
            queued = 0 if self._stop.is_set() else _replay(self._state)
            if not queued and (report.next_in is None or report.next_in > SOON):
                return
            if self._stop.wait(BREATH):
                self._state.bell.ring()  # for another worker


def deliver(app_path: str) -> dict[str, t.Any]:
    """Deliver what is due, until nothing is or the job's time is up; then see to it that somebody goes on.

    :param app_path: what to import when there is no `FLASK_APP`: `package` or `module:factory`.
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
        except Exception as error:  # which RQ logs, and the error tracker takes from there
            emptied(error)
            raise
    return {"delivered": total.delivered, "failed": total.failed}


def _is_ready(state: AppState) -> bool:
    """Whether the database has been migrated; looked at until it has. A run would wait minutes for its tables."""
    if state.engine not in _ready:
        try:
            refuse_missing_tables(state.engine)
        except ConfigurationError as error:
            logger.error("worker.not_ready", extra={"reason": str(error)})  # one sentence
            return False
        _ready.add(state.engine)
    return True


def _replay(state: AppState) -> int:
    """Have replays make their next deliveries due; return how many."""
    with contextlib.suppress(*TRANSIENT_ERRORS):  # which the run bears, and says once
        return replay.turn(state)
    return 0


def _is_due(report: Report) -> bool:
    return report.next_in is not None and report.next_in <= 0


def _work(state: AppState, stop: ShutdownFlag) -> Report:
    total, until = Report(), time.monotonic() + SECONDS
    while True:
        state.bell.clear()  # whoever commits from now on rings again
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
    """Wait for a retry that falls due soon, for there is no sweep; False when there is none."""
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
    """Ring again for what is left, or have RQ's scheduler do it when the next delivery is due."""
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
    """A forked child must not use its parent's connections."""
    global _pid
    if _pid is not None and _pid != os.getpid():
        state.engine.dispose(close=False)
    _pid = os.getpid()


def _call(handler: t.Callable[..., t.Any], number: int, frame: t.Any) -> None:
    """Call another's handler. RQ's writes to Redis: that it is gone must not break off the run that is to end well."""
    try:
        handler(number, frame)
    except Exception as error:
        logger.warning("signal.handler_failed", extra={"reason": str(error)})


@contextlib.contextmanager
def stopping() -> t.Iterator[ShutdownFlag]:
    """Yield what SIGTERM and SIGINT set, besides what somebody else's handlers do; a second one is hard."""
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
            _call(handler, number, frame)  # RQ's: warm at the first signal, hard at the second
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
