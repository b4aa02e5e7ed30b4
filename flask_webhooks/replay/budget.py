"""How much of what is sent again one owner, and one host, gets together: `WEBHOOKS_REPLAY_RATE`.

A rate for each replay would be none: a hundred subscriptions with a replay each, all to one server, would be a hundred
times as fast. So the rate belongs to the owner and to the destination's host, and running replays share it.
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
"""So much of a replay that has ended may still be sent when the next begins."""

LOOKS_UP = 2.0
"""Seconds that names are looked up for in a turn."""


class Place(t.Protocol):
    """Where a replay sends: a subscription, or a row that has its columns."""

    owner: t.Any
    url: t.Any


def rate_of(state: AppState, replay: Place, running: t.Sequence[Place], hosts: t.Mapping[str, str]) -> float:
    """Return the deliveries a second of one replay.

    :param running: all that run, this one among them.
    :param hosts: theirs, by `hosts_of`.
    """
    owners = sum(1 for each in running if each.owner == replay.owner)
    # The larger of both counts: neither the owner nor the host gets more than the rate.
    host = hosts[_host(replay)]
    same = sum(1 for each in running if hosts[_host(each)] == host)
    return state.settings.replay_rate / max(1, owners, same)


def hosts_of(state: AppState, running: t.Iterable[Place]) -> dict[str, str]:
    """Return what each host counts as: a name counts as the address that another URL spells, if it leads to it.

    Names are looked up only where there is such a URL: those of two customers may well lead to one address, that of a
    network that stands before both of their servers. No transaction may be open.
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
    """Return when a new replay may begin: what others to the same owner or host have queued is sent first.

    :param ended: replays that queue no more, with `next_at`, by when that is sent.
    """
    theirs = [
        each.next_at
        for each in ended
        if each.owner == subscription.owner or _host(each) == _host(subscription)
    ]
    # Less than a second of it is not waited for: the worker sends that first in any case.
    latest = max(theirs, default=now)
    return latest if latest - now > SOON else now


def _host(place: Place) -> str:
    """The host without its port: another port of the same machine is the same machine.

    URLs are saved in their normal form; an address has several all the same.
    """
    host = (urlsplit(place.url or "").hostname or "").rstrip(".").lower()
    address = parse_address(host)
    return host if address is None else str(effective(address))
