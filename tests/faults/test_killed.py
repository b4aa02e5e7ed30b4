"""Workers that are killed, stopped, stalled or doubled: no event is lost, and each duplicate has an explanation."""

from __future__ import annotations

import datetime
import random
import signal

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Lane
from flask_webhooks.queue import Bell
from flask_webhooks.state import AppState
from tests.faults.conftest import IN_DOUBT, IS_DEEP, Account
from tests.processes import Process, Processes
from tests.receivers import Receiver
from tests.stage import attempts, lane_of
from tests.worker.answers import Gate

pytestmark = pytest.mark.long

KILLS = 50 if IS_DEEP else 2
"""Every other one hits a worker of RQ, the others one that needs no Redis."""


def expire(state: AppState, worker: Process | None = None) -> None:
    """Let the leases of the dead run out, which would take 45 seconds."""
    now = datetime.datetime.now(datetime.UTC)
    theirs = Lane.token.is_not(None) if worker is None else Lane.holder.contains(f":{worker.pid}")
    with state.engine.begin() as connection:
        connection.execute(sa.update(Lane).where(theirs).values(leased_until=now))


def stop_between_writes(state: AppState, worker: Process) -> None:
    """Stop a worker while it holds no lock of the database: with one it would stop all others too."""
    is_sqlite = state.engine.dialect.name == "sqlite"
    patience = "PRAGMA busy_timeout = 500" if is_sqlite else "SET lock_timeout = 500"
    touch = sa.update(Lane).values(served_at=Lane.served_at)
    engine = sa.create_engine(state.engine.url, poolclass=sa.NullPool)
    for _ in range(40):
        worker.send(signal.SIGSTOP)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(patience)
                connection.execute(touch)
            return
        except sa.exc.OperationalError:
            worker.send(signal.SIGCONT)
            with engine.begin() as connection:  # waits for the end of what it was writing
                connection.execute(touch)
    pytest.fail("It writes all the time.")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_ended_at_random_in_the_middle_of_a_batch(
    state: AppState,
    account: Account,
    processes: Processes,
    bell: Bell,
    rng: random.Random,
    number: int,
) -> None:
    account.commit(300)
    for turn in range(KILLS):
        account.commit(300)
        bell.ring()
        words = ["worker"] if turn % 2 else ["deliver", "--watch"]
        worker = processes.start("flask", "webhooks", *words)
        until = len(account.receiver.requests) + rng.randrange(1, 250)
        worker.wait_until(lambda until=until: len(account.receiver.requests) >= until)
        code = worker.end(number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        if number == signal.SIGKILL:
            account.lost()
            expire(state)
    processes.start("flask", "webhooks", "deliver", "--watch")

    account.settle()
    account.balance()


def test_several_workers_at_once_and_one_of_them_dies(
    state: AppState, account: Account, processes: Processes
) -> None:
    account.commit(1_500)
    first = processes.worker()
    others = [processes.worker(ready=False) for _ in range(3 if IS_DEEP else 1)]
    first.wait_until(lambda: len(account.receiver.requests) >= 100)
    first.end(signal.SIGKILL)
    account.lost(first, others=others)
    account.commit(300)
    expire(state, first)

    account.settle()
    account.balance()
    assert [other.end() for other in others] == [0] * len(others)


def test_a_stalled_worker_wakes_to_find_its_lanes_taken(
    state: AppState, account: Account, processes: Processes
) -> None:
    account.commit(1_500 if IS_DEEP else 800)
    stalled = processes.worker()
    stalled.wait_until(lambda: len(account.receiver.requests) >= 100)
    stop_between_writes(state, stalled)
    account.lost(stalled)
    before = account.receiver.connections, len(account.receiver.requests)
    expire(state)
    other = processes.worker()
    other.wait_until(lambda: len(account.receiver.requests) >= 500)
    of_other = range(before[0] + 1, account.receiver.connections + 1)
    stalled.send(signal.SIGCONT)

    account.settle()
    # It wakes with a lease that was good for longer when it fell asleep: what it sends until it writes is dropped.
    received = account.received
    woken = [each for each in account.receiver.requests[before[1] :] if each.connection not in of_other]
    again = [each for each in woken if received[each.headers["webhook-id"]] > 1]
    assert len(again) <= IN_DOUBT
    account.balance(excuses=len(again))
    assert stalled.end() == 0
    assert other.end() == 0


@pytest.mark.deep
def test_a_dead_workers_deliveries_are_taken_over_within_a_minute(
    state: AppState, processes: Processes
) -> None:
    gate = Gate()
    with Receiver(gate) as receiver:
        account = Account(state, receiver)
        account.commit(200)
        victim = processes.worker()
        victim.wait_until(lambda: gate.held >= 16)
        other = processes.worker()
        died = datetime.datetime.now(datetime.UTC)
        victim.end(signal.SIGKILL)
        gate.opened.set()
        assert 16 <= account.lost(victim, others=[other]) <= 32

        account.settle()
        assert account.balance() >= 16
        last = max(row.started_at for row in attempts(state))
        assert last < died + datetime.timedelta(seconds=60)
        assert other.end() == 0
    assert all(lane_of(state, each).leased_until is None for each in account.subscriptions)
