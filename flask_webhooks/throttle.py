"""Limits what one owner can ask for at once and in a period. The database counts, so the limits hold over all web
processes together.

Tests, URL checks, retries by hand and replays are started by a click, so a script can start them too. They share one
rate. Tests and URL checks also occupy a thread of the web server, so an owner has few places for them. Each place is
leased: if its process dies, the place is free after `LEASE`. Retries and replays occupy a worker until they are done,
and an owner has a limited number of places for them too. A retry keeps its place, which is named after the delivery,
until the delivery has been attempted, or for `WAITS`; a replay has one while it runs. Counting what a replay would send
scans the log, so counts have a rate of their own.

The law of this room: each decision is one UPDATE that takes what is free or changes nothing. Nothing is read first and
written afterwards, except behind a `lock`.

Rates follow the generic cell rate algorithm: one instant is stored for each owner and name, at which all its turns are
free again. A turn moves the instant on by one interval, and is refused if the instant would then be more than all turns
ahead.
"""

from __future__ import annotations

import contextlib
import typing as t
import uuid
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from . import outbox
from .errors import ErrorText, ThrottledError
from .models import (
    DELIVERIES,
    REPLAYS,
    SUBSCRIPTIONS,
    THROTTLES,
    State,
    Trigger,
)
from .sql.clock import microseconds
from .sql.transactions import may_be_repeated

if t.TYPE_CHECKING:
    from .state import AppState

__all__ = [
    "LEASE",
    "begin_replay",
    "begin_retry",
    "count",
    "count_creation",
    "count_scan",
    "lock",
    "place",
    "turn",
]

LEASE = timedelta(seconds=20)
"""The longest time that a place can be taken: four times what a request in it may last."""
WAITS = timedelta(hours=1)
"""How long a retry that cannot be attempted keeps its place; its receiver may be paused."""
AGAIN = 5.0
"""Seconds after which a caller should ask again when all places are taken by work of a worker."""
DAY = 86_400.0
"""Seconds."""
MICROSECONDS = 1_000_000
_NEVER = 2**62


def count(state: AppState, session: Session, owner: str) -> None:
    """Count a request of an owner that makes us send something. Ends the session's transaction.

    :raises ThrottledError: the owner has used up the rate; the error says when to ask again.
    """
    _count(state, session, owner)
    may_be_repeated(session)


def count_scan(state: AppState, session: Session, owner: str) -> None:
    """Count a request for how much a replay would send. Ends the session's transaction.

    :raises ThrottledError: the owner has used up the rate; the error says when to ask again.
    """
    session.rollback()
    wait = _take(session, owner, "counts", state.settings.manual_rate, 60.0)
    session.commit()
    may_be_repeated(session)
    if wait:
        raise ThrottledError(ErrorText("counts_too_often"), wait)


def begin_retry(state: AppState, session: Session, owner: str, delivery_id: str) -> None:
    """Take one of the owner's places for a retry by hand, as the first statement of the transaction that begins it.

    :param owner: the owner of the delivery, also if an operator asks for the retry.
    :raises ThrottledError: all places are taken by retries and replays that are not done.
    """
    lock(session, owner, "unfinished")
    now = microseconds(outbox.now(session.connection()))
    unsent = _unsent(session, owner, now)
    _check_places(state, session, owner, len(unsent - {delivery_id}), None)
    if delivery_id not in unsent:
        until = now + WAITS // timedelta(microseconds=1)
        _set_free_at(session, owner, _name(delivery_id), until, until, first=until)


def begin_replay(state: AppState, session: Session, owner: str, subscription_id: str) -> None:
    """Check that the owner has a place for a replay, in the transaction that begins it.

    :raises ThrottledError: all places are taken by retries and replays that are not done.
    """
    lock(session, owner, "unfinished")
    now = microseconds(outbox.now(session.connection()))
    _check_places(state, session, owner, len(_unsent(session, owner, now)), subscription_id)


def _check_places(state: AppState, session: Session, owner: str, retries: int, but: str | None) -> None:
    running = (
        sa.select(sa.func.count())
        .select_from(REPLAYS.join(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == REPLAYS.c.subscription_id))
        .where(REPLAYS.c.state == "running", SUBSCRIPTIONS.c.owner == owner)
    )
    if but is not None:
        running = running.where(REPLAYS.c.subscription_id != but)
    if retries + (session.scalar(running) or 0) >= state.settings.manual_unfinished:
        raise ThrottledError(ErrorText("still_resending"), AGAIN)


def _unsent(session: Session, owner: str, now: int) -> set[str]:
    """Return the deliveries that were retried by hand and not attempted since, and free the places of the others."""
    places = sa.select(THROTTLES.c.name, THROTTLES.c.free_at).where(
        THROTTLES.c.owner == owner, sa.func.length(THROTTLES.c.name) == 32
    )
    kept = {row.name: row.free_at for row in session.execute(places)}
    keys = {str(uuid.UUID(name)): name for name, until in kept.items() if until > now}
    # The condition has keys alone: with a state in it, the statistics would choose the plan.
    found = sa.select(DELIVERIES.c.id, DELIVERIES.c.state, DELIVERIES.c.trigger, DELIVERIES.c.attempts).where(
        DELIVERIES.c.id.in_(keys)
    )
    manual = State.PENDING.value, Trigger.MANUAL.value, 0
    unsent = {row[0] for row in session.execute(found) if tuple(row[1:]) == manual} if keys else set()
    done = kept.keys() - {keys[key] for key in unsent}
    if done:
        session.execute(sa.delete(THROTTLES).where(THROTTLES.c.owner == owner, THROTTLES.c.name.in_(done)))
    return unsent


