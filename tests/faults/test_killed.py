"""Workers that are killed, stopped, stalled and multiplied: nothing is missing, and each duplicate has its reason."""

from __future__ import annotations

import datetime
import random
import signal
import typing as t

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Lane
from flask_webhooks.state import AppState
from tests.delivering.answers import Gate
from tests.faults.conftest import IS_DEEP, Account, one_database
from tests.processes import Processes
from tests.receivers import Receiver
from tests.stage import attempts, lane_of, wait_until

KILLS = 50 if IS_DEEP else 1
IN_DOUBT = 400 + 32
"""Results that a killed worker had not written: so many may wait, or be just being written; and those in flight."""


def expire(state: AppState) -> None:
    """Let the leases of the dead run out, which would take 45 seconds."""
    now = datetime.datetime.now(datetime.UTC)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Lane).where(Lane.token.is_not(None)).values(leased_until=now))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_ended_at_random_in_the_middle_of_a_batch(
    state: AppState,
    account: Account,
    processes: Processes,
    rng: random.Random,
    number: int,
    record_property: t.Callable[[str, object], None],
) -> None:
    account.commit(300)
    for _ in range(KILLS):
        account.commit(300)
        worker = processes.start("flask", "webhooks", "deliver", "--watch")
        until = len(account.receiver.requests) + rng.randrange(1, 250)
        wait_until(lambda until=until: len(account.receiver.requests) >= until)
        code = worker.end(number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        if number == signal.SIGKILL:
            expire(state)
    processes.start("flask", "webhooks", "deliver", "--watch")

    account.settle()
    duplicates = account.balance(excuses=IN_DOUBT * KILLS if number == signal.SIGKILL else 0)
    record_property("duplicates", f"{duplicates} of {len(account.committed)} by {KILLS} times {number!r}")


@one_database
def test_several_workers_at_once_and_one_of_them_dies(
    state: AppState, account: Account, processes: Processes
) -> None:
    account.commit(1_500)
    first = processes.worker()
    for _ in range(3 if IS_DEEP else 1):
        processes.worker(ready=False)
    wait_until(lambda: len(account.receiver.requests) >= 100)
    first.end(signal.SIGKILL)
    account.commit(300)
    expire(state)

    account.settle()
    account.balance(excuses=IN_DOUBT)


def test_a_stalled_worker_wakes_to_find_its_lanes_taken(
    state: AppState, account: Account, processes: Processes
) -> None:
    account.commit(1_500)
    stalled = processes.worker()
    wait_until(lambda: len(account.receiver.requests) >= 50)
    stalled.send(signal.SIGSTOP)
    expire(state)
    other = processes.worker()
    wait_until(lambda: len(account.receiver.requests) >= 800)
    stalled.send(signal.SIGCONT)

    account.settle()
    account.balance(excuses=IN_DOUBT)
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
        wait_until(lambda: gate.held >= 16)
        other = processes.worker()
        died = datetime.datetime.now(datetime.UTC)
        victim.end(signal.SIGKILL)
        gate.opened.set()

        account.settle()
        assert 1 <= account.balance(excuses=32)
        last = max(row.started_at for row in attempts(state))
        assert last < died + datetime.timedelta(seconds=60)
        assert other.end() == 0
    assert all(lane_of(state, each).leased_until is None for each in account.subscriptions)
