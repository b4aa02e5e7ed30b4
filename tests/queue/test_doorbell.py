"""The doorbell rings in another thread: it delays no request, loses no ring, and starts again in each process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import typing as t
import weakref
from pathlib import Path

import pytest

from flask_webhooks.queue import Bell, Embedded, rung
from flask_webhooks.state import state_of
from tests.host import Invoice, db
from tests.stage import subscribe

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bell(valkey: str, tmp_path: Path) -> Bell:
    return Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served")


def test_many_rings_are_few(bell: Bell) -> None:
    for _ in range(1000):
        bell.ring_soon()

    assert rung()
    assert bell.depth() == 1


def test_it_rings_again_after_a_worker_looked(bell: Bell) -> None:
    bell.ring_soon()
    assert rung()
    bell.clear()
    bell.ring_soon()
    assert rung()

    assert bell.depth() == 2


def test_a_forked_process_rings_by_itself(bell: Bell) -> None:
    bell.ring_soon()
    assert rung()
    bell.clear()
    bell._asked_in = os.getpid()  # a fork in the moment between the question and the ring
    child = os.fork()
    if not child:
        bell.ring_soon()
        os._exit(0 if rung() and bell.is_rung() else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert bell.depth() == 2


def test_a_process_that_ends_rings_before(valkey: str, tmp_path: Path) -> None:
    code = (
        "import sys; from flask_webhooks.queue import Bell, Embedded\n"
        "Bell(sys.argv[1], Embedded(sys.argv[2]), 'webhooks', 'tests.served').ring_soon()"
    )
    words = [sys.executable, "-c", code, valkey, str(tmp_path / "none")]
    subprocess.run(words, check=True, cwd=ROOT, timeout=60)

    assert Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served").depth() == 1


def test_where_no_thread_runs_it_rings_at_once(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uwsgi:
        opt: t.ClassVar[dict[str, t.Any]] = {"master": True}

    rung()
    monkeypatch.setattr("flask_webhooks.queue.doorbell._Ringer.current", None)
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi)
    bell.ring_soon()

    assert bell.depth() == 1


def test_the_thread_holds_no_app(valkey: str, tmp_path: Path) -> None:
    bell = Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served")
    bell.ring_soon()
    assert rung()
    alive = weakref.ref(bell)
    del bell
    gc.collect()

    assert alive() is None


def test_the_caller_does_not_wait(valkey: str, tmp_path: Path) -> None:
    gate, let_through = threading.Event(), []

    class Far(Bell):
        def ring(self) -> bool:
            let_through.append(gate.wait(10))
            return super().ring()

    far = Far(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served")
    far.ring_soon()
    gate.set()

    assert rung(10)
    assert let_through == [True]
    assert far.depth() == 1


def test_a_commit_asks(make_app: t.Callable[..., t.Any], valkey: str) -> None:
    app = make_app(WEBHOOKS_REDIS_URL=valkey)
    with app.app_context():
        subscribe(state_of(app), "http://127.0.0.1:9/", "invoices.created")
        for _ in range(3):
            db.session.add(Invoice(owner="1"))
            db.session.commit()

        assert rung()
        assert state_of(app).bell.depth() == 1
