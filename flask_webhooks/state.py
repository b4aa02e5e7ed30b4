"""Everything the package knows about one app, in one frozen bundle; and how a door finds it.

Nothing about an app is kept on the extension object, so two apps in one process do not meet.
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
"""In the environment of what `flask webhooks dev` starts. No key of `app.config.from_prefixed_env()` begins so."""


@dataclass(frozen=True, eq=False)
class AppState:
    """One app's webhooks: what was configured, and the connections to the outside."""

    app: Flask
    engines: Engines
    naming: Naming
    """What our tables are called."""
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
    """Whether the host has said who is calling; it may do so after `init_app`."""
    ownerless: Counter[str] = field(default_factory=Counter)
    """Events of rows without an owner that somebody listens to, since this process began, by name."""

    unrecorded: Counter[str] = field(default_factory=Counter)
    """Commits of which nothing could be recorded while nobody could listen, by why: `tables` that are not there yet,
    another `database` than the app's."""

    @property
    def engine(self) -> sa.Engine:
        """Where the tables live, and every catalogued model: now, for a test may lead the app elsewhere."""
        return self.engines.host

    @property
    def own_engine(self) -> sa.Engine:
        """For transactions of our own; the same pool. See `sql.transactions`."""
        return self.engines.own

    @property
    def host_session(self) -> Session:
        """The session that the host's own code uses in this context: `db.session`."""
        return t.cast("Session", self.app.extensions["sqlalchemy"].session())

    @property
    def is_developing(self) -> bool:
        """Whether this process runs on a developer's machine."""
        return is_developing(self.app)

    def let_go(self) -> None:
        """End the transaction that the host's session may have begun to find out who is calling.

        It holds a connection, and a door that is about to take another one would wait for itself as soon as the pool
        has no more; on SQLite it may hold the only write lock besides. What the host wrote is committed: only we know
        that nothing of this request comes after.
        """
        host = self.host_session
        if host.in_transaction():
            if host.is_active:
                host.commit()
            else:  # after an error that the host has passed over
                host.rollback()


def is_developing(app: Flask) -> bool:
    """Say whether an app runs on a developer's machine: in debug mode, or under `flask webhooks dev`."""
    return bool(app.debug) or DEVELOPING in os.environ


def state_of(app: Flask) -> AppState:
    """Return the bundle of `app`.

    :raises ConfigurationError: when the extension was not initialised on it.
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
