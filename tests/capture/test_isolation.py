"""Sessions, threads, greenlets and servers share no state; a new subscription takes effect at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import typing as t
import weakref
from pathlib import Path

import greenlet
import pytest
import requests
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import Webhooks, capture
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, SERVERS, events
from tests.host import Invoice, Note, db
from tests.stage import recorded, subscribe, wait_until

pytestmark = pytest.mark.long

webhooks = Webhooks()


@pytest.mark.usefixtures("listening")
class TestOptingOut:
    def test_muted(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="before"))
        with webhooks.muted():
            db.session.add(Invoice(owner="1", number="inside"))
        db.session.add(Invoice(owner="1", number="after"))
        db.session.commit()

        assert [json.loads(message.data)["number"] for message in recorded(state)] == ["before", "after"]

    def test_muted_within_a_failing_block(self, state: AppState) -> None:
        with pytest.raises(ZeroDivisionError), webhooks.muted():
            raise ZeroDivisionError
        db.session.add(Invoice(owner="1"))
        db.session.commit()

        assert events(state) == ["invoices.created"]

    def test_another_thread_is_not_muted(self, app: Flask, state: AppState) -> None:
        def work() -> None:
            with app.app_context():
                db.session.add(Invoice(owner="1"))
                db.session.commit()

        with webhooks.muted():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        assert events(state) == ["invoices.created"]

    def test_another_greenlet_is_not_muted(self, state: AppState) -> None:
        """Two that take turns: one is muted all the while, the other commits in between."""

        def muted() -> None:
            with Session(state.engine) as session, capture.muted(session):
                main.switch()
                session.add(Invoice(owner="1", number="muted"))
                session.commit()

        def heard() -> None:
            with Session(state.engine) as session:
                session.add(Invoice(owner="1", number="heard"))
                session.commit()

        main = greenlet.getcurrent()
        first, second = greenlet.greenlet(muted), greenlet.greenlet(heard)
        for each in (first, second, first):
            each.switch()

        assert [json.loads(message.data)["number"] for message in recorded(state)] == ["heard"]
        assert first.dead
        assert second.dead


@pytest.mark.usefixtures("listening")
class TestLeaks:
    def test_nested_app_contexts(self, app: Flask, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="outer"))
        with app.app_context():
            db.session.add(Invoice(owner="1", number="inner"))
            db.session.commit()
        db.session.rollback()

        assert [json.loads(message.data)["number"] for message in recorded(state)] == ["inner"]

    @pytest.mark.parametrize("database_url", SERVERS, indirect=True)
    def test_nested_app_contexts_that_write_both(self, app: Flask, state: AppState) -> None:
        """SQLite has one writer at a time."""
        db.session.add(Invoice(owner="1", number="outer"))
        db.session.flush()
        with app.app_context():
            db.session.add(Invoice(owner="1", number="inner"))
            db.session.commit()
        db.session.rollback()

        assert [json.loads(message.data)["number"] for message in recorded(state)] == ["inner"]

    def test_threads(self, app: Flask, state: AppState) -> None:
        """Half of them roll back."""

        def work(number: int) -> None:
            with app.app_context():
                db.session.add(Invoice(owner="1", number=str(number)))
                db.session.flush()
                db.session.commit() if number % 2 else db.session.rollback()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        found = sorted(int(json.loads(message.data)["number"]) for message in recorded(state))
        assert found == list(range(1, 20, 2))

    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_nothing_stays_when_a_transaction_ends(self, state: AppState, end: str) -> None:
        """Not even until the next garbage collection: a session goes when its last user does, as without us."""
        session = Session(state.engine)
        transaction = session.begin()
        with session.begin_nested():
            session.add(Invoice(owner="1"))
        with contextlib.suppress(ZeroDivisionError), session.begin_nested():
            session.add(Invoice(owner="1"))
            session.flush()
            raise ZeroDivisionError
        session.execute(sa.update(Invoice).values(note="x"))
        gc.collect()
        gc.disable()
        try:
            getattr(session, end)()
            left = [weakref.ref(session), weakref.ref(transaction)]
            session.close()
            del session, transaction
            assert [ref() for ref in left] == [None, None]
        finally:
            gc.enable()

    def test_a_savepoint_that_is_rolled_back_is_let_go_of_at_once(self, state: AppState) -> None:
        """An import of a million rows, each in a savepoint that may fail, must not gather the failed ones."""
        session = Session(state.engine)
        alive = []
        for _ in range(3):
            nested = session.begin_nested()
            invoice = Invoice(owner="1")
            session.add(invoice)
            session.flush()
            nested.rollback()
            alive.append(weakref.ref(invoice))
            del invoice, nested
        gc.collect()

        assert [ref() for ref in alive] == [None] * 3
        session.close()

    def test_the_listener_for_what_comes_late_is_set_once(self, state: AppState) -> None:
        session = Session(state.engine)

        def late(session: Session) -> None:
            session.add(Invoice(owner="1"))
            session.flush()

        sa.event.listen(session, "before_commit", late)
        for _ in range(3):
            session.commit()

        assert events(state) == ["invoices.created"] * 3
        assert len(list(session.dispatch.after_flush_postexec)) == 1
        session.close()
        alive = weakref.ref(session)
        del session
        gc.collect()
        assert alive() is None


LEVELS = {
    "sqlite": [None],
    "postgresql": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
    "mysql": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
    "mariadb": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
}
SUBSCRIBER = """
import sys
from pathlib import Path
from flask_webhooks.state import state_of
from tests.host import make_host
from tests.stage import subscribe
apps = {}
print("ready", flush=True)
for line in sys.stdin:
    url, folder, *names = line.split()
    if url not in apps:
        apps[url] = make_host(url, Path(folder))
    subscribe(state_of(apps[url]), "http://127.0.0.1:9/", *names)
    with apps[url].app_context():
        state_of(apps[url]).engine.dispose()
    print("answered", flush=True)
