"""PostgreSQL databases that tests reuse: emptying one is much faster than copying one."""

from __future__ import annotations

import itertools
import os
import typing as t

import psycopg
import sqlalchemy as sa

__all__ = ["DatabasePool", "create", "drop"]

_numbers = itertools.count(1)

# Everything that a test could have changed besides rows: tables, columns, triggers, functions, statistics, size.
SHAPE = """
SELECT (SELECT md5(string_agg(oid || ' ' || xmin, ',' ORDER BY oid)) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT md5(string_agg(attrelid || ' ' || attnum || ' ' || a.xmin, ',' ORDER BY attrelid, attnum))
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_constraint),
       (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_statistic AS s JOIN pg_class AS c ON c.oid = starelid
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT sum(pg_relation_size(oid)) > 4000000 FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""
EMPTY = """
SELECT string_agg(CASE relkind WHEN 'r' THEN 'DELETE FROM ' || oid::regclass
                               ELSE 'SELECT setval(' || quote_literal(oid::regclass) || ', 1, false)' END, ';')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
"""
ADDED = """
SELECT string_agg(format('DROP %%s %%s CASCADE', kind, name), ';')
FROM (SELECT CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE 'SEQUENCE' END AS kind,
             oid::regclass::text AS name, 0 AS place
      FROM pg_class AS c
      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S') AND oid > %(last)s
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i'))
      UNION ALL
      SELECT 'TYPE', oid::regtype::text, 1 FROM pg_type
      WHERE typnamespace = 'public'::regnamespace AND typtype = 'e' AND oid > %(last)s
      ORDER BY place) AS added
"""
LAST = "SELECT greatest((SELECT max(oid) FROM pg_class), (SELECT max(oid) FROM pg_type))"
"""The newest of the tables and types that a database has been copied with."""
OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"


def create(server: str, template: str = "template1") -> str:
    """Make a database and return its URL."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    with _connected(server, "postgres") as connection:
        # With fsync off, to copy files is faster than to write them through the log.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


def drop(server: str, url: str) -> None:
    """Drop a database, even if there are connections to it."""
    with _connected(server, "postgres") as connection:
        connection.execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")


def _connected(server: str, name: str) -> psycopg.Connection[t.Any]:
    url = sa.make_url(server).set(drivername="postgresql", database=name)
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


class DatabasePool:
    """Copies of one template; each test that takes one gives it back."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._shapes: dict[str, t.Any] = {}
        self._last: dict[str, t.Any] = {}
        self._spare: list[str] = []

    def take(self) -> str:
        """Return the URL of a database without rows."""
        if self._spare:
            return self._spare.pop()
        url = create(self._server, self._template)
        with self._open(url) as connection:
            self._shapes[url] = connection.execute(SHAPE).fetchone()
            self._last[url] = connection.execute(LAST).fetchone()[0]
        return url

    def give_back(self, url: str) -> None:
        """Empty a database for the next test; if more than its rows and tables of the test's own has changed, drop it.

        To drop such tables is much faster than to copy another database.
        """
        try:
            with self._open(url) as connection:
                connection.execute(f"{OTHERS} AND pid <> pg_backend_pid()")
                is_as_before = connection.execute(SHAPE).fetchone() == self._shapes[url]
                if not is_as_before:
                    added = connection.execute(ADDED, {"last": self._last[url]}).fetchone()[0]
                    if added:
                        connection.execute(added)
                        is_as_before = connection.execute(SHAPE).fetchone() == self._shapes[url]
                if is_as_before:
                    connection.execute("SET session_replication_role = replica")  # no foreign keys
                    connection.execute(connection.execute(EMPTY).fetchone()[0])
                    self._spare.append(url)
        except psycopg.OperationalError:
            is_as_before = False
        if not is_as_before:
            drop(self._server, url)

    def _open(self, url: str) -> psycopg.Connection[t.Any]:
        return _connected(self._server, str(sa.make_url(url).database))

    def clear(self) -> None:
        """Drop the databases that no test uses."""
        while self._spare:
            drop(self._server, self._spare.pop())
