"""How much of what is sent again one owner, and one host, gets together: `WEBHOOKS_REPLAY_RATE`.

A rate for each replay would be none: a hundred subscriptions with a replay each, all to one server, would be a hundred
times as fast. So the rate belongs to the owner and to the destination's host, and running replays share it.
"""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta
from urllib.parse import urlsplit

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["begins_at", "rate_of"]

SOON = timedelta(seconds=1)
"""So much of a replay that has ended may still be sent when the next begins."""


class Place(t.Protocol):
    """Where a replay sends: a subscription, or a row that has its columns."""

    owner: t.Any
    url: t.Any


def rate_of(state: AppState, replay: Place, running: t.Sequence[Place]) -> float:
    """Return the deliveries a second of one replay.

    :param running: all that run, this one among them.
    """
    owners = sum(1 for each in running if each.owner == replay.owner)
    hosts = sum(1 for each in running if _host(each) == _host(replay))
    return state.settings.replay_rate / max(1, owners, hosts)


def begins_at(now: datetime, subscription: Place, ended: t.Iterable[t.Any]) -> datetime:
    """Return when a new replay may begin: what others to the same owner or host have queued is sent first.

    :param ended: replays that queue no more, with `next_at`, by when that is sent.
    """
    theirs = [
        each.next_at
        for each in ended
        if each.owner == subscription.owner or _host(each) == _host(subscription)
    ]
    latest = max(theirs, default=now)
    return latest if latest - now > SOON else now


def _host(place: Place) -> str:
    """The host without its port: another port of the same machine is the same machine."""
    return (urlsplit(place.url or "").hostname or "").rstrip(".").lower()
