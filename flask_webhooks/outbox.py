"""Every statement that moves messages and deliveries. Each takes an open connection; none commits.

**Recording** happens on the host's own connection, in the host's own transaction: one look-up, one INSERT of
messages, one INSERT of deliveries, however many objects changed.

**Sending** goes by *lanes*. A lane is the sending side of one subscription; a worker leases lanes, not single
deliveries. While it holds a lane nobody else sends for that subscription, so the limit of requests in flight and the
rate limit hold over all workers without counting, and claiming costs one UPDATE for many lanes instead of one for
each delivery. The lease carries a fencing token: results are written only for lanes that still carry it.

Work is found by a loose scan of the index (subscription_id, due_at): one probe for each lane that has pending
deliveries, whatever the length of its backlog.
"""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from .models import Attempt, Delivery, Lane, Listener, Message, State, Subscription, Worker
from .prepared import Prepared

__all__ = [
    "Lease",
    "Wanted",
    "Window",
    "backlog",
    "beat",
    "bodies",
    "cancel_all",
    "discard_held",
    "give_back",
    "heads",
    "health",
    "held_by",
    "hold",
    "is_anybody_listening",
    "lease",
    "listening",
    "log",
    "messages",
    "next_due",
    "purge",
    "record",
    "reschedule",
    "send_held",
    "sign_off",
    "succeed",
    "workers",
]

A, D, L, M, S, N, W = (
    t.cast("sa.Table", model.__table__)
    for model in (Attempt, Delivery, Listener, Message, Subscription, Lane, Worker)
)

Row = dict[str, t.Any]
T = t.TypeVar("T")
CHUNK = 500  # values in one IN list: below every database's limit of parameters


# ---- recording -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription that wants an event, with the includes that its matching listeners ask for together."""

    subscription_id: str
    owner: str
    environment: str
    active: bool
    format: str | None
    includes: frozenset[str]

    def joined(self, other: Wanted) -> Wanted:
        """The same subscription with what two of its listeners ask for."""
        return replace(self, includes=self.includes | other.includes)


_WANTED = (L.c.owner, L.c.event, L.c.includes, S.c.id, S.c.environment, S.c.active, S.c.format)
_one = sa.select(sa.literal_column("1").label("one")).subquery("one")


@functools.lru_cache(maxsize=512)
def _listening(dialect: sa.Dialect, owners: int, patterns: int) -> Prepared:
    """The look-up for so many owners and patterns. PostgreSQL also says, in each row, how the transaction reads."""
    conditions = (
        L.c.owner.in_([sa.bindparam(f"owner{n}", type_=sa.String, required=True) for n in range(owners)]),
        L.c.event.in_([sa.bindparam(f"pattern{n}", type_=sa.String, required=True) for n in range(patterns)]),
        S.c.deleted_at.is_(None),
    )
    joined = S.c.id == L.c.subscription_id
    if dialect.name != "postgresql":
        return Prepared(sa.select(*_WANTED).where(joined, *conditions), dialect)
    how = sa.func.current_setting(sa.literal_column("'transaction_isolation'"), type_=sa.String)
    source = _one.outerjoin(sa.join(L, S, joined), sa.and_(*conditions))
    return Prepared(sa.select(*_WANTED, how).select_from(source), dialect)


def listening(
    connection: sa.Connection, owners: t.Collection[str], patterns: t.Collection[str]
) -> tuple[dict[tuple[str, str], list[Wanted]], bool]:
    """Return who listens: (owner, listener pattern) to the subscriptions, one statement per 500 owners.

    Subscriptions that are switched off are among them (their deliveries are held), removed ones are not.

    :return: with it whether the transaction reads from a snapshot, in which the newest may be missing.
    """
    found: dict[tuple[str, str], list[Wanted]] = {}
    asked = {f"pattern{n}": pattern for n, pattern in enumerate(sorted(patterns))}
    is_snapshot = connection.dialect.name in ("mysql", "mariadb")
    for some in _chunks(sorted(owners)):
        values = {**asked, **{f"owner{n}": owner for n, owner in enumerate(some)}}
        prepared = _listening(connection.dialect, len(some), len(asked))
        for owner, event, includes, key, environment, active, chosen, *how in prepared.rows(connection, values):
            if how and how[0] != "read committed":
                is_snapshot = True
            if key is not None:
                wanted = Wanted(key, owner, environment, active, chosen, frozenset(includes))
                found.setdefault((owner, event), []).append(wanted)
    return found, is_snapshot


