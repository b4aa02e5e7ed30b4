"""Putting messages into the outbox: on the host's own connection, in the host's own transaction. Nothing here commits.

One look-up, one INSERT of messages and one of deliveries, however many objects changed; on PostgreSQL both INSERTs are
one statement. Taking them out again is the rest of this room.
"""

from __future__ import annotations

import contextlib
import functools
import typing as t
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ..models import BROKEN_MESSAGES, DELIVERIES, LISTENERS, MESSAGES, SUBSCRIPTIONS
from ..sql import parameters
from ..sql.compiled import CompiledStatement
from .statements import CHUNK, Row, chunks, is_mysql

__all__ = [
    "CHUNK",
    "MatchedSubscription",
    "Row",
    "find_matches",
    "is_anybody_listening",
    "is_text",
    "record",
    "record_broken",
    "unrecord",
]


class MatchedSubscription(t.NamedTuple):
    """A subscription that wants an event, with the includes that its matching listeners ask for together.

    A named tuple and no frozen dataclass, which takes three times as long to make: one event may match thousands.
    """

    subscription_id: str
    owner: str
    environment: str
    active: bool
    format: str | None
    includes: frozenset[str]

    def joined(self, other: MatchedSubscription) -> MatchedSubscription:
        """The same subscription with what two of its listeners ask for."""
        return self._replace(includes=self.includes | other.includes)


_WANTED = (
    LISTENERS.c.owner,
    LISTENERS.c.event,
    LISTENERS.c.includes,
    SUBSCRIPTIONS.c.id,
    SUBSCRIPTIONS.c.environment,
    SUBSCRIPTIONS.c.active,
    SUBSCRIPTIONS.c.format,
)
_one = sa.select(sa.literal_column("1").label("one")).subquery("one")


@functools.lru_cache(maxsize=512)
def _listening(dialect: sa.Dialect, owners: int, patterns: tuple[str, ...]) -> CompiledStatement:
    """The look-up for so many owners and these patterns. PostgreSQL also says, in each row, how the transaction reads.

    There is no condition on subscriptions: a removed one has no listeners. PostgreSQL would take one for a condition
    that hardly any fulfils, as long as it has not counted them, and read them all again for each listener. Patterns
    are the catalogue's, few and always the same, so they stand in the text: each parameter costs a commit some µs.
    """
    quoted = t.cast("t.Callable[[str], str]", sa.String().dialect_impl(dialect).literal_processor(dialect))
    conditions = (
        LISTENERS.c.owner.in_(
            [sa.bindparam(f"owner{n}", type_=sa.String, required=True) for n in range(owners)]
        ),
        LISTENERS.c.event.in_([sa.literal_column(quoted(pattern), sa.String) for pattern in patterns]),
    )
    joined = SUBSCRIPTIONS.c.id == LISTENERS.c.subscription_id
    if dialect.name != "postgresql":
        return CompiledStatement(sa.select(*_WANTED).where(joined, *conditions), dialect)
    how = sa.func.current_setting(sa.literal_column("'transaction_isolation'"), type_=sa.String)
    source = _one.outerjoin(sa.join(LISTENERS, SUBSCRIPTIONS, joined), sa.and_(*conditions))
    return CompiledStatement(sa.select(*_WANTED, how).select_from(source), dialect)


def find_matches(
    connection: sa.Connection, owners: t.Collection[str], patterns: tuple[str, ...]
) -> tuple[dict[tuple[str, str], list[MatchedSubscription]], bool]:
    """Return who listens: (owner, listener pattern) to the subscriptions, one statement per 500 owners.

    An owner whose key no database can hold has no subscriptions.
    Subscriptions that are switched off are among them (their deliveries are held), removed ones are not.

    :return: with it whether the transaction reads from a snapshot, in which the newest may be missing.
    """
    found: dict[tuple[str, str], list[MatchedSubscription]] = {}
    dialect = connection.dialect
    is_snapshot = is_mysql(dialect)
    for some in chunks(sorted(filter(is_text, owners))):
        prepared = _listening(dialect, len(some), patterns)
        values = {f"owner{n}": owner for n, owner in enumerate(some)}
        for owner, event, includes, key, environment, active, chosen, *how in prepared.rows(
            connection, values
        ):
            # Above READ COMMITTED the transaction does not see a subscription that was committed since it began.
            if how and how[0] != "read committed":
                is_snapshot = True
            if key is not None:
                wanted = MatchedSubscription(key, owner, environment, active, chosen, frozenset(includes))
                found.setdefault((owner, event), []).append(wanted)
    return found, is_snapshot


