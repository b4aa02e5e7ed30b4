"""The app's own database, as capture looks at it: whether our tables are there, and what others have committed."""

from __future__ import annotations

import logging
import os
import time
import typing as t
import weakref

import sqlalchemy as sa

from ..engines import is_same_database
from ..errors import EmitError
from ..models import Listener

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["HostDatabase"]

logger = logging.getLogger("flask_webhooks.capture")


class HostDatabase:
    """What is known of the database that an app is on. Most of it is asked once in a process."""

    def __init__(self, state: AppState) -> None:
        self.state = state
        self._fresh: tuple[int, sa.Engine] | None = None
        self._is_installed = False
        self._said_at: dict[str, float] = {}

    def renew(self) -> None:
        """Forget it: the app is on another one."""
        fresh, self._fresh = self._fresh, None
        # Connections of a parent process are not ours to close.
        if fresh is not None and fresh[0] == os.getpid():
            fresh[1].dispose()
        self._is_installed = False

    def is_installed(self, connection: sa.Connection, *, apart: bool = False) -> bool:
        """Say whether this is the app's database and has our tables: elsewhere there can be no subscription.

        :raises EmitError: the host has not migrated, and `WEBHOOKS_ON_ERROR` is `raise`.
        """
        return is_same_database(connection.engine, self.state.engine) and self.has_tables(
            connection, apart=apart
        )

    def has_tables(self, connection: sa.Connection, *, apart: bool = False) -> bool:
        """Say whether the app's database, which this leads to, has our tables. Asked once in a process that finds them.

        :param apart: ask on a connection of our own. On SQLite a transaction that has read cannot write any more once
            another one has written, so none of the host's may begin with a question of ours.
        :raises EmitError: as `is_installed` does.
        """
        # Tables are not taken away while an app runs; that they are missing is asked each time.
        if self._is_installed:
            return True
        naming = self.state.naming
        name = naming.name(Listener.__tablename__)
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        schema = naming.schema or schemas.get(None)
        if apart:
            with self.fresh_engine(connection).connect() as fresh:
                self._is_installed = sa.inspect(fresh).has_table(name, schema=schema)
        else:
            self._is_installed = sa.inspect(connection).has_table(name, schema=schema)
        if not self._is_installed:
            what = (
                f"There is no table {name} in {self.state.engine.url!r}, so there are no subscriptions. Migrate "
                "before you deploy: `flask db migrate`, `flask db upgrade`."
            )
            if self.state.settings.on_error == "raise":
                raise EmitError(
                    f"{what} With another WEBHOOKS_ON_ERROR than 'raise' commits go through meanwhile."
                )
            self.say("tables.missing", logging.ERROR, f"{what} Until then no event is recorded.")
        return self._is_installed

    def say(self, what: str, level: int, message: str) -> None:
        """Log something that may be true of every commit: once a minute."""
        if time.monotonic() > self._said_at.get(what, float("-inf")) + 60:
            self._said_at[what] = time.monotonic()
            logger.log(level, "%s: %s", what, message)

    def fresh_engine(self, connection: sa.Connection | None = None) -> sa.Engine:
        """Connections to the app's database of our own, for queries that must see what was committed last.

        A pool of its own: a transaction that waits for a second connection of the same pool can wait for ever.
        """
        if self._fresh is None or self._fresh[0] != os.getpid():
            host = self.state.engine
            engine = sa.Engine(host.pool.recreate(), host.dialect, host.url)
            _let_each_look_be_new(engine)
            weakref.finalize(self, engine.dispose)
            self._fresh = os.getpid(), engine
        # A tenant in a schema of its own has our tables there too.
        options = connection.get_execution_options() if connection is not None else {}
        schemas = options.get("schema_translate_map")
        return self._fresh[1].execution_options(schema_translate_map=schemas) if schemas else self._fresh[1]


def _let_each_look_be_new(engine: sa.Engine) -> None:
    """Let every statement see what was committed last, and lock nothing, whatever the host's level is.

    Under SERIALIZABLE MariaDB locks what is read, perhaps against the transaction that asks; PostgreSQL may refuse it.
    """
    if engine.dialect.name != "sqlite":
        sa.event.listen(
            engine, "connect", lambda driver, _: engine.dialect.set_isolation_level(driver, "AUTOCOMMIT")
        )
