"""SQLite, made to keep its promises. PostgreSQL needs none of this and gets none of it."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from flask import Flask, request

from .models import db

# How long one writer waits for another before "database is locked".
BUSY_TIMEOUT_MILLISECONDS = 5000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def set_up_sqlite(app: Flask) -> None:
    """Prepare the SQLite engines of the app, before their first connection."""
    with app.app_context():
        for engine in db.engines.values():
            if engine.dialect.name == "sqlite":
                sa.event.listen(engine, "connect", _on_connect)
                sa.event.listen(engine, "begin", _begin)


def _on_connect(connection: t.Any, record: object) -> None:
    # Python's driver begins a transaction only at the first INSERT, UPDATE or DELETE. A savepoint released
    # before that is committed for good, whatever becomes of the rest. So the driver must not begin transactions itself.
    # Source: SQLAlchemy, "Transactions with SQLite and the sqlite3 driver".
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def begin_to_write() -> None:
    """Begin the session's transaction with SQLite's write lock, waiting for it if need be.

    A deferred transaction that has read cannot begin to write once another process has written: SQLite fails
    it at once, without waiting (``SQLITE_BUSY_SNAPSHOT``). A view looks up the user before it writes, and a
    worker writes all the time, so that would be a matter of minutes. Readers do not call this and never wait.
    On other databases it is an ordinary BEGIN.
    """
    if not db.session().in_transaction():
        db.session.connection(execution_options={"sqlite_begin": "IMMEDIATE"})


def begin_request() -> None:
    """Call :func:`begin_to_write` for a request that may change something. Runs before each request."""
    if request.method not in SAFE_METHODS:
        begin_to_write()
