"""The last step before COMMIT: what happened in a transaction becomes rows of messages and deliveries.

    changes -> net changes -> resolved -> events -> matched -> loaded -> rows

Each stage takes a list and returns a new one; none alters what an earlier one has made, so that a commit that fails can
be tried again with the same changes. Most transactions concern owners without subscriptions: they end at the first
question, before any stage.

===============  ==========================================  ======================================================
changes          `Change`, one an object and flush           `history`, `bulk`
net changes      `list[Change]`, one an object               `change.net_changes`: pure
resolved         `list[Change]`, with objects and values     `resolution.resolve`
events           `list[PendingEvent]`, each with its owner   `detection.detect`
matched          `list[PendingEvent]`, with subscriptions    `matching.match`: one look-up for the commit
loaded           `list[PendingEvent]`, ready to be dumped    `dump_loading.load_for_dumps`
rows             `list[Recorded]`, the messages that are new `messages.write`
===============  ==========================================  ======================================================
"""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

from .candidates import Candidates
from .change import Change, net_changes
from .context import CommitContext
from .detection import detect
from .dump_loading import load_for_dumps
from .events import Emitted, Recorded
from .guard import guarding
from .lookup import SubscriptionLookup
from .matching import match
from .messages import write
from .owner_moves import RowsBefore
from .reread import Rereading
from .resolution import resolve
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
    # A stage that reads would flush what the host has left for later, in the middle of its commit.
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
            rereading = Rereading(session, side_session, stored)
            context = CommitContext(registry, session, side_session, lookup, candidates, stored, rereading)
            return _record(context, changes, emitted, uncaptured)
    finally:
        session.autoflush = is_autoflush
        if lookup.reason is not None:
            registry.state.unrecorded[lookup.reason] += 1


def _record(
    context: CommitContext,
    changes: t.Sequence[Change],
    emitted: t.Sequence[Emitted],
    uncaptured: t.Sequence[UncapturedChange],
) -> list[Recorded]:
    resolved, parents = resolve(context, net_changes(changes))
    past = RowsBefore(context, resolved, uncaptured)
    events = detect(context, past, resolved, emitted)
    matched = match(context, events, has_written=bool(resolved))
    loaded = load_for_dumps(context, parents, past, matched, changes)
    connection = context.lookup.connection  # found by the first question, or with the first event
    if not loaded or connection is None:
        return []
    return write(context.registry, connection, loaded, context.rereading)


def _scoped_session(registry: Registry, session: Session) -> t.Iterator[Session]:
    """The host's `db.session`, if it is another session: code of the host's knows that one by its name."""
    scoped = registry.state.app.extensions["sqlalchemy"].session
    try:
        current = scoped() if scoped.registry.has() else session
    except RuntimeError:  # outside of an app context there is none
        return
    if current is not session:
        yield current
