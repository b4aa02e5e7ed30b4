"""The scheduler by the keys of its lanes, so that a test need not carry lanes around."""

from __future__ import annotations

import typing as t

from flask_webhooks.worker.scheduler import FairScheduler, Lane

__all__ = ["KeyedScheduler"]


class KeyedScheduler(FairScheduler[Lane[t.Any], t.Any]):
    """A scheduler whose lanes are made when their key is first met, and forgotten when nothing is left of them."""

    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.by_key: dict[str, Lane[t.Any]] = {}

    @property
    def known(self) -> dict[str, Lane[t.Any]]:
        """The lanes that were not removed, or still have something in flight."""
        return {key: lane for key, lane in list(self.by_key.items()) if lane.in_flight or not lane.is_closing}

    def lane(self, key: str) -> Lane[t.Any]:
        """Return a lane that is known.

        :raises KeyError: it is not.
        """
        return self.known[key]

    def add(self, key, items=(), *, lease_until, owner="", **terms):
        lane = self.known.get(key)
        if lane is None:
            lane = self.by_key[key] = Lane(key, owner, lease_until)
        lane.lease_until = lease_until
        super().add(lane, items, **terms)

    def take(self, now):
        taken = super().take(now)
        return None if taken is None else taken[1]

    def wait_take(self, clock, timeout):
        taken = super().wait_take(clock, timeout)
        return None if taken is None else taken[1]

    def remove(self, key):
        lane = self.known.get(key)
        return [] if lane is None else super().remove(lane)

    def extend(self, key, items):
        super().extend(self.lane(key), items)

    def renew(self, key, lease_until):
        super().renew(self.lane(key), lease_until)

    def done(self, key, **outcome):
        super().done(self.lane(key), **outcome)

    def release(self, key):
        super().release(self.lane(key))

    def drop(self, key, items):
        return super().drop(self.lane(key), items)

    def suspect(self, keys):
        super().suspect([self.lane(key) for key in keys if key in self.known])

    def put_back(self, key, item):
        return super().put_back(self.by_key[key], item)

    def hold(self, key, until):
        super().hold(self.lane(key), until)

    def set_terms(self, key, **terms):
        super().set_terms(self.lane(key), **terms)

    def next_start(self, key):
        return self.lane(key).start_at

    def queued_of(self, key):
        return len(self.known[key].queue) if key in self.known else 0

    def in_flight_of(self, key):
        return self.known[key].in_flight if key in self.known else 0