"""


@pytest.fixture(scope="module")
def another_process() -> t.Iterator[subprocess.Popen[str]]:
    """Subscribes on request; one process for all tests, because it takes a while to start."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SUBSCRIBER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.fixture
def subscriber(
    another_process: subprocess.Popen[str], database_url: str, tmp_path: Path
) -> t.Callable[[str], None]:
    """Subscribes in another process, and returns when that has answered."""

    def ask(names: str) -> None:
        assert another_process.stdout is not None
        print(database_url, tmp_path / "other", names, file=another_process.stdin, flush=True)
        assert another_process.stdout.readline() == "answered\n"

    return ask


class TestANewSubscription:
    def test_counts_for_the_next_commit_in_another_process(
        self, state: AppState, subscriber: t.Callable[[str], None]
    ) -> None:
        db.session.add(Invoice(owner="1"))
        db.session.commit()
        subscriber("invoices.created")
        db.session.add(Invoice(owner="1"))
        db.session.commit()
        subscriber("clients.created")
        db.session.add(Invoice(owner="1"))
        db.session.commit()

        assert events(state) == ["invoices.created"] * 2

    def test_counts_for_a_transaction_that_reads_from_an_older_snapshot(
        self, state: AppState, subscriber: t.Callable[[str], None]
    ) -> None:
        levels = LEVELS[state.engine.dialect.name]
        for number, level in enumerate(levels, start=1):
            engine = state.engine.execution_options(isolation_level=level) if level else state.engine
            with Session(engine) as session:
                session.scalars(sa.select(Note)).all()
                if level is None:
                    session.rollback()  # a SQLite transaction that has read cannot write after another has
                subscriber("reports.ready invoices.created")
                session.add(Invoice(owner="1", number=str(number)))
                session.commit()

        assert events(state) == ["invoices.created"] * len(levels)

    def test_counts_for_an_event_that_is_emitted_after_it(
        self, app: Flask, state: AppState, subscriber: t.Callable[[str], None]
    ) -> None:
        """The transaction has only read so far, even on SQLite."""
        found = db.session.scalars(sa.select(Note)).all()
        subscriber("reports.ready")
        webhooks.emit("reports.ready", {}, owner="1")
        if state.engine.dialect.name != "sqlite":
            db.session.commit()
            assert events(state) == ["reports.ready"]
            return
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            db.session.commit()  # SQLite cannot write it any more, and says so: nothing is lost in silence
        assert found == []


SERVED = """
import os
from pathlib import Path
from tests.host import Invoice, db, make_host
app = make_host(os.environ["URL"], Path(os.environ["FOLDER"]))

@app.post("/invoices/<number>")
def make(number):
    db.session.add(Invoice(owner="1", number=number))
    db.session.flush()
    db.session.commit() if int(number) % 2 else db.session.rollback()
    return "done"
"""


@pytest.fixture
def served(
    request: pytest.FixtureRequest, state: AppState, database_url: str, tmp_path: Path
) -> t.Iterator[str]:
    """The URL of a gunicorn, with the worker class that is the parameter."""
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = f"-k {request.param} --threads 4 --workers 1 --bind 127.0.0.1:{port} --log-level error served:app"
    paths = f"{tmp_path}:{Path(__file__).parents[2]}"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "gunicorn", *words.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths, "URL": database_url, "FOLDER": str(tmp_path / "served")},
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, 30, about="gunicorn")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize("served", ["gthread", "gevent"], indirect=True)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_under_gunicorn(state: AppState, served: str) -> None:
    """Forty requests, eight at a time; every other one rolls back."""
    subscribe(state, NOWHERE, "invoices.*")

    def post(number: int) -> int:
        return requests.post(f"{served}/invoices/{number}", timeout=30).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(post, range(40)))

    assert statuses == {200}
    found = sorted(int(json.loads(message.data)["number"]) for message in recorded(state))
    assert found == list(range(1, 40, 2))