_ANYBODY = sa.select(sa.literal(True)).where(
    sa.exists().where(L.c.event.in_(sa.bindparam("patterns", expanding=True)))
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
        sa.select((sa.func.max(M.c.sequence) + 1).label("n"))
        .where(M.c.channel == sa.bindparam("of_channel"), M.c.entity_id == sa.bindparam("of_entity"))
        .correlate(None)
    )
    clock = sa.select(sa.bindparam("clock", type_=sa.BigInteger).label("n"))
    either = sa.union_all(clock, last).subquery()
    return sa.select(sa.func.max(either.c.n) + sa.bindparam("nth", type_=sa.BigInteger)).scalar_subquery()


_RECORD = M.insert().values(sequence=_grown())
_MESSAGE = tuple(column.name for column in M.columns if column.name != "sequence")
_DELIVERY = ("id", "message_id", "subscription_id", "state", "due_at", "attempts", "trigger", "format", "includes", "reason")


@functools.lru_cache(maxsize=64)
def _recording(dialect: sa.Dialect, table: sa.Table) -> Prepared:
    return Prepared(_RECORD, dialect, _MESSAGE) if table is M else Prepared(D.insert(), dialect, _DELIVERY)


def record(connection: sa.Connection, messages: t.Sequence[Row], deliveries: t.Sequence[Row]) -> list[Row]:
    """Insert messages and their deliveries, one executemany each; return the messages that were new.

    A message whose `dedupe_key` its owner has used before for that event is dropped with its deliveries.
    A message comes without `sequence`, and with `clock` in microseconds instead; see `_grown`.
    """
    counts: dict[t.Any, int] = {}
    rows = []
    for row in messages:
        key = row["channel"], row["entity_id"]
        nth = counts[key] = counts.get(key, -1) + 1
        rows.append({**row, "of_channel": key[0], "of_entity": key[1], "nth": nth})
    kept = [row for row in rows if row["dedupe_key"] is None]
    once = [row for row in rows if row["dedupe_key"] is not None]
    if kept:
        _recording(connection.dialect, M).run(connection, kept)
    if once:
        kept += _record_once(connection, once)
        new = {row["id"] for row in kept}
        deliveries = [row for row in deliveries if row["message_id"] in new]
    if deliveries:
        _recording(connection.dialect, D).run(connection, deliveries)
    return kept


def _record_once(connection: sa.Connection, rows: t.Sequence[Row]) -> list[Row]:
    """Insert what is not there yet, also when another transaction is just inserting the same."""
    dialect = connection.dialect.name
    if dialect in ("mysql", "mariadb"):
        statement: t.Any = _RECORD.prefix_with("IGNORE")
    else:
        flavour = postgresql if dialect == "postgresql" else sqlite
        statement = flavour.insert(M).values(sequence=_grown()).on_conflict_do_nothing()
    connection.execute(statement, rows)
    ids = [row["id"] for row in rows]
    new = set(connection.scalars(sa.select(M.c.id).where(M.c.id.in_(ids))))
    return [row for row in rows if row["id"] in new]


# ---- sending ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's hold on some lanes: who, under which fencing token, until when."""

    holder: str
    token: str
    until: datetime


def _lanes_with_work() -> sa.CTE:
    """A loose index scan: every subscription that has pending deliveries, found one after the other."""
    first = (
        sa.select(D.c.subscription_id).where(D.c.due_at.is_not(None)).order_by(D.c.subscription_id).limit(1)
    )
    walk = sa.select(first.scalar_subquery().label("key")).cte("walk", recursive=True)
    after = (
        sa.select(D.c.subscription_id)
        .where(D.c.due_at.is_not(None), D.c.subscription_id > walk.c.key)
        .order_by(D.c.subscription_id)
        .limit(1)
        .correlate(walk)
    )
    return walk.union_all(sa.select(after.scalar_subquery()).where(walk.c.key.is_not(None)))