def _name(delivery_id: str) -> str:
    """Return the name of a retry's place; the column holds at most 32 characters."""
    return delivery_id.replace("-", "")


def _count(state: AppState, session: Session, owner: str) -> None:
    session.rollback()
    wait = _take(session, owner, "requests", state.settings.manual_rate, 60.0)
    session.commit()
    if wait:
        raise ThrottledError(ErrorText("requests_too_often"), wait)


@contextlib.contextmanager
def turn(state: AppState, session: Session, owner: str) -> t.Iterator[None]:
    """Count a request that is made in this thread, and take one of the owner's places while the block runs.

    Ends the session's transaction first. The place is given back in the transaction that the block has begun.

    :raises ThrottledError: the owner has used up the rate, or all places are taken.
    """
    with place(state, session, owner) as wait:
        if wait:
            raise ThrottledError(ErrorText("still_testing"), wait)
        _count(state, session, owner)
        yield


@contextlib.contextmanager
def place(state: AppState, session: Session, owner: str) -> t.Iterator[float]:
    """Take one of the owner's places while the block runs; yield 0, or the seconds after which to ask again."""
    session.rollback()
    name, until, wait = _enter(session, owner, state.settings.manual_concurrency)
    session.commit()
    if not name:
        yield min(wait, state.settings.manual_timeout)
        return
    leave = (
        sa.update(THROTTLES)
        .where(THROTTLES.c.owner == owner, THROTTLES.c.name == name, THROTTLES.c.free_at == until)
        .values(free_at=0)
    )
    try:
        yield 0.0
    except BaseException:
        session.rollback()
        session.execute(leave)
        session.commit()
        raise
    session.execute(leave)


def count_creation(state: AppState, session: Session, owner: str) -> None:
    """Count a new subscription of an owner, in the transaction that makes it.

    :raises ThrottledError: the owner has made as many as are allowed in a day.
    """
    most = state.settings.creation_limit
    wait = _take(session, owner, "creations", most, DAY)
    if wait:
        raise ThrottledError(ErrorText("created_too_many", most=most), wait)


def lock(session: Session, owner: str, name: str) -> None:
    """Make other transactions that lock the same name wait until this one ends, so that what it counts stays true."""
    now = microseconds(outbox.now(session.connection()))
    _set_free_at(session, owner, name, now, _NEVER, first=now)


def _take(session: Session, owner: str, name: str, most: int, seconds: float) -> float:
    """Take one of `most` turns in a period of so many seconds; return 0, or the seconds until a turn is free."""
    interval = round(seconds * MICROSECONDS / most)
    now = microseconds(outbox.now(session.connection()))
    start = sa.case((THROTTLES.c.free_at < now, now), else_=THROTTLES.c.free_at)
    latest = now + interval * (most - 1)
    found = _set_free_at(session, owner, name, start + interval, latest, first=now + interval)
    return 0.0 if found is None else (found - latest) / MICROSECONDS


def _enter(session: Session, owner: str, places: int) -> tuple[str, int, float]:
    """Take the first free place; return its name and the end of its lease, or an empty name and the seconds to wait."""
    now = microseconds(outbox.now(session.connection()))
    until = now + LEASE // timedelta(microseconds=1)
    waits: list[float] = []
    for number in range(places):
        name = f"place {number}"
        found = _set_free_at(session, owner, name, until, now, first=until)
        if found is None:
            return name, until, 0.0
        waits.append((found - now) / MICROSECONDS)
    return "", 0, min(waits)


def _set_free_at(
    session: Session, owner: str, name: str, value: t.Any, latest: int, *, first: int
) -> int | None:
    """Change the stored instant if it is not later than `latest`; return None, or the later instant.

    :param first: what to store where there is no row yet.
    """
    mine = THROTTLES.c.owner == owner, THROTTLES.c.name == name
    change = sa.update(THROTTLES).where(*mine, THROTTLES.c.free_at <= latest).values(free_at=value)
    new = _insert(session.get_bind().dialect.name).values(owner=owner, name=name, free_at=first)
    while True:
        if _changed(session, change):
            return None
        # The lock makes MariaDB read the last committed row, also in a transaction whose snapshot is older.
        found = session.scalar(sa.select(THROTTLES.c.free_at).where(*mine).with_for_update())
        if found is not None and found > latest:
            return int(found)
        if found is None and _changed(session, new):
            return None  # else another transaction has inserted the row first: read it


def _changed(session: Session, statement: sa.Executable) -> int:
    result = session.execute(statement, execution_options={"preserve_rowcount": True})
    return int(t.cast("t.Any", result).rowcount)


def _insert(dialect: str) -> t.Any:
    """Return an INSERT that does nothing where the row exists already."""
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(THROTTLES).prefix_with("IGNORE")
    flavour = postgresql if dialect == "postgresql" else sqlite
    return flavour.insert(THROTTLES).on_conflict_do_nothing()
