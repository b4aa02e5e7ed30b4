"""Opens connections, and checks the addresses at that moment.

The law of this room: only `Dialer.dial` connects a socket, after every address of the name has passed the guard. It
connects to an address that it has just checked, so DNS rebinding gains nothing; the URL keeps its name, so `Host`, SNI
and the certificate check need no change.
"""

from __future__ import annotations

import errno
import socket
import time
import typing as t
from collections.abc import Callable, Sequence

from ..errors import AddressRefusedError
from ..outcome import Failure
from .addresses import Address, Network, is_exempt, parse_address, refusal
from .dns import LookupFailed, Names
from .exchange import Exchange
from .urls import is_unfit_port, refused, refused_port

__all__ = ["NO_WAY", "Dialer", "ExchangeFailed", "TunnelFailed", "Unready"]

MOST_ADDRESSES: t.Final = 6
"""Addresses of one name that we try to connect to; all of its addresses are checked."""


NO_WAY: t.Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
"""No route to the address, from this machine or from a router on the way."""
_KEEPALIVE: t.Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence before the kernel sends the first probe, seconds between two probes, and unanswered probes after
which the connection counts as lost. macOS calls the first one `TCP_KEEPALIVE`. Probes also keep a NAT's entry alive."""


class ExchangeFailed(Exception):
    """A failure that is classified where it happens. It is no OSError, so requests and urllib3 do not catch it."""

    def __init__(self, failure: Failure, detail: str, log: str) -> None:
        super().__init__(log)
        self.failure, self.detail, self.log = failure, detail, log


class TunnelFailed(ExchangeFailed):
    """The proxy was reached but made no tunnel: it refused, or closed the connection."""


class Unready(ExchangeFailed):
    """Our own side cannot make any request of this kind, for instance without certificates; no request was made."""


class Dialer:
    """Opens TCP connections to destinations that the guard accepts.

    :param names: resolves host names.
    :param allowed: networks exempt from the guard, and from the rule about ports.
    :param ports: ports that the operator allows in addition.
    :param limit: seconds to connect, name look-up included.
    :param exempt: returns further networks that a host may lead into; see `development`.
    """

    def __init__(
        self,
        names: Names,
        allowed: Sequence[Network],
        ports: Sequence[range],
        limit: float,
        exempt: Callable[[str, Address | None], Sequence[Network]],
    ) -> None:
        self._names, self._exempt = names, exempt
        self._allowed, self._ports = tuple(allowed), tuple(ports)
        self.limit = limit
        """Seconds to connect, name lookup included."""

    def dial(self, exchange: Exchange, host: str, port: int, *, is_proxy: bool) -> socket.socket:
        """Return a socket connected to `host`, within the seconds to connect and the attempt's deadline.

        :param is_proxy: the host is the operator's own egress proxy, which checks the addresses in our place.
        :raises AddressRefusedError: one of the addresses is one that we never talk to.
        :raises ExchangeFailed: `dns`, `connect` or `timeout`.
        """
        begun = time.monotonic()
        ends = min(begun + self.limit, exchange.deadline)
        literal = parse_address(host)
        addresses = self._resolve(host, port, ends - begun) if literal is None else (literal,)
        if literal is None:
            exchange.dns = time.monotonic() - begun
        # All addresses are judged, also those that are not tried: a name with one internal address is hostile.
        if not is_proxy:
            self.judge(host, port, addresses)
        begun = time.monotonic()
        sock = self._connect(host, port, addresses[:MOST_ADDRESSES], ends)
        exchange.connected = time.monotonic()
        exchange.connect = exchange.connected - begun
        try:
            peer = sock.getpeername()[0]
            # What the kernel connected to is judged as well, in case it differs from what was asked for.
            if not is_proxy:
                self.judge(host, port, [parse_address(peer)])
        except OSError as error:  # the receiver has closed it already
            sock.close()
            raise _unreachable(host, port, error) from error
        except AddressRefusedError:
            sock.close()
            raise
        exchange.address = peer
        return sock

    def judge(self, host: str, port: int, addresses: Sequence[Address | None]) -> None:
        """Refuse a host if any of its addresses is refused, either at all or at this port.

        :raises AddressRefusedError: names the first such address.
        """
        is_unfit = is_unfit_port(port, self._ports)
        allowed = (*self._allowed, *self._exempt(host, parse_address(host)))
        for address in addresses:
            rule = "unreadable address" if address is None else refusal(address, allowed)
            if rule is not None or address is None:
                raise refused(host, address, rule or "")
            if is_unfit and not is_exempt(address, self._allowed):
                raise refused_port(host, address, port)

    def _resolve(self, host: str, port: int, limit: float) -> Sequence[Address]:
        try:
            return self._names.lookup(host, port, limit)
        except LookupFailed as error:
            detail = "The host name could not be resolved."
            raise ExchangeFailed(Failure.DNS, detail, str(error)) from error

    def _connect(self, host: str, port: int, addresses: Sequence[Address], ends: float) -> socket.socket:
        """Try one address after the other; each gets an equal share of the time that is left."""
        last: OSError | None = None
        for index, address in enumerate(addresses):
            share = (ends - time.monotonic()) / (len(addresses) - index)
            if share <= 0:
                break
            try:
                return _connect_to(address, port, share)
            except OSError as error:
                # "No route" (this machine may have no IPv6) says less than another address's error: keep that one.
                if last is None or error.errno not in NO_WAY:
                    last = error
        last = last or TimeoutError("no time left to connect")
        if isinstance(last, TimeoutError):
            detail = "The connection was not accepted in time."
            raise ExchangeFailed(Failure.TIMEOUT, detail, f"{host}:{port}: {last!r}") from last
        raise _unreachable(host, port, last) from last


def _unreachable(host: str, port: int, error: OSError) -> ExchangeFailed:
    refused = isinstance(error, ConnectionRefusedError)
    detail = "The connection was refused." if refused else "The connection could not be made."
    return ExchangeFailed(Failure.CONNECT, detail, f"{host}:{port}: {error!r}")


def _connect_to(address: Address, port: int, limit: float) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(limit)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.connect((str(address), port))
    except BaseException as error:
        sock.close()
        # A machine without IPv6 raises this for an IPv6 address; for IPv4 it means that no local port is free.
        if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL and address.version == 6:
            raise OSError(errno.ENETUNREACH, "no address of our own for IPv6") from None
        raise
    return sock