def is_text(value: str) -> bool:
    """Say whether every database can hold a text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


_ANYBODY = sa.select(sa.literal(True)).where(
    sa.exists().where(LISTENERS.c.event.in_(sa.bindparam("patterns", expanding=True)))
)


def is_anybody_listening(connection: sa.Connection, patterns: t.Collection[str]) -> bool:
    """Say whether there may be a listener to one of these patterns, of whatever owner."""
    return connection.scalar(_ANYBODY, {"patterns": sorted(patterns)}) is not None


def _grown() -> sa.ColumnElement[int]:
    """The next sequence of an object: the clock in microseconds, or one more than its last if that is later.

    So it grows when two machines' clocks differ, and does not start again when old messages are purged. The inner
    query stands in a derived table because MySQL refuses to read the table that a statement inserts into. `nth`
    counts the messages about one object within the statement, which does not see its own rows.
    """
    last = (
        sa.select((sa.func.max(MESSAGES.c.sequence) + sa.literal_column("1")).label("n"))
        .where(
            MESSAGES.c.channel == sa.bindparam("of_channel"),
            MESSAGES.c.entity_id == sa.bindparam("of_entity"),
        )
        .correlate(None)
    )
    clock = sa.select(sa.bindparam("clock", type_=sa.BigInteger).label("n"))
    either = sa.union_all(clock, last).subquery()
    return sa.select(sa.func.max(either.c.n) + sa.bindparam("nth", type_=sa.BigInteger)).scalar_subquery()


_MESSAGE = tuple(column.name for column in MESSAGES.columns if column.name != "sequence")
_DELIVERY = tuple(
    "id message_id subscription_id state due_at attempts trigger format includes reason".split()
)


@functools.lru_cache(maxsize=64)
def _recording(dialect: sa.Dialect, table: sa.Table) -> CompiledStatement:
    if table is DELIVERIES:
        return CompiledStatement(DELIVERIES.insert(), dialect, _DELIVERY)
    if is_mysql(dialect):
        return CompiledStatement(MESSAGES.insert(), dialect, (*_MESSAGE, "sequence"))
    return CompiledStatement(MESSAGES.insert().values(sequence=_grown()), dialect, _MESSAGE)


def record(
    connection: sa.Connection,
    messages: t.Sequence[Row],
    deliveries: t.Sequence[Row],
    fresh: t.Callable[[], sa.Engine] | None = None,
) -> list[Row]:
    """Insert messages and their deliveries, each in one go; return the messages that were new.

    A message whose `dedupe_key` its owner has used before for that event is dropped with its deliveries.
    A message comes without `sequence`, and with `clock` in microseconds instead; see `_grown`.

    :param fresh: for MariaDB, whose transactions read from a snapshot: connections that see what is newest.
    """
    counts: dict[t.Any, int] = {}
    for row in messages:
        key = row["channel"], row["entity_id"]
        row["nth"] = counts[key] = counts.get(key, -1) + 1
    if connection.dialect.name == "postgresql":  # both INSERTs are one statement there
        return _record_together(connection, messages, deliveries)
    for row in messages:
        row["of_channel"], row["of_entity"] = row["channel"], row["entity_id"]
    # MariaDB: an INSERT that reads its own table locks gaps, and a transaction's snapshot may miss the last sequence.
    if is_mysql(connection.dialect):
        with fresh().connect() if fresh is not None else contextlib.nullcontext(connection) as reader:
            _count_on(reader, messages)
    kept = [row for row in messages if row["dedupe_key"] is None]
    once = [row for row in messages if row["dedupe_key"] is not None]
    if kept:
        _recording(connection.dialect, MESSAGES).run(connection, kept)
    if once:  # only these may be there already, and only their deliveries have to be looked through
        kept += _record_once(connection, once)
        new = {row["id"] for row in kept}
        deliveries = [row for row in deliveries if row["message_id"] in new]
    if deliveries:
        _recording(connection.dialect, DELIVERIES).run(connection, deliveries)
    return kept


def record_broken(connection: sa.Connection, errors: t.Mapping[str, str], now: datetime) -> None:
    """Note why the data of some messages could not be made.

    :param errors: by message.
    """
    rows = [
        {"message_id": key, "error": error, "broken_at": now, "given_up": None}
        for key, error in errors.items()
    ]
    connection.execute(BROKEN_MESSAGES.insert(), rows)


def unrecord(connection: sa.Connection, ids: t.Sequence[str], broken: t.Sequence[str] = ()) -> None:
    """Take messages back that this transaction has written, with their deliveries.

    :param broken: those among them whose data could not be made.
    """
    # Children first, as `retention` deletes them: there is no foreign key that would find an orphan.
    for some in chunks(broken):
        connection.execute(sa.delete(BROKEN_MESSAGES).where(BROKEN_MESSAGES.c.message_id.in_(some)))
    for some in chunks(ids):
        _UNRECORD_DELIVERIES.run(connection, some)
        _UNRECORD_MESSAGES.run(connection, some)


_UNRECORD_DELIVERIES = parameters.KeyedStatement(
    DELIVERIES.c.message_id, lambda these: sa.delete(DELIVERIES).where(these)
)
_UNRECORD_MESSAGES = parameters.KeyedStatement(MESSAGES.c.id, lambda these: sa.delete(MESSAGES).where(these))


# ---- PostgreSQL: both tables in one statement ------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _together(dialect: sa.Dialect) -> CompiledStatement:
    """The statement for any number of rows: they come as two parameters, JSON, which PostgreSQL takes apart.

    One wait for the server instead of two, and no time for each value of each row here: half of what an executemany
    takes.
    """
    message = parameters.unpacked("messages", MESSAGES, (*_MESSAGE, "clock", "nth"), sa.BigInteger())
    last = sa.select(sa.func.max(MESSAGES.c.sequence) + sa.literal_column("1")).where(
        MESSAGES.c.channel == message.c.channel, MESSAGES.c.entity_id == message.c.entity_id
    )
    sequence = sa.func.greatest(message.c.clock, last.scalar_subquery()) + message.c.nth
    new = (
        postgresql.insert(MESSAGES)
        .from_select(
            (*_MESSAGE, "sequence"), sa.select(*(message.c[name] for name in _MESSAGE), sequence), False
        )
        .on_conflict_do_nothing(index_elements=("owner", "environment", "event", "dedupe_key"))
        .returning(MESSAGES.c.id)
        .cte("new")
    )
    delivery = parameters.unpacked("deliveries", DELIVERIES, _DELIVERY)
    theirs = sa.select(*(delivery.c[name] for name in _DELIVERY)).where(
        delivery.c.message_id.in_(sa.select(new.c.id))
    )
    written = DELIVERIES.insert().from_select(_DELIVERY, theirs, False).cte("written")
    return CompiledStatement(sa.select(new.c.id).add_cte(written), dialect)


def _record_together(
    connection: sa.Connection, messages: t.Sequence[Row], deliveries: t.Sequence[Row]
) -> list[Row]:
    if not messages:
        return []
    values = {"messages": parameters.rows(messages), "deliveries": parameters.rows(deliveries)}
    new = {key for (key,) in _together(connection.dialect).rows(connection, values)}
    return [row for row in messages if row["id"] in new]


# ---- the others ------------------------------------------------------------------------------------------


def _count_on(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Set the sequences of messages before they are inserted, as `_grown` would while they are.

    For MariaDB: an INSERT that reads locks the gaps around what it reads, and two new objects would deadlock.
    """
    by_channel: dict[str, set[str]] = {}
    for row in rows:
        if row["entity_id"] is not None:
            by_channel.setdefault(row["channel"], set()).add(row["entity_id"])
    last: dict[tuple[str, str], int] = {}
    for channel, keys in by_channel.items():
        for some in chunks(sorted(keys)):
            query = sa.select(MESSAGES.c.entity_id, sa.func.max(MESSAGES.c.sequence)).group_by(
                MESSAGES.c.entity_id
            )
            found = connection.execute(
                query.where(MESSAGES.c.channel == channel, MESSAGES.c.entity_id.in_(some))
            )
            last.update({(channel, key): sequence for key, sequence in found})
    for row in rows:
        before = last.get((row["channel"], row["entity_id"]), 0)
        row["sequence"] = max(row["clock"], before + 1) + row["nth"]


def _record_once(connection: sa.Connection, rows: t.Sequence[Row]) -> list[Row]:
    """Insert what is not there yet, also when another transaction is just inserting the same."""
    if is_mysql(connection.dialect):
        columns = (*_MESSAGE, "sequence")
        # It changes nothing. INSERT IGNORE would also pass over errors such as a value that is too long.
        statement: t.Any = mysql.insert(MESSAGES).on_duplicate_key_update(id=MESSAGES.c.id)
        connection.execute(statement, [{column: row[column] for column in columns} for row in rows])
    else:
        statement = sqlite.insert(MESSAGES).values(sequence=_grown()).on_conflict_do_nothing()
        connection.execute(statement, rows)
    ids = [row["id"] for row in rows]
    new = set(connection.scalars(sa.select(MESSAGES.c.id).where(MESSAGES.c.id.in_(ids))))
    return [row for row in rows if row["id"] in new]
