"""Events to matched ones: each with the subscriptions that it goes to, found by one look-up for the commit."""

from __future__ import annotations

import typing as t

from .connections import connection_of, in_own_database
from .events import UNREADABLE_OWNER, PendingEvent

if t.TYPE_CHECKING:
    from ..config import Settings
    from ..outbox.recording import MatchedSubscription
    from .context import CommitContext
    from .lookup import SubscriptionLookup

__all__ = ["match"]


def match(
    context: CommitContext, events: t.Sequence[PendingEvent], *, has_written: bool
) -> list[PendingEvent]:
    """Return the events that subscriptions match, each with these (all events with `WEBHOOKS_RECORD = "all"`).

    An event whose owner could not be read is kept if anyone at all listens to its like.
    """
    registry, lookup = context.registry, context.lookup
    if not events:
        return []
    if lookup.connection is None:
        models = [item.bound.model for item in events if item.bound is not None]
        lookup.connection = connection_of(registry, context.session, next(iter(models), None))
        events = in_own_database(registry, context.session, lookup.connection, events)
        if not events:
            lookup.reason = "database"
            return []
    # One query for all owners and event types of the commit, however many events there are.
    owners, names = {item.owner for item in events}, {item.event.name for item in events}
    lookup.query(lookup.connection, owners, names, has_written=has_written)
    return _matched(registry.state.settings, lookup, events) if lookup.reason is None else []


def _matched(
    settings: Settings, lookup: SubscriptionLookup, events: t.Sequence[PendingEvent]
) -> list[PendingEvent]:
    environment, is_all = settings.environment, settings.record == "all"
    found: list[PendingEvent] = []
    known: dict[tuple[str, str], list[MatchedSubscription]] = {}
    for item in events:
        key = item.event.name, item.owner
        # A bulk statement makes thousands of events of one owner.
        listeners = known.get(key)
        if listeners is None:
            listeners = lookup.matches(item.event, item.owner)
            if isinstance(environment, str):
                listeners = [each for each in listeners if each.environment == environment]
            known[key] = listeners
        if listeners:
            found.append(item._replace(listeners=listeners))
        elif is_all or (item.owner == UNREADABLE_OWNER and lookup.has_listener(item.event)):
            found.append(item)
    return found
