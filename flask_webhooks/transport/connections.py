"""Connections and their pools: requests' adapter and urllib3's pools, which send and read by our own code.

requests and urllib3 provide TLS with verified names, tunnels through a proxy, and the one entry that libraries such as
`responses` replace in an app's tests. What they do for each request (merging settings, three header containers, a mail
parser, polling before each read) costs several times the rest of an attempt; so here a request is one `sendall`, and
its answer usually one `recv`.

A connection is used for a limited time: DNS records change, and NATs, load balancers and firewalls drop idle
connections without notice. `Idle` closes them by age; until then, kernel timeouts detect one that was dropped.
"""

from __future__ import annotations

import functools
import http.client
import select
import socket
import ssl
import struct
import threading
import time
import typing as t
from collections import OrderedDict
from contextvars import ContextVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..outcome import Failure
from .certificates import ClientCertificate, tls_detail
from .dialer import ExchangeFailed, TunnelFailed
from .exchange import Exchange
from .response import Answer, Broken
from .urls import Destination

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Adapter", "Idle", "Prepared", "current"]

ContextOf: t.TypeAlias = "Callable[[ClientCertificate | None], ssl.SSLContext]"

MOST_POOLS: t.Final = 1024
"""Destinations whose pool is remembered; the number of connections is bounded by `Idle`."""


LIFETIME: t.Final = 60.0
"""Seconds after which a connection carries no further request, so that a changed DNS record takes effect."""

IDLE: t.Final = 30.0
"""Seconds without a request after which a connection is closed: NATs and load balancers keep them for 60 or more."""

UNACKNOWLEDGED: t.Final = 4.0
"""Seconds that a request on a kept connection may wait for the acknowledgement of the receiver's kernel (TCP ACK)."""


current: ContextVar[Exchange] = ContextVar("webhooks_attempt")
"""The exchange of this thread: urllib3 has no parameter to pass it to a connection.

Not `threading.local`: this module may be imported before gevent replaces threads by greenlets (`gunicorn --preload`),
and all greenlets would share a native local. Each greenlet has a context of its own.
"""


class Prepared(requests.PreparedRequest):
    """A request in its final form: `request.prepare` has checked all of it, so requests prepares nothing."""

    def __init__(
        self,
        destination: Destination,
        headers: dict[str, str],
        body: bytes,
        identity: ClientCertificate | None = None,
    ) -> None:
        # Not super().__init__(): it sets the same attributes, and makes a cookie jar.
        self.destination, self.identity = destination, identity
        self.method = "POST"
        self.url = destination.url
        self.headers = headers  # type: ignore[assignment]
        self.body = body
        self.hooks = {"response": []}
        self._cookies = None
        self._body_position = None


class _Response(requests.Response):
    """The response that the adapter returns, without a cookie jar."""

    def __init__(self, request: requests.PreparedRequest, answer: Answer) -> None:
        self.request = request
        self.raw = answer
        self.status_code = answer.status
        self.reason = ""
        self.headers = answer.headers  # type: ignore[assignment]


