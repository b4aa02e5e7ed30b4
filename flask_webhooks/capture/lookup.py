"""Finds the subscriptions that match events: usually one query a commit.

It sees every subscription that was created before, by whatever connection.

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
from .change import SERVER_GENERATED
from .connections import check_database, connection_of, connections_of
from .host_code import owned, reading_owners
from .owners import HiddenRow, owner_of
from .stored_values import owner_stored

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .candidates import Candidates
    from .mapper_plan import MapperPlan
    from .registry import Registry

    Seen = tuple[orm.InstanceState[t.Any], MapperPlan]

__all__ = ["SubscriptionLookup", "is_anybody_listening"]


class SubscriptionLookup:
    """The subscriptions that one commit has found. A second query is sent only for what the first left out."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[tuple[str, str], list[MatchedSubscription]] = {}
        self._owners: set[str] = set()
        self._events: set[str] = set()
        self.reason: str | None = None
        """Why nothing can be recorded, though no error happened: for the metrics."""
        self.connection: sa.Connection | None = None
        """The connection that everything was written on, once that is known."""

    def query(
        self,
        connection: sa.Connection,
        owners: set[str],
        events: set[str],
        *,
        has_written: bool = True,
        is_home: bool = False,
    ) -> None:
        """Find the subscriptions that match events of owners, unless that was asked before.

        :param has_written: whether the transaction has changed anything; one that only reads may be a snapshot
            on SQLite too.
        :param is_home: it is known to lead to the app's database.
        """
        # The first question asked by what is in memory; mostly it covers what the events then are.
        if owners <= self._owners and events <= self._events:
            return
        registry, is_apart = self._registry, not has_written and _is_shared(connection)
        ask = registry.has_tables if is_home else registry.is_installed
        if not ask(connection, apart=is_apart):
            self.reason = "tables"
            return
        self.reason = None
        self._owners |= owners
        self._events |= events
        patterns = self._registry.patterns(frozenset(self._events))
        # What the transaction itself has subscribed is seen on its own connection alone.
        if not is_apart:
            self._found, is_snapshot = recording.find_matches(connection, self._owners, patterns)
            if not is_snapshot:
                return
        with self._registry.fresh_engine(connection).connect() as fresh:
            found, _ = recording.find_matches(fresh, self._owners, patterns)
        self._found = _joined(self._found, found)

    def has_no_match(self, session: Session, candidates: Candidates) -> bool:
        """Say whether certainly no subscription matches what changes may be, so that no stage has to run.

        The owners that were asked for need not be asked for again.
        """
        if not candidates.owners or not candidates.is_complete:
            return False
        connections = connections_of(session)
        if len(connections) != 1:  # which of them each row was written on is worked out with its event
            return False
        registry, connection = self._registry, connections.pop()
        model = registry.state.bound[next(iter(candidates.channels))].model
        if not check_database(registry, connection.engine, model):
            self.reason = "database"
            return True
        self.connection = connection
        names = {event.name for channel in candidates.channels for event in registry.events[channel, None]}
        self.query(connection, candidates.owners, names, is_home=True)
        return not self._found

    def has_listener(self, event: EventType) -> bool:
        """Say whether an event has a listener of any owner: for what failed before its owner was known.

        Without a connection nothing is known, so there may be one.
        """
        return self.connection is None or self._registry.has_listener(self.connection, [event.name])

    def matches(self, event: EventType, owner: str) -> list[MatchedSubscription]:
        """Return the subscriptions that match an event of an owner, one entry each.

        What `invoices.updated` and `invoices.*` ask for is asked for together.
        """
        lists = [
            listeners
            for pattern in self._registry.state.catalog.patterns(event.name)
            if (listeners := self._found.get((owner, pattern))) is not None
        ]
        # One subscription mostly has one pattern for an event.
        if len(lists) < 2:
            return lists[0] if lists else []
        by_id: dict[str, MatchedSubscription] = {}
        for listeners in lists:
            for each in listeners:
                known = by_id.get(each.subscription_id)
                by_id[each.subscription_id] = each if known is None else known.joined(each)
        return list(by_id.values())

    def matches_deletion(
        self, session: Session, deleted: t.Iterable[Seen], others: t.Iterable[Seen], hidden_row: HiddenRow
    ) -> bool:
        """Say whether a subscription matches the deletion of one of these.

        :param others: what else will be flushed: asked for with them, so that one question does for the commit.
        """
        if self._registry.state.settings.record == "all":
            return True
        owners: set[str] = set()
        deletions: set[str] = set()
        events: set[str] = set()
        model: type | None = None
        some = list(_bounds(deleted))
        bounds = {id(bound): bound for bound, _ in some}.values()
        with reading_owners(session, bounds, self._registry.warned):
            for bound, obj in some:
                found = {event.name for event in bound.channel.events.values() if Kind.DELETED in event.on}
                try:
                    owner = self._owner(bound, obj, hidden_row) if found else None
                    if owner is SERVER_GENERATED:
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
        # Their owners are read without care: a wrong one is only a question too many.
        waiting = set()
        for bound, obj in _bounds(others):
            path = bound.owner_path
            events |= self._possible(bound)
            if bound.channel.sole_owner is not None:
                waiting.add(bound.channel.sole_owner)
            elif path is not None and len(path) == 1 and obj.__dict__.get(path[0]) is not None:
                waiting.add(str(obj.__dict__[path[0]]))
        self.query(connection_of(self._registry, session, model), owners | waiting, events)
        catalog = self._registry.state.catalog
        return any(self.matches(catalog.events[event], owner) for owner in owners for event in deletions)

    def _owner(self, bound: BoundChannel, obj: t.Any, hidden_row: HiddenRow) -> t.Any:
        """Whose an object is by the form that the row has; `SERVER_GENERATED` where only the row can tell."""
        path, plan = bound.owner_path, self._registry.plan(type(obj))
        if not path or len(path) > 1 or plan is None or path[0] not in obj.__dict__:
            return owned(bound, obj, owner_of, bound, obj, hidden_row)
        found = owner_stored(plan, obj, path[0])
        return found if found is None or found is SERVER_GENERATED else str(found)

    def _possible(self, bound: BoundChannel) -> set[str]:
        """Names of all events of a channel and of those it touches."""
        channels = (bound.channel.name, *(touch.channel for touch in bound.touches))
        return {event.name for channel in channels for event in self._registry.events[channel, None]}


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


def is_anybody_listening(
    registry: Registry, connection: sa.Connection, changes: set[tuple[str, Kind | None]]
) -> bool:
    """Say whether a subscription of any owner listens to what changes can cause: one look into an index.

    :param changes: names of channels, and kinds of change; None for any kind. What they touch is thought of.
    """
    if registry.state.settings.record == "all":
        return True
    events = registry.events_of(changes)
    if registry.has_listener(connection, events):
        return True
    if not events or not _may_be_snapshot(connection) or not registry.is_installed(connection):
        return False
    with registry.fresh_engine(connection).connect() as fresh:
        return recording.is_anybody_listening(fresh, registry.patterns(frozenset(events)))


def _may_be_snapshot(connection: sa.Connection) -> bool:
    """Whether a subscription that was made since the transaction began may not be seen in it.

    Not on SQLite: no other connection can write while the host's transaction does.
    """
    name = connection.dialect.name
    if name == "postgresql":
        return connection.get_isolation_level() != "READ COMMITTED"
    return name != "sqlite"
