"""Who listens: asked once a commit, and in a way that sees every subscription whose making was answered before.

A transaction that reads from a snapshot (REPEATABLE READ, SERIALIZABLE, MariaDB's default) does not see what was
committed since it began. There the question goes over a connection of its own, which sees everything.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Session

from ..catalog import EventType, Kind
from ..engines import is_in_memory
from ..outbox import recording
from ..outbox.recording import MatchedSubscription
from .change import LATER
from .connections import connection_of
from .host_code import owned, reading_owners
from .loading import LedTo, owner_of
from .stored_values import owner_stored

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .mapper_plan import MapperPlan
    from .registry import Registry

    Seen = tuple[orm.InstanceState[t.Any], MapperPlan]

__all__ = ["SubscriptionLookup"]


class SubscriptionLookup:
    """What one commit has learnt about listeners. A second question is asked only for what the first left out."""

    def __init__(self, watch: Registry) -> None:
        self._watch = watch
        self._found: dict[tuple[str, str], list[MatchedSubscription]] = {}
        self._owners: set[str] = set()
        self._events: set[str] = set()
        self.why: str | None = None
        """Why nothing can be recorded, though no error of anybody's: for the metrics."""
        self.connection: sa.Connection | None = None
        """What a first glance has found to be the one that everything was written on."""

    def ask(
        self,
        connection: sa.Connection,
        owners: set[str],
        events: set[str],
        *,
        has_written: bool = True,
        is_home: bool = False,
    ) -> None:
        """Find out who listens.

        :param has_written: whether the transaction has changed anything; one that only reads may be a snapshot
            on SQLite too.
        :param is_home: that it leads to the app's database is known.
        """
        if owners <= self._owners and events <= self._events:
            return
        watch = self._watch
        if not (watch.has_tables(connection) if is_home else watch.is_installed(connection)):
            self.why = "tables"
            return
        self.why = None
        self._owners |= owners
        self._events |= events
        patterns = self._watch.patterns(frozenset(self._events))
        if has_written or not _is_shared(connection):
            self._found, is_snapshot = recording.find_matches(connection, self._owners, patterns)
            if not is_snapshot:
                return
        with self._watch.beside(connection).connect() as fresh:
            found, _ = recording.find_matches(fresh, self._owners, patterns)
        self._found = _joined(self._found, found)

    @property
    def is_silent(self) -> bool:
        """Whether nobody listens to anything that was asked for."""
        return not self._found

    def is_anybody(self, event: EventType) -> bool:
        """Whether an event has a listener of whatever owner: asked for what failed before its owner was known."""
        if self.connection is None or not self._watch.is_installed(self.connection):
            return self.connection is None
        return recording.is_anybody_listening(self.connection, self._watch.patterns(frozenset({event.name})))

    def wanted(self, event: EventType, owner: str) -> list[MatchedSubscription]:
        """Return who wants an event of an owner, one entry a subscription.

        What `invoices.updated` and `invoices.*` ask for is asked for together.
        """
        lists = [
            listeners
            for pattern in self._watch.state.catalog.patterns(event.name)
            if (listeners := self._found.get((owner, pattern))) is not None
        ]
        if len(lists) < 2:
            return lists[0] if lists else []
        by_id: dict[str, MatchedSubscription] = {}
        for listeners in lists:
            for each in listeners:
                known = by_id.get(each.subscription_id)
                by_id[each.subscription_id] = each if known is None else known.joined(each)
        return list(by_id.values())

    def is_deletion_heard(
        self, session: Session, doomed: t.Iterable[Seen], others: t.Iterable[Seen], led_to: LedTo
    ) -> bool:
        """Say whether anybody listens to the deletion of one of these.

        :param others: what else will be flushed: asked for with them, so that one question does for the commit.
        """
        if self._watch.state.settings.record == "all":
            return True
        owners: set[str] = set()
        deletions: set[str] = set()
        events: set[str] = set()
        model: type | None = None
        some = list(_bounds(doomed))
        bounds = {id(bound): bound for bound, _ in some}.values()
        with reading_owners(session, bounds, self._watch.told):
            for bound, obj in some:
                found = {event.name for event in bound.channel.events.values() if Kind.DELETED in event.on}
                try:
                    owner = self._owner(bound, obj, led_to) if found else None
                    if owner is LATER:
                        return True
                except Exception:  # a property of the host's; who dumps the object will say so
                    return True
                events |= self._possible(bound)
                if owner is not None:
                    owners.add(owner)
                    deletions |= found
                    model = bound.model
        if not owners:
            return False
        waiting = set()
        for bound, obj in _bounds(others):
            path = bound.owner_path
            events |= self._possible(bound)
            if bound.channel.sole_owner is not None:
                waiting.add(bound.channel.sole_owner)
            elif path is not None and len(path) == 1 and obj.__dict__.get(path[0]) is not None:
                waiting.add(str(obj.__dict__[path[0]]))
        self.ask(connection_of(self._watch, session, model), owners | waiting, events)
        catalog = self._watch.state.catalog
        return any(self.wanted(catalog.events[event], owner) for owner in owners for event in deletions)

    def _owner(self, bound: BoundChannel, obj: t.Any, led_to: LedTo) -> t.Any:
        """Whose an object is by the form that the row has; `LATER` where only the row can tell."""
        path, plan = bound.owner_path, self._watch.plan(type(obj))
        if not path or len(path) > 1 or plan is None or path[0] not in obj.__dict__:
            return owned(bound, obj, owner_of, bound, obj, led_to)
        found = owner_stored(plan, obj, path[0])
        return found if found is None or found is LATER else str(found)

    def _possible(self, bound: BoundChannel) -> set[str]:
        """Names of all events of a channel and of those it touches."""
        channels = (bound.channel.name, *(touch.channel for touch in bound.touches))
        return {event.name for channel in channels for event in self._watch.events[channel, None]}


def _bounds(seen: t.Iterable[Seen]) -> t.Iterator[tuple[BoundChannel, t.Any]]:
    for state, plan in seen:
        for bound in plan.bounds:
            yield bound, state.obj()


def _is_shared(connection: sa.Connection) -> bool:
    """Whether others can write to the database: a SQLite in memory has one connection."""
    return connection.dialect.name == "sqlite" and not is_in_memory(connection.engine.url)


def _joined(
    older: dict[tuple[str, str], list[MatchedSubscription]],
    newer: dict[tuple[str, str], list[MatchedSubscription]],
) -> dict[tuple[str, str], list[MatchedSubscription]]:
    """What the transaction itself sees (perhaps a subscription it has just made), overlaid with what is newer."""
    found = dict(newer)
    for key, listeners in older.items():
        known = {each.subscription_id for each in found.get(key, ())}
        found[key] = [
            *found.get(key, ()),
            *(each for each in listeners if each.subscription_id not in known),
        ]
    return found
