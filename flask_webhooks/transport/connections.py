"""Guarded connections: requests' adapter and urllib3's pools, with our own way of opening and closing.

The law of this room: no socket is connected but in `Dialer.dial`, where every address that the name leads to has
passed the guard. Names stay in `Host`, SNI and certificate check, so nothing is rewritten and nothing to pin.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import typing as t
from collections import OrderedDict
from collections.abc import Sequence

import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..retry import Failure
from .addresses import Address, Network, parse_address, refusal
from .deadline import Attempt
from .names import LookupFailed, Names
from .urls import REFUSED

__all__ = ["Adapter", "AttemptFailed", "Dialer", "current"]

MOST_ADDRESSES: t.Final = 6
"""Addresses of one name that are tried; all of them are checked."""


class AttemptFailed(Exception):
    """A failure that we classified where it happened; urllib3 lets it pass, for it knows nothing of it."""

    def __init__(self, failure: Failure, detail: str, log: str) -> None:
        super().__init__(log)
        self.failure, self.detail, self.log = failure, detail, log


class _Current(threading.local):
    attempt: Attempt
    dialer: Dialer


current = _Current()
"""What this thread is attempting: urllib3 offers no way to hand it down to a connection."""


class Dialer:
    """Opens TCP connections to places that the guard lets through."""

    def __init__(self, names: Names, allowed: Sequence[Network], limit: float) -> None:
        self._names = names
        self._allowed = tuple(allowed)
        self._limit = limit

    def dial(self, attempt: Attempt, host: str, port: int, *, is_proxy: bool) -> socket.socket:
        """Return a socket connected to `host`, within the seconds to connect and the attempt's deadline.

        :param is_proxy: the host is the operator's own egress proxy, which guards in our place.
        :raises AttemptFailed: `dns`, `blocked_address`, `connect` or `timeout`.
        """
        begun = time.monotonic()
        ends = min(begun + self._limit, attempt.deadline)
        addresses = self._resolve(host, port, ends - begun)
        attempt.dns = time.monotonic() - begun
        if not is_proxy:
            self.judge(host, addresses)
        begun = time.monotonic()
        sock = self._connect(host, port, addresses[:MOST_ADDRESSES], ends)
        attempt.connect = time.monotonic() - begun
        try:
            peer = sock.getpeername()[0]
            if not is_proxy:
                self.judge(host, [parse_address(peer)])
        except OSError as error:  # gone already
            sock.close()
            raise _unreachable(host, port, error) from error
        except AttemptFailed:
            sock.close()
            raise
        attempt.address = peer
        return sock

    def judge(self, host: str, addresses: Sequence[Address | None]) -> None:
        """Refuse a host if only one of its addresses is one that we never talk to.

        :raises AttemptFailed: `blocked_address`.
        """
        for address in addresses:
            rule = "unreadable address" if address is None else refusal(address, self._allowed)
            if rule is not None:
                raise AttemptFailed(Failure.BLOCKED_ADDRESS, REFUSED, f"{host} is {address}: {rule}")

    def _resolve(self, host: str, port: int, limit: float) -> Sequence[Address]:
        address = parse_address(host)
        if address is not None:
            return (address,)
        try:
            return self._names.lookup(host, port, limit)
        except LookupFailed as error:
            detail = "The host name could not be resolved."
            raise AttemptFailed(Failure.DNS, detail, str(error)) from error

    def _connect(self, host: str, port: int, addresses: Sequence[Address], ends: float) -> socket.socket:
        """Try one address after the other, each with its share of the time that is left."""
        last: OSError = TimeoutError("no time left to connect")
        for index, address in enumerate(addresses):
            share = (ends - time.monotonic()) / (len(addresses) - index)
            if share <= 0:
                break
            try:
                return _connect_to(address, port, share)
            except OSError as error:
                last = error
        if isinstance(last, TimeoutError):
            detail = "The connection was not accepted in time."
            raise AttemptFailed(Failure.TIMEOUT, detail, f"{host}:{port}: {last!r}") from last
        raise _unreachable(host, port, last) from last


def _unreachable(host: str, port: int, error: OSError) -> AttemptFailed:
    refused = isinstance(error, ConnectionRefusedError)
    detail = "The connection was refused." if refused else "The connection could not be made."
    return AttemptFailed(Failure.CONNECT, detail, f"{host}:{port}: {error!r}")


def _connect_to(address: Address, port: int, limit: float) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(limit)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        if self.headers is None:
            if self.fp.peek(1):
                current.attempt.first_byte = time.monotonic()
        super().begin()


class _Guarded(urllib3.connection.HTTPConnection):
    """What both kinds of connection share."""

    response_class = _Response
    attempt: Attempt | None = None
    lifeline: socket.socket | None = None
    address: str | None = None
    used = False

    def _new_conn(self) -> socket.socket:
        attempt = current.attempt
        sock = current.dialer.dial(attempt, self._dns_host, self.port, is_proxy=self.proxy is not None)
        try:
            self.lifeline = sock.dup()
        except OSError:
            sock.close()
            raise
        sock.settimeout(min(t.cast(float, self.timeout), attempt.remaining) or 0.001)
        self.used = False
        self.address = attempt.address
        self.attempt = attempt
        attempt.hold(self.lifeline)
        return sock

    def request(self, *args: t.Any, **kwargs: t.Any) -> None:
        self.attempt = current.attempt
        self.attempt.reused = self.used
        self.attempt.address = self.address
        if self.used:
            self.attempt.hold(self.lifeline)
        super().request(*args, **kwargs)
        self.used = True

    def close(self) -> None:
        try:
            super().close()
        finally:
            lifeline, self.lifeline = self.lifeline, None
            if lifeline is not None:
                if self.attempt is not None:  # http.client closes before the body is read: Connection: close
                    self.attempt.retired.append(lifeline)
                else:
                    lifeline.close()


class _Connection(_Guarded):
    pass


class _TLSConnection(_Guarded, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            detail = f"The certificate did not verify: {error.verify_message}"
            raise AttemptFailed(Failure.TLS, detail, f"{self.host}: {error!r}") from error
        except TimeoutError:
            raise
        except (ssl.SSLError, OSError) as error:
            detail = "The TLS handshake failed."
            raise AttemptFailed(Failure.TLS, detail, f"{self.host}: {error!r}") from error
        attempt = current.attempt
        dialled = (attempt.dns or 0.0) + (attempt.connect or 0.0)
        attempt.tls = max(0.0, time.monotonic() - attempt.started - dialled)


class _Pooled(HTTPConnectionPool):
    """What both kinds of pool share."""

    idle: Idle

    def _get_conn(self, timeout: float | None = None) -> t.Any:
        conn = super()._get_conn(timeout)
        self.idle.take(t.cast(_Guarded, conn))
        if current.attempt.fresh:
            conn.close()
        return conn

    def _put_conn(self, conn: t.Any) -> None:
        if conn is not None:
            if conn.attempt is not None:
                conn.attempt.let_go()
                conn.attempt = None
            self.idle.keep(conn)
        super()._put_conn(conn)


class _Pool(_Pooled):
    ConnectionCls = _Connection


class _TLSPool(_Pooled, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Idle:
    """All connections that wait for their next use, so that their number is bounded over all destinations."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: OrderedDict[_Guarded, None] = OrderedDict()

    def take(self, conn: _Guarded) -> None:
        """Somebody uses the connection now."""
        with self._lock:
            self._waiting.pop(conn, None)

    def keep(self, conn: _Guarded) -> None:
        """Nobody uses the connection now; the one that has waited longest is closed when there are too many."""
        with self._lock:
            self._waiting[conn] = None
            while len(self._waiting) > self._most:
                # Closed under the lock: whoever takes it from its pool afterwards sees it closed and reconnects.
                self._waiting.popitem(last=False)[0].close()


class Adapter(HTTPAdapter):
    """requests' adapter with guarded pools and TLS contexts that are built once."""

    def __init__(self, context: ssl.SSLContext, *, size: int, proxy: str | None) -> None:
        self._context = context
        self._proxy = proxy
        self._idle = Idle(most=size)
        super().__init__(pool_connections=1024, pool_maxsize=size)

    def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes()

    def proxy_manager_for(self, proxy: str, **kwargs: t.Any) -> t.Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._classes()
        return manager

    def _classes(self) -> dict[str, type[HTTPConnectionPool]]:
        shared = {"idle": self._idle}
        return {"http": type("Pool", (_Pool,), shared), "https": type("TLSPool", (_TLSPool,), shared)}

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: t.Any, cert: t.Any = None
    ) -> t.Any:
        host_params, _ = super().build_connection_pool_key_attributes(request, True)
        return host_params, {"ssl_context": self._context}

    def cert_verify(self, conn: t.Any, url: t.Any, verify: t.Any, cert: t.Any) -> None:
        """Do nothing: the context says it all."""
