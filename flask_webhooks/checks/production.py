"""What is right on a developer's machine and wrong where customers are: `flask webhooks check --production`."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

from .. import queries
from .findings import Check, Finding, Level

if t.TYPE_CHECKING:
    from ..config import Settings
    from ..state import AppState

__all__ = ["check_production"]

SHORTEST_KEY = 16
"""Minimum length of a `SECRET_KEY` that cannot be guessed; `secrets.token_hex()` makes 64 characters."""


def check_production(state: AppState) -> Check:
    """Tell what has to be done before going live: errors must be, of warnings one may know better."""
    findings = [
        *_app(state),
        *_environment(state.settings),
        *_guard(state.settings),
        *_parts(state),
    ]
    left = sum(finding.level is Level.ERROR for finding in findings)
    words = f"{left} to do before going live" if left else "ready to go live"
    return Check("production", words, tuple(findings))


def _error(text: str) -> Finding:
    return Finding(Level.ERROR, text)


def _warning(text: str) -> Finding:
    return Finding(Level.WARNING, text)


def _app(state: AppState) -> t.Iterator[Finding]:
    config = state.app.config
    if state.is_developing:
        yield _error(
            "The app is in debug mode, so customers could make it call itself over http. Start it without --debug and "
            "FLASK_DEBUG, and not by `flask webhooks dev`."
        )
    if config.get("TESTING"):
        yield _error("TESTING is on. Remove it.")
    key = config.get("SECRET_KEY") or ""
    if len(key) < SHORTEST_KEY:
        yield _error(
            f"SECRET_KEY has {len(key)} characters: whoever guesses it can forge console tokens and decrypt secrets. "
            "Set it to what `python -c 'import secrets; print(secrets.token_hex())'` prints."
        )
    if not state.settings.encryption_keys:
        yield _warning(
            "WEBHOOKS_ENCRYPTION_KEYS is not set, so secrets are encrypted with a key derived from SECRET_KEY. "
            "If you change SECRET_KEY, keep the old one in SECRET_KEY_FALLBACKS. Separate keys do not depend on it."
        )
    if not config.get("SESSION_COOKIE_SECURE"):
        yield _warning(
            "SESSION_COOKIE_SECURE is off: the session that opens the console would be sent over http as well."
        )
    if not state.has_principal_loader():
        yield _error(
            "There is no @webhooks.principal_loader: API and console answer 401 to everybody. Add one that "
            "identifies the caller."
        )


def _environment(settings: Settings) -> t.Iterator[Finding]:
    if settings.environment == "staging":
        yield _error(
            'WEBHOOKS_ENVIRONMENT is "staging", the default: subscriptions for "production" receive nothing from '
            'this app. Set it to "production".'
        )
    elif not settings.sends_to("production"):
        yield _error(
            f"Workers send for {', '.join(sorted(settings.sent_environments or ()))} only: set "
            "WEBHOOKS_SEND_ENVIRONMENTS, or remove it."
        )
    if not settings.enabled:
        yield _error("WEBHOOKS_ENABLED is False: events are recorded, but nothing is sent.")


def _guard(settings: Settings) -> t.Iterator[Finding]:
    if settings.allow_http:
        yield _error(
            "WEBHOOKS_ALLOW_HTTP is on: customers' data and signatures could be read on the way. Remove it."
        )
    for network in settings.allowed_networks:
        if network.is_loopback or (network.version == 4 and network.prefixlen == 0):
            yield _error(
                f"WEBHOOKS_ALLOWED_NETWORKS has {network}: customers could make the app call itself and its "
                "neighbours. Remove it."
            )
        elif not network.is_global:
            yield _warning(
                f"WEBHOOKS_ALLOWED_NETWORKS has {network}: customers can reach all of it with a webhook."
            )
    if settings.on_error == "raise":
        yield _warning(
            'WEBHOOKS_ON_ERROR is "raise": a schema that fails also fails the commit. "record" stores '
            "the message, to be repaired."
        )


def _parts(state: AppState) -> t.Iterator[Finding]:
    if state.engine.dialect.name == "sqlite":
        yield _warning("The database is SQLite, in which only one process can write at a time.")
    if state.settings.redis_url is None:
        yield _warning(
            "WEBHOOKS_REDIS_URL is not set: the embedded Valkey serves one machine. With web and workers on several, "
            "set a URL; otherwise workers notice work only after 2 s."
        )
    try:
        with state.own_engine.connect() as connection:
            is_worked = queries.has_worker(connection)
    except sa.exc.SQLAlchemyError:  # reported already
        return
    if not is_worked:
        yield _warning("No worker runs: nothing is sent until `flask webhooks worker` does.")
