"""Fixtures for faults: an app that commits events, a receiver, and the parts in between that can fail."""

from __future__ import annotations

import os
import random
import signal
import typing as t
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Delivery, Lane
from flask_webhooks.queue import Bell, Embedded
from flask_webhooks.state import AppState
from tests.processes import Process, Processes
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, subscribe, wait_until

IS_DEEP = bool(os.environ.get("WEBHOOKS_TEST_DEEP"))

one_database = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.deep)], indirect=True
)
"""For faults in which the database has no part: the other one only where there is time."""


IN_DOUBT = 400 + 32
"""Results that a killed worker had not written: so many may wait, or be just being written; and those in flight."""
BALANCES: list[str] = []
"""One line for each account that was balanced."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in BALANCES:
        terminalreporter.write_line(line)


class Account:
    """What was committed and what was received."""

    def __init__(self, state: AppState, receiver: Receiver, count: int = 20) -> None:
        self.state, self.receiver = state, receiver
        self.subscriptions = [subscribe(state, receiver.url(f"/{n}")) for n in range(count)]
        self.committed: list[str] = []
        self.in_doubt: list[int] = []
        """Requests whose results were lost, by each time that a worker was killed or stalled."""
        self._known: Counter[str] = Counter()

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
            lambda: {row.state for row in self._deliveries()} == {"delivered"}, seconds, about="delivered"
        )

    def lost(self, worker: Process | None = None, *, others: t.Sequence[Process] = ()) -> int:
        """Note what was sent and not written when a worker was killed or stopped: the only excuse for duplicates.

        :param worker: whose lanes to look at; None: all, for nobody else sends.
        :param others: those that send on; they are stopped for as long as it takes.
        """
        for other in others:
            other.send(signal.SIGSTOP)
        self.receiver.wait_for_quiet()
        lanes = self._lanes(worker)
        written = Counter(row.subscription_id for row in attempts(self.state))
        sent = Counter(request.target for request in self.receiver.requests)
        doubt = 0
        for number, row in enumerate(self.subscriptions):
            if row.id in lanes:
                gap = sent[f"/{number}"] - written[row.id]
                doubt += gap - self._known[row.id]
                self._known[row.id] = gap
        for other in others:
            other.send(signal.SIGCONT)
        assert 0 <= doubt <= IN_DOUBT
        self.in_doubt.append(doubt)
        return doubt

    def _lanes(self, worker: Process | None) -> set[str]:
        if worker is None:
            return {row.id for row in self.subscriptions}
        with self.state.engine.connect() as connection:
            held = connection.execute(sa.select(Lane.subscription_id, Lane.holder)).all()
        return {row.subscription_id for row in held if f":{worker.pid}" in (row.holder or "")}

    def _deliveries(self) -> list[Delivery]:
        """Of what was committed; other subscriptions have an account of their own."""
        committed = set(self.committed)
        return [row for row in deliveries(self.state) if row.message_id in committed]

    def balance(self, *, excuses: int = 0) -> int:
        """Committed is received, nothing is missing; return the duplicates, each of which must be explained.

        A request is sent again where its result was lost (`lost` has counted them at the time, before anybody sent
        again), or is in the log as a failure: on a machine that is too busy to answer in time. The log has each
        delivery's success once.

        :param excuses: duplicates that the test explains by itself.
        """
        received = self.received
        assert set(received) == set(self.committed)
        rows = {row.id for row in self._deliveries()}
        logged = [row for row in attempts(self.state) if row.delivery_id in rows]
        succeeded = [row.delivery_id for row in logged if row.failure is None]
        assert sorted(succeeded) == sorted(rows), "a success that was repeated"
        duplicates, doubt = sum(received.values()) - len(self.committed), sum(self.in_doubt)
        failed = len(logged) - len(succeeded)
        told = (
            f"{os.environ['PYTEST_CURRENT_TEST'].partition(' ')[0]}: {len(self.committed)} committed and received, "
            f"{duplicates} duplicates; {doubt} results lost with {len(self.in_doubt)} workers, {failed} failures, "
            f"{excuses} otherwise explained"
        )
        BALANCES.append(told)
        assert duplicates <= doubt + failed + excuses, told
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
