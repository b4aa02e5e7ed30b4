"""`Webhooks`: the only place that wires. It holds behaviour; what belongs to one app is in its `AppState`."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import typing as t
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session, scoped_session

from . import absolute, capture, models, payload, setup_errors
from .bindings import BoundChannel, open_catalog
from .config import Settings, slips
from .engines import Engines
from .errors import ConfigurationError, PrincipalError
from .manager import Subscriptions
from .payload import Format
from .principal import Principal
from .queue import Bell, Embedded
from .signing import Vault, derive_key
from .state import EXTENSION, AppState, is_developing, state_of
from .transport import Transport, bundle_fault

AnySession: t.TypeAlias = Session | scoped_session[t.Any]

__all__ = ["Webhooks"]

PrincipalLoader = t.Callable[[], Principal | None] | t.Callable[[], t.Awaitable[Principal | None]]
F = t.TypeVar("F", bound=PrincipalLoader)


logger = logging.getLogger(__name__)
catalog_logger = logging.getLogger("flask_webhooks.catalog")


class Webhooks:
    """Outbound webhooks for a Flask app.

    ::

        webhooks = Webhooks()

        def create_app():
            app = Flask(__name__)
            db.init_app(app)
            webhooks.init_app(app, db)

    :param app: with `db`, the same as calling `init_app` at once.
    :param name: of the blueprint with the API; that of the console is `{name}_console`. For apps that have a blueprint
        called `webhooks`.
    """

    def __init__(
        self, app: Flask | None = None, db: SQLAlchemy | None = None, *, name: str = "webhooks"
    ) -> None:
        if not name or "." in name:
            raise ConfigurationError(
                f"Webhooks(name={name!r}) cannot be a blueprint's. Take one without dots."
            )
        self.name = name
        self._load_principal: PrincipalLoader = _nobody
        self._formats: dict[str, Format] = dict(payload.FORMATS)
        if app is not None:
            if db is None:
                raise ConfigurationError("Webhooks(app) needs the database too. Call Webhooks(app, db).")
            self.init_app(app, db)

    def init_app(self, app: Flask, db: SQLAlchemy) -> None:
        """Read the configuration and the catalogue, add the tables, and begin to capture.

        Call it once for each app, after `db.init_app(app)` and when all models have been imported. What the app
        changes in its configuration afterwards is not seen.

        :raises ConfigurationError: a wrong setting, a catalogue with mistakes, a second call for the same app.
        """
        try:
            self._start(app, db)
        except Exception as error:
            if not setup_errors.forgive(app, error, self._formats):
                raise

    def _start(self, app: Flask, db: SQLAlchemy) -> None:
        if EXTENSION in app.extensions:
            raise ConfigurationError(
                f"Flask-Webhooks is initialised on {app.name!r} already. Call init_app once for each app: in the "
                "factory, or Webhooks(app, db) alone. It follows by itself where the app's database goes later, as "
                "in tests."
            )
        if "sqlalchemy" not in app.extensions:
            raise ConfigurationError(
                "Flask-SQLAlchemy is not initialised. Call db.init_app(app) before webhooks.init_app(app, db)."
            )
        if not isinstance(app.extensions["sqlalchemy"], SQLAlchemy):
            kind = type(app.extensions["sqlalchemy"])
            raise ConfigurationError(
                f"Flask-Webhooks works with Flask-SQLAlchemy, and {app.name!r} has "
                f"{kind.__module__}.{kind.__qualname__}. Flask-SQLAlchemy-Lite is not "
                "supported: our tables need the MetaData of `db`, which it does not have."
            )
        settings = Settings.read(app.config)
        for slip in slips(app.config):
            logger.warning("settings.unknown: %s", slip)
        self._check_doors(app, settings)
        naming = models.Naming(settings.schema or db.metadata.schema, settings.table_prefix)
        models.attach(db.metadata, naming)
        catalog, bound = open_catalog(settings.catalog, root=Path(app.root_path))
        embedded = Embedded(Path(app.instance_path) / "webhooks")
        with app.app_context():
            engines = Engines(app, naming)
            _check_binds(db, engines.host, bound)
        self._check_formats(bound)
        state = AppState(
            app=app,
            engines=engines,
            naming=naming,
            settings=settings,
            catalog=catalog,
            bound=bound,
            formats=self._formats,
            vault=_vault(app, settings),
            transport=_transport(app, settings),
            embedded=embedded,
            bell=Bell(settings.redis_url, embedded, settings.queue, app.import_name),
            load_principal=self._principal,
            has_principal_loader=lambda: self._load_principal is not _nobody,
        )
        app.extensions[EXTENSION] = state
        absolute.name_place(app, settings.base_url)
        _tell_doubts(bound)
        capture.install(state)
        self._add_doors(app, settings)

    def _add_doors(self, app: Flask, settings: Settings) -> None:
        from . import api, console

        doors = (
            api.make_blueprint(self.name, settings.url_host),
            console.make_blueprint(f"{self.name}_console", settings.url_host),
        )
        for door, path in zip(doors, ("", "/console"), strict=True):
            app.register_blueprint(door, url_prefix=f"{settings.url_prefix}{path}")

    def _check_doors(self, app: Flask, settings: Settings) -> None:
        """Refuse blueprints of the host's that are called like ours, and a host that would not be looked at."""
        for name in (self.name, f"{self.name}_console"):
            if name in app.blueprints:
                raise ConfigurationError(
                    f"The app {app.name!r} has a blueprint {name!r} of its own. Give ours another name, such as "
                    'Webhooks(name="outbound_webhooks").'
                )
        if app.url_map.host_matching and settings.url_host is None:
            raise ConfigurationError(
                f"The app {app.name!r} chooses its pages by host (host_matching), so API and console need one: set "
                'WEBHOOKS_URL_HOST, such as to "app.example.com".'
            )
        if settings.url_host is not None and not app.url_map.host_matching:
            raise ConfigurationError(
                f"WEBHOOKS_URL_HOST is {settings.url_host!r}, but the app {app.name!r} does not look at the host. "
                "Make it with Flask(..., host_matching=True, static_host=...), or leave the key away."
            )

    def principal_loader(self, load: F) -> F:
        """Register the function that says who is calling the API or the console; None means nobody (401).

        It may be async, as a view may.

        :raises ConfigurationError: it is async, and Flask cannot call it.
        """
        if inspect.iscoroutinefunction(load) and find_spec("asgiref") is None:
            raise ConfigurationError(
                f"The principal loader {load.__qualname__} is async, which Flask can call only with its extra: "
                'pip install "flask[async]".'
            )
        self._load_principal = load
        return load

    def _principal(self) -> Principal | None:
        """Return who is calling.

        :raises PrincipalError: the loader does not say. A mistake there must let nobody in.
        """
        load = self._load_principal
        name = f"{load.__module__}.{getattr(load, '__qualname__', type(load).__name__)}"
        try:
            found = current_app.ensure_sync(load)()
            if isinstance(found, Principal):
                Principal.__post_init__(found)  # again: a subclass may have passed it over
        except PrincipalError as error:
            raise PrincipalError(f"The principal loader {name} made a Principal whose {error}") from error
        if found is not None and not isinstance(found, Principal):
            raise PrincipalError(
                f"The principal loader {name} returned what is of the type {type(found).__name__}. Return a Principal, "
                "or None if nobody is signed in."
            )
        return found

    def payload_format(self, name: str) -> t.Callable[[Format], Format]:
        """Register an envelope under a name that the catalogue and subscriptions may use.

        The function gets a `payload.Message` and a `payload.Recipient` and returns the body as a dict. It must
        return the same for the same arguments: a retry sends the same bytes.
        """

        def register(make: Format) -> Format:
            if inspect.iscoroutinefunction(make):
                raise ConfigurationError(
                    f"The format {name!r} is async. Workers call it as a plain function: make it one."
                )
            if name in payload.FORMATS:
                raise ConfigurationError(f"{name!r} is a built-in format. Choose another name.")
            self._formats[name] = make
            return make

        return register

    def emit(
        self,
        event: str,
        data: t.Any,
        *,
        owner: str | None = None,
        dedupe_key: str | None = None,
        session: AnySession | None = None,
    ) -> None:
        """Add an event to the current transaction: it exists if and only if that transaction commits.

        :param data: anything JSON can hold, as it is now; or an instance of the channel's model, which is dumped at
            commit with its last state.
        :param owner: whose it is; may be left out for an instance that knows its owner.
        :param dedupe_key: a second event of this name, owner and key does nothing, also in a later transaction.
        :param session: another session than `db.session`.
        :raises EmitError: see its subclasses.
        """
        self.emit_many(event, [data], owner=owner, dedupe_key=dedupe_key, session=session)

    def emit_many(
        self,
        event: str,
        rows: t.Iterable[t.Any],
        *,
        owner: str | None = None,
        dedupe_key: str | None = None,
        session: AnySession | None = None,
    ) -> None:
        """Add one event for each of `rows`, for changes that capture cannot see; see `emit`.

        :param dedupe_key: with one row only; where each has a key of its own, `emit` them one by one.
        """
        state = self._state()
        capture.emit_many(
            state, _session(state.app, session), event, rows, owner=owner, dedupe_key=dedupe_key
        )

    @property
    def subscriptions(self) -> Subscriptions:
        """Subscriptions of the current app, made, read and changed in the current transaction."""
        return Subscriptions(self._here)

    def _here(self, session: AnySession | None) -> tuple[AppState, Session]:
        state = self._state()
        return state, _session(state.app, session)

    @contextlib.contextmanager
    def muted(self, session: AnySession | None = None) -> t.Iterator[None]:
        """Capture nothing of what is changed inside the block; it is flushed on entry and on exit."""
        with capture.muted(_session(self._state().app, session)):
            yield

    @staticmethod
    def _state() -> AppState:
        return state_of(current_app._get_current_object())  # type: ignore[attr-defined]

    def _check_formats(self, bound: t.Mapping[str, BoundChannel]) -> None:
        for each in bound.values():
            for event in each.channel.events.values():
                for name in {event.format, *event.formats} - self._formats.keys():
                    raise ConfigurationError(
                        f"{event.name} uses the format {name!r}, which is not registered. Register it with "
                        f'@webhooks.payload_format("{name}") before init_app, or use one of '
                        f"{', '.join(self._formats)}."
                    )


