"""Subscriptions from the host's own code: `webhooks.subscriptions`.

The law of this room: it decides nothing itself. What is taken and how it is written is said in `subscriptions`, as for
the API and the console; here is only in whose transaction that happens, and what the caller gets.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from . import models, signing, subscriptions
from .capture.connections import connection_of
from .capture.listeners import registry_of
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
    """A subscription as it was when it was read: what the API shows of it.

    Its `repr` has neither the secret nor what may be one: many a URL is a password.
    """

    id: str
    owner: str
    environment: str
    active: bool
    version: int
    """Grows with each change: give it to `update`, and what somebody else has changed is not overwritten."""
    url: str = field(repr=False)
    description: str = field(repr=False)
    format: str | None = field(repr=False)
    events: t.Sequence[t.Mapping[str, t.Any]] = field(repr=False)
    """``{"event": pattern, "includes": [names]}`` each, by name."""
    channels: t.Sequence[str] = field(repr=False)
    """Those of which every event is listened to."""
    headers: t.Sequence[str] = field(repr=False)
    """The names."""
    retry: t.Any = field(repr=False)
    rate_limit: float | None = field(repr=False)
    metadata: t.Mapping[str, t.Any] = field(repr=False)
    signature: str = field(repr=False)
    disabled_reason: str | None = field(repr=False)
    disabled_at: datetime | None = field(repr=False)
    created_at: datetime = field(repr=False)
    updated_at: datetime = field(repr=False)
    note: str | None = field(repr=False)
    """Why it gets nothing from this app: it is for another environment."""
    secret: str | None = field(default=None, repr=False)
    """What to verify with, as `create` and `rotate` return it, this once: `whsec_…`, or for `v1a` the public key."""


class Subscriptions:
    """Makes, reads, changes and removes subscriptions in the transaction of the calling code, as `emit` does.

    ::

        db.session.add(account)
        db.session.flush()  # gives it its id
        made = webhooks.subscriptions.create(
            owner=str(account.id), url="https://example.com/hooks", events=["invoices.*"]
        )
        db.session.commit()  # the account and its subscription, or neither

    It hears what is committed from then on, and what that same transaction does. What is checked, and what is raised,
    is the API's: `error.code` and `error.fields` are what its answers say. What is refused leaves the transaction as it
    was. Two things differ, for code is trusted and a transaction is open: how many subscriptions an owner may have is
    not limited unless you ask, and the URL's name is not looked up. (Each attempt looks at where it leads.)

    Every method takes a `session` other than `db.session`. `owner` says whose it must be: give it whenever an id comes
    from outside, and `ALL_OWNERS` where it may be anybody's.
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
        """Make a subscription and return it with its secret.

        :param events: patterns (`invoices.created`, `invoices.*`, `*`), or ``{"event": …, "includes": […]}``.
        :param channels: short for every event of each.
        :param environment: `staging` or `production`; `WEBHOOKS_ENVIRONMENT` without it.
        :param retry: `standard`, `none`, or seconds before each further attempt.
        :param secret: the receiver's own; one is made without it.
        :param limited: keep to `WEBHOOKS_SUBSCRIPTION_LIMIT` and `WEBHOOKS_CREATION_LIMIT`.
        :raises SubscriptionError: with every mistake in `fields`; `ExclusivityError` if that is the only one.
        :raises ThrottledError: `limited`, and as many were made as a day may have.
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
        """Return one.

        :raises SubscriptionMissingError: there is none, or it is another owner's.
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
        """Return those of an owner, newest first.

        :param before: the id of the last one of the page before.
        :param limit: None: all.
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
        """Change what is given and return what it is now.

        `events` and `channels` together replace what it listens to. `headers` and `metadata` are merged by name, and
        None removes one.

        :param version: that of the subscription which the change is made from; None: whatever it is by now.
        :param held: see `enable`.
        :raises SubscriptionMissingError: see `get`.
        :raises SubscriptionChangedError: it has another version.
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
        """Switch it off: what is pending, and what happens from now on, is held."""
        return self.update(subscription_id, owner=owner, active=False, session=session)

    def enable(
        self,
        subscription_id: str,
        *,
        owner: Whose,
        held: str | None = None,
        session: AnySession | None = None,
    ) -> Subscription:
        """Switch it on again, with a clean record; also one that we have switched off.

        :param held: what becomes of what was held meanwhile, `send` or `discard`: must be given if there is any.
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
        """Put a new secret in force and return the subscription with it.

        :param overlap: for so long requests are signed with the old ones too; at most 7 days.
        :param secret: the receiver's own; one is made without it.
        :raises SubscriptionError: a secret or an overlap that is refused; see `update` too.
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
        """Remove it and cancel what is pending for it. Its log stays until it is purged.

        :raises SubscriptionMissingError: see `get`.
        :raises SubscriptionChangedError: it has another version.
        """
        with self._joined(session) as (state, own):
            subscriptions.remove(state, own, subscription_id, owner=owner, version=version)

    @contextlib.contextmanager
    def _joined(self, session: AnySession | None) -> t.Iterator[tuple[AppState, Session]]:
        """Open a session of ours in the caller's transaction.

        :raises ConfigurationError: that is in another database.
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
