"""Resolves host names to addresses within a time limit.

`getaddrinfo` has no limit: a name server that does not answer blocks its caller for 10 to 30 seconds. So each lookup
runs in a daemon thread of its own, for which the caller waits only up to its limit. The number of threads is bounded,
and callers that need a name which is being looked up wait for the same answer, so that one dead name holds one thread.
"""

from __future__ import annotations

import socket
import threading
import time
import typing as t
from collections.abc import Callable

from .addresses import Address, parse_address

__all__ = ["Lookup", "LookupFailed", "Names", "Resolver"]

Resolver: t.TypeAlias = Callable[..., t.Sequence[tuple[t.Any, ...]]]
"""Called as `socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)`; answers and fails like it."""

MOST_LOOKUPS: t.Final = 256
"""Threads that may wait for a name server at the same time.

With 32 attempts in flight, each abandoned after 5 s of the 30 s that a lookup may hang, 32 * 30 / 5 = 192 threads wait.
So a customer whose names all hang cannot block the lookups of others.
"""

STALE_LOOKUP: t.Final = 10.0
"""Seconds after which callers no longer join a running lookup; the next caller starts a new one."""


class LookupFailed(Exception):
    """The name did not resolve, or not in time; the text is for the operator.

    :param is_missing: the name does not exist or has no address; otherwise the failure may be temporary.
    """

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class Lookup:
    """One running lookup that any number of callers wait for."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.begun = time.monotonic()
        self.done = threading.Event()
        self.addresses: tuple[Address, ...] = ()
        self.error: BaseException | None = None

    def run(self, resolver: Resolver) -> None:
        """Call the resolver and keep its addresses in their order, without duplicates."""
        try:
            infos = resolver(self.host, self.port, type=socket.SOCK_STREAM)
            found = [parse_address(info[4][0]) for info in infos]
            if None in found:
                raise LookupFailed(f"the resolver answered something that is no address: {infos!r}"[:300])
            self.addresses = t.cast("tuple[Address, ...]", tuple(dict.fromkeys(found)))
        except Exception as error:  # raised again, as LookupFailed, in each thread that waits
            self.error = error
        finally:
            self.done.set()


def _is_missing(error: BaseException) -> bool:
    missing = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
    return isinstance(error, socket.gaierror) and error.errno in missing


class Names:
    """Looks names up; safe to share between threads."""

    def __init__(self, resolver: Resolver, *, thread: str = "webhooks-lookup") -> None:
        self._resolver, self._thread = resolver, thread
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Lookup] = {}
        self._free = threading.BoundedSemaphore(MOST_LOOKUPS)

    @property
    def resolver(self) -> Resolver:
        """The function that resolves names; tests replace it by one without a network."""
        return self._resolver

    @resolver.setter
    def resolver(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def lookup(self, host: str, port: int, limit: float) -> tuple[Address, ...]:
        """Return every address of `host`, at least one, after at most `limit` seconds.

        :raises LookupFailed: no such name, no answer in time, or too many lookups hang.
        """
        ends = time.monotonic() + limit
        lookup = self._begin(host, port, limit)
        if not lookup.done.wait(max(0.0, ends - time.monotonic())):
            raise LookupFailed(f"{host}: no answer from the resolver in {limit:.1f} s")
        if lookup.error is not None:
            text = f"{host}: {type(lookup.error).__name__}: {lookup.error}"
            raise LookupFailed(text, is_missing=_is_missing(lookup.error)) from lookup.error
        if not lookup.addresses:
            raise LookupFailed(f"{host}: no addresses")
        return lookup.addresses

    def _begin(self, host: str, port: int, limit: float) -> Lookup:
        with self._lock:
            running = self._running.get((host, port))
            if running is not None and time.monotonic() - running.begun < STALE_LOOKUP:
                return running
        if not self._free.acquire(timeout=max(0.0, limit)):
            raise LookupFailed(f"{host}: {MOST_LOOKUPS} lookups are already waiting for the resolver")
        with self._lock:
            lookup = self._running[host, port] = Lookup(host, port)
        try:
            threading.Thread(target=self._run, args=(lookup,), name=self._thread, daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._forget(lookup)
            raise LookupFailed(f"{host}: {error}") from error
        return lookup

    def _run(self, lookup: Lookup) -> None:
        try:
            lookup.run(self._resolver)
        finally:
            self._forget(lookup)

    def _forget(self, lookup: Lookup) -> None:
        with self._lock:
            if self._running.get((lookup.host, lookup.port)) is lookup:
                del self._running[lookup.host, lookup.port]
        self._free.release()
