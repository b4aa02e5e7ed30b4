"""Destinations: subscriptions with their secrets, headers and certificate decrypted for sending.

The law of this module: what cannot be decrypted is the `problem` of one destination and raises no error, because one
statement reads many subscriptions and the others must not suffer from it.
"""

from __future__ import annotations

import json
import logging
import time
import typing as t
import weakref
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from .. import payload, retry, signing
from ..errors import SecretError
from ..models import LISTENERS, SECRETS, SUBSCRIPTIONS, Trigger
from ..signing import place_of
from ..sql.parameters import KeyedStatement
from ..transport import ClientCertificate

if t.TYPE_CHECKING:
    from ..catalog import Catalog
    from ..state import AppState

__all__ = ["Destination", "destinations"]

logger = logging.getLogger("flask_webhooks.delivering")


@dataclass(frozen=True, slots=True)
class Destination:
    """A subscription, decrypted for sending."""

    recipient: payload.Recipient
    active: bool
    removed: bool
    secrets: tuple[signing.Secret, ...]
    headers: t.Mapping[str, str] = field(repr=False)
    """The custom headers, decrypted."""
    retry: tuple[float, ...] | None
    """Its own schedule: seconds before each retry; None without one."""
    rate: float | None
    """Most requests a second; None: no limit."""
    problem: str
    """Why nothing can be sent; empty if it can."""
    is_unreadable: bool
    """Whether the problem is that our keys cannot decrypt something."""
    sealed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The encrypted texts with their places: as long as they are the same, they are not decrypted again."""
    patterns: frozenset[str] = frozenset()
    """The patterns that it listens to now."""
    identity: ClientCertificate | None = None
    """The client certificate for TLS; it is sent only to the host that it was given for."""

    def still_wants(self, catalog: Catalog, event: str, trigger: str) -> bool:
        """Whether the event may still be sent: a pattern matches it, or a caller retried exactly this delivery.

        API, console and command line refuse a subscription without patterns. One that was inserted by other means has
        deselected nothing, so everything is sent.
        """
        return not self.patterns or trigger == Trigger.MANUAL or catalog.is_listened(event, self.patterns)


def destinations(
    state: AppState,
    connection: sa.Connection,
    ids: t.Collection[str],
    now: datetime,
    known: t.Mapping[str, Destination] | None = None,
) -> dict[str, Destination]:
    """Return destinations by subscription, with one statement.

    :param known: the result of an earlier call: unchanged secrets are not decrypted again.
    """
    rows = _DESTINATIONS.run(connection, ids, now=now).all()
    sealed: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.sealed is not None:
            sealed.setdefault(row.id, []).append((place_of("secret", row.id, row.secret_id), row.sealed))
    known = known or {}
    found = {row.id: row for row in rows}  # a subscription has one row for each valid secret
    return {key: _open(state, row, sealed.get(key, ()), known.get(key)) for key, row in found.items()}


_COLUMNS = tuple(
    SUBSCRIPTIONS.c[name]
    for name in (
        *("id", "owner", "environment", "url", "description", "metadata", "active", "deleted_at"),
        *("headers", "format", "retry", "rate_limit", "client_certificate"),
    )
)


class _JsonArray(GenericFunction[str]):
    """All values of a column as the text of a JSON array. `group_concat` would silently cut a long one on MySQL."""

    type = sa.Text()
    inherit_cache = True


@compiles(_JsonArray, "postgresql")
def _on_postgresql(function: _JsonArray, compiler: t.Any, **options: t.Any) -> str:
    return f"CAST(json_agg({compiler.process(function.clauses, **options)}) AS text)"


@compiles(_JsonArray, "sqlite")
def _on_sqlite(function: _JsonArray, compiler: t.Any, **options: t.Any) -> str:
    return f"json_group_array({compiler.process(function.clauses, **options)})"


@compiles(_JsonArray, "mysql", "mariadb")
def _on_mysql(function: _JsonArray, compiler: t.Any, **options: t.Any) -> str:
    return f"json_arrayagg({compiler.process(function.clauses, **options)})"


_patterns = (
    sa.select(_JsonArray(LISTENERS.c.event))
    .where(LISTENERS.c.subscription_id == SUBSCRIPTIONS.c.id)
    .correlate(SUBSCRIPTIONS)
    .scalar_subquery()
)
_DESTINATIONS = KeyedStatement(
    SUBSCRIPTIONS.c.id,
    lambda these: (
        sa.select(*_COLUMNS, SECRETS.c.id.label("secret_id"), SECRETS.c.sealed, _patterns.label("patterns"))
        # An outer join: a subscription without a valid secret must be found, for its attempts say so.
        .outerjoin(
            SECRETS,
            sa.and_(
                SECRETS.c.subscription_id == SUBSCRIPTIONS.c.id,
                sa.or_(
                    SECRETS.c.expires_at.is_(None),
                    SECRETS.c.expires_at > sa.bindparam("now", type_=SECRETS.c.expires_at.type),
                ),
            ),
        )
        .where(these)
        .order_by(SECRETS.c.expires_at.is_not(None), SECRETS.c.id.desc())  # the current one first
    ),
)


def _open(
    state: AppState, row: sa.Row[t.Any], sealed: t.Iterable[tuple[str, str]], known: Destination | None
) -> Destination:
    texts = (
        *sealed,
        (place_of("certificate", row.id), row.client_certificate or ""),
        (place_of("headers", row.id), row.headers or ""),
    )
    if known is None or known.sealed != texts:
        secrets, identity, headers, problem = _unseal(state, texts)
    else:
        secrets, identity, headers = known.secrets, known.identity, known.headers
        problem = known.problem if known.is_unreadable else ""
    waits, wrong = _waits(row.retry)
    recipient = payload.Recipient(
        id=row.id,
        url=row.url,
        description=row.description,
        metadata=row.metadata,
        format=row.format or "",
        environment=row.environment,
        owner=row.owner,
    )
    return Destination(
        recipient=recipient,
        active=row.active and row.deleted_at is None,
        removed=row.deleted_at is not None,
        secrets=secrets,
        headers=headers,
        retry=waits,
        rate=row.rate_limit if row.rate_limit is not None and row.rate_limit > 0 else None,
        problem=problem or wrong,
        is_unreadable=bool(problem),
        sealed=texts,
        patterns=frozenset(json.loads(row.patterns) if row.patterns else ()),
        identity=identity,
    )


def _waits(spec: t.Any) -> tuple[tuple[float, ...] | None, str]:
    """Return the own schedule, and the reason if it is malformed: one such row must not stop the others."""
    if spec is None:
        return None, ""
    try:
        return retry.bounded(retry.schedule(spec)), ""
    except ValueError as error:
        return None, str(error)


def _unseal(
    state: AppState, texts: t.Sequence[tuple[str, str]]
) -> tuple[tuple[signing.Secret, ...], ClientCertificate | None, t.Mapping[str, str], str]:
    """Return the decrypted secrets, certificate and custom headers, and the reason if they cannot be decrypted.

    :param texts: place and encrypted text: of each secret, then of the certificate, last of the custom headers.
    """
    *sealed, (certificate_place, certificate), (headers_place, headers) = texts
    secrets: list[signing.Secret] = []
    for number, (place, text) in enumerate(sealed):
        try:
            secrets.append(signing.parse(state.vault.open(text, place)))
        except SecretError as error:
            if not number:  # the current one; without an older one requests still have a valid signature
                return (), None, {}, _log_unreadable(state, error)
            logger.warning("secret.unreadable", extra={"reason": str(error)})
    try:
        identity = None
        if certificate:
            identity = ClientCertificate.load(state.vault.open(certificate, certificate_place))
        own = _custom_headers(state.vault.open(headers, headers_place)) if headers else {}
        return tuple(secrets), identity, own, ""
    except SecretError as error:
        return (), None, {}, _log_unreadable(state, error)


_logged_at: weakref.WeakKeyDictionary[signing.Vault, float] = weakref.WeakKeyDictionary()
_LOG_INTERVAL = 600.0
"""A process logs at most once in so many seconds that its keys cannot decrypt something."""


def _log_unreadable(state: AppState, error: SecretError) -> str:
    """Log that our keys do not fit, once for all destinations, and return the reason."""
    now = time.monotonic()
    if now - _logged_at.get(state.vault, float("-inf")) > _LOG_INTERVAL:
        _logged_at[state.vault] = now
        logger.error("secret.unreadable", extra={"reason": str(error)})
    return str(error)


def _custom_headers(text: str) -> dict[str, str]:
    """Return the custom headers without those that a receiver could take for ours.

    Such names are refused today, but older versions stored them. Names with underscores count too, because WSGI and CGI
    make one variable of `webhook_event` and `webhook-event`.
    """
    return {
        name: value
        for name, value in json.loads(text).items()
        if not name.lower().replace("_", "-").startswith("webhook-")
    }
