"""Leases of lanes: finding those with work, taking them, the fence before every write, giving them back.

Work is found by a loose scan of the index (subscription_id, due_at): one probe for each lane that has pending
deliveries, whatever the length of its backlog. MySQL and MariaDB do that by themselves, if they are asked for it; what
makes the others do it makes them read all that was ever delivered, for there the index holds that too.
"""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..health import Health
from ..models import DELIVERIES, LANES, SUBSCRIPTIONS
from ..sql import parameters
from ..sql.parameters import KeyedStatement
from .statements import Row, chunks, is_mysql

__all__ = [
    "Lease",
    "environment_values",
    "fence",
    "give_back",
    "health",
    "is_of_environments",
    "lanes_with_work",
    "lease",
    "lock",
    "next_due",
    "waiting",
]


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's hold on some lanes: who, under which fencing token, until when."""

    holder: str
    token: str
    until: datetime


def lanes_with_work(is_mysql: bool) -> sa.Select[t.Any]:
    """Each lane with pending deliveries, and since when the first is due."""
    if is_mysql:
        due = sa.select(
            DELIVERIES.c.subscription_id.label("key"), sa.func.min(DELIVERIES.c.due_at).label("due_at")
        )
        return due.where(DELIVERIES.c.due_at.is_not(None)).group_by(DELIVERIES.c.subscription_id)
    walk = _loose_scan()
    first = (
        sa.select(DELIVERIES.c.due_at)
        .where(DELIVERIES.c.subscription_id == walk.c.key, DELIVERIES.c.due_at.is_not(None))
        .order_by(DELIVERIES.c.due_at)
        .limit(1)
        .correlate(walk)
        .scalar_subquery()
    )
    return sa.select(walk.c.key, first.label("due_at")).where(walk.c.key.is_not(None))


def _loose_scan() -> sa.CTE:
    """A loose index scan: every subscription that has pending deliveries, found one after the other."""
    first = (
        sa.select(DELIVERIES.c.subscription_id)
        .where(DELIVERIES.c.due_at.is_not(None))
        .order_by(*_in_order)
        .limit(1)
    )
    walk = sa.select(first.scalar_subquery().label("key")).cte("walk", recursive=True)
    after = (
        sa.select(DELIVERIES.c.subscription_id)
        .where(DELIVERIES.c.due_at.is_not(None), DELIVERIES.c.subscription_id > walk.c.key)
        .order_by(*_in_order)
        .limit(1)
        .correlate(walk)
    )
    return walk.union_all(sa.select(after.scalar_subquery()).where(walk.c.key.is_not(None)))


_in_order = DELIVERIES.c.subscription_id, DELIVERIES.c.due_at, DELIVERIES.c.id
"""Of the one index that has only what is pending: without its other columns another index may look as good."""


def _far_from(length: timedelta) -> timedelta:
    return max(2 * length, FAR)


def _later(one: t.Any, other: t.Any) -> sa.Case[t.Any]:
    """The later of two moments; the first where there is no second."""
    return sa.case((other > one, other), else_=one)


_instant = LANES.c.leased_until.type
FAR = timedelta(minutes=15)
"""Ahead of now: further than any worker leases, also one that is just restarted with a longer timeout."""
_now, _far = sa.bindparam("now", type_=_instant), sa.bindparam("far", type_=_instant)
# A lease that ends later than any worker asks for was written by a clock that has been put back since. So was what a
# lane's row says of pause and rate if it was written that far in the future.
_was_put_back = LANES.c.served_at > _far
_taken = sa.and_(LANES.c.leased_until > _now, LANES.c.leased_until <= _far)
_is_free = sa.or_(LANES.c.leased_until.is_(None), ~_taken)


def _ready_at(due_at: t.Any) -> sa.Case[t.Any]:
    """When a lane may next send, by what stands in its row."""
    return sa.case(
        (_was_put_back, due_at), else_=_later(_later(due_at, LANES.c.paused_until), LANES.c.sendable_at)
    )


