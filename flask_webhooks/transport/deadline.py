"""The total deadline of an attempt, on the wall clock.

Timeouts of sockets are per read: a receiver that drips one byte at a time would hold its thread for ever. One
thread watches every attempt in flight, and shuts down the connection of the one whose time is up. Nothing is
scheduled per attempt: all have the same duration, so the watch sleeps until the oldest is due.

Two traps, both tested: under TLS the socket we connected is *detached* by the handshake, so what is shut down is
a `dup` of it (a lifeline), which belongs to us alone. And a shutdown while headers are read looks like their end,
with status 200, so whoever reads must ask `Exchange.expired` before believing any answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing as t

if t.TYPE_CHECKING:
    from .dialer import Dialer

__all__ = ["DeadlineMonitor", "Exchange"]


class Exchange:
    """One request in flight: its deadline, its lifeline, and what is measured on the way.

    Instants are of `time.monotonic`; phases are seconds, `None` where they did not happen.
    """

    __slots__ = (
        "address",
        "connect",
        "connected",
        "deadline",
        "dialer",
        "dns",
        "expired",
        "first_byte",
        "fresh",
        "is_unacknowledged",
        "lifeline",
        "lock",
        "reused",
        "started",
        "tls",
    )

    dialer: Dialer
    """What opens its connection, if none is kept."""

    def __init__(self, limit: float) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + limit
        self.expired = False
        self.lock = threading.Lock()
        self.lifeline: socket.socket | None = None
        self.fresh = False
        """Whether a kept connection must not be used (again)."""
        self.reused = False
        """Whether the connection in use was kept from an earlier attempt."""
        self.is_unacknowledged = False
        """Whether the connection in use broke before all of the request was acknowledged."""
        self.address: str | None = None
        self.connected = self.started
        """When the connection was made, before TLS."""
        self.dns: float | None = None
        self.connect: float | None = None
        self.tls: float | None = None
        self.first_byte: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def hold(self, lifeline: socket.socket | None) -> None:
        """Say which connection to shut down when the time is up."""
        with self.lock:
            self.lifeline = lifeline
            late = self.expired
        if late:
            _cut(lifeline)

    def let_go(self) -> None:
        """Say that the connection is no longer ours: from here on it must not be shut down."""
        with self.lock:
            self.lifeline = None

    def expire(self) -> None:
        """End the attempt from another thread: whatever it reads or writes returns at once."""
        with self.lock:
            self.expired = True
            _cut(self.lifeline)


def _cut(lifeline: socket.socket | None) -> None:
    if lifeline is not None:
        with contextlib.suppress(OSError):  # the receiver was faster
            lifeline.shutdown(socket.SHUT_RDWR)


class DeadlineMonitor:
    """Ends attempts whose time is up; one daemon thread, started with the first attempt."""

    def __init__(self) -> None:
        self._flying: set[Exchange] = set()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._closed = False

    def begin(self, attempt: Exchange) -> None:
        """Watch over `attempt`. Costs no lock while others are in flight: they are due earlier.

        :raises RuntimeError: the watch has been closed.
        """
        if self._closed:
            raise RuntimeError("This transport has been closed.")
        self._flying.add(attempt)
        if self._asleep or self._thread is None:
            self._rouse()

    def end(self, attempt: Exchange) -> None:
        """Watch no longer."""
        self._flying.discard(attempt)

    def close(self) -> None:
        """End the thread; attempts in flight are ended at once."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        for attempt in tuple(self._flying):
            attempt.expire()

    def _rouse(self) -> None:
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="webhooks-deadline", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._asleep = True
                # Between a look at an empty set and this line one may have begun: look again while asleep.
                while not self._flying and not self._closed:
                    self._wake.wait()
                self._asleep = False
                if self._closed:
                    return
            pause = self._end_overdue()
            with self._wake:
                if not self._closed:
                    self._wake.wait(pause)

    def _end_overdue(self) -> float:
        """End what is overdue, and return the seconds until something may be overdue again."""
        now = time.monotonic()
        pause: float | None = None
        for attempt in self._snapshot():
            left = attempt.deadline - now
            if left <= 0:
                if not attempt.expired:
                    attempt.expire()
            elif pause is None or left < pause:
                pause = left
        return 0.05 if pause is None else pause

    def _snapshot(self) -> t.Sequence[Exchange]:
        while True:
            try:
                return list(self._flying)
            except RuntimeError:  # changed while it was copied, which the GIL prevents where there is one
                continue
