"""Whose fault is it that a receiver cannot be reached: its own, or ours?

Our own faults (the egress proxy, the name server, the network, file descriptors) never count against a receiver. Some
say themselves what they are. Others look the same as one receiver that is down, and need evidence:

- No route: connecting a UDP socket sends nothing and fails at once where the machine has no network.
- No name server: a working one says of a name in `.invalid` (RFC 6761) that there is none; a dead one says nothing.
- What is left, such as a proxy that answers 502 or a gateway that is gone: if another receiver was reached within the
  last minute, it is this one's fault; if others fail in the same way, it is ours.

Evidence of the last kind is believed for an hour, so that receivers which are all down do not wait for ever; after a
day without any, for an hour again.
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
"""What this machine has no more of, has switched off or forbids: whoever the receiver is."""
NOWHERE: t.Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses of the documentation, RFC 5737 and RFC 3849."""
NO_SUCH_NAME: t.Final = "sender-checks-its-name-server.invalid"
LATELY: t.Final = 60.0
"""Seconds for which reaching another receiver, or failing to, says how our side is doing."""
BELIEVED: t.Final = 3600.0
"""Seconds that an outage without direct evidence is believed."""
FORGOTTEN: t.Final = max(STANDARD) * (1 + JITTER)
"""Seconds without a doubt after which the next one begins anew: as long as the usual schedule waits between two tries,
so that a receiver which is down for good, and alone, does not begin an hour with each of them."""
ASKED: t.Final = 5.0
"""Seconds for which an answer about the name server is good."""
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds between two tries of one lane during an outage: a quarter of what it has lasted, between these."""
_TUNNEL: t.Final = re.compile(r"Tunnel connection failed: (\d{3})")
"""What the standard library says of an answer to CONNECT; it has no type for it."""


class Outage:
    """What this process knows of its own reach; told once when it is lost, and once when it is back.

    :param resolver: as that of names; asked beside them, so that hanging look-ups do not keep it from answering.
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
        """The last two receivers that were reached, and when."""
        self._doubtful: dict[str, float] = {}
        """Receivers that could not be reached, nobody knows by whose fault, and when."""
        self._doubted_since: float | None = None
        self._doubted_at = float("-inf")
        self._since: float | None = None
        self._is_told = False
        self._told_at = self._asked_at = float("-inf")
        self._is_answered = True

    def reached(self, host: str) -> None:
        """Note that a receiver answered. Cheap while all is well."""
        now = self._clock()
        if now - self._reached.get(host, 0.0) < 1.0 and self._since is None:
            return
        with self._lock:
            if len(self._reached) > 1 and host not in self._reached:
                del self._reached[min(self._reached, key=lambda each: self._reached[each])]
            self._reached[host] = now
            self._doubtful.clear()
            self._doubted_since = None
            since, self._since, is_told = self._since, None, self._is_told
            self._is_told = False
        if since is not None and is_told:
            logger.warning("sender.back", extra={"seconds": round(now - since, 1)})

    def is_ours(self, host: str, error: BaseException, *, is_connected: bool) -> bool:
        """Whether an attempt that got no answer failed by a fault of our side.

        :param is_connected: a TCP connection had been made.
        """
        kinds = tuple(_causes(error))
        is_ours = self._is_certain(kinds, is_connected) or self._is_likely(host, kinds)
        if is_ours:
            self._begin(repr(kinds[-1] if kinds else error)[:300])
        return is_ours

    def refused_by_proxy(self, status: int) -> bool:
        """Whether an answer is the proxy's own and about us: 407, it does not know who we are."""
        if not self._has_proxy or status != 407:
            return False
        self._begin("the proxy answers 407: it asks who we are")
        return True

    def tell(self) -> None:
        """Log an outage that has not been told yet; not more often than once a minute if it comes and goes."""
        now = self._clock()
        with self._lock:
            if self._since is None or self._is_told or now - self._told_at < LATELY:
                return
            self._is_told, self._told_at = True, now
        logger.warning("sender.trouble", extra={"reason": self._reason})

    @property
    def patience(self) -> float:
        """Seconds to wait before another try."""
        since = self._since
        lasted = 0.0 if since is None else self._clock() - since
        return min(max(SHORTEST, lasted / 4), LONGEST)

    def _is_certain(self, kinds: t.Sequence[BaseException], is_connected: bool) -> bool:
        # A RuntimeError: no more threads. Unready: no certificates.
        if any(isinstance(each, MemoryError | RuntimeError | Unready) for each in kinds):
            return True
        if any(isinstance(each, OSError) and each.errno in EXHAUSTED for each in kinds if not _is_name(each)):
            return True
        if not self._has_proxy:
            return False
        # Whom we could not connect to is the proxy: it is the only one we connect to.
        is_proxy_away = not is_connected and any(isinstance(each, ExchangeFailed) for each in kinds)
        return is_proxy_away or _tunnel_status(kinds) == 407

    def _is_likely(self, host: str, kinds: t.Sequence[BaseException]) -> bool:
        if any(isinstance(each, TunnelFailed) for each in kinds):
            status = _tunnel_status(kinds)
            return (status is None or status >= 500) and self._has_witness(host, alone=True)
        if any(isinstance(each, OSError) and each.errno in NO_WAY for each in kinds if not _is_name(each)):
            return not _has_route() or self._has_witness(host, alone=False)
        lookup = next((each for each in kinds if isinstance(each, LookupFailed)), None)
        # What is no error of the system's, such as a name that no encoding takes, is about the name.
        cause = lookup.__cause__ if lookup is not None else None
        if lookup is None or lookup.is_missing or not isinstance(cause, OSError | None):
            return False
        return not self._is_name_server_there() or self._has_witness(host, alone=False)

    def _has_witness(self, host: str, *, alone: bool) -> bool:
        """Whether what others came to says that it is our fault.

        :param alone: what is taken to be true where there are no others.
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
    """Yield an error and what it was raised from: requests and urllib3 hand errors on as arguments."""
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
    """Whether it is of a look-up or of TLS, whose numbers are not those of the system: an alert has that of `EPERM`."""
    return isinstance(error, socket.gaierror | ssl.SSLError)


def _tunnel_status(kinds: t.Sequence[BaseException]) -> int | None:
    texts = (_TUNNEL.search(str(each)) for each in kinds if isinstance(each, OSError))
    return next((int(found[1]) for found in texts if found), None)


def _has_route() -> bool:
    """Whether the machine has a way to the internet, as far as it knows itself. Sends nothing."""
    for family, address in NOWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return True
        except OSError:
            continue
    return False
