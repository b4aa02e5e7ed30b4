"""Which deliveries of a backfill are out of date: something newer about the same object goes to the same receiver."""

from __future__ import annotations

import typing as t
from dataclasses import astuple, dataclass

import sqlalchemy as sa

from ..models import DELIVERIES, MESSAGES, State
from ..sql import parameters
from .statements import chunks

__all__ = ["ObjectVersion", "find_outdated"]


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """A delivery, and what its message says: this object, as of this sequence."""

    delivery_id: str
    channel: str
    entity_id: str
    sequence: int


_GIVEN = ("id", "channel", "entity_id", "sequence")
"""The fields of `ObjectVersion`, by the columns of messages whose types they have."""
_lane = sa.bindparam("lane", type_=DELIVERIES.c.subscription_id.type)
# What was cancelled was never sent: it makes nothing outdated.
_is_sent = sa.and_(DELIVERIES.c.subscription_id == _lane, DELIVERIES.c.state != State.CANCELLED.value)
_NEWER = (
    sa.select(MESSAGES.c.id)
    .where(
        MESSAGES.c.channel == sa.bindparam("channel", type_=MESSAGES.c.channel.type),
        MESSAGES.c.entity_id == sa.bindparam("entity_id", type_=MESSAGES.c.entity_id.type),
        MESSAGES.c.sequence > sa.bindparam("sequence", type_=MESSAGES.c.sequence.type),
        sa.exists().where(DELIVERIES.c.message_id == MESSAGES.c.id, _is_sent),
    )
    .limit(1)
)


def _packed() -> sa.Select[t.Any]:
    """All in one round trip. OFFSET 0 and LIMIT keep PostgreSQL from joining the tables in another order."""
    given = parameters.unpacked("rows", MESSAGES, _GIVEN)
    newer = (
        sa.select(MESSAGES.c.id)
        .where(
            MESSAGES.c.channel == given.c.channel,
            MESSAGES.c.entity_id == given.c.entity_id,
            MESSAGES.c.sequence > given.c.sequence,
        )
        .offset(sa.literal_column("0"))
        .correlate(given)
        .lateral("newer")
    )
    theirs = (
        sa.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.message_id == newer.c.id, _is_sent)
        .offset(sa.literal_column("0"))
        .correlate(newer)
        .lateral("theirs")
    )
    found = (
        sa.select(theirs.c.id)
        .select_from(newer.join(theirs, sa.true()))
        .limit(sa.literal_column("1"))
        .correlate(given)
        .lateral("found")
    )
    return sa.select(sa.cast(given.c.id, sa.Text)).select_from(given.join(found, sa.true()))


_PACKED = _packed()


def find_outdated(
    connection: sa.Connection, subscription_id: str, versions: t.Sequence[ObjectVersion]
) -> set[str]:
    """Return the deliveries whose object has a newer message that the subscription gets or has got.

    Also one that failed for good: the receiver may have taken it and answered too late. One that was cancelled was
    never sent, or is called off.
    """
    found: set[str] = set()
    given = [dict(zip(_GIVEN, astuple(each), strict=True)) for each in versions]
    if connection.dialect.name == "postgresql":
        for some in chunks(given):
            values = {"rows": parameters.rows(some), "lane": subscription_id}
            found.update(connection.execute(_PACKED, values).scalars())
        return found
    # One by one: SQLite has no network to wait for, and MariaDB no LATERAL.
    for row in given:
        identifier = row.pop("id")
        if connection.scalar(_NEWER, {**row, "lane": subscription_id}) is not None:
            found.add(identifier)
    return found
