"""No statement's speed depends on PostgreSQL's estimates of what is in the tables: `make test-plans`.

Every piece of work is done on a log in each of seven states (see `log`), once with plans made for the values and once
with plans made for any, then again after ANALYZE. A statement whose plan rests on an estimate shows as one that takes
many times as long before.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.state import AppState, state_of
from tests.conftest import new_database, release
from tests.host import make_host
from tests.plans.log import KEPT, STATES, TABLES, Log
from tests.plans.servers import debian_postgres, debian_programs
from tests.plans.work import Piece, Scene, load_principal, pieces

pytestmark = pytest.mark.plans

ROWS = int(os.environ.get("WEBHOOKS_TEST_PLANS", "10000"))
TIMES = 5
"""How many times as long as with fitting statistics a statement may take."""
SOON = 0.004
"""Seconds that are no matter, however many times as long: below it the machine's pace decides."""
LONGEST = 0.050
"""Seconds that no statement takes."""
LONG: t.Mapping[str, str] = {
    "elsewhere": "All that waits for other environments is counted: nothing, where each has its own database.",
    "count delivered": "Up to 100,000 deliveries are counted before a replay.",
    "count of an event": "The same, and the event of each is in its message.",
    "count missed": "Each message of the window is asked whether it has a delivery.",
    "replay missed": "The same: of a log in which nothing is missed all has to be read to find nothing.",
}
"""Pieces of work in which a statement may take longer, and why."""
UNCOUNTED: t.Mapping[str, str] = {
    "operator deliveries?": "No index knows the event or the state over all owners: 20,000 rows are read, 500 at a "
    "time. Of a table that was never counted PostgreSQL does not know that its rows lie in the order of their ids, "
    "and sorts each time. Autovacuum counts it within a minute.",
    "operator messages?": "The same.",
}
"""The beginnings of pieces of work that are not judged on tables that were never counted, and why."""


class Took(t.NamedTuple):
    """Seconds of a statement in a piece of work."""

    every: float = 0.0
    """All its executions together."""
    longest: float = 0.0
    """The longest of them."""

    def least(self, other: Took) -> Took:
        """The lower of two measurements."""
        return Took(min(self.every, other.every), min(self.longest, other.longest))

    def worst(self, other: Took) -> Took:
        """The higher of two measurements."""
        return Took(max(self.every, other.every), max(self.longest, other.longest))


Times = dict[tuple[str, str], Took]
"""By the name of the work and the text of the statement."""
MODES = ("force_custom_plan", "force_generic_plan")


@pytest.fixture(scope="module", params=["wheel", "debian"])
def server(request: pytest.FixtureRequest) -> t.Iterator[str]:
    """The URL of a server, without a database name."""
    if request.param == "wheel":
        yield request.getfixturevalue("postgres")
    elif debian_programs() is None:
        pytest.skip("Debian's PostgreSQL is not installed: see `make system`")
    else:
        with debian_postgres() as url:
            yield url


@pytest.fixture(scope="module")
def tables(server: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """The name of a database with the tables, to be copied.

    Autovacuum leaves them alone: it would count some of them, and take dead rows out of the indexes between the two
    measurements, so that what was measured would not be the statistics.
    """
    with new_database(server) as url:
        release(make_host(url, tmp_path_factory.mktemp("template")))
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            for table in TABLES:
                connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        yield str(sa.make_url(url).database)


def spent(connection: t.Any) -> float:
    """Return the seconds of a processor that the server's process for a connection has used; else what time it is.

    What else the machine does is not in it.
    """
    try:
        with open(f"/proc/{connection.driver_connection.info.backend_pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9
    except OSError:
        return time.perf_counter()


class Watch:
    """The time that each statement takes, for the work that is being done."""

    def __init__(self, engine: sa.Engine) -> None:
        self.mode = MODES[0]
        self.took: Times = {}
        self.work = ""
        self._began = 0.0
        sa.event.listen(engine, "checkout", self._set_mode)
        sa.event.listen(engine, "before_cursor_execute", self._begin)
        sa.event.listen(engine, "after_cursor_execute", self._end)

    def _set_mode(self, connection: t.Any, *_: t.Any) -> None:
        connection.execute(f"SET plan_cache_mode = {self.mode}", prepare=False)
        connection.commit()

    def _begin(self, connection: t.Any, *_: t.Any) -> None:
        self._began = spent(connection.connection)

    def _end(self, connection: t.Any, _: t.Any, statement: str, *__: t.Any) -> None:
        took, before = (
            spent(connection.connection) - self._began,
            self.took.get((self.work, statement), Took()),
        )
        self.took[self.work, statement] = Took(before.every + took, max(before.longest, took))


@contextlib.contextmanager
def app_on(server: str, tables: str, folder: t.Any) -> t.Iterator[Flask]:
    """An app on a database of its own, whose driver prepares every statement."""
    with new_database(server, tables) as url:
        options = {"connect_args": {"prepare_threshold": 0}}
        app = make_host(url, folder, SQLALCHEMY_ENGINE_OPTIONS=options)
        object.__setattr__(state_of(app), "load_principal", load_principal)
        try:
            yield app
        finally:
            release(app)


def measure(watch: Watch, scene: Scene, names: t.Iterable[str], rounds: int) -> Times:
    """Do some work a few times in each mode; return the least time of each statement, of the worse mode."""
    work: t.Mapping[str, Piece] = pieces()
    worst: Times = {}
    for watch.mode in MODES:
        least: Times = {}
        for _ in range(rounds):
            watch.took.clear()
            for name in names:
                watch.work = name
                work[name](scene)
            least |= {key: took.least(least.get(key, took)) for key, took in watch.took.items()}
        worst |= {key: took.worst(worst.get(key, took)) for key, took in least.items()}
    return worst


def too_long(before: Times, after: Times) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return what took too long: in milliseconds all its executions, the longest, and all with fitting statistics."""
    return {
        key: tuple(round(1000 * each, 1) for each in (took.every, took.longest, after.get(key, Took()).every))
        for key, took in before.items()
        if (took.every > max(TIMES * after.get(key, took).every, SOON))
        or (took.longest > LONGEST and key[0] not in LONG)
    }


@pytest.mark.parametrize("name", STATES)
def test_no_statement_depends_on_statistics(
    server: str, tables: str, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    with app_on(server, tables, tmp_path_factory.mktemp(name)) as app:
        state: AppState = state_of(app)
        log, watch, client = Log(state, ROWS), Watch(state.engine), app.test_client()
        names = list(pieces())
        if name == "warm":
            log.insert(0, KEPT, "delivered")
            measure(watch, Scene(log, client, KEPT), names, 1)
        STATES[name](log)
        scene = Scene(log, client, ROWS)

        before = measure(watch, scene, names, 1)
        again = sorted({work for (work, _), took in before.items() if took.every > SOON})
        for key, took in measure(watch, scene, again, 2).items():
            before[key] = took.least(before.get(key, took))
        log.analyze()
        after = measure(watch, scene, names, 1)

        found = too_long(before, after)
        if name in ("never", "warm"):
            found = {key: each for key, each in found.items() if not key[0].startswith(tuple(UNCOUNTED))}
        assert not found, "\n".join(f"{took} {key}" for key, took in sorted(found.items()))
