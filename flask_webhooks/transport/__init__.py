"""The room that talks HTTP to receivers; the only one that imports requests and urllib3.

The law of this room: a receiver's failure is data, never an exception; no receiver can make us talk to a place
inside, hold a thread past the deadline, or cost memory beyond `response_limit`.

One attempt in the order of time: `urls` reads the URL, `connections` takes a kept connection or lets `names`
resolve and `addresses` judge before it opens one, with the authorities and the client certificate of `certificates`,
`deadline` watches, and `Transport` reads the answer and names what went wrong.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import socket
import ssl
import threading
import time
import typing as t
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import requests
import urllib3

from ..errors import AddressRefusedError, SubscriptionError
from ..retry import Failure
from .addresses import Address, Network
from .certificates import (
    CertificateError,
    ClientCertificate,
    add_client_certificate,
    bundle_fault,
    new_context,
    parse_client_certificate,
    tls_detail,
)
from .connections import IDLE, LIFETIME, Adapter, Idle, Prepared, current
from .deadline import DeadlineMonitor, Exchange
from .development import Urls
from .dialer import AttemptFailed, Dialer, Unready
from .dns import LookupFailed, Names, Resolver
from .outage import Outage
from .refusal_log import Refusals
from .response import AnswerTooLarge, Broken, Malformed
from .urls import REFUSED, Destination, as_sent, refused

__all__ = [
    "ACCEPT_ENCODING",
    "REFUSED",
    "CertificateError",
    "ClientCertificate",
    "Outbound",
    "Reply",
    "Timings",
    "Transport",
    "as_sent",
    "bundle_fault",
    "is_token",
    "parse_client_certificate",
]

logger = logging.getLogger(__name__)

ACCEPT_ENCODING: t.Final = "identity"
"""Sent with every request: answers are kept as they come."""

MOST_IDENTITIES: t.Final = 64
"""Client certificates whose context is remembered: each has all authorities, about a megabyte."""

KNOWN_NAME: t.Final = "a.root-servers.net"
"""A name that exists as long as the internet has names."""

READ_FACTOR: t.Final = 4
"""Times `response_limit` that is read before the connection is closed instead of drained."""


# Not frozen, nor are the two after it: of each one is made for a request, and a frozen one takes three times as long.
@dataclass(slots=True)
class Outbound:
    """One request to make, by POST."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    """Without `Host`, `Content-Length` and the other headers of the connection, which are ours and ignored."""
    body: bytes = field(repr=False)
    identity: ClientCertificate | None = None
    """The certificate that we show a receiver which asks for one."""


@dataclass(slots=True)
class Timings:
    """Seconds; `None` where the phase did not happen, such as all of connecting on a kept connection."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    """From the start of the attempt to the first byte of the answer."""
    total: float


@dataclass(slots=True)
class Reply:
    """What came back, or why nothing did."""

    status: int | None
    """`None` unless the answer came in whole: a 200 whose body never ended is no answer."""
    headers: Mapping[str, str] = field(repr=False)
    """At most 100, names as sent; values of repeated ones joined by a comma."""
    body: bytes = field(repr=False)
    """At most `response_limit` bytes as they came: never decompressed."""
    truncated: bool
    """Whether there was more of the body."""
    failure: Failure | None
    """`None` only for a complete 2xx."""
    detail: str
    """One line for the owner; tells nothing of the network behind us."""
    log: str
    """One line for the operator: name, address, rule, exception."""
    address: str | None
    """The address connected to; the proxy's, where there is one."""
    timings: Timings
    is_ours: bool = False
    """Whether it failed by a fault of our side, whatever its class, and says nothing about the receiver."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What a transport has in one process: sockets, locks, threads, and the TLS context."""

    names: Names
    dialer: Dialer
    watch: DeadlineMonitor
    refusals: Refusals
    adapter: Adapter
    outage: Outage


