"""The database's clock between two queries: it follows a clock that jumps, and slow answers do not falsify it."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_webhooks.sql.clock import Clock, now
from flask_webhooks.state import AppState
from tests.conftest import on_servers
from tests.stage import clock_ahead

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Server:
    """A database server whose clock says noon at second 0, and which takes its time to answer."""

    dialect: t.ClassVar = type("Dialect", (), {"name": "postgresql"})

    def __init__(self) -> None:
        self.seconds, self.ahead, self.takes = 0.0, timedelta(0), (0.0, 0.0)
        self.asked = 0

    @property
    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds) + self.ahead

    def scalar(self, _: t.Any) -> datetime:
        self.asked += 1
        before, after = self.takes
        self.seconds += before
        answer = self.now
        self.seconds += after
        return answer


class TestClock:
    @pytest.fixture
    def server(self) -> Server:
        return Server()

    @pytest.fixture
    def clock(self, server: Server) -> Clock:
        made = Clock(local=lambda: NOON - timedelta(days=1), seconds=lambda: server.seconds)
        made.set(t.cast("t.Any", server))
        return made

    def test_it_says_what_the_server_says_and_counts_the_seconds_since(
        self, server: Server, clock: Clock
    ) -> None:
        assert clock() == NOON
        server.seconds = 7.5
        assert clock() == NOON + timedelta(seconds=7.5)

    def test_the_server_is_asked_only_now_and_then(self, server: Server, clock: Clock) -> None:
        for server.seconds in (1.0, 9.0, 10.5, 11.0):
            clock.set(t.cast("t.Any", server))
        assert server.asked == 2

    def test_it_follows_a_server_whose_clock_jumps(self, server: Server, clock: Clock) -> None:
        for hours in (1, -1):
            server.seconds += 10.5
            server.ahead = timedelta(hours=hours)
            clock.set(t.cast("t.Any", server))
            assert clock() == server.now

    @pytest.mark.parametrize("takes", [(30.0, 0.0), (0.0, 30.0), (0.004, 0.001)])
    def test_an_answer_that_takes_long_does_not_make_a_right_clock_wrong(
        self, server: Server, clock: Clock, takes: tuple[float, float]
    ) -> None:
        server.seconds, server.takes = 11.0, takes
        clock.set(t.cast("t.Any", server))
        assert clock() == server.now

    def test_a_first_answer_that_takes_long_is_off_by_half_of_that_at_most(self, server: Server) -> None:
        server.takes = (2.0, 0.0)
        clock = Clock(seconds=lambda: server.seconds)
        clock.set(t.cast("t.Any", server))
        assert abs(clock() - server.now) <= timedelta(seconds=1)

    @on_servers
    def test_a_real_server_returns_the_time_in_utc(self, state: AppState) -> None:
        clock = Clock(local=clock_ahead(days=1))
        with state.engine.connect() as connection:
            before = datetime.now(UTC)
            clock.set(connection)
            assert before - timedelta(seconds=1) < clock() < datetime.now(UTC) + timedelta(seconds=1)
            assert clock().utcoffset() == timedelta(0)
            assert clock().microsecond or now(connection).microsecond

    def test_sqlite_has_no_clock_but_this_machines(self) -> None:
        engine = sa.create_engine("sqlite://")
        clock = Clock(local=lambda: NOON)
        with engine.connect() as connection:
            clock.set(connection)
            assert clock() == now(connection, lambda: NOON) == NOON