def _earliest() -> sa.Select[tuple[str, datetime]]:
    walk = _lanes_with_work()
    earliest = (
        sa.select(D.c.due_at)
        .where(D.c.subscription_id == walk.c.key, D.c.due_at.is_not(None))
        .order_by(D.c.due_at)
        .limit(1)
        .correlate(walk)
        .scalar_subquery()
    )
    return sa.select(walk.c.key, earliest.label("due_at")).where(walk.c.key.is_not(None))


_work = _earliest().subquery("work")
_ready_at = sa.case(
    (N.c.paused_until > _work.c.due_at, N.c.paused_until),
    else_=_work.c.due_at,
)
_free = sa.or_(
    N.c.leased_until.is_(None), N.c.leased_until <= sa.bindparam("now", type_=N.c.leased_until.type)
)
_FREE_LANES = (
    sa.select(_work.c.key)
    .outerjoin(N, N.c.subscription_id == _work.c.key)
    .where(_ready_at <= sa.bindparam("now", type_=N.c.leased_until.type), _free)
    .order_by(N.c.served_at.is_not(None), N.c.served_at, _work.c.due_at)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_NEXT_DUE = sa.select(
    sa.func.min(
        sa.case((N.c.leased_until > _ready_at, N.c.leased_until), else_=_ready_at),
    )
).select_from(_work.outerjoin(N, N.c.subscription_id == _work.c.key))


def next_due(connection: sa.Connection) -> datetime | None:
    """When a lane can next be leased for work: pauses and other workers' leases count; None when all is done."""
    return t.cast("datetime | None", connection.scalar(_NEXT_DUE))


def lease(connection: sa.Connection, lease: Lease, now: datetime, most: int) -> list[sa.Row[t.Any]]:
    """Take up to `most` free lanes that have work due, the longest unserved first; return their rows.

    Commits on the way: SQLite cannot turn a transaction that has read into one that writes while others write.
    Lanes that another worker is just taking are skipped, not waited for.
    """
    keys = list(connection.scalars(_FREE_LANES, {"now": now, "most": most}))
    connection.commit()
    if not keys:
        return []
    _open_lanes(connection, keys)
    free = sa.select(N.c.subscription_id).where(N.c.subscription_id.in_(keys), _free)
    taken = {"token": lease.token, "holder": lease.holder, "leased_until": lease.until, "served_at": now}
    if connection.dialect.name != "sqlite":
        keys = list(connection.scalars(free.with_for_update(skip_locked=True), {"now": now}))
    connection.execute(sa.update(N).where(N.c.subscription_id.in_(keys), _free).values(taken), {"now": now})
    mine = sa.select(N).where(N.c.subscription_id.in_(keys), N.c.token == lease.token)
    return list(connection.execute(mine))


def _open_lanes(connection: sa.Connection, keys: t.Sequence[str]) -> None:
    """Make the lanes of subscriptions that were inserted without one, by hand or by a fixture."""
    known = set(connection.scalars(sa.select(N.c.subscription_id).where(N.c.subscription_id.in_(keys))))
    connection.commit()
    for key in sorted(set(keys) - known):
        try:
            connection.execute(N.insert(), {"subscription_id": key})
            connection.commit()
        except sa.exc.IntegrityError:  # another worker was quicker
            connection.rollback()


def held_by(connection: sa.Connection, lease: Lease, keys: t.Collection[str]) -> set[str]:
    """Renew the lease of these lanes and return those that are still ours: the fence before every write.

    The UPDATE comes first on purpose: it takes the locks (on SQLite the only one there is), so that no other
    worker can take a lane between this check and the commit.
    """
    ours = (N.c.subscription_id.in_(sorted(keys)), N.c.token == lease.token)
    connection.execute(sa.update(N).where(*ours).values(leased_until=lease.until))
    return set(connection.scalars(sa.select(N.c.subscription_id).where(*ours)))


def give_back(connection: sa.Connection, lease: Lease, keys: t.Collection[str] | None = None) -> None:
    """End the lease of these lanes, or of all that carry the token."""
    ours = [N.c.token == lease.token]
    if keys is not None:
        ours.append(N.c.subscription_id.in_(sorted(keys)))
    connection.execute(sa.update(N).where(*ours).values(token=None, holder=None, leased_until=None))


_HEAD = (
    sa.select(
        D.c.id,
        D.c.message_id,
        D.c.subscription_id,
        D.c.due_at,
        D.c.attempts,
        D.c.trigger,
        D.c.format,
        D.c.includes,
        M.c.size,
    )
    .select_from(D.outerjoin(M, M.c.id == D.c.message_id))
    .order_by(D.c.due_at, D.c.id)
)


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a lane to read: behind a place, at most so many."""

    most: int
    behind: tuple[datetime, str] | None = None
    """`due_at` and id of the last delivery read; None: from the start."""


def heads(
    connection: sa.Connection, windows: t.Mapping[str, Window], now: datetime
) -> dict[str, list[sa.Row[t.Any]]]:
    """Return what is next in some lanes, in the order it fell due, with the size of its message."""
    parts = []
    for key, window in windows.items():
        part = _HEAD.where(D.c.subscription_id == key, D.c.due_at <= now)
        if window.behind is not None:
            place = sa.tuple_(
                *(
                    sa.literal(value, D.c[name].type)
                    for name, value in zip(("due_at", "id"), window.behind, strict=True)
                )
            )
            part = part.where(sa.tuple_(D.c.due_at, D.c.id) > place)
        parts.append(part.limit(window.most).subquery().select())
    found: dict[str, list[sa.Row[t.Any]]] = {key: [] for key in windows}
    for some in _chunks(parts, 50):
        for row in connection.execute(sa.union_all(*some) if len(some) > 1 else some[0]):
            found[row.subscription_id].append(row)
    return found


def bodies(connection: sa.Connection, ids: t.Sequence[str]) -> dict[str, bytes]:
    """Return the bytes that deliveries were first sent with, where they are kept."""
    found: dict[str, bytes] = {}
    for some in _chunks(ids):
        rows = connection.execute(sa.select(D.c.id, D.c.body).where(D.c.id.in_(some), D.c.body.is_not(None)))
        found.update((row.id, row.body) for row in rows)
    return found


def messages(connection: sa.Connection, ids: t.Collection[str]) -> dict[str, sa.Row[t.Any]]:
    """Return messages by id."""
    found: dict[str, sa.Row[t.Any]] = {}
    for some in _chunks(sorted(ids)):
        found.update((row.id, row) for row in connection.execute(sa.select(M).where(M.c.id.in_(some))))
    return found


_RETRY = (
    sa.update(D)
    .where(D.c.id == sa.bindparam("delivery"), D.c.due_at.is_not(None))
    .values(
        state=sa.bindparam("state"),
        due_at=sa.bindparam("due_at"),
        attempts=sa.bindparam("attempts"),
        trigger="automatic",
        reason=sa.bindparam("reason"),
        body=sa.func.coalesce(D.c.body, sa.bindparam("body", type_=D.c.body.type)),
        finished_at=sa.bindparam("finished_at"),
    )
)
_LOG = A.insert()
_HEALTH = sa.update(N).where(N.c.subscription_id == sa.bindparam("lane"))


def log(connection: sa.Connection, attempts: t.Sequence[Row]) -> None:
    """Write attempts."""
    if attempts:
        connection.execute(_LOG, attempts)


def succeed(connection: sa.Connection, ids: t.Sequence[str], now: datetime) -> None:
    """Mark deliveries delivered: one statement. One that was cancelled meanwhile stays cancelled."""
    done = {
        "state": State.DELIVERED.value,
        "due_at": None,
        "attempts": D.c.attempts + 1,
        "reason": None,
        "finished_at": now,
    }
    for some in _chunks(ids):
        connection.execute(sa.update(D).where(D.c.id.in_(some), D.c.due_at.is_not(None)).values(done))


def reschedule(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Write what becomes of deliveries that failed: when they are due again, or that they are not.

    A row has `delivery`, `state`, `due_at`, `attempts`, `reason`, `body`, `finished_at`. The body is kept once.
    """
    if rows:
        connection.execute(_RETRY, rows)


def health(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Write how receivers are doing: rows with `lane` and the columns of `Lane` that changed, all alike."""
    if rows:
        names = [name for name in rows[0] if name != "lane"]
        connection.execute(_HEALTH.values({name: sa.bindparam(name) for name in names}), rows)


# ---- switching off and on --------------------------------------------------------------------------------


def hold(connection: sa.Connection, subscription_id: str, reason: str) -> int:
    """Keep what is pending for a subscription that is off; return how many."""
    pending = sa.update(D).where(D.c.subscription_id == subscription_id, D.c.due_at.is_not(None))
    return connection.execute(pending.values(state=State.HELD.value, due_at=None, reason=reason)).rowcount


def send_held(connection: sa.Connection, subscription_id: str, now: datetime) -> int:
    """Make what was held due, oldest first; return how many."""
    released = _held(subscription_id).values(state=State.PENDING.value, due_at=now, reason=None)
    return connection.execute(released).rowcount


def discard_held(connection: sa.Connection, subscription_id: str, now: datetime) -> int:
    """Cancel what was held; return how many."""
    dropped = _held(subscription_id).values(
        state=State.CANCELLED.value, due_at=None, reason="discarded", finished_at=now
    )
    return connection.execute(dropped).rowcount


def _held(subscription_id: str) -> sa.Update:
    return sa.update(D).where(D.c.subscription_id == subscription_id, D.c.state == State.HELD.value)


def cancel_all(connection: sa.Connection, subscription_id: str, reason: str, now: datetime) -> int:
    """Cancel all that is pending or held for a subscription that is being removed; return how many."""
    unfinished = sa.update(D).where(
        D.c.subscription_id == subscription_id, D.c.state.in_([State.PENDING.value, State.HELD.value])
    )
    cancelled = unfinished.values(state=State.CANCELLED.value, due_at=None, reason=reason, finished_at=now)
    return connection.execute(cancelled).rowcount


# ---- housekeeping ----------------------------------------------------------------------------------------


def beat(connection: sa.Connection, worker: str, now: datetime) -> None:
    """Write that a worker lives, and forget those that have not been seen for a day."""
    seen = connection.execute(sa.update(W).where(W.c.name == worker).values(seen_at=now))
    if not seen.rowcount:
        row = {"name": worker, "started_at": now, "seen_at": now, "delivered": 0, "failed": 0}
        connection.execute(W.insert(), row)
    connection.execute(sa.delete(W).where(W.c.seen_at < now - timedelta(days=1)))


def sign_off(connection: sa.Connection, worker: str) -> None:
    """Forget a worker that ends in good order."""
    connection.execute(sa.delete(W).where(W.c.name == worker))


def workers(connection: sa.Connection) -> list[sa.Row[t.Any]]:
    """Return the workers that were seen lately, the newest heartbeat first."""
    return list(connection.execute(sa.select(W).order_by(W.c.seen_at.desc())))


def backlog(connection: sa.Connection, now: datetime) -> list[sa.Row[t.Any]]:
    """Return, for each lane with pending deliveries, its subscription and since when the first is due."""
    return list(connection.execute(_earliest()))


def purge(connection: sa.Connection, before: datetime, most: int = 1_000) -> int:
    """Delete up to `most` messages that occurred before a time, with their deliveries and attempts.

    Messages that still have a pending delivery stay; held ones do not (design: they age like finished ones).
    Return how many messages were deleted; 0 when there are no more.
    """
    pending = sa.exists().where(D.c.message_id == M.c.id, D.c.due_at.is_not(None))
    old = sa.select(M.c.id).where(M.c.id < first_id(before), ~pending).order_by(M.c.id).limit(most)
    ids = list(connection.scalars(old))
    for some in _chunks(ids):
        gone = list(connection.scalars(sa.select(D.c.id).where(D.c.message_id.in_(some))))
        for part in _chunks(gone):
            connection.execute(sa.delete(A).where(A.c.delivery_id.in_(part)))
        connection.execute(sa.delete(D).where(D.c.message_id.in_(some)))
        connection.execute(sa.delete(M).where(M.c.id.in_(some)))
    return len(ids)


def first_id(moment: datetime) -> str:
    """The smallest UUIDv7 of a moment: ids made before it are smaller."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def _chunks(items: t.Sequence[T], size: int = CHUNK) -> t.Iterator[t.Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