def _nobody() -> None:
    """Say that nobody is calling, until the host says who."""


def _session(app: Flask, given: AnySession | None = None) -> Session:
    """Return the session that is meant: `db.session` unless another is given, which may be scoped as that is."""
    db: SQLAlchemy = app.extensions["sqlalchemy"]
    session: AnySession = db.session if given is None else given
    return session() if isinstance(session, scoped_session) else session


def _vault(app: Flask, settings: Settings) -> Vault:
    derived = [
        derive_key(key)
        for key in (app.config.get("SECRET_KEY"), *(app.config.get("SECRET_KEY_FALLBACKS") or ()))
        if key
    ]
    # Derived keys stay behind the configured ones: an app that configures keys later can still open its secrets.
    keys = [*settings.encryption_keys, *derived]
    if not keys:
        raise ConfigurationError(
            "There is no key to seal webhook secrets with. Set SECRET_KEY, or WEBHOOKS_ENCRYPTION_KEYS to keys "
            "made with cryptography.fernet.Fernet.generate_key()."
        )
    return Vault(keys)


def _transport(app: Flask, settings: Settings) -> Transport:
    return Transport(
        timeout=settings.timeout,
        allow_http=settings.allow_http,
        allowed_networks=settings.allowed_networks,
        allowed_ports=settings.allowed_ports,
        response_limit=settings.response_limit,
        pool_size=max(64, settings.concurrency * 2),
        lifetime=settings.connection_lifetime,
        idle=settings.connection_idle,
        proxy=settings.egress_proxy,
        bundles=_bundles(settings),
        is_developing=lambda: is_developing(app),
    )