class Transport:
    """Sends requests to receivers; safe to share between threads and across a fork.

    Nothing that belongs to a process is made before its first use: the app may be made in a parent, and before gevent
    replaces sockets, locks and threads by its own (`gunicorn --preload -k gevent`).

    :param timeout: seconds to connect (name lookup included), and for the whole attempt on the wall clock.
    :param allow_http: accept plain `http://` destinations.
    :param allowed_networks: networks exempt from the guard, and from its rule about ports.
    :param allowed_ports: ports that may be used besides those that anybody may use.
    :param response_limit: bytes of the body that are kept.
    :param pool_size: idle connections that are kept, over all destinations.
    :param lifetime: seconds after which a connection carries no further request.
    :param idle: seconds without a request after which a connection is closed.
    :param proxy: egress proxy, `http://host:port`. It then resolves and connects, so it must guard the
        addresses; URLs are still checked. Proxies of the environment are never used.
    :param verify: `True` for certifi's authorities, a path to others, `False` only for development.
    :param bundles: files of authorities that are trusted besides.
    :param resolver: called like `socket.getaddrinfo`, which it is by default.
    :param clock: seconds, like `time.monotonic`, by which connections grow old.
    :param is_developing: asked whether this is a developer's machine, which may then be reached over http.
    """

    def __init__(
        self,
        *,
        timeout: tuple[float, float],
        allow_http: bool,
        allowed_networks: Sequence[Network],
        allowed_ports: Sequence[range] = (),
        response_limit: int,
        pool_size: int,
        lifetime: float = LIFETIME,
        idle: float = IDLE,
        proxy: str | None = None,
        verify: bool | str = True,
        bundles: Sequence[str] = (),
        resolver: Resolver | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_developing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connect_limit, self._limit = timeout
        self._allowed, self._ports = tuple(allowed_networks), tuple(allowed_ports)
        self._response_limit = response_limit
        self._idle = functools.partial(Idle, pool_size, lifetime, idle, clock)
        self._proxy = proxy
        self._resolver = resolver
        self._trust = verify, tuple(bundles)
        self._urls = Urls(
            allow_http=allow_http,
            allowed=self._allowed,
            ports=self._ports,
            is_resolved=proxy is None,
            is_developing=is_developing,
        )
        self._parse = self._urls.parse
        self._beginning = threading.Lock()
        self._made: _Running | None = None
        self._is_closed = False
        _transports.add(self)

    @property
    def _running(self) -> _Running:
        return self._made or self._begin()

    @property
    def _names(self) -> Names:
        return self._running.names

    @property
    def _outage(self) -> Outage:
        return self._running.outage

    def _begin(self) -> _Running:
        with self._beginning:  # a process's threads may all be the first to come
            if self._made is None:
                if self._is_closed:
                    raise RuntimeError("This transport has been closed.")
                # Looked up now: gevent may have replaced it since this module was imported.
                resolver = self._resolver or socket.getaddrinfo
                names = Names(resolver)
                contexts = _Contexts(*self._trust)
                self._made = _Running(
                    names=names,
                    dialer=Dialer(names, self._allowed, self._ports, self._connect_limit, self._urls.exempt),
                    watch=DeadlineMonitor(),
                    refusals=Refusals(),
                    adapter=Adapter(contexts.of, idle=self._idle(), proxy=self._proxy),
                    outage=Outage(resolver, has_proxy=self._proxy is not None),
                )
            return self._made

    def begin_anew(self) -> None:
        """Forget what belongs to the parent, in a child that has just been forked."""
        if self._made is not None:
            self._made.adapter.idle.abandon()
        self._made, self._beginning = None, threading.Lock()

    def close(self) -> None:
        """Close every kept connection and end the watch; attempts in flight end as `timeout`."""
        _transports.discard(self)
        self._is_closed = True
        if self._made is not None:
            self._made.watch.close()
            self._made.adapter.close()

    def check(self, url: str, *, resolve: bool = True, limit: float | None = None) -> str:
        """Return the normal form of `url`, which is what to save.

        A name that cannot be looked up now is accepted: it may be a moment's trouble, and each attempt looks again. One
        that does not exist is refused like one that leads inside: else anybody could try which inside names there are.

        :param resolve: also look the name up and judge its addresses; waits at most the seconds to connect.
        :param limit: or these, if they are fewer.
        :raises AddressRefusedError: a destination that we never talk to; one constant text.
        :raises SubscriptionError: the URL is malformed.
        """
        try:
            return self._checked(url, resolve, self._connect_limit if limit is None else limit)
        except AddressRefusedError as error:
            self._running.refusals.tell(error)
            raise

    def needs_lookup(self, url: str) -> bool:
        """Whether `check` would look a name up for this URL, which it accepts without."""
        return self._proxy is None and self._parse(url).address is None

    def _checked(self, url: str, resolve: bool, limit: float) -> str:
        destination = self._parse(url)
        if resolve and self.needs_lookup(url):
            ends = time.monotonic() + min(limit, self._connect_limit)
            try:
                self._look_up(destination, ends)
            except AddressRefusedError as error:
                if self._knows_names(ends):
                    raise
                logger.info("address.unresolved", extra={"host": destination.host, "reason": error.detail})
        return destination.url

    def _look_up(self, destination: Destination, ends: float) -> None:
        try:
            limit = max(0.0, ends - time.monotonic())
            running = self._running
            addresses = running.names.lookup(destination.host, destination.port, limit)
            running.dialer.judge(destination.host, destination.port, addresses)
        except LookupFailed as error:
            if error.is_missing:
                raise refused(destination.host, None, "there is no such name") from error
            logger.info("address.unresolved", extra={"host": destination.host, "reason": str(error)})

    def addresses_of(self, host: str, limit: float) -> tuple[Address, ...]:
        """Return the addresses that a name leads to; none if nobody says so in time."""
        try:
            return self._names.lookup(host, 443, limit)
        except LookupFailed:
            return ()

    def _knows_names(self, ends: float) -> bool:
        """Whether the system's resolver knows the names of the internet: else what it says of one means nothing.

        So it is on a machine without a network, and in many tests: there every name is saved, as one that cannot be
        looked up now is, and each attempt judges it.
        """
        if self._names.resolver is not socket.getaddrinfo:
            return True
        try:
            self._names.lookup(KNOWN_NAME, 443, max(0.1, ends - time.monotonic()))
        except LookupFailed:
            return False
        return True

    def send(self, outbound: Outbound, *, limit: float | None = None) -> Reply:
        """Make one attempt and return what came of it.

        What a receiver or a customer's configuration does is never an exception, but a `Reply` with its class:

        - `dns`, `blocked_address`, `connect`, `tls`: no request was made;
        - `connect` also where the connection was closed before anything came back;
        - `timeout`: no complete answer in time, whatever its status said;
        - `protocol`: not HTTP/1.1, an answer that broke off, an upgrade, or a header of ours that cannot be sent;
        - `too_large`: status line and headers beyond `answers.MOST_HEAD` bytes or `answers.MOST_HEADERS` lines.
          A large *body* is no failure: it is cut, and the status counts;
        - `redirect`, `http_4xx`, `http_5xx`: the answer was complete, and not 2xx.

        :param limit: seconds for the whole attempt, if fewer than the transport's own.
        :raises RuntimeError: the transport has been closed.
        """
        running = self._running
        attempt = Exchange(self._limit if limit is None else min(limit, self._limit))
        try:
            request = _prepare(self._parse(outbound.url), outbound)
        except SubscriptionError as error:
            return self._refused(attempt, outbound.url, error)
        except AttemptFailed as error:
            return _failed(attempt, error.failure, error.detail, error.log)
        attempt.dialer = running.dialer
        current.set(attempt)
        running.watch.begin(attempt)
        try:
            return self._exchange(running, request, attempt)
        except AddressRefusedError as error:
            return self._refused(attempt, outbound.url, error)
        finally:
            running.watch.end(attempt)

    def _refused(self, attempt: Exchange, url: str, error: SubscriptionError) -> Reply:
        """Return the reply for a destination that we never talk to, and tell the operator.

        A URL that is refused for its form, such as http where that is switched off by now, has a name too.
        """
        if not isinstance(error, AddressRefusedError):
            error = AddressRefusedError(str(error), host=_name_in(url), address=None, rule=str(error))
        self._running.refusals.tell(error)
        return _failed(attempt, Failure.BLOCKED_ADDRESS, str(error), error.detail)

    def _exchange(self, running: _Running, request: Prepared, attempt: Exchange) -> Reply:
        outage = running.outage
        try:
            response = _post(running.adapter, request, attempt)
            try:
                body, truncated = self._read(response.raw)
            finally:
                response.raw.close()
        except _ERRORS as error:
            reply, is_connected = _classified(attempt, error), attempt.connect is not None or attempt.reused
            if attempt.first_byte is None and outage.is_ours(
                request.destination.host, error, is_connected=is_connected
            ):
                return replace(reply, is_ours=True)
            return reply
        except MemoryError as error:
            outage.is_ours(request.destination.host, error, is_connected=False)
            text = "The sender has no memory left for an attempt."
            return replace(_failed(attempt, Failure.CONNECT, text, repr(error)[:300]), is_ours=True)
        # Before the status is believed: a connection that was shut down looks like one that came to its end.
        if attempt.expired:
            return _overdue(attempt)
        reply = _answered(attempt, response, body, truncated)
        if request.destination.scheme == "http" and outage.refused_by_proxy(response.status_code):
            return replace(reply, is_ours=True)
        outage.reached(request.destination.host)
        return reply

    @property
    def patience(self) -> float:
        """Seconds to wait after a reply that `is_ours` before another try."""
        return self._outage.patience

    def tell_outage(self) -> None:
        """Log that our side can reach nobody, once for each time; that it can again is logged by itself."""
        self._outage.tell()

    def _read(self, raw: t.Any) -> tuple[bytes, bool]:
        """Return at most `response_limit` bytes of the body, and whether there are more.

        A little more than that is drained, so that the connection can be kept; the rest is never read.
        """
        kept, most = bytearray(), self._response_limit
        seen = 0
        while seen <= most * READ_FACTOR:
            piece = raw.read(most * READ_FACTOR + 1 - seen, decode_content=False)
            if not piece:
                break
            kept += piece[: most - len(kept)]
            seen += len(piece)
        # Asked with a default, for an app's tests may put another library's answer here.
        return bytes(kept), seen > most or getattr(raw, "is_cut", False)


def _post(adapter: Adapter, request: Prepared, attempt: Exchange) -> requests.Response:
    """Send, and once more where a kept connection turned out closed, or forgotten, before anything came back.

    That is no attempt of its own: the receiver has closed an idle connection in the moment of our sending
    (RFC 9112, section 9.3.1), or something between us has lost it, which says nothing about how it is doing.
    """
    try:
        return adapter.send(request, stream=True, timeout=_NO_TIMEOUT)
    except (requests.ConnectionError, Broken) as error:
        if not attempt.reused or attempt.first_byte is not None or attempt.expired:
            raise
        # Who has the request and then is lost, has it: once more would be twice.
        if _is_lost(error) and not attempt.is_unacknowledged:
            raise
    attempt.fresh = True
    return adapter.send(request, stream=True, timeout=_NO_TIMEOUT)


_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    for transport in _transports:
        transport.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)

