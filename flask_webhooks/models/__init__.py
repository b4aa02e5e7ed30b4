"""The tables: columns and indexes only, no workflow.

They belong to a `DeclarativeBase` of our own, so that importing a model needs no app; `attach` copies them into the
host's metadata, where `db.create_all()` and Alembic's autogenerate find them. They are read and written through
the host's own engine and session, in the host's own transactions.

Rows that come in large numbers (messages, deliveries, attempts) carry no foreign keys: they are written inside the
host's commit, where each check would cost a lock and a look-up, and they are purged in batches from the oldest on.

===============  =================================================================
`subscriptions`  subscriptions, listeners, secrets, lanes, owners
`log`            messages, deliveries, attempts, and their states; broken messages
`runtime`        workers, sums by hour, replays, limits, kept answers
`tables`         each table by its name, for statements
`types`          what columns are made of
`base`           the root of the tables; SQL as text that names them
`naming`         what an app calls them
===============  =================================================================
"""

from __future__ import annotations

import typing as t
import weakref

import sqlalchemy as sa

from ..errors import ConfigurationError
from .base import COLLATION, Base, text
from .log import Attempt, BrokenMessage, Delivery, Message, State, Trigger
from .naming import DEFAULT_PREFIX, LONGEST_PREFIX, Naming
from .runtime import HOUR_BUCKETS, Hour, IdempotentReply, Replay, Throttle, Worker
from .subscriptions import SEALED, Lane, Listener, Owner, Secret, Subscription
from .tables import (
    ATTEMPTS,
    BROKEN_MESSAGES,
    DELIVERIES,
    HOURS,
    IDEMPOTENT_REPLIES,
    LANES,
    LISTENERS,
    MESSAGES,
    OWNERS,
    REPLAYS,
    SECRETS,
    SUBSCRIPTIONS,
    THROTTLES,
    WORKERS,
)
from .types import PLAIN_INSTANT, Instant

__all__ = [
    "ATTEMPTS",
    "BROKEN_MESSAGES",
    "COLLATION",
    "DEFAULT_PREFIX",
    "DELIVERIES",
    "HOURS",
    "HOUR_BUCKETS",
    "IDEMPOTENT_REPLIES",
    "LANES",
    "LISTENERS",
    "LONGEST_PREFIX",
    "MESSAGES",
    "OWNERS",
    "REPLAYS",
    "SEALED",
    "SECRETS",
    "SUBSCRIPTIONS",
    "THROTTLES",
    "WORKERS",
    "Attempt",
    "Base",
    "BrokenMessage",
    "Delivery",
    "Hour",
    "IdempotentReply",
    "Instant",
    "Lane",
    "Listener",
    "Message",
    "Naming",
    "Owner",
    "Replay",
    "Secret",
    "State",
    "Subscription",
    "Throttle",
    "Trigger",
    "Worker",
    "attach",
    "text",
]


def attach(metadata: sa.MetaData, naming: Naming | None = None) -> None:
    """Copy the tables into the host's `metadata`; a second call with the same names changes nothing.

    The copies use SQLAlchemy's own column types, so that a generated migration does not import this package.

    :param naming: what they are called there; the declared names in the metadata's schema without it.
    :raises ConfigurationError: the host has a table that is called like one of ours.
    """
    naming = naming or Naming(metadata.schema)
    for table in Base.metadata.sorted_tables:
        there = metadata.tables.get(naming.key(table.name))
        if there is None:
            _copy(table, metadata, naming)
        elif there not in _copies:
            raise ConfigurationError(
                f"The app has a table {there.fullname} of its own. Set WEBHOOKS_TABLE_PREFIX, for instance to "
                '"hooks_", so that the tables of Flask-Webhooks are called otherwise.'
            )


_copies: weakref.WeakSet[sa.Table] = weakref.WeakSet()
"""Our tables in the hosts' metadata. (A mark in their `info` would appear in every migration.)"""


def _copy(table: sa.Table, metadata: sa.MetaData, naming: Naming) -> None:
    columns = [column._copy() for column in table.columns]
    for column in columns:
        if isinstance(column.type, Instant):
            column.type = PLAIN_INSTANT
    constraints = [made for each in table.constraints if (made := _constraint(each, naming)) is not None]
    options: dict[str, t.Any] = dict(table.kwargs)
    copy = sa.Table(
        naming.name(table.name),
        metadata,
        *columns,
        *constraints,
        schema=naming.schema,
        **options,
    )
    _copies.add(copy)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        names = [copy.c[column.name] for column in index.columns]
        sa.Index(naming.name(str(index.name)), *names, unique=index.unique, **index.kwargs)


def _constraint(constraint: sa.Constraint, naming: Naming) -> sa.Constraint | None:
    # `conv`: it was made by our convention already, and not by the host's.
    name = sa.schema.conv(naming.name(str(constraint.name)))
    names = [column.name for column in t.cast("sa.PrimaryKeyConstraint", constraint).columns]
    if isinstance(constraint, sa.PrimaryKeyConstraint):
        return sa.PrimaryKeyConstraint(*names, name=name)
    if isinstance(constraint, sa.UniqueConstraint):
        return sa.UniqueConstraint(*names, name=name)
    if isinstance(constraint, sa.ForeignKeyConstraint):
        theirs = [f"{naming.key(each.column.table.name)}.{each.column.name}" for each in constraint.elements]
        return sa.ForeignKeyConstraint(names, theirs, name=name, ondelete=constraint.ondelete)
    return None
