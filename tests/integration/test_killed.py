"""A process that dies around COMMIT: before it nothing is sent, after it everything is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.host import Invoice, db
from tests.receivers import Receiver
from tests.stage import deliveries, recorded, subscribe

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent.parent

VICTIM = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from sqlalchemy.orm import Session
from tests.host import Invoice, db, make_host

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

app = make_host(sys.argv[1], Path(sys.argv[2]))
with app.app_context():
    db.session.add(Invoice(owner="1", number="A"))
    if sys.argv[3] == "before":
        sa.event.listen(db.engine, "commit", die)       # the last moment before the driver is told to commit
    else:
        sa.event.listen(db.session, "after_commit", die)  # the first after it has
        from flask_webhooks.queue import Bell
        Bell.ring = die                                    # and no bell is rung
    db.session.commit()
"""


@pytest.fixture
def victim(state: AppState, tmp_path: Path) -> t.Callable[[str], int]:
    """Runs the victim, killed `before` or `after` its commit; returns its exit code."""

    def run(moment: str) -> int:
        url = state.engine.url.render_as_string(hide_password=False)
        words = [sys.executable, "-c", VICTIM, url, str(tmp_path / "victim"), moment]
        return subprocess.run(
            words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
        ).returncode

    return run


def test_killed_before_commit_delivers_nothing(
    state: AppState, inbox: Receiver, victim: t.Callable[[str], int]
) -> None:
    subscribe(state, inbox.url(), "invoices.*")

    assert victim("before") == -signal.SIGKILL

    Coordinator(state, holder="test").run()
    assert recorded(state) == []
    assert inbox.requests == []


def test_killed_right_after_commit_delivers(
    state: AppState, inbox: Receiver, victim: t.Callable[[str], int]
) -> None:
    subscribe(state, inbox.url(), "invoices.*")

    assert victim("after") == -signal.SIGKILL

    report = Coordinator(state, holder="test").run()
    assert report.delivered == 1
    assert [message.event for message in recorded(state)] == ["invoices.created"]
    assert len(inbox.requests) == 1
    assert [delivery.state for delivery in deliveries(state)] == ["delivered"]


def test_a_rolled_back_transaction_delivers_nothing(state: AppState, inbox: Receiver, app: Flask) -> None:
    subscribe(state, inbox.url(), "invoices.*")
    db.session.add(Invoice(owner="1"))
    db.session.flush()
    db.session.rollback()

    Coordinator(state, holder="test").run()
    assert inbox.requests == []