class _Guarded(urllib3.connection.HTTPConnection):
    """The common part of plain and TLS connections."""

    idle: Idle
    exchange: Exchange | None = None
    """The exchange that uses it now; `None` while it waits in `Idle`."""
    lifeline: socket.socket | None = None
    address: str | None = None
    used = False
    """Whether it has carried a request."""
    silence = 0.0
    """Its `TCP_USER_TIMEOUT` in seconds: the kernel ends it after so long without an ACK. 0: the kernel's default."""
    opened_at = kept_at = 0.0
    """Instants of the clock of `Idle`."""
    poller: select.poll | None = None
    """Polls for unexpected bytes or a close; made once, where urllib3 makes one for each poll."""

    def _new_conn(self) -> socket.socket:
        exchange = current.get()
        sock = exchange.dialer.dial(exchange, self._dns_host, self.port, is_proxy=self.proxy is not None)
        try:
            self.lifeline = sock.dup()
        except OSError:
            sock.close()
            raise
        if hasattr(select, "poll"):  # not on Windows
            self.poller = select.poll()
            self.poller.register(sock, select.POLLIN)
        self.used, self.silence = False, 0.0
        self.opened_at = self.kept_at = self.idle.clock()
        self.address = exchange.address
        exchange.hold(self.lifeline)
        sock.settimeout(max(0.001, min(t.cast(float, self.timeout), exchange.remaining)))
        return sock

    def perform(self, exchange: Exchange, message: bytes, finish: t.Callable[[bool], None]) -> Answer:
        """Send a request and read the head of its answer."""
        exchange.reused = self.used
        exchange.address = self.address
        if self.used:
            exchange.hold(self.lifeline)
            self._limit_silence(exchange)
        self.used = True
        answer = Answer(self.sock.recv, finish)
        unsent: OSError | None = None
        try:
            self.sock.sendall(message)
        except (
            OSError
        ) as error:  # the receiver may have answered already, such as 413, and closed the connection
            unsent = error
        try:
            answer.read_head()
        except (OSError, Broken) as error:
            exchange.is_unacknowledged = _has_unacknowledged(self.lifeline)
            if unsent is not None and answer.first_byte is None and not isinstance(error, ssl.SSLError):
                raise unsent from None
            raise
        finally:
            exchange.first_byte = answer.first_byte
        return answer

    def _limit_silence(self, exchange: Exchange) -> None:
        """Have the kernel end this kept connection when the request on it is not acknowledged (`TCP_USER_TIMEOUT`).

        Only sending shows whether a kept connection still works. A slow answer is no problem: the receiver's kernel
        acknowledges the request long before its program answers. A new connection gets no such limit: it has just been
        acknowledged, and the kernel would also end one whose receiver is slow to *read* a long request.
        """
        # If the attempt's own limit is short, end the connection early enough to send the request again.
        seconds = min(UNACKNOWLEDGED, max(0.5, (exchange.deadline - exchange.started) / 3))
        if seconds != self.silence and hasattr(socket, "TCP_USER_TIMEOUT") and self.lifeline is not None:
            self.silence = seconds
            # Through the lifeline, a dup of the TCP socket: under TLS `sock` may be TLS within a proxy's TLS.
            self.lifeline.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))

    def is_stale(self) -> bool:
        """Whether the receiver closed the connection, or sent bytes without a request, while it was idle."""
        return bool(self.poller.poll(0)) if self.poller is not None else not self.is_connected

    def close(self) -> None:
        try:
            super().close()
        finally:
            lifeline, self.lifeline, self.poller = self.lifeline, None, None
            if lifeline is not None:
                if self.exchange is not None:
                    self.exchange.release()
                lifeline.close()

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except TimeoutError as error:
            text = "The connection was not accepted in time."
            raise TunnelFailed(Failure.TIMEOUT, text, f"proxy {self.address}: {error!r}") from error
        except (OSError, http.client.HTTPException) as error:
            log = f"proxy {self.address}: {error!r}"
            raise TunnelFailed(Failure.CONNECT, "The connection could not be made.", log) from error


def _has_unacknowledged(lifeline: socket.socket | None) -> bool:
    """Whether the kernel still holds unacknowledged bytes of the request; False where the kernel cannot tell."""
    if termios is None or lifeline is None:
        return False
    try:
        count: int = struct.unpack("i", fcntl.ioctl(lifeline, termios.TIOCOUTQ, b"\0" * 4))[0]
    except OSError:
        return False
    return count > 0


class _Connection(_Guarded):
    pass


