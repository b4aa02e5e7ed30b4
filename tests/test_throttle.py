"""Limits of one owner, at once and per period, on each database."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import outbox, replay, throttle
from flask_webhooks.errors import ThrottledError
from flask_webhooks.models import Delivery, Throttle
from flask_webhooks.outbox import retention
from flask_webhooks.sql.transactions import repeated
from flask_webhooks.state import AppState, state_of
from tests.stage import fill, subscribe, wait_until

T = t.cast("sa.Table", Throttle.__table__)


@pytest.fixture
def session(state: AppState) -> t.Iterator[Session]:
    with Session(state.engine, info={"webhooks": False}) as session:
        yield session


def ask(state: AppState, session: Session, owner: str = "1") -> float:
    """Take a turn; return the seconds to wait, 0 if it was let through."""
    try:
        with throttle.turn(state, session, owner):
            pass
    except ThrottledError as error:
        return error.wait
    session.commit()
    return 0.0


def shift(state: AppState, owner: str, seconds: float) -> None:
    """Let time pass for an owner."""
    with state.engine.begin() as connection:
        gone = {"free_at": T.c.free_at - round(seconds * 1_000_000)}
        connection.execute(sa.update(T).where(T.c.owner == owner, T.c.free_at > 0).values(gone))


def test_a_minute_has_so_many_turns_and_each_comes_back_by_itself(state: AppState, session: Session) -> None:
    assert [ask(state, session) for _ in range(20)] == [0.0] * 20

    assert 0 < ask(state, session) <= 3
    assert ask(state, session, "2") == 0
    shift(state, "1", 6.5)
    assert [ask(state, session) for _ in range(2)] == [0.0] * 2
    assert ask(state, session) > 0
    shift(state, "1", 3600)
    assert [ask(state, session) for _ in range(20)] == [0.0] * 20
    assert ask(state, session) > 0


def test_many_processes_together_have_no_more_turns_than_one(state: AppState) -> None:
    """Each thread has a connection of its own, as a web process has; the first row is made by all of them at once."""
    start = threading.Barrier(8)

    def work(_: int) -> int:
        done = 0
        start.wait(20)
        with Session(state.engine, info={"webhooks": False}) as session:
            for _ in range(12):
                with session.begin():
                    done += not throttle._take(session, "1", "requests", 20, 3600.0)
        return done

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 20


def test_one_at_once_and_a_place_is_free_again_when_its_process_has_died(
    state: AppState, session: Session
) -> None:
    with throttle.turn(state, session, "1"), Session(state.engine) as another:
        assert 0 < ask(state, another) <= 4.5
        assert ask(state, another, "2") == 0
    session.rollback()  # so that the place is not given back
    assert ask(state, session) > 0

    shift(state, "1", 21)

    assert ask(state, session) == 0


def test_a_place_is_free_again_whatever_the_block_raises(state: AppState, session: Session) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), throttle.turn(state, session, "1"):
            raise error

    assert ask(state, session) == 0


def test_there_are_as_many_places_as_are_configured(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_MANUAL_CONCURRENCY=3)
    state, gone, entered = state_of(app), threading.Event(), []

    def work(_: int) -> bool:
        with Session(state.engine, info={"webhooks": False}) as session:
            try:
                with throttle.turn(state, session, "1"):
                    entered.append(1)
                    gone.wait(20)
                session.commit()
            except ThrottledError:
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        results = [pool.submit(work, number) for number in range(6)]
        wait_until(lambda: len(entered) + sum(each.done() for each in results) == 6)
        gone.set()
        assert sorted(each.result() for each in results) == [False] * 3 + [True] * 3


def test_owners_that_have_all_their_turns_again_are_forgotten(state: AppState, session: Session) -> None:
    ask(state, session, "1")
    ask(state, session, "2")
    shift(state, "1", 3600)

    with state.engine.begin() as connection:
        retention.purge_rates(connection, outbox.now(connection))
        assert set(connection.scalars(sa.select(T.c.owner))) == {"2"}


def begun(state: AppState, delivery_id: str) -> bool:
    """Retry a delivery by hand; return whether its owner had a place for it."""

    def work(session: Session) -> bool:
        try:
            throttle.begin_retry(state, session, "1", delivery_id)
        except ThrottledError:
            return False
        assert replay.retry(session.connection(), delivery_id, datetime.now(UTC))
        session.commit()
        return True

    return repeated(state.own_engine, work)


def test_as_many_retries_begin_at_once_as_there_are_places(state: AppState) -> None:
    object.__setattr__(state.settings, "manual_unfinished", 4)
    fill(state, [subscribe(state, "http://127.0.0.1:9/")], 12)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="failed", due_at=None))
        ids = list(connection.scalars(sa.select(Delivery.id)))
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda key: begun(state, key), ids))

    assert found.count(True) == 4
    assert not any(begun(state, key) for key, had in zip(ids, found, strict=True) if not had)
    shift(state, "1", 3601)  # their receiver was paused for so long
    assert begun(state, next(key for key, had in zip(ids, found, strict=True) if not had))
