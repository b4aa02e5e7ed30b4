"""A process killed at any moment leaves a message for each committed row, and no other."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks.models import Delivery
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE
from tests.host import Invoice
from tests.stage import recorded, subscribe

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nursery(database_url: str, tmp_path: Path) -> t.Iterator[subprocess.Popen[str]]:
    """Makes processes that commit; see `committing`."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.capture.committing",
            database_url,
            str(tmp_path / "other"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    yield process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


def check(state: AppState) -> int:
    """Compare rows with messages and messages with deliveries; return how many there are."""
    with Session(state.engine) as session:
        rows = sorted(session.scalars(sa.select(Invoice.number)))
        sent = sorted(session.scalars(sa.select(Delivery.message_id)))
    messages = recorded(state)

    assert sorted(json.loads(message.data)["number"] for message in messages) == rows
    assert sorted(message.id for message in messages) == sent
    return len(rows)


def kill(state: AppState, nursery: subprocess.Popen[str], times: int) -> None:
    """Kill so many processes, each at a random moment while it commits."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    subscribe(state, NOWHERE, "invoices.created")
    chance = random.Random(times)
    count = 0
    for seed in range(times):
        print(seed, file=nursery.stdin, flush=True)
        process = int(nursery.stdout.readline())
        time.sleep(chance.uniform(0, 0.1))  # the moment is what is being varied, nothing is waited for
        os.kill(process, signal.SIGKILL)
        assert nursery.stdout.readline() == "dead\n"
        count = check(state)
    assert count >= times


def test_killed(state: AppState, nursery: subprocess.Popen[str]) -> None:
    kill(state, nursery, 20)


@pytest.mark.deep
def test_killed_200_times(state: AppState, nursery: subprocess.Popen[str]) -> None:
    kill(state, nursery, 200)