class _TLSConnection(_Guarded, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        exchange = current.get()
        try:
            super().connect()
        except TimeoutError:
            raise
        except OSError as error:  # ssl.SSLError is one
            log = f"{self.host} {exchange.address}: {error!r}"
            raise ExchangeFailed(Failure.TLS, tls_detail(error), log) from error
        exchange.tls = time.monotonic() - exchange.connected


class _Pooled(HTTPConnectionPool):
    """The common part of plain and TLS pools."""

    idle: Idle

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[_Guarded] = []
        """Idle connections; the one used last is at the end."""

    def urlopen(self, method: str, url: str, body: t.Any = None, headers: t.Any = None, **_: t.Any) -> t.Any:  # type: ignore[override]
        """Make one exchange. Of urllib3's parameters it reads only those that `HTTPAdapter.send` varies."""
        if self.proxy is not None and self.scheme == "http":
            headers = {**headers, **self.proxy_headers}
        message = _message(method, url, headers, body)
        exchange = current.get()
        conn = self._borrow(exchange)
        try:
            if conn.sock is None:
                self._connect(exchange, conn)
            return conn.perform(exchange, message, functools.partial(self._give_back, exchange, conn))
        except BaseException:
            conn.close()
            conn.exchange = None
            raise

    def _borrow(self, exchange: Exchange) -> _Guarded:
        conn = None if exchange.fresh else self.idle.take(self)
        if conn is None:
            conn = t.cast(_Guarded, self._new_conn())
            conn.idle = self.idle
        conn.exchange = exchange
        return conn

    def _connect(self, exchange: Exchange, conn: _Guarded) -> None:
        conn.timeout = min(exchange.dialer.limit, exchange.remaining)
        try:
            if self.proxy is not None and self.scheme == "https":
                self._prepare_proxy(conn)
            else:
                conn.connect()
        except TimeoutError as error:
            log = f"{conn.host} {exchange.address}: {error!r}"
            raise ExchangeFailed(Failure.TIMEOUT, "The TLS handshake took too long.", log) from error
        # From here on `DeadlineMonitor` limits the time: a socket with a timeout polls before each call.
        conn.sock.settimeout(None)

    def _give_back(self, exchange: Exchange, conn: _Guarded, is_reusable: bool) -> None:
        # Release first: the deadline of this attempt must not shut down a connection that another one may use.
        exchange.release()
        if is_reusable:
            conn.exchange = None
            self.idle.keep(self, conn)
        else:
            conn.close()
            conn.exchange = None


class _Pool(_Pooled):
    ConnectionCls = _Connection


class _TLSPool(_Pooled, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Idle:
    """The idle connections of all pools, so that their number is bounded for all destinations together.

    :param most: the bound.
    :param lifetime: seconds after which a connection is too old for another request.
    :param idle: seconds without a request after which a connection is closed.
    """

    def __init__(
        self,
        most: int,
        lifetime: float = LIFETIME,
        idle: float = IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._most, self._lifetime, self._idle = most, lifetime, idle
        self._lock = threading.Lock()
        self._waiting: OrderedDict[_Guarded, _Pooled] = OrderedDict()
        """Ordered by the time of waiting, the longest first."""

    def take(self, pool: _Pooled) -> _Guarded | None:
        """Return the usable connection of `pool` that was used last, or None; close those that are too old or stale."""
        while True:
            with self._lock:
                if not pool.kept:
                    return None
                conn = pool.kept.pop()
                del self._waiting[conn]
            now = self.clock()
            is_young = now - conn.kept_at < self._idle and now - conn.opened_at < self._lifetime
            if is_young and not conn.is_stale():
                return conn
            conn.close()

    def keep(self, pool: _Pooled, conn: _Guarded) -> None:
        """Keep a connection unless it is too old; close those that were idle too long or exceed the bound."""
        now = conn.kept_at = self.clock()
        if now - conn.opened_at >= self._lifetime:
            conn.close()
            return
        surplus: list[_Guarded] = []
        with self._lock:
            pool.kept.append(conn)
            self._waiting[conn] = pool
            while self._waiting:
                first = next(iter(self._waiting))
                if len(self._waiting) <= self._most and now - first.kept_at < self._idle:
                    break
                self._waiting.pop(first).kept.remove(first)
                surplus.append(first)
        for each in surplus:
            each.close()

    def close(self) -> None:
        """Close all connections, and from now on each one that is given back."""
        with self._lock:
            self._most = 0
            self.abandon()

    def abandon(self) -> None:
        """Close all connections without taking the lock, which a fork may have copied while it was held.

        In a forked child this closes only the child's copies: nothing is sent, and the parent's connections stay open.
        """
        for conn, pool in self._waiting.items():
            pool.kept.clear()
            conn.close()
        self._waiting.clear()


class Adapter(HTTPAdapter):
    """requests' adapter over our pools; each pool is for one destination and one client certificate.

    :param context_of: returns the TLS context for a client certificate, or for None.
    :param idle: the idle connections of all destinations.
    :param proxy: URL of the egress proxy, if there is one.
    """

    def __init__(self, context_of: ContextOf, *, idle: Idle, proxy: str | None) -> None:
        self.idle = idle
        self._proxy = proxy
        super().__init__(pool_connections=MOST_POOLS, pool_maxsize=1)
        manager = self.proxy_manager_for(proxy) if proxy else self.poolmanager
        shared = {"idle": self.idle}
        manager.pool_classes_by_scheme = {
            "http": type("_Pool", (_Pool,), shared),
            "https": type("_TLSPool", (_TLSPool,), shared),
        }

        def make(host: str, port: int, scheme: str, identity: ClientCertificate | None) -> HTTPConnectionPool:
            # The manager's key includes the context, so requests with different certificates share no connection.
            more = {"ssl_context": context_of(identity)}
            return t.cast("HTTPConnectionPool", manager.connection_from_host(host, port, scheme, more))

        self._pool_of = functools.lru_cache(MOST_POOLS)(make)

    def get_connection_with_tls_context(self, request: t.Any, *_: t.Any, **__: t.Any) -> HTTPConnectionPool:
        """Return the pool of the destination; the proxy is always the configured one, whatever the caller passes."""
        destination: Destination = request.destination
        identity = request.identity if destination.scheme == "https" else None
        return self._pool_of(destination.host, destination.port, destination.scheme, identity)

    def cert_verify(self, conn: t.Any, url: t.Any, verify: t.Any, cert: t.Any) -> None:
        """Do nothing: the TLS context already holds authorities and certificate."""

    def request_url(self, request: t.Any, proxies: t.Any) -> str:
        """Return the target of the request line: the whole URL for plain http through a proxy, else path and query."""
        destination: Destination = request.destination
        return destination.url if self._proxy and destination.scheme == "http" else destination.target

    def build_response(self, req: requests.PreparedRequest, resp: t.Any) -> requests.Response:
        """Return the answer as a `requests.Response`."""
        return _Response(req, resp)

    def close(self) -> None:
        """Close all idle connections."""
        self.idle.close()
        self._pool_of.cache_clear()
        super().close()


def _message(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the whole request as one bytes object, so that it usually leaves in one TCP segment."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{method} {url} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
