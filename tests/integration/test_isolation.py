"""Databases with strict isolation: changes of a busy subscription succeed, and workers continue."""

from __future__ import annotations

import contextlib
import re
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

import flask_webhooks
from flask_webhooks.sql.transactions import is_conflict, may_be_repeated, repeated
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from flask_webhooks.worker.outage import is_cut_short
from tests.conftest import on_servers
from tests.host import Note, db
from tests.receivers import Receiver
from tests.stage import fill, subscribe

STRICT = ("database: repeatable read", "database: serializable", "engine: SERIALIZABLE", "engine: AUTOCOMMIT")


@pytest.fixture(params=STRICT, ids=lambda how: how.replace(": ", " ").replace(" ", "-"))
def strict(
    request: pytest.FixtureRequest, make_app: t.Callable[..., Flask], database_url: str
) -> t.Iterator[Flask]:
    """An app whose database, or whose engine, isolates otherwise than we do."""
    where, _, level = request.param.partition(": ")
    with contextlib.ExitStack() as stack:
        if where == "database":
            stack.enter_context(isolating(database_url, level))
        options: dict[str, t.Any] = {"pool_size": 20}
        if where == "engine":
            options["isolation_level"] = level
        yield make_app(SQLALCHEMY_ENGINE_OPTIONS=options)


