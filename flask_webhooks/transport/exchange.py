"""One request in flight: its deadline, the connection to shut down once that has passed, and its measurements."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing as t

__all__ = ["Exchange"]


class Dials(t.Protocol):
    """What opens connections: `dialer.Dialer`."""

    limit: float
    """Seconds to connect, name lookup included."""

    def dial(self, exchange: Exchange, host: str, port: int, *, is_proxy: bool) -> socket.socket:
        """Return a socket connected to `host`."""


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

    dialer: Dials
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

    def release(self) -> None:
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
