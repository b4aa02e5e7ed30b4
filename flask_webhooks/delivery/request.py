"""What one worker has in its hands: destinations, tasks, and the request that is made of both."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import typing as t
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from .. import payload, retry, signing
from ..catalog import RESERVED_CHANNEL
from ..errors import SecretError
from ..ids import is_backfilled
from ..messages import payload_message
from ..models import Listener, Secret, Subscription, Trigger
from ..signing import place_of
from ..sql.parameters import KeyedStatement
from ..transport import ClientCertificate, Outbound

if t.TYPE_CHECKING:
    from ..catalog import Catalog
    from ..state import AppState

__all__ = ["USER_AGENT", "DeliveryTask", "Destination", "Request", "build", "destinations"]

logger = logging.getLogger("flask_webhooks.delivering")
S, K, L = (t.cast("sa.Table", model.__table__) for model in (Subscription, Secret, Listener))
MASK = "•••"
_ASKED_FOR = frozenset({Trigger.REPLAY.value, Trigger.MANUAL.value})


def _version() -> str:
    from importlib.metadata import version

    return version("flask-webhooks")


USER_AGENT = f"Flask-Webhooks/{_version()}"


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
        nobody has deselected anything.
        """
        return not self.patterns or trigger == Trigger.MANUAL or catalog.is_listened(event, self.patterns)


@dataclass(slots=True, eq=False)
class DeliveryTask:
    """A delivery in this worker's hands, with its message."""

    id: str
    subscription_id: str
    number: int
    """Of the attempt that comes next, from 1."""
    trigger: str
    format: str
    includes: frozenset[str]
    message: t.Any
    """The row of the message; None if it has been purged."""
    body: bytes | None = field(repr=False)
    """What was sent before, if it was tried before."""
    due_at: datetime | None = None
    """As it was read: whoever changes it meanwhile is not overruled."""
    size: int = 0
    """Bytes in memory, about."""
    read_at: float = 0.0
    """Monotonic seconds when it was read."""
    is_outdated: bool = False
    """Of a backfill, and something newer about its object goes to the same receiver; see `outdated`."""

    @property
    def entity(self) -> tuple[str, str]:
        """What its message is about: channel and key."""
        return self.message.channel, self.message.entity_id


@dataclass(slots=True)
class Request:
    """A request that is ready to go, and what the log keeps of it."""

    outbound: Outbound
    logged: t.Mapping[str, str]
    """The headers with the values of custom ones masked: they may hold credentials."""


class RequestError(Exception):
    """This task cannot be made into a request, now or (when `final`) ever."""

    def __init__(
        self, message: str, *, reason: str = retry.Failure.POISON.value, final: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


class Locked(RequestError):
    """Its secret, custom headers or certificate do not open. The keys are ours, so the delivery waits for them."""


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


def build(state: AppState, destination: Destination, task: DeliveryTask, now: datetime) -> Request:
    """Render, sign and address a task; the same bytes on every retry, a fresh signature.

    :raises RequestError: its event or format is gone, its secret does not open, its format raises.
    """
    if destination.problem:
        raise (Locked if destination.is_locked else RequestError)(destination.problem)
    body = task.body if task.message is not None else None
    if body is None:
        body = render(state, destination.recipient, task)
    try:
        ours = headers(
            task.message,
            body,
            destination.secrets,
            now,
            number=task.number,
            delivery=task.id,
            trigger=_trigger(task),
        )
    except SecretError as error:
        raise RequestError(str(error)) from error
    own = destination.headers
    logged = {**ours, **dict.fromkeys(own, MASK)} if own else ours
    url, identity = destination.recipient.url, destination.identity
    if identity is not None and not identity.fits(url):  # its owner has moved it elsewhere
        identity = None
    return Request(Outbound(url, {**own, **ours} if own else ours, body, identity), logged)


def headers(
    message: t.Any,
    body: bytes,
    secrets: t.Sequence[signing.Secret],
    now: datetime,
    *,
    number: int,
    delivery: str,
    trigger: str,
) -> dict[str, str]:
    """Return the headers that are ours.

    What tells of the event and of this attempt is not signed: Standard Webhooks signs the id, the timestamp and the
    body. All of it is ASCII. `receiving.verify` reads it.

    :raises SecretError: without a secret.
    """
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        **signing.headers(message.id, body, now, secrets),
        "webhook-event": message.event,
        "webhook-occurred-at": payload.timestamp(message.occurred_at),
        "webhook-sequence": str(message.sequence),
        "webhook-attempt": str(number),
        "webhook-delivery": delivery,
        "webhook-trigger": trigger,
    }


def _trigger(task: DeliveryTask) -> str:
    """Why a request is made, in words for receivers: `live`, `replay`, `backfill` or `test`.

    The log's words tell which of our workflows made the attempt; a receiver wants to know whether the event is new.
    """
    message = task.message
    if message.channel == RESERVED_CHANNEL:
        return "test"
    if task.trigger in _ASKED_FOR:
        return "replay"
    return "backfill" if message.dedupe_key and is_backfilled(message.dedupe_key) else "live"


def is_of_backfill(task: DeliveryTask) -> bool:
    """Whether a backfill sends it: not somebody who has it sent again, and wants history as it was."""
    message = task.message
    return bool(message is not None and message.dedupe_key and _trigger(task) == "backfill")


def render(state: AppState, recipient: payload.Recipient, task: DeliveryTask) -> bytes:
    """Return the body of a task.

    :raises RequestError: as `build`. An event or format that is gone is tried again by the schedule: during a
        deployment an old worker meets the new web process's events.
    """
    row = task.message
    if row is None:
        raise RequestError("The message has been purged.", reason="purged", final=True)
    event = state.catalog.events.get(row.event)
    if event is None:
        raise RequestError(
            f"The event {row.event} is not in this worker's catalogue.", reason="unknown_event"
        )
    make = state.formats.get(task.format)
    if make is None:
        raise RequestError(
            f"The format {task.format!r} is not registered in this worker.", reason="unknown_format"
        )
    # The host's own may want its app, or the database; ours do without, which spares some microseconds.
    is_ours = make is payload.FORMATS.get(task.format)
    try:
        with contextlib.nullcontext() if is_ours else state.app.app_context():
            return payload.render(make, _message(state, task, row), recipient)
    except MemoryError:
        raise  # no fault of the format
    except Exception as error:  # a custom format is the host's code and may raise anything
        raise RequestError(payload.failed(task.format, error)) from error


def _message(state: AppState, task: DeliveryTask, row: sa.Row[t.Any]) -> payload.Message:
    data = json.loads(row.data)
    if task.includes and row.extras and isinstance(data, dict):
        extras = json.loads(row.extras)
        data.update((name, value) for name, value in extras.items() if name in task.includes)
    return payload_message(row, state.catalog.channels[row.channel].label, data)


def utcnow() -> datetime:
    """The clock of this room."""
    return datetime.now(UTC)
