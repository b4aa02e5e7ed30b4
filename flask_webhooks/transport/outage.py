"""Decides whether a failed connection is the receiver's fault or a fault of our own side.

Faults of our own side (the egress proxy, the name server, the network, file descriptors) never count against a
receiver. Some errors identify themselves. Others look the same as one receiver that is down, and need evidence:

- No route: connecting a UDP socket sends nothing, and fails at once where the machine has no network.
- No name server: a working one answers that a name in `.invalid` (RFC 6761) does not exist; a dead one does not answer.
- The rest, such as a proxy that answers 502 or a gateway that is down: if another receiver was reached within the last
  minute, the fault is this receiver's; if others fail in the same way, it is ours.

Evidence of the last kind is believed for one hour, so that receivers which really are all down are judged in the end.
After `FORGOTTEN` seconds without such a failure, the next one is believed for an hour again.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import ssl
import threading
import time
import typing as t

from ..retry import JITTER, STANDARD
from .dialer import NO_WAY, ExchangeFailed, TunnelFailed, Unready
from .dns import LookupFailed, Names, Resolver

__all__ = ["Outage"]

logger = logging.getLogger(__package__)

EXHAUSTED: t.Final = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.EPERM,
    }
)
"""Resources that this machine has exhausted, switched off or forbids: never a fault of the receiver."""
NOWHERE: t.Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses reserved for documentation (RFC 5737, RFC 3849): used to see whether there is a route."""
NO_SUCH_NAME: t.Final = "sender-checks-its-name-server.invalid"
LATELY: t.Final = 60.0
"""Seconds for which an attempt to another receiver, successful or not, is evidence about our side."""
BELIEVED: t.Final = 3600.0
"""Seconds that an outage without direct evidence is believed."""
FORGOTTEN: t.Final = max(STANDARD) * (1 + JITTER)
"""Seconds without a doubtful failure after which `BELIEVED` starts again. As long as the longest wait of the standard
schedule: a single receiver that is down for good does not start a new hour with each of its attempts."""
ASKED: t.Final = 5.0
"""Seconds for which the result of checking the name server is reused."""
SHORTEST, LONGEST = 1.0, 30.0
"""Bounds, in seconds, of the wait between two attempts of one lane during an outage: a quarter of its duration."""
_TUNNEL: t.Final = re.compile(r"Tunnel connection failed: (\d{3})")
"""The standard library's text for a refused CONNECT: it raises a bare `OSError`, so there is only the text to read."""


