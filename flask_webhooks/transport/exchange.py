"""One request in flight: its deadline, the connection to shut down when the deadline passes, and its measurements."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing as t

__all__ = ["Exchange"]


class Dials(t.Protocol):
    """The interface of `dialer.Dialer`, which imports this module."""

    limit: float
    """Seconds to connect, name lookup included."""

    def dial(self, exchange: Exchange, host: str, port: int, *, is_proxy: bool) -> socket.socket:
        """Return a socket connected to `host`."""


class Exchange:
    """One request in flight: its deadline, its lifeline (the socket to shut down), and the time of each phase.

    Instants are those of `time.monotonic`; phases are seconds, `None` for a phase that did not happen.
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
    """Opens a connection if there is no idle one."""

    def __init__(self, limit: float) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + limit
        self.expired = False
        self.lock = threading.Lock()
        self.lifeline: socket.socket | None = None
        self.fresh = False
        """Whether a new connection is required: an idle one has just turned out to be closed."""
        self.reused = False
        """Whether the connection in use was kept from an earlier request."""
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
        """Set the connection that `expire` shuts down; shut it down now if the deadline has passed already."""
        with self.lock:
            self.lifeline = lifeline
            late = self.expired
        if late:
            _cut(lifeline)

    def release(self) -> None:
        """Give the connection up: from here on another attempt may use it, so `expire` must not shut it down."""
        with self.lock:
            self.lifeline = None

    def expire(self) -> None:
        """End the attempt from another thread: its blocked read or write returns at once."""
        with self.lock:
            self.expired = True
            _cut(self.lifeline)


def _cut(lifeline: socket.socket | None) -> None:
    if lifeline is not None:
        with contextlib.suppress(OSError):  # the receiver has already closed the connection
            lifeline.shutdown(socket.SHUT_RDWR)
