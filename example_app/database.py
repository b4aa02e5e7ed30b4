"""SQLite, made to keep its promises. PostgreSQL needs none of this and gets none of it."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from flask import Flask, has_request_context, request

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
    # before that is committed for good, whatever becomes of the rest. So the driver is told to keep out of it.
    # Source: SQLAlchemy, "Transactions with SQLite and the sqlite3 driver".
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """Take the write lock at once, except to answer a safe request.

    A deferred transaction that has read cannot begin to write once another process has written: SQLite fails
    it at once, without waiting (``SQLITE_BUSY_SNAPSHOT``). With a web server and a worker writing side by
    side that is a matter of minutes. ``IMMEDIATE`` waits for its turn instead. Safe requests only read, so
    they stay deferred and never wait.
    """
    only_reads = has_request_context() and request.method in SAFE_METHODS
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")
