"""What the stages of one commit share: where they read, and how they read what the host's objects do not have."""

from __future__ import annotations

import typing as t

from sqlalchemy.orm import Session

if t.TYPE_CHECKING:
    from .candidates import Candidates
    from .lookup import SubscriptionLookup
    from .registry import Registry
    from .reread import Rereading
    from .side_session import SideSession
    from .stored_values import StoredValues

__all__ = ["CommitContext"]


class CommitContext(t.NamedTuple):
    """Of one app and one session, for as long as the stages run."""

    registry: Registry
    session: Session
    """The host's."""
    side_session: SideSession
    """Our own sessions on the same connections: what they read never meets the host's objects."""
    lookup: SubscriptionLookup
    """Which subscriptions match: asked once."""
    candidates: Candidates
    """What is known of the changes from memory alone."""
    stored: StoredValues
    """Shows rows as the database has them, until the commit's events are made."""
    rereading: Rereading
    """Reads rows once more where code of the host's fails with what is in memory."""
