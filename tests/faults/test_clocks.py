"""Machines whose clocks differ or jump: deliveries and their number do not depend on the clocks."""

from __future__ import annotations

import signal
import threading
import time
import typing as t
from collections import Counter
from pathlib import Path

import pytest

from flask_webhooks.state import AppState
from tests.conftest import on_servers
from tests.faults.conftest import IS_DEEP, Account
from tests.processes import Process, Processes
from tests.receivers import Receiver, Talk, response
from tests.stage import attempts

pytestmark = pytest.mark.long

LIMIT = 4
"""`WEBHOOKS_SUBSCRIPTION_CONCURRENCY`, by default."""


class Counting:
    """A behaviour that takes its time, and counts the requests under way at once to one path."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._now: Counter[str] = Counter()
        self.most = 0

    def __call__(self, talk: Talk) -> None:
        while True:
            path = talk.read_request().target
            with self._lock:
                self._now[path] += 1
                self.most = max(self.most, self._now[path])
            talk.pause(self._seconds)
            with self._lock:
                self._now[path] -= 1
            talk.send(response(200, {}, b""))


class Machine:
    """A worker on a machine whose clock is so many seconds ahead."""

    def __init__(self, processes: Processes, folder: Path, name: str, ahead: float) -> None:
        self._file = folder / f"ahead-of-{name}"
        self.set(ahead)
        words = ("tests.shifted_clock", str(self._file), "flask", "webhooks", "deliver", "--watch")
        self.process: Process = processes.start(*words, is_cold=True)

    def set(self, ahead: float) -> None:
        """Set its clock."""
        self._file.write_text(str(ahead))


@pytest.fixture
def counting() -> Counting:
    return Counting(0.02)


@pytest.fixture
def account(state: AppState, counting: Counting) -> t.Iterator[Account]:
    with Receiver(counting) as receiver:
        yield Account(state, receiver, count=6)


def workers_of(state: AppState) -> Counter[str]:
    return Counter(row.worker for row in attempts(state))


@on_servers
def test_two_machines_six_minutes_apart_share_the_work(
    state: AppState, account: Account, processes: Processes, counting: Counting, tmp_path: Path
) -> None:
    machines = [
        Machine(processes, tmp_path, name, ahead) for name, ahead in (("fast", 180.0), ("slow", -180.0))
    ]
    until = time.monotonic() + 60
    while len(workers_of(state)) < 2 or len(account.committed) < (3_000 if IS_DEEP else 300):
        assert time.monotonic() < until, workers_of(state)
        account.commit(60)
        account.settle()

    account.balance(excuses=0)
    assert counting.most <= LIMIT
    assert [each.process.end() for each in machines] == [0, 0]


@on_servers
def test_clocks_that_jump_in_the_middle(
    state: AppState, account: Account, processes: Processes, counting: Counting, tmp_path: Path
) -> None:
    machines = [Machine(processes, tmp_path, name, 0.0) for name in ("one", "two")]
    for number, ahead in enumerate((3600.0, -3600.0, 0.0, 86_400.0, -86_400.0) * (4 if IS_DEEP else 1)):
        account.commit(500 if IS_DEEP else 200)
        before = len(account.received)
        account.receiver.wait_for(before + 60)
        machines[number % 2].set(ahead)  # while its leases run, and requests are under way
        account.settle()

    account.balance(excuses=0)
    assert counting.most <= LIMIT
    assert [each.process.end() for each in machines] == [0, 0]


@on_servers
def test_a_machine_that_is_ahead_dies_and_one_that_is_behind_goes_on(
    state: AppState, account: Account, processes: Processes, counting: Counting, tmp_path: Path
) -> None:
    from tests.faults.test_killed import expire

    account.commit(300)
    fast = Machine(processes, tmp_path, "fast", 180.0)
    account.receiver.wait_for(60)
    fast.process.end(signal.SIGKILL)
    expire(state)
    Machine(processes, tmp_path, "slow", -180.0)

    account.settle()
    # What was under way or not yet written when it was killed: at most so many lanes times their limit, and a batch.
    account.balance(excuses=400 + 6 * LIMIT)
