"""`AppState`: configuration, catalogue and connections of one app, in one frozen object; and how a door finds it.

The law of this room: nothing about an app is kept on the extension object, so two apps in one process share nothing.
"""

from __future__ import annotations

import os
import typing as t
from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session
from werkzeug.local import LocalProxy

from .bindings import BoundChannel
from .catalog import Catalog
from .config import Settings
from .engines import Engines
from .errors import ConfigurationError
from .models import Naming
from .payload import Format
from .principal import Principal
from .queue import Bell, Embedded
from .signing import Vault
from .transport import Transport

__all__ = [
    "DEVELOPING",
    "EXTENSION",
    "AppState",
    "Principal",
    "current_webhooks",
    "is_developing",
    "state_of",
]

EXTENSION = "flask_webhooks"
DEVELOPING = "_FLASK_WEBHOOKS_DEV"
"""Environment variable that `flask webhooks dev` sets for the processes it starts. The leading underscore keeps it out
of `app.config.from_prefixed_env()`."""


@dataclass(frozen=True, eq=False)
class AppState:
    """One app's webhooks: what was configured, and the connections to database, Redis and receivers."""

    app: Flask
    engines: Engines
    naming: Naming
    """Names of our tables."""
    settings: Settings
    catalog: Catalog
    bound: t.Mapping[str, BoundChannel]
    """Channel name to the channel with its model and schemas."""
    formats: t.Mapping[str, Format]
    """Built-in envelopes and those registered with `@webhooks.payload_format`."""
    vault: Vault
    transport: Transport
    embedded: Embedded
    bell: Bell
    load_principal: t.Callable[[], Principal | None] = field(repr=False)
    has_principal_loader: t.Callable[[], bool] = field(default=lambda: True, repr=False)
    """Whether the host has registered a principal loader, which it may do after `init_app`."""
    ownerless: Counter[str] = field(default_factory=Counter)
    """Number of events, by name, that a subscription matches but whose row has no owner, since this process began."""

    unrecorded: Counter[str] = field(default_factory=Counter)
    """Number of commits whose events were not recorded because no subscription can exist there, by reason: `tables`
    (ours are not created yet) or `database` (the commit was on another database than the app's)."""

    @property
    def engine(self) -> sa.Engine:
        """The engine of our tables and of every catalogued model. Looked up at each use: a test may change it."""
        return self.engines.host

    @property
    def own_engine(self) -> sa.Engine:
        """The engine for transactions of our own; it has the same pool. See `sql.transactions`."""
        return self.engines.own

    @property
    def host_session(self) -> Session:
        """The session that the host's own code uses in this context: `db.session`."""
        return t.cast("Session", self.app.extensions["sqlalchemy"].session())

    @property
    def is_developing(self) -> bool:
        """Whether this process runs on a developer's machine."""
        return is_developing(self.app)

    def end_host_transaction(self) -> None:
        """End the transaction that the host's principal loader may have begun on its session.

        That transaction holds a connection, and a door needs a second one for its own work: with a pool of one, or
        under load, the request would wait for itself. On SQLite the transaction may also hold the only write lock. It
        is committed, because the host's code of this request, which may have written, is over.
        """
        host = self.host_session
        if host.in_transaction():
            if host.is_active:
                host.commit()
            else:  # a statement failed, and the host caught the error without a rollback
                host.rollback()


def is_developing(app: Flask) -> bool:
    """Whether an app runs on a developer's machine: in debug mode, or under `flask webhooks dev`."""
    return bool(app.debug) or DEVELOPING in os.environ


def state_of(app: Flask) -> AppState:
    """Return the state of `app`.

    :raises ConfigurationError: the extension was not initialised on it.
    """
    try:
        return t.cast("AppState", app.extensions[EXTENSION])
    except KeyError:
        raise ConfigurationError(
            f"Flask-Webhooks is not initialised on the app {app.name!r}. Call webhooks.init_app(app, db)."
        ) from None


def _current() -> AppState:
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


current_webhooks: AppState = LocalProxy(_current)  # type: ignore[assignment]
