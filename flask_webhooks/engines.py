"""The engines of an app, looked up at each use.

A test fixture may move an app to another database after `init_app`, by other engines in `db.engines` or by a second
`db.init_app`. Our rows are written in the host's transaction, so they go to the new database; all our other statements
have to go there as well.
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
    """An object that caches facts about the database."""

    def renew(self) -> None:
        """Drop the cache: the app is now on another database."""


class Engines:
    """The engines of one app. Must be created inside its app context."""

    def __init__(self, app: Flask, naming: Naming) -> None:
        self._app, self._naming = app, naming
        self.followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._known = self._take(app.extensions["sqlalchemy"].engine)

    @property
    def host(self) -> sa.Engine:
        """The engine of our tables and of every catalogued model."""
        engine, known = self._find(), self._known  # each commit asks
        return engine if engine is known[0] else self._renewed(engine)[0]

    @property
    def own(self) -> sa.Engine:
        """The engine for transactions of our own; it has the same pool. See `sql.transactions`."""
        engine, known = self._find(), self._known
        return known[1] if engine is known[0] else self._renewed(engine)[1]

    @property
    def is_current(self) -> bool:
        """Whether the caller is in an app context of this app."""
        # `has_app_context` comes first: each commit asks, and `bool(current_app)` costs ten times as much.
        return has_app_context() and current_app._get_current_object() is self._app  # type: ignore[attr-defined]

    def _renewed(self, engine: sa.Engine) -> tuple[sa.Engine, sa.Engine]:
        """Note that the app is on another engine now."""
        known = self._known = self._take(engine)
        for follower in list(self.followers):
            follower.renew()
        return known

    def _find(self) -> sa.Engine:
        if self.is_current:
            return self._app.extensions["sqlalchemy"].engine  # type: ignore[no-any-return]
        # Threads of a worker have no app context, and must not enter one: leaving it runs the host's teardown code.
        return self._all.get(self._key, self._known[0])

    def _take(self, engine: sa.Engine) -> tuple[sa.Engine, sa.Engine]:
        engines: t.Mapping[str | None, sa.Engine] = self._app.extensions["sqlalchemy"].engines
        self._key = next((key for key, each in engines.items() if each is engine), None)
        self._all = engines if engines.get(self._key) is engine else {}
        self._naming.apply(engine.dialect)
        return engine, own_engine(engine)


def is_same_database(one: sa.Engine, other: sa.Engine) -> bool:
    """Whether two engines are on the same database, whatever their drivers, users and options."""
    return one is other or one.url == other.url or _place(one.url) == _place(other.url)


def _place(url: sa.URL) -> tuple[t.Any, ...]:
    # `options` is compared too: it may set another search_path.
    where = (url.query.get(name) for name in ("host", "port", "service", "options"))
    return url.get_backend_name(), url.host, url.port, url.database, *where


def is_in_memory(url: sa.URL) -> bool:
    """Whether it is an in-memory SQLite: each pool then has a database of its own, although the URL is the same."""
    if url.get_backend_name() != "sqlite":
        return False
    return not url.database or ":memory:" in url.database or "mode=memory" in str(url)
