"""The last step before COMMIT: what happened in a transaction becomes rows of messages and deliveries.

    changes -> net changes -> resolved -> events -> matched -> loaded -> rows

Each stage takes a list and returns a new one; none alters what an earlier one has made, so that a commit that fails can
be tried again with the same changes. Most transactions concern owners without subscriptions: they end at the first
question, before any stage.

===============  ==========================================  ======================================================
net changes      `list[Change]`, one for each object         `change.net_changes`: pure
resolved         `list[Change]`, with object and values      `resolution`, and `relationships` for what they touch
events           `list[PendingEvent]`, each with its owner   `detection`, with `owner_moves` for owners of before
matched          `list[PendingEvent]`, with subscriptions    `matching`: one look-up for the commit
loaded           `list[PendingEvent]` that can be dumped     `dump_loading`, `stored_values`
rows             `list[Recorded]`                            `messages`
===============  ==========================================  ======================================================
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from .candidates import Candidates
from .change import Change, deleted_keys, net_changes
from .connections import connection_of, in_own_database
from .detection import detect_events, emitted_events
from .dump_loading import load_for_dumps
from .events import Emitted, PendingEvent, Recorded
from .failures import fail_or_log, on_error_of
from .guard import guarding
from .matching import SubscriptionLookup, match
from .messages import write
from .owner_moves import RowsBefore
from .relationships import TouchedParents
from .reread import Rereading
from .resolution import expire_stale_references, restore_snapshots, with_objects, with_values
from .stored_values import StoredValues
from .uncaptured import UncapturedChange

if t.TYPE_CHECKING:
    from .registry import Registry
    from .side_session import SideSession

__all__ = ["record_events"]


def record_events(
    registry: Registry,
    session: Session,
    lookup: SubscriptionLookup,
    side_session: SideSession,
    items: t.Sequence[Change | Emitted | UncapturedChange],
) -> list[Recorded]:
    """Write messages and deliveries for what happened in a transaction; return what was written.

    :raises EmitError: data that cannot be sent, if `WEBHOOKS_ON_ERROR` is `raise`.
    """
    changes = [item for item in items if isinstance(item, Change)]
    emitted = [item for item in items if isinstance(item, Emitted)]
    if not changes and not emitted:
        return []
    is_autoflush, session.autoflush = session.autoflush, False
    try:
        lookup.connection = None
        candidates = Candidates(registry, session, changes, emitted)
        if registry.state.settings.record != "all" and lookup.has_no_match(session, candidates):
            return []
        uncaptured = [item for item in items if isinstance(item, UncapturedChange)]
        with (
            guarding(session, *_scoped_session(registry, session), warned=registry.warned),
            StoredValues(registry, session) as stored,
        ):
            pipeline = _Pipeline(registry, session, lookup, side_session, stored, candidates)
            return pipeline.run(changes, emitted, uncaptured)
    finally:
        session.autoflush = is_autoflush
        if lookup.reason is not None:
            registry.state.unrecorded[lookup.reason] += 1


def _scoped_session(registry: Registry, session: Session) -> t.Iterator[Session]:
    """The host's `db.session`, if it is another session: code of the host's knows that one by its name."""
    scoped = registry.state.app.extensions["sqlalchemy"].session
    try:
        current = scoped() if scoped.registry.has() else session
    except RuntimeError:  # outside of an app context there is none
        return
    if current is not session:
        yield current


@dataclass(slots=True, eq=False)
class _Pipeline:
    """The stages of one commit, and what they share."""

    registry: Registry
    session: Session
    lookup: SubscriptionLookup
    side_session: SideSession
    stored: StoredValues
    candidates: Candidates
    parents: TouchedParents = field(init=False)
    past: RowsBefore = field(init=False)
    rereading: Rereading = field(init=False)

    def run(
        self,
        changes: t.Sequence[Change],
        emitted: t.Sequence[Emitted],
        uncaptured: t.Sequence[UncapturedChange],
    ) -> list[Recorded]:
        """Return the messages that were written."""
        resolved = self.resolve(net_changes(changes))
        events = self.detect(resolved, emitted, uncaptured)
        matched = self.match(events, has_written=bool(resolved))
        loaded = self.load(matched, changes)
        if not loaded:
            return []
        assert self.lookup.connection is not None  # noqa: S101  # `match` has found it, or nothing matches
        return write(self.registry, self.lookup.connection, loaded, self.rereading)

    def resolve(self, changes: t.Sequence[Change]) -> t.Sequence[Change]:
        """Give changes their objects and values, and add the updates of what they touch."""
        registry, session, stored = self.registry, self.session, self.stored
        if not self.candidates.is_complete:
            changes = with_objects(session, self.side_session, changes)
        changes = with_values(registry, stored, changes)
        # Owners and parents are read along relationships: these must lead where the rows do, now and, of what was
        # deleted, when the transaction began.
        consistent = expire_stale_references(registry, stored, changes, self.candidates.consistent)
        restore_snapshots(registry, session, changes)
        self.parents = TouchedParents(registry, session, self.side_session, consistent)
        changes = self.parents.with_touched(changes)
        touched = [change for change in changes if change.is_touched]
        if touched:
            stored.show_deciding(touched, ())
        return changes

    def detect(
        self,
        changes: t.Sequence[Change],
        emitted: t.Sequence[Emitted],
        uncaptured: t.Sequence[UncapturedChange],
    ) -> list[PendingEvent]:
        """Return which events changes are, and those that the host emitted itself."""
        side_session = self.side_session
        side_session.begin()
        self.past = RowsBefore(self.registry, self.session, changes, uncaptured, side_session)
        self.rereading = Rereading(self.session, side_session, self.stored)
        events = detect_events(self.registry, changes, self.past, side_session, self.rereading)
        if emitted:
            self.stored.show_rows(item.obj for item in emitted if item.obj is not None)
            hidden_row = side_session.hidden_row
            events += emitted_events(self.registry.state, changes, emitted, hidden_row, self.rereading)
        return events

    def match(self, events: t.Sequence[PendingEvent], *, has_written: bool) -> t.Sequence[PendingEvent]:
        """Return the events that subscriptions match, with these."""
        if not events:
            return []
        lookup = self.lookup
        if lookup.connection is None:
            models = [item.bound.model for item in events if item.bound is not None]
            lookup.connection = connection_of(self.registry, self.session, next(iter(models), None))
            events = in_own_database(self.registry, self.session, lookup.connection, events)
            if not events:
                lookup.reason = "database"
                return []
        owners, names = {item.owner for item in events}, {item.event.name for item in events}
        lookup.query(lookup.connection, owners, names, has_written=has_written)
        return match(self.registry.state.settings, lookup, events) if lookup.reason is None else []

    def load(self, events: t.Sequence[PendingEvent], changes: t.Sequence[Change]) -> t.Sequence[PendingEvent]:
        """Load and show what dumps will read; return the events whose row is still there."""
        if not events:
            return events
        try:
            self.parents.expire_stale(events, self.stored)
            self.stored.set_aside_deleted(self.session, events, deleted_keys(changes))
            events = load_for_dumps(events)
            self.past.complete(events)
            self.stored.show_read(events)
        except DBAPIError:
            raise
        except Exception as error:  # a loader of the host's, or a class that its session has no database for
            # Where one event is to be recorded as broken, each dump says for itself what it cannot read.
            if all(on_error_of(self.registry.state, item.event) != "record" for item in events):
                fail_or_log(self.registry.state, events[0].event, events[0].obj, error)
        return events