_ERRORS: t.Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    AttemptFailed,
    AnswerTooLarge,
    Broken,
    Malformed,
)
"""All that a receiver can cause; anything else is a mistake of ours and is raised."""

_NO_TIMEOUT: t.Final[t.Any] = urllib3.Timeout()
"""The connections keep the time themselves; an instance spares requests making one."""

_TOKEN: t.Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT_VALUE: t.Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS: t.Final = frozenset(
    "accept-encoding connection content-length cookie expect host keep-alive proxy-authorization "
    "proxy-connection te trailer transfer-encoding upgrade".split()
)


@functools.lru_cache(maxsize=1024)
def _judged(names: tuple[str, ...]) -> tuple[str | None, frozenset[str]]:
    """Return the first of a request's names of headers that none can have, and those that only we set."""
    unfit = next((name for name in names if not is_token(name)), None)
    return unfit, frozenset(name for name in names if name.lower() in _OURS)


def is_token(name: str) -> bool:
    """Say whether a header can have a name (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def _prepare(destination: Destination, outbound: Outbound) -> Prepared:
    given = outbound.headers
    unfit, ours = _judged(tuple(given))
    values = "".join(given.values())
    # Most values are plain, which is sooner seen of all at once than a pattern is searched for in each.
    if unfit is None and not (values.isascii() and values.isprintable()):
        unfit = next((name for name, value in given.items() if _UNFIT_VALUE.search(value)), None)
    if unfit is not None:
        detail = f"The header {unfit[:60]!r} cannot be sent: it is not a valid HTTP header."
        raise AttemptFailed(Failure.PROTOCOL, detail, detail)
    if ours:
        given = {name: value for name, value in given.items() if name not in ours}
    headers = {
        "Host": destination.authority,
        "Accept-Encoding": ACCEPT_ENCODING,
        **given,
        "Content-Length": str(len(outbound.body)),
    }
    return Prepared(destination, headers, outbound.body, outbound.identity)


@functools.lru_cache(maxsize=4)  # reading a hundred authorities takes longer than all the rest of starting
def _shared_context(
    verify: bool | str, bundles: tuple[str, ...], kind: type[ssl.SSLContext]
) -> ssl.SSLContext:
    """:param kind: what `ssl` makes contexts of now: gevent's have to be of its own class."""
    return new_context(verify, bundles)


