"""Creates, changes, finds and removes subscriptions. Each change locks the owner, then checks, then writes."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import outbox, signals, signing, throttle
from ..errors import ErrorText, SubscriptionChangedError, SubscriptionError, SubscriptionMissingError
from ..ids import is_id, uuid7
from ..models import SEALED, Lane, Listener, Subscription
from ..principal import ALL_OWNERS, Whose
from ..sql.transactions import may_be_repeated
from . import secrets, validation
from .after_commit import afterwards
from .input import SubscriptionInput, Unset, signature
from .joined_session import is_joined
from .lists import listened_to
from .owner_lock import lock
from .patterns import Patterns
from .switching import HEALTHY, check_held, switch
from .validation_errors import ValidationErrors

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["change", "create", "find", "remove"]

OPERATORS = ""
"""The owner whose lookups operators share with each other: no owner has an empty name."""


def find(
    session: Session,
    subscription_id: str,
    *,
    owner: Whose,
    to_change: bool = False,
    version: int | None = None,
) -> Subscription:
    """Return a subscription that has not been removed.

    :param owner: whose it must be.
    :param to_change: lock its owner's row first. Ends the session's transaction to do so.
    :param version: the one that the caller has seen; None for any.
    :raises SubscriptionMissingError: there is none, or it is another owner's.
    :raises SubscriptionChangedError: its version is another one.
    """
    if not is_id(subscription_id):
        raise SubscriptionMissingError(ErrorText("no_subscription"))
    if to_change:
        place = session.execute(
            sa.select(Subscription.owner, Subscription.environment).where(Subscription.id == subscription_id)
        ).one_or_none()
        session.rollback()  # the lock must be the first statement of its transaction
        if place is not None and owner in (ALL_OWNERS, place.owner):
            lock(session, place.owner, place.environment)
    found = session.get(Subscription, subscription_id, populate_existing=True)
    if found is None or found.deleted_at is not None or owner not in (ALL_OWNERS, found.owner):
        raise SubscriptionMissingError(ErrorText("no_subscription"))
    if version is not None and found.version != version:
        raise SubscriptionChangedError(ErrorText("changed_since", version=found.version))
    return found


def create(
    state: AppState,
    session: Session,
    given: SubscriptionInput,
    *,
    owner: Whose,
    look_up: bool = True,
    limited: bool = True,
) -> tuple[Subscription, signing.Secret]:
    """Create a subscription and return it with its secret, which is stored only encrypted.

    Looks the URL's name up before anything is locked. Flushes; the caller commits.

    :param look_up: False: only the attempts resolve the URL's name and check its address.
    :param limited: False: the owner may have any number of subscriptions.
    :raises SubscriptionError: with every mistake of every field; `ExclusivityError` if that is the only one.
    :raises ThrottledError: the owner has created as many as one day allows.
    """
    faults, given = ValidationErrors(), given.completed()
    row = Subscription(id=uuid7(), version=1)
    new = validation.secret(given.secret, signature(given.signature, faults), faults)
    row.owner = validation.owner(owner, faults)
    is_looked_up = look_up and not faults.fields
    row.url = _url(state, session, row.owner, given.url, faults, look_up=is_looked_up)
    row.environment = validation.environment(state, given.environment, faults)
    columns, patterns = validation.check(state, given, faults, row)
    faults.raise_if_any()
    assert new is not None  # noqa: S101  # raise_if_any() has raised otherwise
    _set(row, columns)
    row.created_at = row.updated_at = now = _now()
    session.rollback()
    lock(session, row.owner, row.environment)
    if limited:
        _check_limit(state, session, row.owner, row.environment)
    _check_together(state, session, row.owner, row.environment, patterns if row.active else {}, None)
    if limited:
        throttle.count_creation(state, session, row.owner)
    row.listeners = _listeners(row, patterns)
    session.add(row)
    session.flush()
    session.add(Lane(subscription_id=row.id, **HEALTHY))
    secrets.add(state, session, row.id, new, now)
    session.flush()
    _announce(state, session, row, "created")
    return row, new


def change(
    state: AppState,
    session: Session,
    subscription_id: str,
    given: SubscriptionInput,
    *,
    owner: Whose,
    version: int | None = None,
    look_up: bool = True,
) -> Subscription:
    """Change what is given and return the subscription. Ends the session's transaction first; the caller commits.

    Pending deliveries stay pending when the events change. If there are very many deliveries, switching holds or sends
    one portion, and workers do the rest. Discarding commits after each portion but the last.

    :param owner: whose it must be.
    :param version: the one the caller has seen; None for any.
    :param look_up: see `create`.
    :raises SubscriptionMissingError: there is none of that owner.
    :raises SubscriptionChangedError: it has another version.
    :raises SubscriptionError: as `create`.
    """
    faults = ValidationErrors()
    columns: dict[str, t.Any] = {}
    if not isinstance(given.url, Unset):  # before anything is locked
        columns["url"] = _url(state, session, owner, given.url, faults, look_up=look_up)
    row = find(session, subscription_id, owner=owner, to_change=True, version=version)
    checked, patterns = validation.check(state, given, faults, row)
    columns |= checked
    if not isinstance(given.environment, Unset) and given.environment != row.environment:
        faults.add("environment", ErrorText("environment_fixed"))
    becomes_active = columns.get("active", row.active)
    held = None if isinstance(given.held, Unset) else given.held
    check_held(session, row, becomes_active, held, faults)
    faults.raise_if_any()
    if becomes_active and (not row.active or given.names_events):
        _check_together(state, session, row.owner, row.environment, patterns, row.id)
    if held == "discard":
        row = _discard(state, session, row, patterns)
    switch(session, row, becomes_active, held, _now())
    if columns.get("rate_limit", row.rate_limit) != row.rate_limit:
        # Deliveries that the old limit postponed are due again.
        session.execute(sa.update(Lane).where(Lane.subscription_id == row.id).values(sendable_at=None))
    _set(row, columns)
    if given.names_events:
        _listen(session, row, patterns)
    row.version += 1
    row.updated_at = _now()
    session.flush()
    _announce(state, session, row, "changed")
    return row


def remove(
    state: AppState, session: Session, subscription_id: str, *, owner: Whose, version: int | None = None
) -> None:
    """Remove a subscription and cancel what is pending or held for it. Its log stays until it is purged.

    If there are very many it cancels one portion; workers cancel the rest.

    :raises SubscriptionMissingError: there is none of that owner.
    :raises SubscriptionChangedError: it has another version.
    """
    row = find(session, subscription_id, owner=owner, to_change=True, version=version)
    now = _now()
    outbox.cancel_all(session.connection(), row.id, "removed", now)  # locks the lane: see `switching`
    row.deleted_at = row.updated_at = now
    row.active = False
    for name in SEALED:
        setattr(row, name, None)
    row.version += 1
    row.listeners.clear()
    row.secrets.clear()
    session.flush()
    _announce(state, session, row, "removed")


def _url(
    state: AppState, session: Session, owner: Whose, value: object, faults: ValidationErrors, *, look_up: bool
) -> str:
    """Return a checked URL; its name is looked up unless other lookups of its owner take all their places.

    Without a lookup the URL is accepted: each attempt resolves it anyway. Ends the session's transaction.
    """
    url = validation.url(state, value, faults)
    if not url or not look_up or not state.transport.needs_lookup(url):
        return url
    with throttle.place(state, session, OPERATORS if owner is ALL_OWNERS else owner) as wait:
        if not wait:
            url = validation.url(state, url, faults, resolve=True)
    session.commit()
    return url


def _set(row: Subscription, columns: t.Mapping[str, t.Any]) -> None:
    for name, value in columns.items():
        setattr(row, name, value)


# ---- the owner's other subscriptions ---------------------------------------------------------------------


def _check_together(
    state: AppState, session: Session, owner: str, environment: str, patterns: Patterns, own: str | None
) -> None:
    """Refuse patterns that the owner's other active subscriptions exclude.

    :raises ExclusivityError: names both channels.
    """
    if not patterns:
        return
    others = listened_to(session, owner, environment, besides=own)
    state.catalog.check_exclusive(patterns, others)


def _check_limit(state: AppState, session: Session, owner: str, environment: str) -> None:
    most = state.settings.subscription_limit
    count = session.scalar(
        sa.select(sa.func.count())
        .select_from(Subscription)
        .where(
            Subscription.owner == owner,
            Subscription.environment == environment,
            Subscription.deleted_at.is_(None),
        )
    )
    if (count or 0) >= most:
        raise SubscriptionError(ErrorText("too_many_subscriptions", count=count or 0, name=environment))


# ---- listeners, held deliveries --------------------------------------------------------------------------------


def _listeners(row: Subscription, patterns: Patterns) -> list[Listener]:
    return [
        Listener(id=uuid7(), subscription_id=row.id, owner=row.owner, event=pattern, includes=includes)
        for pattern, includes in patterns.items()
    ]


def _listen(session: Session, row: Subscription, patterns: Patterns) -> None:
    """Replace the listeners of a subscription; one whose pattern stays keeps its row."""
    for listener in list(row.listeners):
        if listener.event not in patterns:
            row.listeners.remove(listener)
        elif listener.includes != patterns[listener.event]:
            listener.includes = patterns[listener.event]
    known = {listener.event for listener in row.listeners}
    session.flush()  # deletes before inserts: (subscription, event) is unique
    row.listeners.extend(_listeners(row, {name: patterns[name] for name in patterns if name not in known}))


def _discard(state: AppState, session: Session, row: Subscription, patterns: Patterns) -> Subscription:
    """Cancel held deliveries, each portion but the last in a transaction of its own; return the row, locked again.

    The subscription must still be off: workers would send the held deliveries of one that is on.

    :raises SubscriptionChangedError: another request has changed it meanwhile.
    :raises ExclusivityError: or another subscription of its owner.
    """
    key, owner, version = row.id, row.owner, row.version
    while outbox.discard_held(session.connection(), key, _now()) == outbox.PORTION:
        session.commit()
        may_be_repeated(session)
        row = find(session, key, owner=owner, to_change=True, version=version)
        _check_together(state, session, owner, row.environment, patterns, key)
    return row


# ---- after the commit ------------------------------------------------------------------------------------


def _announce(state: AppState, session: Session, row: Subscription, action: str) -> None:
    """Send the signal and ring the bell once the session's transaction is committed."""
    values = {"subscription_id": row.id, "owner": row.owner, "action": action}

    def announce() -> None:
        (state.bell.ring_soon if is_joined(session) else state.bell.ring)()
        signals.send(signals.subscription_changed, state.app, **values)

    afterwards(session, announce)


def _now() -> datetime:
    return datetime.now(UTC)
