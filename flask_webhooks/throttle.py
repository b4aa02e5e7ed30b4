"""What one owner may ask for at once and in a time: counted in the database, so for all web processes together.

Tests, URL checks, retries by hand and replays are asked for by a click, so a script can ask for them too. They share
one pace. The first two hold a thread of the web server, so an owner has few places for them. Each is leased: if its
process dies, it is free after `LEASE`.

The law of this room: each decision is one UPDATE that takes what is free or changes nothing; nothing is read first and
written afterwards, unless behind a `lock`.

Pace by the generic cell rate algorithm: of each owner and name one instant is kept, at which all its turns are free
again. A turn moves it one interval on, and is refused if that would be more than all turns ahead.
"""

from __future__ import annotations

import contextlib
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from . import dispatch
from .errors import ThrottledError
from .models import Throttle
from .transactions import may_be_repeated

if t.TYPE_CHECKING:
    from .state import AppState

__all__ = ["LEASE", "count", "count_creation", "lock", "place", "purge", "turn"]

T = t.cast("sa.Table", Throttle.__table__)
LEASE = timedelta(seconds=20)
"""How long a place is taken at most: four times what a request in it may last."""
DAY = 86_400.0
"""Seconds."""
MICROSECONDS = 1_000_000
_NEVER = 2**62


def count(state: AppState, session: Session, owner: str) -> None:
    """Count a request of an owner that makes us send something. Ends the session's transaction.

    :raises ThrottledError: there were many; it says when to ask again.
    """
    _count(state, session, owner)
    may_be_repeated(session)


def _count(state: AppState, session: Session, owner: str) -> None:
    session.rollback()
    wait = _take(session, owner, "requests", state.settings.manual_rate, 60.0)
    session.commit()
    if wait:
        raise ThrottledError("Too many tests, URL checks, retries and replays in a short time.", wait)


@contextlib.contextmanager
def turn(state: AppState, session: Session, owner: str) -> t.Iterator[None]:
    """Count a request that is made in this thread, and let it have one of its owner's places meanwhile.

    Ends the session's transaction first. The place is given back in the transaction that the block has begun.

    :raises ThrottledError: there were many, or others are under way.
    """
    with place(state, session, owner) as wait:
        if wait:
            raise ThrottledError("Another test or URL check is still under way.", wait)
        _count(state, session, owner)
        yield


@contextlib.contextmanager
def place(state: AppState, session: Session, owner: str) -> t.Iterator[float]:
    """Take one of an owner's places while the block lasts; yields 0, or the seconds after which to ask again."""
    session.rollback()
    name, until, wait = _enter(session, owner, state.settings.manual_concurrency)
    session.commit()
    if not name:
        yield min(wait, state.settings.manual_timeout)
        return
    leave = sa.update(T).where(T.c.owner == owner, T.c.name == name, T.c.free_at == until).values(free_at=0)
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

    :raises ThrottledError: there were as many as a day may have.
    """
    most = state.settings.creation_limit
    wait = _take(session, owner, "creations", most, DAY)
    if wait:
        raise ThrottledError(f"{most} subscriptions were made within a day, which is the limit.", wait)


def lock(session: Session, owner: str, name: str) -> None:
    """Let whoever else locks the same wait until this transaction ends: what is counted from here on is true."""
    now = _micros(dispatch.now(session.connection()))
    _set_free_at(session, owner, name, now, _NEVER, first=now)


def purge(connection: sa.Connection) -> None:
    """Forget owners that have all their turns again."""
    connection.execute(sa.delete(T).where(T.c.free_at < _micros(dispatch.now(connection) - LEASE)))


def _take(session: Session, owner: str, name: str, most: int, seconds: float) -> float:
    """Take one of `most` turns in so many seconds; return 0, or the seconds until there is one."""
    interval = round(seconds * MICROSECONDS / most)
    now = _micros(dispatch.now(session.connection()))
    start = sa.case((T.c.free_at < now, now), else_=T.c.free_at)
    latest = now + interval * (most - 1)
    found = _set_free_at(session, owner, name, start + interval, latest, first=now + interval)
    return 0.0 if found is None else (found - latest) / MICROSECONDS


def _enter(session: Session, owner: str, places: int) -> tuple[str, int, float]:
    """Take the first place that is free; return its name and lease, or an empty name and the seconds to wait."""
    now = _micros(dispatch.now(session.connection()))
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
    """Change the instant if it is not later than `latest`; return None, or the instant that is.

    :param first: what stands there if nothing did.
    """
    mine = T.c.owner == owner, T.c.name == name
    change = sa.update(T).where(*mine, T.c.free_at <= latest).values(free_at=value)
    new = _insert(session.get_bind().dialect.name).values(owner=owner, name=name, free_at=first)
    while True:
        if _changed(session, change):
            return None
        # Locked, so as to see what was committed last, also in a transaction that MariaDB began before.
        found = session.scalar(sa.select(T.c.free_at).where(*mine).with_for_update())
        if found is not None and found > latest:
            return int(found)
        if found is None and _changed(session, new):
            return None  # else somebody was faster: look again


def _changed(session: Session, statement: sa.Executable) -> int:
    result = session.execute(statement, execution_options={"preserve_rowcount": True})
    return int(t.cast("t.Any", result).rowcount)


def _insert(dialect: str) -> t.Any:
    """An INSERT that does nothing where the row is there already."""
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(T).prefix_with("IGNORE")
    flavour = postgresql if dialect == "postgresql" else sqlite
    return flavour.insert(T).on_conflict_do_nothing()


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
