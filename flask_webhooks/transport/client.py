"""The HTTP client for receivers: checks a destination, makes one attempt, and returns its outcome as a `Reply`."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
import typing as t
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import requests
import urllib3

from ..errors import AddressRefusedError, SubscriptionError
from ..outcome import Failure
from .addresses import Address, Network
from .connections import IDLE, LIFETIME, Adapter, Idle, Prepared, current
from .contexts import Contexts
from .deadline import DeadlineMonitor
from .development import Urls
from .dialer import Dialer, ExchangeFailed
from .dns import LookupFailed, Names, Resolver
from .exchange import Exchange
from .outage import Outage
from .refusal_log import Refusals
from .reply import ERRORS, Reply, answered, classified, failed, is_lost, overdue
from .request import Outbound, prepare
from .response import Broken
from .urls import Destination, refused

__all__ = ["Transport"]

logger = logging.getLogger("flask_webhooks.transport")

KNOWN_NAME: t.Final = "a.root-servers.net"
"""A name that every public DNS resolver knows: looked up to see whether this machine's resolver works."""

READ_FACTOR: t.Final = 4
"""How many times `response_limit` is read to drain a body; a longer one closes the connection."""

_NO_TIMEOUT: t.Final[t.Any] = urllib3.Timeout()
"""Our connections limit the time themselves; passing an instance saves requests making one for each call."""


@dataclass(frozen=True, slots=True)
class _Running:
    """The part of a transport that belongs to one process: sockets, locks, threads, and the TLS context."""

    names: Names
    dialer: Dialer
    watch: DeadlineMonitor
    refusals: Refusals
    adapter: Adapter
    outage: Outage


