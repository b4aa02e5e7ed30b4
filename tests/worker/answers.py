"""Receivers whose answer a test decides while it runs, and coordinators in their own threads."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator, Report
from tests.receivers import Behaviour, Talk, response

__all__ = ["Gate", "background", "one_after_another", "run"]


FOREVER = 120.0
"""Seconds that no test waits."""


class Gate:
    """A behaviour that holds each request until the test releases it, or its receiver ends; it counts those it holds.

    :param seconds: hold each no longer than this.
    """

    def __init__(self, status: int = 200, seconds: float | None = None) -> None:
        self.status, self._seconds = status, seconds
        self.opened = threading.Event()
        self.held = self.most = 0
        self.times: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, talk: Talk) -> None:
        while True:
            talk.read_request()
            with self._lock:
                self.times.append(time.monotonic())
                self.held += 1
                self.most = max(self.most, self.held)
            until = time.monotonic() + (self._seconds or FOREVER)
            while not self.opened.wait(min(0.1, max(0.0, until - time.monotonic()))):
                if talk.receiver.stopping.is_set() or time.monotonic() >= until:
                    break
            with self._lock:
                self.held -= 1
            talk.send(response(self.status, {}, b""))


def one_after_another(*statuses: int) -> Behaviour:
    """Answer the first request with the first status, and so on; the last one stays."""
    left = list(statuses)
    lock = threading.Lock()

    def behave(talk: Talk) -> None:
        while True:
            talk.read_request()
            with lock:
                status = left.pop(0) if len(left) > 1 else left[0]
            talk.send(response(status, {}, b""))

    return behave


def run(state: AppState, holder: str = "test", **options: t.Any) -> Report:
    """Deliver what is due, once."""
    return Coordinator(state, holder=holder, **options).run()


class Background:
    """A run in a thread, inside the app's context."""

    def __init__(self, state: AppState, holder: str, seconds: float | None = None, **options: t.Any) -> None:
        self.stop = ShutdownFlag()
        self.run = Coordinator(state, holder=holder, stop=self.stop, **options)
        self.report: Report | None = None
        self.error: BaseException | None = None
        self._state, self._seconds = state, seconds
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._state.app.app_context():
                self.report = self.run.run(seconds=self._seconds)
        except BaseException as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return not self._thread.is_alive()

    def wait(self, seconds: float = 60.0) -> Report:
        """Return the report when the run has ended."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the run has not ended"
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report


@contextlib.contextmanager
def background(state: AppState, holder: str = "other", **options: t.Any) -> t.Iterator[Background]:
    """A run in another thread; stopped at the end of the block."""
    other = Background(state, holder, **options)
    try:
        yield other
    finally:
        other.stop.set()
        other.wait()