@contextlib.contextmanager
def isolating(url: str, level: str) -> t.Iterator[None]:
    """Give a database another default; MariaDB also refuses what has changed since the snapshot, as from 11.6 on."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            name = sa.make_url(url).database
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
            yield
            connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_isolation")
        else:
            connection.exec_driver_sql(f"SET GLOBAL TRANSACTION ISOLATION LEVEL {level}")
            connection.exec_driver_sql("SET GLOBAL innodb_snapshot_isolation = ON")
            yield
            connection.exec_driver_sql("SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.exec_driver_sql("SET GLOBAL innodb_snapshot_isolation = OFF")


@on_servers
def test_a_busy_subscription_can_be_changed(strict: Flask, inbox: Receiver) -> None:
    """Several change it, rotate its secret, make and remove others, while a worker delivers to it."""
    state = state_of(strict)
    row = subscribe(state, inbox.url(), "*", owner="1")
    done, path = threading.Event(), f"/webhooks/api/subscriptions/{row.id}"

    def work() -> None:
        while not done.is_set():
            fill(state, [row], 20)
            Coordinator(state, holder="here:1").run(seconds=5)

    def change(number: int) -> list[int]:
        client, headers = strict.test_client(), {"X-Owner": "1"}
        found = []
        for turn in range(6):
            body = {"description": f"{number} {turn}", "rate_limit": 100 + turn}
            found.append(client.patch(path, json=body, headers=headers).status_code)
            if number % 2:
                answer = client.post(f"{path}/secret/rotate", json={"overlap": 0}, headers=headers)
            else:
                more = {"url": inbox.url(), "events": ["reports.ready"]}
                answer = client.post("/webhooks/api/subscriptions", json=more, headers=headers)
                made = f"/webhooks/api/subscriptions/{answer.get_json()['id']}"
                found.append(client.delete(made, headers=headers).status_code)
            found.append(answer.status_code)
        return found

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            statuses = {status for found in threads.map(change, range(4)) for status in found}
    finally:
        done.set()
        worker.join(60)

    assert statuses <= {200, 201, 204}, statuses
    assert inbox.requests
    with Session(state.engine) as session:
        assert session.get_one(type(row), row.id).version == 4 * 6 + 2 * 6 + 1


@on_servers
def test_our_transactions_read_what_is_committed(strict: Flask) -> None:
    state = state_of(strict)
    with state.own_engine.begin() as one:
        assert not one.execute(sa.select(Note)).all()
        with state.own_engine.begin() as other:
            other.execute(sa.insert(Note).values(id=1, text="x"))
            assert not one.execute(sa.select(Note)).all()  # it is a transaction
        assert len(one.execute(sa.select(Note)).all()) == 1


@on_servers
def test_the_hosts_transactions_stay_as_they_are(strict: Flask) -> None:
    def how() -> tuple[t.Any, t.Any]:
        connection = db.session.connection()
        name = (
            "SHOW transaction_isolation"
            if connection.dialect.name == "postgresql"
            else "SELECT @@tx_isolation"
        )
        level = connection.exec_driver_sql(name).scalar()
        driver: t.Any = connection.connection.dbapi_connection
        db.session.remove()
        return level, getattr(driver, "autocommit", None) or getattr(driver, "autocommit_mode", None)

    with strict.app_context():
        before = how()
        for _ in range(3):
            with state_of(strict).own_engine.begin() as connection:
                connection.execute(sa.select(1))
            assert how() == before


# ---- again -----------------------------------------------------------------------------------------------


class Refusal(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str, *args: t.Any) -> None:
        super().__init__(*args)
        self.sqlstate = sqlstate


def refusal(code: t.Any, state: str | None = None) -> sa.exc.DBAPIError:
    cause = Refusal(code) if isinstance(code, str) else Exception(code, "text")
    if state is not None:  # as PyMySQL raises it from 1.2 on
        cause = Refusal(state, code, "text")
    return sa.exc.OperationalError("UPDATE", {}, cause)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", 1020, 1205, 1213])
def test_what_was_refused_is_done_again(state: AppState, code: t.Any) -> None:
    calls: list[int] = []

    def work(session: Session) -> int:
        session.execute(sa.insert(Note).values(id=len(calls) + 1, text="x"))
        calls.append(1)
        if len(calls) < 4:
            raise refusal(code)
        session.commit()
        return len(calls)

    assert repeated(state.own_engine, work) == 4
    with Session(state.engine) as session:
        assert session.scalars(sa.select(Note.id)).all() == [4]


@pytest.mark.parametrize(("code", "state"), [(1020, "HY000"), (1205, "HY000"), (1213, "40001")])
def test_a_number_counts_with_a_state_that_says_nothing(code: int, state: str) -> None:
    assert is_conflict(refusal(code, state))


@pytest.mark.parametrize(("code", "state"), [(1969, "70100"), (3024, "HY000"), ("57014", None)])
def test_so_it_does_of_a_statement_that_took_too_long(code: t.Any, state: str | None) -> None:
    assert is_cut_short(refusal(code, state))
    assert not is_cut_short(refusal(1213, "40001"))


@pytest.mark.parametrize("code", ["23505", "57014", "08006", 1062, 2006, 1969])
def test_another_error_is_raised_at_once(state: AppState, code: t.Any) -> None:
    assert not is_conflict(refusal(code))
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        raise refusal(code)

    with pytest.raises(sa.exc.OperationalError):
        repeated(state.own_engine, work)
    assert len(calls) == 1


def test_it_is_done_again_only_so_often(state: AppState) -> None:
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        raise refusal("40001")

    with pytest.raises(sa.exc.OperationalError):
        repeated(state.own_engine, work)
    assert len(calls) == 8


@pytest.mark.parametrize("harmless", [False, True])
def test_what_was_committed_is_not_done_again(state: AppState, harmless: bool) -> None:
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(sa.insert(Note).values(id=len(calls), text="x"))
        session.commit()
        if harmless:
            may_be_repeated(session)
        if len(calls) < 3:
            raise refusal("40001")

    with contextlib.nullcontext() if harmless else pytest.raises(sa.exc.OperationalError):
        repeated(state.own_engine, work)
    assert len(calls) == (3 if harmless else 1)


def test_every_transaction_of_ours_is_begun_on_our_engine() -> None:
    package = Path(flask_webhooks.__file__).parent
    begun = re.compile(r"state\.engine\.(?:begin|connect)\(|(?:Session|looking)\((?:self\.)?_?state\.engine")

    found = [path.name for path in package.rglob("*.py") if begun.search(path.read_text())]

    assert found == []
