"""An outage of the database, logged once by a process for all of its threads."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.worker import OutageBackoff

GONE = sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))


@pytest.fixture
def engine() -> sa.Engine:
    return sa.create_engine("sqlite://")


def backoff(engine: sa.Engine, worker: str = "host:1") -> OutageBackoff:
    return OutageBackoff(worker, ShutdownFlag(), engine)


def test_it_is_logged_once_and_its_end_when_the_last_thread_recovers(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    run, sweep = backoff(engine), backoff(engine)
    for _ in range(2):
        caplog.clear()
        run.wait(GONE)
        sweep.wait(GONE)
        run.wait(GONE)
        sweep.reset()
        assert run.is_outage
        assert not sweep.is_outage
        assert caplog.messages == ["database.trouble"]

        run.reset()
        run.reset()

        assert caplog.messages == ["database.trouble", "database.back"]


def test_a_run_that_ends_meanwhile_leaves_it_to_the_next_to_tell(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first = backoff(engine)
    first.wait(GONE)
    first.leave()
    second = backoff(engine)
    second.wait(GONE)
    second.leave()
    assert caplog.messages == ["database.trouble"]

    backoff(engine).reset()

    assert caplog.messages == ["database.trouble", "database.back"]


def test_another_database_is_another_outage(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    backoff(engine).wait(GONE)
    other = backoff(sa.create_engine("sqlite://"))
    other.reset()
    other.wait(GONE)

    assert caplog.messages == ["database.trouble"] * 2