class _Contexts:
    """TLS contexts: one for all that show no certificate, one for each certificate."""

    def __init__(self, verify: bool | str, bundles: tuple[str, ...]) -> None:
        self._verify, self._bundles = verify, bundles
        self._with = functools.lru_cache(MOST_IDENTITIES)(self._make)
        with contextlib.suppress(OSError):  # of a file: said, and tried again, by whoever needs it
            self.of_all()

    def of(self, identity: ClientCertificate | None) -> ssl.SSLContext:
        """:raises Unready: a file of authorities cannot be read, none can be written, or OpenSSL takes ours no more."""
        try:
            return self.of_all() if identity is None else self._with(identity)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            log = f"our certificates cannot be loaded: {type(error).__name__}: {error}"
            raise Unready(Failure.TLS, "The sender cannot load its own certificates.", log) from error

    def of_all(self) -> ssl.SSLContext:
        return _shared_context(self._verify, self._bundles, ssl.SSLContext)

    def _make(self, identity: ClientCertificate) -> ssl.SSLContext:
        context = new_context(self._verify, self._bundles)
        add_client_certificate(context, identity)
        return context


def _timings(attempt: Exchange) -> Timings:
    first = None if attempt.first_byte is None else attempt.first_byte - attempt.started
    return Timings(attempt.dns, attempt.connect, attempt.tls, first, time.monotonic() - attempt.started)


