"""Divides `WEBHOOKS_REPLAY_RATE` among the replays that send to one owner or to one host.

A rate for each replay would not protect a server: a hundred subscriptions with a replay each, all to one server, would
send a hundred times as fast. So the rate belongs to the owner and to the destination's host; running replays share it.
"""

from __future__ import annotations

import time
import typing as t
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from ..transport import effective, parse_address

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["begins_at", "hosts_of", "rate_of"]

SOON = timedelta(seconds=1)
"""A new replay does not wait for less than this of one that has queued everything."""

LOOKS_UP = 2.0
"""Seconds for all name lookups of one batch: a slow resolver must not stop the replays."""


class Place(t.Protocol):
    """Where a replay sends: a subscription, or a row that has its columns."""

    owner: t.Any
    url: t.Any


def rate_of(state: AppState, replay: Place, running: t.Sequence[Place], hosts: t.Mapping[str, str]) -> float:
    """Return the deliveries a second of one replay.

    :param running: all running replays, this one included.
    :param hosts: the result of `hosts_of` for them.
    """
    owners = sum(1 for each in running if each.owner == replay.owner)
    # The larger of both counts: neither the owner nor the host gets more than the rate.
    host = hosts[_host(replay)]
    same = sum(1 for each in running if hosts[_host(each)] == host)
    return state.settings.replay_rate / max(1, owners, same)


def hosts_of(state: AppState, running: t.Iterable[Place]) -> dict[str, str]:
    """Return by host the host that it counts as: a name that resolves to the address in another URL counts as that.

    Names are looked up only if a URL contains an address. Two names that resolve to one address count as two hosts:
    it may be the address of a content delivery network in front of two customers' servers. No transaction may be open.
    """
    hosts = {_host(each) for each in running}
    addresses = {host for host in hosts if parse_address(host) is not None}
    found = {host: host for host in hosts}
    ends = time.monotonic() + LOOKS_UP
    for name in sorted(hosts - addresses) if addresses else ():
        limit = ends - time.monotonic()
        leads_to = state.transport.addresses_of(name, limit) if limit > 0 else ()
        found[name] = min(addresses & {str(effective(each)) for each in leads_to}, default=name)
    return found


def begins_at(now: datetime, subscription: Place, ended: t.Iterable[t.Any]) -> datetime:
    """Return when a new replay may begin: after the deliveries that others have queued for the same owner or host.

    :param ended: replays that have queued all their deliveries; `next_at` is when the last of these is sent.
    """
    theirs = [
        each.next_at
        for each in ended
        if each.owner == subscription.owner or _host(each) == _host(subscription)
    ]
    # The worker sends the older deliveries first anyway, so less than `SOON` is not worth a wait.
    latest = max(theirs, default=now)
    return latest if latest - now > SOON else now


def _host(place: Place) -> str:
    """The host without its port, because all ports are of the same machine.

    Stored URLs are normalised, but one IP address can still be written in several ways.
    """
    host = (urlsplit(place.url or "").hostname or "").rstrip(".").lower()
    address = parse_address(host)
    return host if address is None else str(effective(address))
