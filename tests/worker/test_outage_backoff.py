"""An outage of the database, told once by a process for all of its threads."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.worker import OutageBackoff

GONE = sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))


@pytest.fixture
def engine() -> sa.Engine:
    return sa.create_engine("sqlite://")


def patience(engine: sa.Engine, worker: str = "host:1") -> OutageBackoff:
    return OutageBackoff(worker, ShutdownFlag(), engine)


def test_it_is_told_once_and_back_when_the_last_has_it_again(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    run, sweep = patience(engine), patience(engine)
    for _ in range(2):
        caplog.clear()
        run.bear(GONE)
        sweep.bear(GONE)
        run.bear(GONE)
        sweep.relax()
        assert run.is_tried
        assert not sweep.is_tried
        assert caplog.messages == ["database.trouble"]

        run.relax()
        run.relax()

        assert caplog.messages == ["database.trouble", "database.back"]


def test_a_run_that_ends_meanwhile_leaves_it_to_the_next_to_tell(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first = patience(engine)
    first.bear(GONE)
    first.leave()
    second = patience(engine)
    second.bear(GONE)
    second.leave()
    assert caplog.messages == ["database.trouble"]

    patience(engine).relax()

    assert caplog.messages == ["database.trouble", "database.back"]


def test_another_database_is_another_outage(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    patience(engine).bear(GONE)
    other = patience(sa.create_engine("sqlite://"))
    other.relax()
    other.bear(GONE)

    assert caplog.messages == ["database.trouble"] * 2
