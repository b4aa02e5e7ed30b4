"""`Webhooks`: the Flask extension, which connects all parts to an app.

The law of this room: the extension object holds no data of an app; that is in the app's `AppState`.
"""

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
    :param name: the name of the API's blueprint; that of the console is `{name}_console`. For apps that have a
        blueprint called `webhooks` themselves.
    """

    def __init__(
        self, app: Flask | None = None, db: SQLAlchemy | None = None, *, name: str = "webhooks"
    ) -> None:
        if not name or "." in name:
            raise ConfigurationError(
                f"Webhooks(name={name!r}) cannot be a blueprint's. Take one without dots."
            )
        self.name = name
        self._load_principal: PrincipalLoader = _load_nothing
        self._formats: dict[str, Format] = dict(payload.FORMATS)
        if app is not None:
            if db is None:
                raise ConfigurationError("Webhooks(app) needs the database too. Call Webhooks(app, db).")
            self.init_app(app, db)

    def init_app(self, app: Flask, db: SQLAlchemy) -> None:
        """Read the configuration and the catalogue, add the tables to `db.metadata`, and start to capture changes.

        Call it once for each app, after `db.init_app(app)` and after all models have been imported. Later changes of
        the app's configuration have no effect.

        :raises ConfigurationError: a wrong setting, a catalogue with mistakes, or a second call for the same app.
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
            has_principal_loader=lambda: self._load_principal is not _load_nothing,
        )
        app.extensions[EXTENSION] = state
        absolute.name_place(app, settings.base_url)
        _log_doubtful_columns(bound)
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
        """Refuse a blueprint of the host with our name, and a `WEBHOOKS_URL_HOST` that does not fit the app's routing.

        :raises ConfigurationError: says which name or key to change.
        """
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
        """Register the function that returns the caller of the API or the console; None means not signed in (401).

        It may be async, like a view.

        :raises ConfigurationError: it is async, and Flask's extra `async` is not installed.
        """
        if inspect.iscoroutinefunction(load) and find_spec("asgiref") is None:
            raise ConfigurationError(
                f"The principal loader {load.__qualname__} is async, which Flask can call only with its extra: "
                'pip install "flask[async]".'
            )
        self._load_principal = load
        return load

    def _principal(self) -> Principal | None:
        """Return the caller, or None.

        :raises PrincipalError: the loader returned anything else; the request is refused.
        """
        load = self._load_principal
        name = f"{load.__module__}.{getattr(load, '__qualname__', type(load).__name__)}"
        try:
            found = current_app.ensure_sync(load)()
            if isinstance(found, Principal):
                Principal.__post_init__(found)  # a subclass may have overridden the check without calling it
        except PrincipalError as error:
            raise PrincipalError(f"The principal loader {name} made a Principal whose {error}") from error
        if found is not None and not isinstance(found, Principal):
            raise PrincipalError(
                f"The principal loader {name} returned what is of the type {type(found).__name__}. Return a Principal, "
                "or None if no user is signed in."
            )
        return found

    def payload_format(self, name: str) -> t.Callable[[Format], Format]:
        """Register a payload format under a name that the catalogue and subscriptions may use.

        The function gets a `payload.Message` and a `payload.Recipient`, and returns the body as a dict. It must return
        the same body for the same arguments: a retry sends the same bytes.

        :raises ConfigurationError: the function is async, or the name belongs to a built-in format.
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
        """Add an event to the current transaction: it is recorded if and only if that transaction commits.

        :param data: a JSON value, copied now; or an instance of the channel's model, which is serialised at commit with
            the values that it has then.
        :param owner: the owner of the event; optional for an instance from which the catalogue can read the owner.
        :param dedupe_key: a second event with this name, owner and key is dropped, also in a later transaction.
        :param session: the session to use instead of `db.session`.
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

        :param rows: one `data` value of `emit` for each event.
        :param dedupe_key: allowed with one row only; to give each row a key of its own, call `emit` for each.
        """
        state = self._state()
        capture.emit_many(
            state, _session(state.app, session), event, rows, owner=owner, dedupe_key=dedupe_key
        )

    @property
    def subscriptions(self) -> Subscriptions:
        """The subscriptions of the current app: created, read and changed in the current transaction."""
        return Subscriptions(self._here)

    def _here(self, session: AnySession | None) -> tuple[AppState, Session]:
        state = self._state()
        return state, _session(state.app, session)

    @contextlib.contextmanager
    def muted(self, session: AnySession | None = None) -> t.Iterator[None]:
        """Capture no change that is made inside the block; the session is flushed on entry and on exit."""
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


def _load_nothing() -> None:
    """The principal loader until the host registers its own: no request has a caller."""


def _session(app: Flask, given: AnySession | None = None) -> Session:
    """Return the given session, or `db.session` if none is given; a scoped session yields the one of this context."""
    db: SQLAlchemy = app.extensions["sqlalchemy"]
    session: AnySession = db.session if given is None else given
    return session() if isinstance(session, scoped_session) else session


def _vault(app: Flask, settings: Settings) -> Vault:
    derived = [
        derive_key(key)
        for key in (app.config.get("SECRET_KEY"), *(app.config.get("SECRET_KEY_FALLBACKS") or ()))
        if key
    ]
    # The derived keys stay, after the configured ones: an app that configures keys later can still open old secrets.
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
    """Return the files of authorities that are trusted in addition to the public ones.

    Without `WEBHOOKS_CA_BUNDLE` it is the file that the environment names for requests or OpenSSL, because the operator
    set that variable for every TLS client on this machine. It adds to the public authorities here, never replaces them.
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


def _log_doubtful_columns(bound: t.Mapping[str, BoundChannel]) -> None:
    """Log at start-up, before there are subscriptions, the columns whose values an event may not be able to carry."""
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
    """Refuse models on another engine than our tables: an event must be written in the transaction of its change.

    :raises ConfigurationError: names the model and both engines.
    """
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