def is_of_environments(key: t.Any) -> sa.ColumnElement[bool]:
    """Whether a lane is of one of the `environments`: one probe of a primary key.

    A lane without a subscription belongs to every environment: any worker cancels what is left there.
    """
    environment = sa.select(SUBSCRIPTIONS.c.environment).where(SUBSCRIPTIONS.c.id == key).scalar_subquery()
    given = sa.bindparam("environments", type_=SUBSCRIPTIONS.c.environment.type, expanding=True)
    return sa.func.coalesce(environment, "").in_(given)


def environment_values(environments: t.Collection[str] | None) -> dict[str, t.Any]:
    """The parameter of `is_of_environments`; nothing where every lane belongs."""
    return {} if environments is None else {"environments": ["", *sorted(environments)]}


@functools.cache
def _free(is_mysql: bool, is_every: bool) -> sa.Select[t.Any]:
    """Lanes that have work due and no lease: one of each owner before a second, the longest unserved first."""
    work = lanes_with_work(is_mysql).subquery("work")
    ours = () if is_every else (is_of_environments(work.c.key),)
    served_at = sa.case((LANES.c.served_at <= _now, LANES.c.served_at))  # in the future: not by this clock
    owner = sa.select(SUBSCRIPTIONS.c.owner).where(SUBSCRIPTIONS.c.id == work.c.key).scalar_subquery()
    free = (
        sa.select(
            work.c.key,
            LANES.c.subscription_id,
            served_at.label("served_at"),
            work.c.due_at,
            owner.label("owner"),
        )
        .outerjoin(LANES, LANES.c.subscription_id == work.c.key)
        .where(_ready_at(work.c.due_at) <= _now, _is_free, *ours)
        .subquery("free")
    )
    order = free.c.served_at.is_not(None), free.c.served_at, free.c.due_at
    # By owner first: one with a thousand subscriptions must not keep one with a single one waiting.
    turn = sa.func.row_number().over(partition_by=free.c.owner, order_by=order)
    return (
        sa.select(free.c.key, free.c.subscription_id, free.c.owner)
        .order_by(turn, *order)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


@functools.cache
def _next(is_mysql: bool, is_every: bool) -> sa.Select[t.Any]:
    """When the first lane with work can be leased."""
    work = lanes_with_work(is_mysql).subquery("work")
    ready_at = _ready_at(work.c.due_at)
    free_at = sa.case(
        (sa.and_(_taken, LANES.c.leased_until > ready_at), LANES.c.leased_until), else_=ready_at
    )
    found = sa.select(sa.func.min(free_at)).select_from(
        work.outerjoin(LANES, LANES.c.subscription_id == work.c.key)
    )
    return found if is_every else found.where(is_of_environments(work.c.key))


def next_due(
    connection: sa.Connection,
    now: datetime,
    longest: timedelta,
    environments: t.Collection[str] | None = None,
) -> datetime | None:
    """When a lane can next be leased for work; None when all is done.

    Pauses, rates and the leases of other workers count.

    :param longest: that a lease can be.
    :param environments: of which subscriptions; None: all.
    """
    values = {"now": now, "far": now + _far_from(longest), **environment_values(environments)}
    found = _next(is_mysql(connection.dialect), environments is None)
    return t.cast("datetime | None", connection.scalar(found, values))


def waiting(
    connection: sa.Connection,
    now: datetime,
    longest: timedelta,
    most: int,
    environments: t.Collection[str] | None = None,
) -> int:
    """Count up to `most` lanes that have work due and no lease."""
    values = {"now": now, "far": now + _far_from(longest), "most": most, **environment_values(environments)}
    return len(connection.execute(_free(is_mysql(connection.dialect), environments is None), values).all())


def lease(
    connection: sa.Connection,
    lease: Lease,
    now: datetime,
    most: int,
    known: t.Container[str] = (),
    environments: t.Collection[str] | None = None,
    owners: t.Container[str] = (),
) -> list[sa.Row[t.Any]]:
    """Take up to `most` free lanes that have work due, the longest unserved first; return of their rows what is used.

    Commits on the way: SQLite cannot turn a transaction that has read into one that writes while others write.
    Lanes that another worker is just taking are skipped, not waited for.

    :param known: lanes not to take, though their lease may have run out: the worker still holds them in memory.
    :param environments: of which subscriptions; None: all.
    :param owners: of whom nothing is to be taken, which may leave fewer than there are.
    """
    times = {"now": now, "far": now + _far_from(lease.until - now)}
    values = {**times, "most": most, **environment_values(environments)}
    found = connection.execute(_free(is_mysql(connection.dialect), environments is None), values).all()
    connection.commit()  # ends the reading transaction: the next statement writes
    # Here and not in the statement, which would be another one for each number of them.
    keys = [row.key for row in found if row.key not in known and row.owner not in owners]
    if not keys:
        return []
    _open_lanes(connection, [row.key for row in found if row.subscription_id is None])
    values = {**times, "new_token": lease.token, "new_holder": lease.holder, "until": lease.until}
    if connection.dialect.name == "postgresql":
        return list(_TAKE_UNLOCKED.run(connection, keys, **values).all())
    if connection.dialect.name != "sqlite":  # MariaDB skips locked rows only in a SELECT
        keys = list(_LOCK.run(connection, keys, **times).scalars())
    if connection.dialect.update_returning:
        return list(_TAKE.run(connection, keys, **values).all())
    # MySQL's UPDATE returns nothing: the token marks those that are ours now.
    _TAKE_SILENTLY.run(connection, keys, **values)
    return list(_TAKEN.run(connection, keys, new_token=lease.token))


def _taking() -> t.Iterator[tuple[sa.Column[t.Any], t.Any]]:
    """What is set in a lane that is taken. MySQL sets one column after the other: `served_at` comes last."""
    yield LANES.c.token, _token
    yield LANES.c.holder, sa.bindparam("new_holder", type_=LANES.c.holder.type)
    yield LANES.c.leased_until, _until
    for each in (LANES.c.paused_until, LANES.c.sendable_at):
        yield each, sa.case((_was_put_back, sa.null()), else_=each)
    yield LANES.c.served_at, _now


def _locked(these: sa.ColumnElement[bool]) -> sa.Select[t.Any]:
    """Those of these lanes that are free, but for those that another worker is just taking."""
    return sa.select(LANES.c.subscription_id).where(these, _is_free).with_for_update(skip_locked=True)


_key = LANES.c.subscription_id
_health = tuple(LANES.c[name] for name in Health.__dataclass_fields__)
_row = _key, LANES.c.sendable_at, *_health
_token = sa.bindparam("new_token", type_=LANES.c.token.type)
_until = sa.bindparam("until", type_=_instant)
_LOCK = KeyedStatement(_key, _locked)
_TAKE_UNLOCKED = KeyedStatement(
    _key,
    lambda these: (
        sa.update(LANES).where(_key.in_(_locked(these))).ordered_values(*_taking()).returning(*_row)
    ),
)
_TAKE_SILENTLY = KeyedStatement(
    _key, lambda these: sa.update(LANES).where(these, _is_free).ordered_values(*_taking())
)
_TAKE = KeyedStatement(
    _key, lambda these: sa.update(LANES).where(these, _is_free).ordered_values(*_taking()).returning(*_row)
)
_TAKEN = KeyedStatement(_key, lambda these: sa.select(*_row).where(these, LANES.c.token == _token))
_NEW = {"failures": 0, "pauses": 0, "window_ok": 0, "window_failed": 0, "refusals": 0}


def _open_lanes(connection: sa.Connection, keys: t.Sequence[str]) -> None:
    """Make the lanes of subscriptions that were inserted without one; another worker may be doing the same."""
    if not keys:
        return
    if is_mysql(connection.dialect):
        statement: t.Any = LANES.insert().prefix_with("IGNORE")
    else:
        flavour = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = flavour.insert(LANES).on_conflict_do_nothing()
    # In order: two workers that insert the same lanes wait for each other, and do not deadlock.
    connection.execute(statement, [{"subscription_id": key, **_NEW} for key in sorted(keys)])
    connection.commit()


_news = LANES.c.failures, LANES.c.pauses, LANES.c.paused_until, LANES.c.window_failed
"""What another worker changes in a lane when it writes how a receiver is doing: the fence compares them."""
_RENEW = KeyedStatement(
    _key, lambda these: sa.update(LANES).where(these, LANES.c.token == _token).values(leased_until=_until)
)
# What is not locked MariaDB reads from a snapshot; SQLite, whose only lock is taken by writing, hears nothing of it.
_LOOK = KeyedStatement(
    _key,
    lambda these: (
        sa.select(_key, *_news).where(these, LANES.c.token == _token).order_by(_key).with_for_update()
    ),
)
_READ = KeyedStatement(_key, lambda these: sa.select(_key, *_health).where(these).with_for_update())


def fence(
    connection: sa.Connection, lease: Lease, known: t.Mapping[str, Health], *, renew: bool
) -> dict[str, Health]:
    """Lock these lanes and return those that are still ours, and how they do: the first statement of every write.

    With the rows locked no other worker can take a lane between this check and the commit.

    :param known: how they do, as far as is known: returned as it is where no other worker has written anything.
    :param renew: also write the lease's end. SQLite always does: its only lock is taken by writing.
    """
    ours: dict[str, Health] = {}
    news: list[str] = []
    for some in chunks(sorted(known)):
        if renew or connection.dialect.name == "sqlite":
            _RENEW.run(connection, some, new_token=lease.token, until=lease.until)
        for key, *seen in map(list, _LOOK.run(connection, some, new_token=lease.token).all()):
            ours[key] = health = known[key]
            # The rest of its health is read only where these differ, which they rarely do.
            if seen != [health.failures, health.pauses, health.paused_until, health.window_failed]:
                news.append(key)
    for some in chunks(news):
        ours.update((row[0], Health(*row[1:])) for row in _READ.run(connection, some).all())
    return ours


def lock(connection: sa.Connection, subscription_id: str) -> None:
    """Wait for the worker that is just writing this lane, and let the next one wait for us.

    To be called before statements that move deliveries of a whole subscription.
    """
    lane = LANES.c.subscription_id == subscription_id
    if connection.dialect.name == "sqlite":  # whose only lock is taken by writing
        connection.execute(sa.update(LANES).where(lane).values(token=LANES.c.token))
    else:
        connection.execute(sa.select(LANES.c.subscription_id).where(lane).with_for_update())


_FREED = {"token": None, "holder": None, "leased_until": None}
_GIVE_BACK = KeyedStatement(
    _key, lambda these: sa.update(LANES).where(these, LANES.c.token == _token).values(_FREED)
)


def give_back(
    connection: sa.Connection,
    lease: Lease,
    keys: t.Collection[str],
    *,
    but: bool = False,
) -> None:
    """End the lease of these lanes.

    :param but: of all lanes that carry the token but these: what a worker took without learning of it, because
        the connection broke. That looks at every lane.
    """
    if but:
        others = sa.update(LANES).where(
            LANES.c.token == lease.token, LANES.c.subscription_id.not_in(sorted(keys))
        )
        connection.execute(others.values(_FREED))
        return
    for some in chunks(sorted(keys)):
        _GIVE_BACK.run(connection, some, new_token=lease.token)


@functools.cache
def _write(names: tuple[str, ...]) -> tuple[sa.Update, sa.Update]:
    """The statements that write these columns of many lanes: packed for PostgreSQL, and one by one."""
    ours = sa.update(LANES).where(LANES.c.token == _token)
    given = parameters.unpacked("rows", LANES, ("lane", *names), _key.type)
    many = ours.where(_key == given.c.lane).values({name: given.c[name] for name in names})
    single = ours.where(_key == sa.bindparam("lane")).values({name: sa.bindparam(name) for name in names})
    return many, single


def health(connection: sa.Connection, lease: Lease, rows: t.Sequence[Row]) -> None:
    """Write how receivers are doing, where the lane is still ours: rows with `lane` and columns of `Lane`."""
    if not rows:
        return
    many, single = _write(tuple(name for name in rows[0] if name != "lane"))
    if connection.dialect.name == "postgresql":
        connection.execute(many, {"rows": parameters.rows(rows), "new_token": lease.token})
    else:
        connection.execute(single, [{**row, "new_token": lease.token} for row in rows])