class Transport:
    """Sends requests to receivers; safe to share between threads and across a fork.

    Whatever belongs to a process is made at first use: the app may be created in a parent process, and before gevent
    replaces sockets, locks and threads with its own (`gunicorn --preload -k gevent`).

    :param timeout: seconds to connect (name lookup included), and for the whole attempt on the wall clock.
    :param allow_http: accept plain `http://` destinations.
    :param allowed_networks: networks exempt from the guard, and from its rule about ports.
    :param allowed_ports: ports allowed in addition to those that `urls.is_unfit_port` accepts.
    :param response_limit: bytes of the body that are kept.
    :param pool_size: idle connections that are kept, for all destinations together.
    :param lifetime: seconds after which a connection carries no further request.
    :param idle: seconds without a request after which a connection is closed.
    :param proxy: egress proxy, `http://host:port`. It then resolves and connects, so it must guard the
        addresses; URLs are still checked. Proxies of the environment are never used.
    :param verify: `True` for certifi's authorities, a path to others, `False` only for development.
    :param bundles: files of additional trusted authorities.
    :param resolver: called like `socket.getaddrinfo`, the default.
    :param clock: returns seconds like `time.monotonic`; the age of connections is measured by it.
    :param is_developing: returns whether this is a developer's machine, where http to loopback is allowed.
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
        with self._beginning:  # several threads may make the first request at the same time
            if self._made is None:
                if self._is_closed:
                    raise RuntimeError("This transport has been closed.")
                # Read at first use: gevent may have replaced it since this module was imported.
                resolver = self._resolver or socket.getaddrinfo
                names = Names(resolver)
                contexts = Contexts(*self._trust)
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
        """Drop the parent's sockets, locks and threads, in a child that has just been forked."""
        if self._made is not None:
            self._made.adapter.idle.abandon()
        self._made, self._beginning = None, threading.Lock()

    def close(self) -> None:
        """Close every idle connection and stop the deadline thread; attempts in flight end as `timeout`."""
        _transports.discard(self)
        self._is_closed = True
        if self._made is not None:
            self._made.watch.close()
            self._made.adapter.close()

    def check(self, url: str, *, resolve: bool = True, limit: float | None = None) -> str:
        """Return the normal form of `url`, which is what to save.

        A name whose look-up fails is accepted: the failure may be temporary, and each attempt looks the name up again.
        A name that does not exist is refused with the same text as one with an internal address: otherwise a customer
        could find out which internal names exist.

        :param resolve: also look the name up and judge its addresses; waits at most the seconds to connect.
        :param limit: seconds for the look-up, if fewer than the seconds to connect.
        :raises AddressRefusedError: a destination that we never talk to; one constant text.
        :raises SubscriptionError: the URL is malformed.
        """
        try:
            return self._checked(url, resolve, self._connect_limit if limit is None else limit)
        except AddressRefusedError as error:
            self._running.refusals.log(error)
            raise

    def needs_lookup(self, url: str) -> bool:
        """Whether `check` has to look up a name for this URL, beyond judging its form."""
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
        """Return the addresses of a name; none if the look-up fails or takes longer than `limit` seconds."""
        try:
            return self._names.lookup(host, 443, limit)
        except LookupFailed:
            return ()

    def _knows_names(self, ends: float) -> bool:
        """Whether the system's resolver can resolve public names; if it cannot, "no such name" from it means nothing.

        It cannot on a machine without a network, as in many tests: there every name is accepted like one whose look-up
        fails, and each attempt judges its addresses.
        """
        if self._names.resolver is not socket.getaddrinfo:
            return True
        try:
            self._names.lookup(KNOWN_NAME, 443, max(0.1, ends - time.monotonic()))
        except LookupFailed:
            return False
        return True

    def send(self, outbound: Outbound, *, limit: float | None = None) -> Reply:
        """Make one attempt and return its outcome.

        A failure caused by a receiver or by a customer's configuration is no exception, but a `Reply` with its class:

        - `dns`, `blocked_address`, `connect`, `tls`: no request was made;
        - `connect` also where the connection was closed before anything came back;
        - `timeout`: no complete answer in time, whatever its status said;
        - `protocol`: not HTTP/1.1, an answer that broke off, an upgrade, or a header of ours that cannot be sent;
        - `too_large`: status line and headers beyond `response.MOST_HEAD` bytes or `response.MOST_HEADERS` lines.
          A large *body* is no failure: it is cut, and the status counts;
        - `redirect`, `http_4xx`, `http_5xx`: the answer was complete, and not 2xx.

        :param limit: seconds for the whole attempt, if fewer than the transport's own.
        :raises RuntimeError: the transport has been closed.
        """
        running = self._running
        exchange = Exchange(self._limit if limit is None else min(limit, self._limit))
        try:
            request = prepare(self._parse(outbound.url), outbound)
        except SubscriptionError as error:
            return self._refused(exchange, outbound.url, error)
        except ExchangeFailed as error:
            return failed(exchange, error.failure, error.detail, error.log)
        exchange.dialer = running.dialer
        current.set(exchange)
        running.watch.begin(exchange)
        try:
            return self._perform(running, request, exchange)
        except AddressRefusedError as error:
            return self._refused(exchange, outbound.url, error)
        finally:
            running.watch.end(exchange)

    def _refused(self, exchange: Exchange, url: str, error: SubscriptionError) -> Reply:
        """Return the reply for a destination that we never talk to, and log it for the operator.

        A URL that is refused only for its form, such as http after the operator disallowed it, is logged with its host
        name as well.
        """
        if not isinstance(error, AddressRefusedError):
            error = AddressRefusedError(str(error), host=_name_in(url), address=None, rule=str(error))
        self._running.refusals.log(error)
        return failed(exchange, Failure.BLOCKED_ADDRESS, str(error), error.detail)

    def _perform(self, running: _Running, request: Prepared, exchange: Exchange) -> Reply:
        outage = running.outage
        try:
            response = _post(running.adapter, request, exchange)
            try:
                body, truncated = self._read(response.raw)
            finally:
                response.raw.close()
        except ERRORS as error:
            reply, is_connected = classified(exchange, error), exchange.connect is not None or exchange.reused
            if exchange.first_byte is None and outage.is_ours(
                request.destination.host, error, is_connected=is_connected
            ):
                return replace(reply, is_ours=True)
            return reply
        except MemoryError as error:
            outage.is_ours(request.destination.host, error, is_connected=False)
            text = "The sender has no memory left for an attempt."
            return replace(failed(exchange, Failure.CONNECT, text, repr(error)[:300]), is_ours=True)
        # Checked before the status: a connection that the deadline thread shut down looks like a complete answer.
        if exchange.expired:
            return overdue(exchange)
        reply = answered(exchange, response, body, truncated)
        if request.destination.scheme == "http" and outage.refused_by_proxy(response.status_code):
            return replace(reply, is_ours=True)
        outage.reached(request.destination.host)
        return reply

    @property
    def patience(self) -> float:
        """Seconds to wait before the next attempt, after a reply with `is_ours`."""
        return self._outage.patience

    def tell_outage(self) -> None:
        """Log once for each outage that our side cannot reach receivers; its end is logged by `Outage.reached`."""
        self._outage.log_once()

    def _read(self, raw: t.Any) -> tuple[bytes, bool]:
        """Return at most `response_limit` bytes of the body, and whether there are more.

        Up to `READ_FACTOR` times as many are drained, so that the connection can be kept; the rest is never read.
        """
        kept, most = bytearray(), self._response_limit
        seen = 0
        while seen <= most * READ_FACTOR:
            piece = raw.read(most * READ_FACTOR + 1 - seen, decode_content=False)
            if not piece:
                break
            kept += piece[: most - len(kept)]
            seen += len(piece)
        # With a default: in an app's tests a library such as `responses` may return an answer of its own class.
        return bytes(kept), seen > most or getattr(raw, "is_cut", False)


def _post(adapter: Adapter, request: Prepared, exchange: Exchange) -> requests.Response:
    """Send a request; send it again on a new connection if a kept one turns out to be closed before any answer.

    The repetition does not count as an attempt: the receiver closed an idle connection while we were sending
    (RFC 9112, section 9.3.1), or a NAT or load balancer dropped it. Neither says anything about the receiver.
    """
    try:
        return adapter.send(request, stream=True, timeout=_NO_TIMEOUT)
    except (requests.ConnectionError, Broken) as error:
        if not exchange.reused or exchange.first_byte is not None or exchange.expired:
            raise
        # The receiver's kernel acknowledged the whole request before the connection was lost: do not send it twice.
        if is_lost(error) and not exchange.is_unacknowledged:
            raise
    exchange.fresh = True
    return adapter.send(request, stream=True, timeout=_NO_TIMEOUT)


def _name_in(url: str) -> str:
    """Return the host of a URL that was refused as a whole."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    for transport in _transports:
        transport.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