class Outage:
    """Whether this process can reach receivers; logs the start of each outage once, and its end.

    :param resolver: called like that of `Names`, but from threads of its own, so that hanging look-ups of receivers do
        not delay the check of the name server.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, resolver: Resolver, *, has_proxy: bool, clock: t.Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._names, self._has_proxy = Names(resolver, thread="webhooks-name-server"), has_proxy
        self._reason = ""
        self._lock = threading.Lock()
        self._reached: dict[str, float] = {}
        """The last two receivers that answered, and when."""
        self._doubtful: dict[str, float] = {}
        """The last two receivers whose failure may be theirs or ours, and when they failed."""
        self._doubted_since: float | None = None
        self._doubted_at = float("-inf")
        self._since: float | None = None
        self._is_logged = False
        self._logged_at = self._asked_at = float("-inf")
        self._is_answered = True

    def reached(self, host: str) -> None:
        """Record that a receiver answered, which ends an outage."""
        now = self._clock()
        # Called after every answer: without an outage once a second is enough, so that the lock is seldom taken.
        if now - self._reached.get(host, 0.0) < 1.0 and self._since is None:
            return
        with self._lock:
            if len(self._reached) > 1 and host not in self._reached:
                del self._reached[min(self._reached, key=lambda each: self._reached[each])]
            self._reached[host] = now
            self._doubtful.clear()
            self._doubted_since = None
            since, self._since, is_logged = self._since, None, self._is_logged
            self._is_logged = False
        if since is not None and is_logged:
            logger.warning("sender.back", extra={"seconds": round(now - since, 1)})

    def is_ours(self, host: str, error: BaseException, *, is_connected: bool) -> bool:
        """Whether an attempt without an answer failed by a fault of our side; records the outage if so.

        :param is_connected: a TCP connection had been made.
        """
        kinds = tuple(_causes(error))
        is_ours = self._is_certain(kinds, is_connected) or self._is_likely(host, kinds)
        if is_ours:
            self._begin(repr(kinds[-1] if kinds else error)[:300])
        return is_ours

    def refused_by_proxy(self, status: int) -> bool:
        """Whether the answer is the proxy's own 407 (it demands credentials from us); records the outage if so."""
        if not self._has_proxy or status != 407:
            return False
        self._begin("the proxy answers 407: it asks who we are")
        return True

    def log_once(self) -> None:
        """Log the current outage, once; at most one outage a minute, for a network that fails and recovers often."""
        now = self._clock()
        with self._lock:
            if self._since is None or self._is_logged or now - self._logged_at < LATELY:
                return
            self._is_logged, self._logged_at = True, now
        logger.warning("sender.trouble", extra={"reason": self._reason})

    @property
    def patience(self) -> float:
        """Seconds to wait before the next attempt."""
        since = self._since
        lasted = 0.0 if since is None else self._clock() - since
        return min(max(SHORTEST, lasted / 4), LONGEST)

    def _is_certain(self, kinds: t.Sequence[BaseException], is_connected: bool) -> bool:
        # RuntimeError: no thread can be started. Unready: our certificates cannot be loaded.
        if any(isinstance(each, MemoryError | RuntimeError | Unready) for each in kinds):
            return True
        if any(isinstance(each, OSError) and each.errno in EXHAUSTED for each in kinds if not _is_name(each)):
            return True
        if not self._has_proxy:
            return False
        # With a proxy we open connections to nothing else: a connection that failed is one to the proxy.
        is_proxy_away = not is_connected and any(isinstance(each, ExchangeFailed) for each in kinds)
        return is_proxy_away or _tunnel_status(kinds) == 407

    def _is_likely(self, host: str, kinds: t.Sequence[BaseException]) -> bool:
        if any(isinstance(each, TunnelFailed) for each in kinds):
            status = _tunnel_status(kinds)
            return (status is None or status >= 500) and self._has_witness(host, alone=True)
        if any(isinstance(each, OSError) and each.errno in NO_WAY for each in kinds if not _is_name(each)):
            return not _has_route() or self._has_witness(host, alone=False)
        lookup = next((each for each in kinds if isinstance(each, LookupFailed)), None)
        # An error that is not the system's, such as a UnicodeError for a name that cannot be encoded, is the name's.
        cause = lookup.__cause__ if lookup is not None else None
        if lookup is None or lookup.is_missing or not isinstance(cause, OSError | None):
            return False
        return not self._is_name_server_there() or self._has_witness(host, alone=False)

    def _has_witness(self, host: str, *, alone: bool) -> bool:
        """Whether attempts to other receivers within the last minute show that the fault is ours.

        :param alone: the result where no other receiver was tried.
        """
        now = self._clock()
        with self._lock:
            if any(now - when < LATELY for each, when in self._reached.items() if each != host):
                return False
            others = any(now - when < LATELY for each, when in self._doubtful.items() if each != host)
            if len(self._doubtful) > 1 and host not in self._doubtful:
                del self._doubtful[next(iter(self._doubtful))]
            self._doubtful[host] = now
            if self._doubted_since is None or now - self._doubted_at > FORGOTTEN:
                self._doubted_since = now
            self._doubted_at, since = now, self._doubted_since
        return (others or alone) and now - since < BELIEVED

    def _is_name_server_there(self) -> bool:
        if self._clock() - self._asked_at > ASKED:
            try:
                self._names.lookup(NO_SUCH_NAME, 443, 2.0)
                self._is_answered = True
            except LookupFailed as error:
                self._is_answered = error.is_missing
            self._asked_at = self._clock()
        return self._is_answered

    def _begin(self, reason: str) -> None:
        with self._lock:
            self._since, self._reason = self._since or self._clock(), reason


def _causes(error: BaseException) -> t.Iterator[BaseException]:
    """Yield an error and its causes; requests and urllib3 pass the cause as an argument of their own exception."""
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending and len(found) < 16:
        each = pending.pop(0)
        if each is None or each in found:
            continue
        found.append(each)
        yield each
        pending += [each.__cause__, *(arg for arg in each.args if isinstance(arg, BaseException))]


def _is_name(error: BaseException) -> bool:
    """Whether the error is of a look-up or of TLS: its `errno` is no system error (a TLS alert has that of `EPERM`)."""
    return isinstance(error, socket.gaierror | ssl.SSLError)


def _tunnel_status(kinds: t.Sequence[BaseException]) -> int | None:
    texts = (_TUNNEL.search(str(each)) for each in kinds if isinstance(each, OSError))
    return next((int(found[1]) for found in texts if found), None)


def _has_route() -> bool:
    """Whether the kernel has a route to the internet. Sends nothing."""
    for family, address in NOWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return True
        except OSError:
            continue
    return False
