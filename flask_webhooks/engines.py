"""Which database an app is on: asked when it is needed.

A test fixture may lead an app to another one after `init_app`: with other engines in `db.engines`, with `db.init_app`
once more. What is written in the host's transaction goes where that is; so everything of ours has to follow.
"""

from __future__ import annotations

import typing as t
import weakref

import sqlalchemy as sa
from flask import Flask, current_app, has_app_context

from .models import Naming
from .sql.transactions import own_engine

__all__ = ["Engines", "is_in_memory", "is_same_database"]


class Follower(t.Protocol):
    """Who knows something of the database."""

    def renew(self) -> None:
        """Forget it: the app is on another one."""


class Engines:
    """The engines of one app. Made inside its context."""

    def __init__(self, app: Flask, naming: Naming) -> None:
        self._app, self._naming = app, naming
        self.followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._known = self._take(app.extensions["sqlalchemy"].engine)

    @property
    def host(self) -> sa.Engine:
        """Where the tables live, and every catalogued model."""
        return self._look()[0]

    @property
    def own(self) -> sa.Engine:
        """For transactions of our own; the same pool. See `sql.transactions`."""
        return self._look()[1]

    @property
    def is_current(self) -> bool:
        """Whether the caller is in a context of this app's."""
        # Asked for first, for the truth of `current_app` itself costs ten times as much, and a commit wants to know.
        return has_app_context() and current_app._get_current_object() is self._app  # type: ignore[attr-defined]

    def _look(self) -> tuple[sa.Engine, sa.Engine]:
        known = self._known
        engine = self._find()
        if engine is not known[0]:
            known = self._known = self._take(engine)
            for follower in list(self.followers):
                follower.renew()
        return known

    def _find(self) -> sa.Engine:
        if self.is_current:
            return t.cast("sa.Engine", self._app.extensions["sqlalchemy"].engine)
        # Threads of a worker have no context, nor should they begin one: its end calls the host's code.
        return self._all.get(self._key, self._known[0])

    def _take(self, engine: sa.Engine) -> tuple[sa.Engine, sa.Engine]:
        engines: t.Mapping[str | None, sa.Engine] = self._app.extensions["sqlalchemy"].engines
        self._key = next((key for key, each in engines.items() if each is engine), None)
        self._all = engines if engines.get(self._key) is engine else {}
        self._naming.apply(engine.dialect)
        return engine, own_engine(engine)


def is_same_database(one: sa.Engine, other: sa.Engine) -> bool:
    """Whether two engines lead to one database: by whatever driver, as whomever, with whatever options."""
    return one is other or one.url == other.url or _place(one.url) == _place(other.url)


def _place(url: sa.URL) -> tuple[t.Any, ...]:
    # `options` may choose another schema.
    where = (url.query.get(name) for name in ("host", "port", "service", "options"))
    return url.get_backend_name(), url.host, url.port, url.database, *where


def is_in_memory(url: sa.URL) -> bool:
    """Whether it is a SQLite in memory: each pool has one of its own, though the URL is the same."""
    if url.get_backend_name() != "sqlite":
        return False
    return not url.database or ":memory:" in url.database or "mode=memory" in str(url)
