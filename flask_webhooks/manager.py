"""Subscriptions from the host's own code: `webhooks.subscriptions`.

The law of this room: it decides nothing itself. The room `subscriptions` checks and writes, as for the API and the
console; this module only joins the caller's transaction and makes the returned `Subscription`.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from . import models, signing, subscriptions
from .capture import connection_of, registry_of
from .engines import is_same_database
from .errors import ConfigurationError
from .principal import Whose
from .state import AppState
from .subscriptions import OVERLAP, UNSET, SubscriptionInput, Unset

if t.TYPE_CHECKING:
    from sqlalchemy.orm import scoped_session

    AnySession: t.TypeAlias = Session | scoped_session[t.Any]

__all__ = ["Subscription", "Subscriptions"]

Events: t.TypeAlias = t.Sequence[str | t.Mapping[str, t.Any]]


@dataclass(frozen=True)
class Subscription:
    """A subscription as it was when it was read, with the fields that the API shows.

    Its `repr` shows neither the secret nor any field that may hold one: many URLs contain a token.
    """

    id: str
    owner: str
    environment: str
    active: bool
    version: int
    """Grows with each change. Pass it to `update`, which then refuses to overwrite a change made in between."""
    url: str = field(repr=False)
    description: str = field(repr=False)
    format: str | None = field(repr=False)
    events: t.Sequence[t.Mapping[str, t.Any]] = field(repr=False)
    """Each is ``{"event": pattern, "includes": [names]}``; sorted by pattern."""
    channels: t.Sequence[str] = field(repr=False)
    """Channels of which the subscription gets every event."""
    headers: t.Sequence[str] = field(repr=False)
    """Names only: the values are never shown."""
    retry: t.Any = field(repr=False)
    rate_limit: float | None = field(repr=False)
    metadata: t.Mapping[str, t.Any] = field(repr=False)
    signature: str = field(repr=False)
    disabled_reason: str | None = field(repr=False)
    disabled_at: datetime | None = field(repr=False)
    created_at: datetime = field(repr=False)
    updated_at: datetime = field(repr=False)
    note: str | None = field(repr=False)
    """Why this app sends it nothing: it belongs to an environment that this app does not send for."""
    secret: str | None = field(default=None, repr=False)
    """The key that the receiver verifies with: `whsec_…`, or for `v1a` the public key. Only `create` and `rotate`
    return it; afterwards it cannot be read again."""


class Subscriptions:
    """Creates, reads, changes and removes subscriptions in the caller's transaction, like `emit`.

    ::

        db.session.add(account)
        db.session.flush()  # sets account.id
        made = webhooks.subscriptions.create(
            owner=str(account.id), url="https://example.com/hooks", events=["invoices.*"]
        )
        db.session.commit()  # the account and its subscription, or neither

    A subscription gets the events of its own transaction, and of all later ones. The checks and errors are those of the
    API: `error.code` and `error.fields` are what its answers contain. A refused call leaves the transaction unchanged.
    Two checks differ, because the caller is trusted and a transaction is open: the number of an owner's subscriptions
    is not limited unless `limited` is set, and the host name of the URL is not looked up (each attempt checks it).

    Every method takes a `session` to use instead of `db.session`. `owner` is the owner that the subscription must have:
    pass it whenever an id comes from outside, and `ALL_OWNERS` where any owner is right.
    """

    def __init__(self, here: t.Callable[[AnySession | None], tuple[AppState, Session]]) -> None:
        self._here = here

    def create(
        self,
        *,
        owner: str,
        url: str,
        events: Events = (),
        channels: t.Sequence[str] = (),
        environment: str | None = None,
        description: str = "",
        active: bool = True,
        format: str | None = None,
        headers: t.Mapping[str, str] | None = None,
        retry: str | t.Sequence[float] | None = None,
        rate_limit: float | None = None,
        metadata: t.Mapping[str, t.Any] | None = None,
        signature: str = "v1",
        secret: str | None = None,
        limited: bool = False,
        session: AnySession | None = None,
    ) -> Subscription:
        """Create a subscription and return it with its secret.

        :param events: patterns (`invoices.created`, `invoices.*`, `*`), or ``{"event": …, "includes": […]}``.
        :param channels: channels of which it gets every event.
        :param environment: `staging` or `production`; by default `WEBHOOKS_ENVIRONMENT`.
        :param retry: `standard`, `none`, or seconds before each further attempt.
        :param rate_limit: requests per second.
        :param secret: the receiver's own secret; by default a new one is generated.
        :param limited: enforce `WEBHOOKS_SUBSCRIPTION_LIMIT` and `WEBHOOKS_CREATION_LIMIT`.
        :raises SubscriptionError: lists every mistake in `fields`; `ExclusivityError` if that is the only one.
        :raises ThrottledError: `limited` is set, and the owner has reached `WEBHOOKS_CREATION_LIMIT`.
        """
        with self._joined(session) as (state, own):
            given = SubscriptionInput(
                url=url,
                events=events,
                channels=channels,
                environment=environment,
                description=description,
                active=active,
                format=format,
                headers=headers,
                retry=retry,
                rate_limit=rate_limit,
                metadata=metadata,
                signature=signature,
                secret=secret,
            )
            row, made = subscriptions.create(state, own, given, owner=owner, limited=limited, look_up=False)
            return _shown(state, row, made)

    def get(self, subscription_id: str, *, owner: Whose, session: AnySession | None = None) -> Subscription:
        """Return one subscription.

        :raises SubscriptionMissingError: it does not exist, or belongs to another owner.
        """
        with self._joined(session) as (state, own):
            return _shown(state, subscriptions.find(own, subscription_id, owner=owner))

    def list(
        self,
        *,
        owner: Whose,
        environment: str | None = None,
        active: bool | None = None,
        before: str | None = None,
        limit: int | None = None,
        session: AnySession | None = None,
    ) -> t.Sequence[Subscription]:
        """Return the subscriptions of an owner, newest first.

        :param before: return those older than this id: the last one of the previous page.
        :param limit: the most to return; None for all.
        """
        with self._joined(session) as (state, own):
            rows = subscriptions.listed(
                own, owner=owner, environment=environment, active=active, before=before, most=limit
            )
            return [_shown(state, row) for row in rows]

    def update(
        self,
        subscription_id: str,
        *,
        owner: Whose,
        version: int | None = None,
        held: str | None = None,
        url: str | Unset = UNSET,
        events: Events | Unset = UNSET,
        channels: t.Sequence[str] | Unset = UNSET,
        description: str | Unset = UNSET,
        active: bool | Unset = UNSET,
        format: str | Unset | None = UNSET,
        headers: t.Mapping[str, str | None] | Unset | None = UNSET,
        retry: str | t.Sequence[float] | Unset | None = UNSET,
        rate_limit: float | Unset | None = UNSET,
        metadata: t.Mapping[str, t.Any] | Unset | None = UNSET,
        signature: str | Unset = UNSET,
        session: AnySession | None = None,
    ) -> Subscription:
        """Change the given fields and return the subscription with its new values.

        `events` and `channels` together replace the old selection. `headers` and `metadata` are merged by name; the
        value None removes a name.

        :param version: the `version` that the change is based on; None to change the subscription whatever its version.
        :param held: see `enable`.
        :raises SubscriptionMissingError: see `get`.
        :raises SubscriptionChangedError: the subscription has another version.
        :raises SubscriptionError: see `create`.
        """
        with self._joined(session) as (state, own):
            given = SubscriptionInput(
                url=url,
                events=events,
                channels=channels,
                description=description,
                active=active,
                format=format,
                headers=headers,
                retry=retry,
                rate_limit=rate_limit,
                metadata=metadata,
                signature=signature,
                held=held,
            )
            row = subscriptions.change(
                state, own, subscription_id, given, owner=owner, version=version, look_up=False
            )
            return _shown(state, row)

    def pause(self, subscription_id: str, *, owner: Whose, session: AnySession | None = None) -> Subscription:
        """Switch it off: its pending deliveries, and those of further events, are held until `enable`."""
        return self.update(subscription_id, owner=owner, active=False, session=session)

    def enable(
        self,
        subscription_id: str,
        *,
        owner: Whose,
        held: str | None = None,
        session: AnySession | None = None,
    ) -> Subscription:
        """Switch it on again, also after we disabled it; its count of failures starts at zero.

        :param held: `send` or `discard` the deliveries that were held meanwhile; required if there are any.
        """
        return self.update(subscription_id, owner=owner, active=True, held=held, session=session)

    def rotate(
        self,
        subscription_id: str,
        *,
        owner: Whose,
        overlap: timedelta = OVERLAP,
        secret: str | None = None,
        version: int | None = None,
        session: AnySession | None = None,
    ) -> Subscription:
        """Replace the signing secret and return the subscription with the new one.

        :param overlap: how long requests are also signed with the previous secrets; at most 7 days.
        :param secret: the receiver's own secret; by default a new one is generated.
        :raises SubscriptionError: the secret or the overlap is refused; see also `update`.
        """
        with self._joined(session) as (state, own):
            row = subscriptions.find(own, subscription_id, owner=owner, to_change=True, version=version)
            made = subscriptions.rotate(
                state, own, row, now=datetime.now(UTC), overlap=overlap, secret=secret
            )
            return _shown(state, row, made)

    def delete(
        self,
        subscription_id: str,
        *,
        owner: Whose,
        version: int | None = None,
        session: AnySession | None = None,
    ) -> None:
        """Remove it and cancel its pending deliveries. Its log stays until retention purges it.

        :raises SubscriptionMissingError: see `get`.
        :raises SubscriptionChangedError: the subscription has another version.
        """
        with self._joined(session) as (state, own):
            subscriptions.remove(state, own, subscription_id, owner=owner, version=version)

    @contextlib.contextmanager
    def _joined(self, session: AnySession | None) -> t.Iterator[tuple[AppState, Session]]:
        """Open a session of ours in the caller's transaction.

        :raises ConfigurationError: the caller's transaction is on another database.
        """
        state, host = self._here(session)
        connection = connection_of(registry_of(state), host, None)
        if not is_same_database(connection.engine, state.engine):
            raise ConfigurationError(
                f"The session is on {connection.engine.url!r}, but the webhooks of {state.app.name!r} live in "
                f"{state.engine.url!r}. Give a session of that database."
            )
        with subscriptions.joined(state.own_engine, host, connection) as own:
            yield state, own


def _shown(state: AppState, row: models.Subscription, secret: signing.Secret | None = None) -> Subscription:
    text = secret.shown if secret is not None else None
    return Subscription(**subscriptions.shown(state, row), version=row.version, secret=text)
