"""The delivery thread of a worker: it delivers in parallel with RQ, whatever hangs, and ends cleanly."""

from __future__ import annotations

import dataclasses
import logging
import socket
import subprocess
import sys
import types
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from rq import Queue
from sqlalchemy.orm import Session

from flask_webhooks import jobs, replay
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Lane
from flask_webhooks.replay.filters import Filter
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState, state_of
from tests.processes import Processes
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, subscribe, wait_until
from tests.worker.answers import Gate

pytestmark = pytest.mark.long


@pytest.fixture
def patient(make_app: t.Callable[..., Flask]) -> AppState:
    return state_of(make_app(WEBHOOKS_TIMEOUT=(2, 100)))


def test_a_stock_worker_on_a_database_without_tables_says_one_sentence_at_once(
    state, inbox, caplog, monkeypatch
):
    """SQLite says of a missing table what it says of trouble that passes: it would be waited for."""
    module = types.ModuleType(name := f"stock_{uuid7().replace('-', '')}")
    vars(module)["app"] = state.app
    monkeypatch.setitem(sys.modules, name, module)
    lanes = Lane.__tablename__
    rename(state, lanes, "elsewhere")

    assert jobs.deliver(name) == {}
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.message, record.exc_info) == ("worker.not_ready", None)
    assert "flask db upgrade" in vars(record)["reason"]

    rename(state, "elsewhere", lanes)
    fill(state, [subscribe(state, inbox.url())], 1)
    assert jobs.deliver(name) == {"delivered": 1, "failed": 0}


def rename(state: AppState, table: str, to: str) -> None:
    with state.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO {to}"))


def test_it_delivers_when_it_is_woken_and_leaving_waits_until_nothing_is_due(state, inbox):
    subscription = subscribe(state, inbox.url())
    with jobs.DeliveryThread(state, ShutdownFlag()) as engine:
        fill(state, [subscription], 1)
        engine.wake()
        inbox.wait_for(1)
        fill(state, [subscription], 200)

    assert {row.state for row in deliveries(state)} == {"delivered"}


def test_the_job_wakes_it_and_does_not_wait_for_what_hangs(patient):
    gate = Gate()
    with Receiver(gate) as dead, Receiver(ok()) as alive:
        fill(patient, [subscribe(patient, dead.url())], 1)
        with jobs.DeliveryThread(patient, ShutdownFlag()):
            assert jobs.deliver("nowhere") == {}
            wait_until(lambda: gate.held)
            fill(patient, [subscribe(patient, alive.url())], 20)
            jobs.deliver("nowhere")
            alive.wait_for(20)
            assert gate.held
            gate.opened.set()


def test_it_goes_on_with_replays_by_itself(state, inbox):
    subscription = subscribe(state, inbox.url(), "reports.ready")
    fill(state, [subscription], 3)
    with jobs.DeliveryThread(state, ShutdownFlag()) as engine:
        engine.wake()
        inbox.wait_for(3)
    now = datetime.now(UTC)
    wanted = Filter(("delivered",), (), now - timedelta(hours=1), now + timedelta(hours=1))
    with Session(state.engine) as session:
        replay.start(state, session, session.merge(subscription, load=False), wanted)
        session.commit()
    with jobs.DeliveryThread(state, ShutdownFlag()) as engine:
        engine.wake()
        inbox.wait_for(6)

    assert {(row.state, row.trigger) for row in deliveries(state)} == {("delivered", "replay")}


def test_a_stop_gives_back_what_was_not_begun(patient):
    gate, stop = Gate(), ShutdownFlag()
    with Receiver(gate) as dead:
        fill(patient, [subscribe(patient, dead.url())], 10)
        with jobs.DeliveryThread(patient, stop) as engine:
            engine.wake()
            wait_until(lambda: gate.held == 2)
            stop.set()
            gate.opened.set()

    assert [row.state for row in deliveries(patient)].count("pending") == 8


def test_a_mistake_of_ours_does_not_end_it(state, inbox, caplog):
    class Broken:
        """A bell that fails as none should, once."""

        def __init__(self) -> None:
            self.tries = 0

        def __getattr__(self, name: str) -> t.Any:
            return getattr(state.bell, name)

        def clear(self) -> None:
            self.tries += 1
            if self.tries == 1:
                raise ZeroDivisionError

    fill(state, [subscribe(state, inbox.url())], 1)
    with (
        caplog.at_level(logging.ERROR),
        jobs.DeliveryThread(
            dataclasses.replace(state, bell=t.cast("t.Any", Broken())), ShutdownFlag()
        ) as engine,
    ):
        engine.wake()
        wait_until(lambda: "run.failed" in caplog.text)
        engine.wake()
        inbox.wait_for(1)


def test_other_jobs_of_the_queue_have_their_turn_while_a_receiver_hangs(state, tmp_path: Path, valkey: str):
    gate = Gate()
    with (
        Receiver(gate) as dead,
        Receiver(ok()) as alive,
        Processes(state, tmp_path, valkey, WEBHOOKS_TIMEOUT=[50, 100]) as processes,
    ):
        fill(state, [subscribe(state, dead.url())], 1)
        processes.worker()
        wait_until(lambda: gate.held)
        job = Queue("webhooks", connection=redis.Redis.from_url(valkey)).enqueue("time.time")
        wait_until(lambda: job.get_status() == "finished", 20)
        fill(state, [subscribe(state, alive.url())], 1)
        alive.wait_for(1, 20)
        assert gate.held
        gate.opened.set()


def test_the_name_of_a_worker_is_its_own_among_those_of_one_host_and_number() -> None:
    """In containers all are process 1, and hosts may have one name."""
    code = "import os; os.getpid = lambda: 1; from flask_webhooks.jobs import worker_name as n; print(n()); print(n())"
    said = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    [(first, again), (second, _)] = [each.split() for each in said]

    assert first == again
    assert first != second
    assert {(each.split(":")[0], each.split(":")[2]) for each in (first, second)} == {
        (socket.gethostname(), "1")
    }


def test_a_forked_child_is_another_worker() -> None:
    code = (
        "import os; from flask_webhooks.jobs import worker_name as n; print(n(), flush=True)\n"
        "if os.fork() == 0: print(n())\n"
        "else: os.wait()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert len(set(done.stdout.split())) == 2
