"""Where deliveries go: subscriptions, opened for sending.

The law of this room: what does not open is a `problem` of one destination and no error, because all the others are read
with the same statement.
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
from ..models import Listener, Secret, Subscription, Trigger
from ..signing import place_of
from ..sql.parameters import KeyedStatement
from ..transport import ClientCertificate

if t.TYPE_CHECKING:
    from ..catalog import Catalog
    from ..state import AppState

__all__ = ["Destination", "destinations"]

logger = logging.getLogger("flask_webhooks.delivering")
S, K, L = (t.cast("sa.Table", model.__table__) for model in (Subscription, Secret, Listener))


@dataclass(frozen=True, slots=True)
class Destination:
    """A subscription, opened for sending."""

    recipient: payload.Recipient
    active: bool
    removed: bool
    secrets: tuple[signing.Secret, ...]
    headers: t.Mapping[str, str] = field(repr=False)
    """The custom headers, in the clear."""
    retry: tuple[float, ...] | None
    """Its own schedule."""
    rate: float | None
    """Requests a second."""
    problem: str
    """Why nothing can be sent; empty if all is well."""
    is_locked: bool
    """Whether that is because something sealed does not open."""
    sealed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What was opened, each after its place, so that a second look need not open it again."""
    patterns: frozenset[str] = frozenset()
    """What it listens to now."""
    identity: ClientCertificate | None = None
    """What we show its receiver under TLS, if it is at the host that this was given for."""

    def still_wants(self, catalog: Catalog, event: str, trigger: str) -> bool:
        """Whether the event may still be sent: it is listened to, or a person has asked for just this delivery.

        No subscription that was made through API, console or command line is without a pattern. Where there is none
        nothing has been deselected.
        """
        return not self.patterns or trigger == Trigger.MANUAL or catalog.is_listened(event, self.patterns)


def destinations(
    state: AppState,
    connection: sa.Connection,
    ids: t.Collection[str],
    now: datetime,
    known: t.Mapping[str, Destination] | None = None,
) -> dict[str, Destination]:
    """Return destinations by subscription: one statement. A secret that does not open is a `problem`.

    :param known: what an earlier look returned; secrets that are still the same are not opened again.
    """
    rows = _DESTINATIONS.run(connection, ids, now=now).all()
    sealed: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.sealed is not None:
            sealed.setdefault(row.id, []).append((place_of("secret", row.id, row.secret_id), row.sealed))
    known = known or {}
    found = {row.id: row for row in rows}
    return {key: _opened(state, row, sealed.get(key, ()), known.get(key)) for key, row in found.items()}


_SUBSCRIPTION = (
    *(S.c.id, S.c.owner, S.c.environment, S.c.url, S.c.description, S.c.metadata),
    *(S.c.active, S.c.deleted_at, S.c.headers, S.c.format, S.c.retry, S.c.rate_limit, S.c.client_certificate),
)


class _Listed(GenericFunction[str]):
    """All values of a column as the text of a JSON array: `group_concat` would cut a long one on MySQL."""

    type = sa.Text()
    inherit_cache = True


@compiles(_Listed, "postgresql")
def _on_postgresql(function: _Listed, compiler: t.Any, **options: t.Any) -> str:
    return f"CAST(json_agg({compiler.process(function.clauses, **options)}) AS text)"


@compiles(_Listed, "sqlite")
def _on_sqlite(function: _Listed, compiler: t.Any, **options: t.Any) -> str:
    return f"json_group_array({compiler.process(function.clauses, **options)})"


@compiles(_Listed, "mysql", "mariadb")
def _on_mysql(function: _Listed, compiler: t.Any, **options: t.Any) -> str:
    return f"json_arrayagg({compiler.process(function.clauses, **options)})"


_patterns = sa.select(_Listed(L.c.event)).where(L.c.subscription_id == S.c.id).correlate(S).scalar_subquery()
_DESTINATIONS = KeyedStatement(
    S.c.id,
    lambda these: (
        sa.select(*_SUBSCRIPTION, K.c.id.label("secret_id"), K.c.sealed, _patterns.label("patterns"))
        .outerjoin(
            K,
            sa.and_(
                K.c.subscription_id == S.c.id,
                sa.or_(
                    K.c.expires_at.is_(None), K.c.expires_at > sa.bindparam("now", type_=K.c.expires_at.type)
                ),
            ),
        )
        .where(these)
        .order_by(K.c.expires_at.is_not(None), K.c.id.desc())  # the current one first
    ),
)


def _opened(
    state: AppState, row: sa.Row[t.Any], sealed: t.Iterable[tuple[str, str]], known: Destination | None
) -> Destination:
    texts = (
        *sealed,
        (place_of("certificate", row.id), row.client_certificate or ""),
        (place_of("headers", row.id), row.headers or ""),
    )
    if known is None or known.sealed != texts:
        secrets, identity, headers, problem = _unsealed(state, texts)
    else:
        secrets, identity, headers = known.secrets, known.identity, known.headers
        problem = known.problem if known.is_locked else ""
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
        is_locked=bool(problem),
        sealed=texts,
        patterns=frozenset(json.loads(row.patterns) if row.patterns else ()),
        identity=identity,
    )


def _waits(spec: t.Any) -> tuple[tuple[float, ...] | None, str]:
    """The schedule of its own, or what is wrong with it: one broken row must not stop the others."""
    if spec is None:
        return None, ""
    try:
        return retry.bounded(retry.schedule(spec)), ""
    except ValueError as error:
        return None, str(error)


def _unsealed(
    state: AppState, texts: t.Sequence[tuple[str, str]]
) -> tuple[tuple[signing.Secret, ...], ClientCertificate | None, t.Mapping[str, str], str]:
    """Open secrets and, last, the client certificate and the custom headers."""
    *sealed, (certificate_place, certificate), (headers_place, headers) = texts
    secrets: list[signing.Secret] = []
    for number, (place, text) in enumerate(sealed):
        try:
            secrets.append(signing.parse(state.vault.open(text, place)))
        except SecretError as error:
            if not number:  # the current one; the others only overlap
                return (), None, {}, _said(state, error)
            logger.warning("secret.unreadable", extra={"reason": str(error)})
    try:
        identity = None
        if certificate:
            identity = ClientCertificate.load(state.vault.open(certificate, certificate_place))
        own = _custom(state.vault.open(headers, headers_place)) if headers else {}
        return tuple(secrets), identity, own, ""
    except SecretError as error:
        return (), None, {}, _said(state, error)


_told_at: weakref.WeakKeyDictionary[signing.Vault, float] = weakref.WeakKeyDictionary()
_SILENCE = 600.0
"""Seconds in which a process says once that its keys do not open something."""


def _said(state: AppState, error: SecretError) -> str:
    """Say that our keys do not fit, once for all that waits for them."""
    now = time.monotonic()
    if now - _told_at.get(state.vault, float("-inf")) > _SILENCE:
        _told_at[state.vault] = now
        logger.error("secret.unreadable", extra={"reason": str(error)})
    return str(error)


def _custom(text: str) -> dict[str, str]:
    """Return custom headers without those that pass for ours: what was kept before we sent them goes unsent.

    With underscores too, because WSGI and CGI make one name of `webhook_event` and `webhook-event`.
    """
    return {
        name: value
        for name, value in json.loads(text).items()
        if not name.lower().replace("_", "-").startswith("webhook-")
    }
