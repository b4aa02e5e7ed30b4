"""Destinations on a developer's own machine: plain http to loopback is allowed there, and nothing else.

The law of this room: only a URL that the strict rules refuse comes here; its host must be spelled as loopback
(`localhost`, `127.0.0.1`, `[::1]`), and the address that it resolves to is judged again. A public name that resolves
to loopback stays refused, because its owner could point it here.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import typing as t
from collections.abc import Callable, Sequence

from ..errors import SubscriptionError
from .addresses import Address, Network, effective
from .urls import Destination, is_unfit_port, parse, refused_port

__all__ = ["Urls"]

logger = logging.getLogger("flask_webhooks.transport")

LOOPBACK: t.Final[tuple[Network, ...]] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)


class Urls:
    """Reads destinations by the operator's settings; safe to share between threads.

    :param allow_http: accept plain `http://` destinations.
    :param allowed: networks exempt from the guard.
    :param ports: ports that the operator allows in addition.
    :param is_resolved: whether `Dialer` judges the addresses of names; it does not where a proxy connects.
    :param is_developing: returns whether this process runs on a developer's machine, and so may reach it.
    """

    def __init__(
        self,
        *,
        allow_http: bool,
        allowed: Sequence[Network],
        ports: Sequence[range],
        is_resolved: bool,
        is_developing: Callable[[], bool],
    ) -> None:
        self._ports = ports
        self._is_developing = is_developing if is_resolved else lambda: False
        self._is_logged = False
        self._strict = functools.lru_cache(4096)(
            functools.partial(
                parse, allow_http=allow_http, allowed=allowed, ports=ports, is_resolved=is_resolved
            )
        )

    def parse(self, url: str) -> Destination:
        """Return the destination that `url` names.

        :raises SubscriptionError: see `urls.parse`.
        """
        try:
            return self._strict(url)
        except SubscriptionError:
            found = self._here(url) if self._is_developing() else None
            if found is None:
                raise
        if is_unfit_port(found.port, self._ports):
            raise refused_port(found.host, found.address, found.port)
        self._log_once(found)
        return found

    def _here(self, url: str) -> Destination | None:
        """Return the destination if it is on this machine; None if it is elsewhere or the URL is malformed."""
        try:
            found = parse(url, allow_http=True, allowed=LOOPBACK, ports=self._ports)
        except SubscriptionError:
            return None
        return found if _is_here(found.host, found.address) else None

    def exempt(self, host: str, address: Address | None) -> Sequence[Network]:
        """Return the networks that this host may lead into, in addition to those that the operator allows."""
        return LOOPBACK if _is_here(host, address) and self._is_developing() else ()

    def _log_once(self, found: Destination) -> None:
        if self._is_logged:
            return
        self._is_logged = True
        logger.warning(
            "loopback.allowed: %s is a destination only because this is a developer's machine: the app is in debug "
            "mode, or was started by `flask webhooks dev`. Anywhere else it is refused.",
            f"{found.scheme}://{found.authority}",
            extra={"host": found.host},
        )


def _is_here(host: str, address: Address | None) -> bool:
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    target = effective(address)
    return any(target.version == network.version and target in network for network in LOOPBACK)
