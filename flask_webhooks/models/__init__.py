"""The tables: columns and indexes only, no workflow.

They belong to a `DeclarativeBase` of our own, so that importing a model needs no app; `attach` copies them into the
host's metadata, where `db.create_all()` and Alembic's autogenerate find them. They are read and written through
the host's own engine and session, in the host's own transactions.

Rows that come in large numbers (messages, deliveries, attempts) carry no foreign keys: they are written inside the
host's commit, where each check would cost a lock and a look-up, and they are purged in batches from the oldest on.

================  ==================================================
`subscriptions`   subscriptions, listeners, secrets, lanes, owners
`log`             messages, deliveries, attempts, and their states; broken messages
`keeping`         workers, sums by hour, replays, limits, kept answers
`columns`         what columns are made of
================  ==================================================
"""

from __future__ import annotations

import sqlalchemy as sa

from .columns import PLAIN_INSTANT, Base, Instant
from .keeping import HOUR_BUCKETS, Hour, IdempotentReply, Replay, Throttle, Worker
from .log import Attempt, BrokenMessage, Delivery, Message, State, Trigger
from .subscriptions import Lane, Listener, Owner, Secret, Subscription

__all__ = [
    "HOUR_BUCKETS",
    "Attempt",
    "Base",
    "BrokenMessage",
    "Delivery",
    "Hour",
    "IdempotentReply",
    "Lane",
    "Listener",
    "Message",
    "Owner",
    "Replay",
    "Secret",
    "State",
    "Subscription",
    "Throttle",
    "Trigger",
    "Worker",
    "attach",
]


def attach(metadata: sa.MetaData) -> None:
    """Copy the tables into the host's `metadata`; a second call changes nothing.

    The copies use SQLAlchemy's own column types, so that a generated migration needs no import of ours.
    """
    for table in Base.metadata.sorted_tables:
        if table.name in metadata.tables:
            continue
        copy = table.to_metadata(metadata)
        for column in copy.columns:
            if isinstance(column.type, Instant):
                column.type = PLAIN_INSTANT