def _failed(attempt: Exchange, failure: Failure, detail: str, log: str) -> Reply:
    return Reply(
        status=None,
        headers={},
        body=b"",
        truncated=False,
        failure=failure,
        detail=detail,
        log=log,
        address=attempt.address,
        timings=_timings(attempt),
    )


def _overdue(attempt: Exchange) -> Reply:
    limit = attempt.deadline - attempt.started
    detail = f"No complete answer within {limit:g} seconds."
    return _failed(attempt, Failure.TIMEOUT, detail, f"{attempt.address}: {detail}")


_LOST: t.Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


def _cause(error: Exception) -> object:
    """Return what requests has wrapped."""
    return error.args[0] if isinstance(error, requests.ConnectionError) and error.args else error


def _is_lost(error: Exception) -> bool:
    """Whether nobody answers any more, down to the kernel; a connection that was closed is something else."""
    cause = _cause(error)
    return isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno in _LOST


def _is_alert(cause: object) -> t.TypeGuard[ssl.SSLError]:
    """Whether TLS broke it off, and not the connection below.

    With TLS 1.3 our side of the handshake is done before the receiver has looked at our certificate: what it says of
    that, or of the lack of one, comes in the place of its answer (RFC 8446, section 4.4.2.4).
    """
    return isinstance(cause, ssl.SSLError) and not isinstance(
        cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    )


def _classified(attempt: Exchange, error: Exception) -> Reply:
    log = f"{attempt.address}: {error!r}"[:500]
    if attempt.expired:
        return _overdue(attempt)
    if _is_lost(error) and attempt.first_byte is None:
        detail = "The connection was lost: nothing of the receiver's side answered any more."
        return _failed(attempt, Failure.TIMEOUT, detail, log)
    if isinstance(error, AttemptFailed):
        return _failed(attempt, error.failure, error.detail, error.log)
    if isinstance(error, AnswerTooLarge):
        return _failed(attempt, Failure.TOO_LARGE, "The headers of the answer are too large.", log)
    if isinstance(error, Malformed):
        return _failed(attempt, Failure.PROTOCOL, "The answer is not valid HTTP.", log)
    cause = _cause(error)
    if attempt.first_byte is None and _is_alert(cause):
        return _failed(attempt, Failure.TLS, tls_detail(cause), log)
    if attempt.first_byte is None:
        return _failed(attempt, Failure.CONNECT, "The connection was closed before an answer.", log)
    return _failed(attempt, Failure.PROTOCOL, "The connection was closed within the answer.", log)


def _answered(attempt: Exchange, response: requests.Response, body: bytes, truncated: bool) -> Reply:
    failure = Failure.of_status(response.status_code)
    detail = f"Answered {response.status_code}."
    if failure is not None and failure is Failure.REDIRECT:
        detail = f"Answered {response.status_code} with a redirect to {_shown(response)}; update the URL."
    return Reply(
        status=response.status_code,
        headers=response.headers,
        body=body,
        truncated=truncated,
        failure=failure,
        detail=detail,
        log=f"{attempt.address}: {response.status_code}",
        address=attempt.address,
        timings=_timings(attempt),
    )


def _name_in(url: str) -> str:
    """Return the host of a URL that was refused as a whole."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _shown(response: requests.Response) -> str:
    """Return the `Location` without user name, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(next((v for n, v in response.headers.items() if n.lower() == "location"), ""))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an unreadable address"
    return (f"{parts.scheme}://{host}" if host else "")[:200] + parts.path[:200] or "nowhere"