def _bundles(settings: Settings) -> tuple[str, ...]:
    """Return the files of authorities that are trusted besides the public ones.

    Without a setting, the one that the environment names for requests and OpenSSL: who has set it means all that speaks
    TLS on this machine. Here it adds to the public ones, too.
    """
    if settings.ca_bundle is not None:
        return (settings.ca_bundle,)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        path = os.environ.get(name)
        if path:
            fault = bundle_fault(path)
            if fault is None:
                return (path,)
            logger.warning("ca_bundle.unreadable", extra={"variable": name, "path": path, "reason": fault})
    return ()


def _tell_doubts(bound: t.Mapping[str, BoundChannel]) -> None:
    """Name, before anybody subscribes, the columns that an event may not be able to carry."""
    for name, each in bound.items():
        if each.doubts:
            words = " ".join(map(str, each.doubts))
            catalog_logger.warning(
                "columns.doubtful: channel %s: %s",
                name,
                words,
                extra={"channel": name, "columns": [doubt.column for doubt in each.doubts]},
            )


def _check_binds(db: SQLAlchemy, engine: sa.Engine, bound: t.Mapping[str, BoundChannel]) -> None:
    """Refuse models that live on another engine than our tables: an event must be in its change's transaction."""
    with contextlib.closing(db.session()) as session:
        for each in bound.values():
            if each.model is None:
                continue
            other = session.get_bind(mapper=sa.inspect(each.model)).engine
            if other is not engine:
                raise ConfigurationError(
                    f"The model {each.model.__name__} of channel {each.channel.name} lives on another bind "
                    f"({other.url!r}) than the webhook tables ({engine.url!r}), so its events could not be written in "
                    "its transactions. Move it, or declare the channel without a model and emit() its events."
                )
