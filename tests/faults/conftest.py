"""The stage for faults: committed events on one side, a receiver on the other, and what happens in between."""

from __future__ import annotations

import os
import random
import typing as t
from collections import Counter
from pathlib import Path

import pytest

from flask_webhooks.queue import Bell, Embedded
from flask_webhooks.state import AppState
from tests.processes import Processes
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, subscribe, wait_until

IS_DEEP = bool(os.environ.get("WEBHOOKS_TEST_DEEP"))

one_database = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.deep)], indirect=True
)
"""For faults in which the database has no part: the other one only where there is time."""


class Account:
    """What was committed and what was received."""

    def __init__(self, state: AppState, receiver: Receiver, count: int = 20) -> None:
        self.state, self.receiver = state, receiver
        self.subscriptions = [subscribe(state, receiver.url(f"/{n}")) for n in range(count)]
        self.committed: list[str] = []

    def commit(self, count: int) -> None:
        """Record events, as many commits would have."""
        self.committed += fill(self.state, self.subscriptions, count)

    @property
    def received(self) -> Counter[str]:
        """How often each message came."""
        return Counter(request.headers["webhook-id"] for request in list(self.receiver.requests))

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until nothing is missing and all is written."""
        wait_until(
            lambda: len(self.received) >= len(self.committed), seconds, about="all that was committed arrives"
        )
        wait_until(
            lambda: {row.state for row in deliveries(self.state)} == {"delivered"}, seconds, about="delivered"
        )

    def balance(self, *, excuses: int) -> int:
        """Committed is received, nothing is missing; return the duplicates, which at most so many explain.

        A request is sent again where its result could not be written: those under way, and those not written yet, when
        a worker was killed. The log has each delivery's success once, so what came and is not in it is such a
        duplicate, unless it is in the log as a failure: on a machine that is too busy to answer in time.
        """
        received = self.received
        assert set(received) == set(self.committed)
        duplicates = sum(received.values()) - len(self.committed)
        logged = attempts(self.state)
        succeeded = [row.delivery_id for row in logged if row.failure is None]
        assert sorted(succeeded) == sorted(row.id for row in deliveries(self.state)), (
            "a success that was repeated"
        )
        failed = len(logged) - len(succeeded)
        assert duplicates <= excuses + failed, f"{duplicates} duplicates, {failed} failures"
        return duplicates


@pytest.fixture
def account(state: AppState) -> t.Iterator[Account]:
    with Receiver(ok()) as receiver:
        yield Account(state, receiver)


@pytest.fixture
def processes(state: AppState, tmp_path: Path, valkey: str) -> t.Iterator[Processes]:
    with Processes(state, tmp_path, valkey) as started:
        yield started


@pytest.fixture
def bell(valkey: str, tmp_path: Path) -> Bell:
    return Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served:create_app")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance that can be repeated: the seed is the test's name."""
    return random.Random(request.node.name)
