"""The total deadline of an attempt, on the wall clock.

Timeouts of sockets are per read: a receiver that drips one byte at a time would hold its thread for ever. One
thread watches every attempt in flight, and shuts down the connection of the one whose time is up. Nothing is
scheduled per attempt: all have the same duration, so the watch sleeps until the oldest is due.

Two traps, both tested: under TLS the socket we connected is *detached* by the handshake, so what is shut down is
a `dup` of it (a lifeline), which belongs to us alone. And a shutdown while headers are read looks like their end,
with status 200, so whoever reads must ask `Exchange.expired` before believing any answer.
"""

from __future__ import annotations

import threading
import time
import typing as t

from .exchange import Exchange

__all__ = ["DeadlineMonitor"]


class DeadlineMonitor:
    """Ends attempts whose time is up; one daemon thread, started with the first attempt."""

    def __init__(self) -> None:
        self._flying: set[Exchange] = set()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._closed = False

    def begin(self, exchange: Exchange) -> None:
        """Watch over `exchange`. Costs no lock while others are in flight: they are due earlier.

        :raises RuntimeError: the watch has been closed.
        """
        if self._closed:
            raise RuntimeError("This transport has been closed.")
        self._flying.add(exchange)
        if self._asleep or self._thread is None:
            self._rouse()

    def end(self, exchange: Exchange) -> None:
        """Watch no longer."""
        self._flying.discard(exchange)

    def close(self) -> None:
        """End the thread; attempts in flight are ended at once."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        for exchange in tuple(self._flying):
            exchange.expire()

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
        for exchange in self._snapshot():
            left = exchange.deadline - now
            if left <= 0:
                if not exchange.expired:
                    exchange.expire()
            elif pause is None or left < pause:
                pause = left
        return 0.05 if pause is None else pause

    def _snapshot(self) -> t.Sequence[Exchange]:
        while True:
            try:
                return list(self._flying)
            except RuntimeError:  # changed while it was copied, which the GIL prevents where there is one
                continue
