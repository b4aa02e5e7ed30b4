"""The total deadline of an attempt, on the wall clock.

The timeout of a socket applies to each read: a receiver that sends one byte at a time would hold a thread for ever. One
thread watches every attempt in flight, and shuts down the connection of each attempt that is past its deadline. Nothing
is scheduled per attempt: almost all have the same duration, so the thread sleeps until the oldest is due.

Two traps, both tested. Under TLS the handshake *detaches* the socket that we connected, so the thread shuts down a
`dup` of it (the lifeline), which belongs to us alone. And a shutdown while headers are read looks like their end, with
status 200, so the reading thread must check `Exchange.expired` before it believes an answer.
"""

from __future__ import annotations

import threading
import time
import typing as t

from .exchange import Exchange

__all__ = ["DeadlineMonitor"]


class DeadlineMonitor:
    """Ends attempts at their deadline, by one daemon thread that the first attempt starts."""

    def __init__(self) -> None:
        self._flying: set[Exchange] = set()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._closed = False

    def begin(self, exchange: Exchange) -> None:
        """Watch `exchange`. Takes no lock while others are in flight: they are due earlier.

        :raises RuntimeError: the monitor has been closed.
        """
        if self._closed:
            raise RuntimeError("This transport has been closed.")
        self._flying.add(exchange)
        if self._asleep or self._thread is None:
            self._wake_thread()

    def end(self, exchange: Exchange) -> None:
        """Stop watching `exchange`."""
        self._flying.discard(exchange)

    def close(self) -> None:
        """End the thread; attempts in flight are ended at once."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        for exchange in tuple(self._flying):
            exchange.expire()

    def _wake_thread(self) -> None:
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="webhooks-deadline", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._asleep = True
                # `begin` takes the lock only if `_asleep` is set. An attempt may have begun just before that, so the
                # set is read again here.
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
        """End the overdue attempts, and return the seconds until the next one may be overdue."""
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
            # Another thread changed the set during the copy: possible only without a GIL.
            except RuntimeError:
                continue
