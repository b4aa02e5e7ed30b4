"""Subscriptions: list, make, read, change, remove."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa

from .. import models, schemas, signing, subscribing
from ..errors import SecretError, SubscriptionMissingError
from ..principal import ALL_OWNERS, is_owner
from ..state import AppState
from .operations import Answer, Call, operation
from .paging import owner_of, paged
from .problems import Refused

__all__ = ["shown"]

S = models.Subscription


def shown(call: Call, row: models.Subscription) -> dict[str, t.Any]:
    """Return a subscription as the schema takes it."""
    found: dict[str, t.Any] = {
        name: getattr(row, name)
        for name in schemas.Subscription().fields
        if name not in ("events", "channels", "headers", "metadata", "owner")
    }
    listeners = sorted(row.listeners, key=lambda each: each.event)
    found["events"] = [{"event": each.event, "includes": each.includes} for each in listeners]
    found["channels"] = [each.event[:-2] for each in listeners if each.event.endswith(".*")]
    found["headers"] = _header_names(call.state, row)
    found["metadata"] = row.details
    if call.principal.operator:
        found["owner"] = row.owner
    return found


def _header_names(state: AppState, row: models.Subscription) -> list[str]:
    try:
        return subscribing.names(state.vault, row.headers, row.id)
    except SecretError:  # a list must not fail because a key is gone; each attempt tells the operator
        return []


def shown_secret(secret: signing.Secret) -> str:
    """Return what the receiver needs to verify."""
    return secret.public or secret.text


@operation(
    "GET",
    "/subscriptions",
    "List subscriptions",
    right="read",
    query=schemas.SubscriptionQuery,
    answer=schemas.SubscriptionPage,
)
def list_subscriptions(call: Call) -> t.Any:
    """Newest first, in pages."""
    found = sa.select(S).where(S.deleted_at.is_(None))
    owner = owner_of(call)
    if owner is not ALL_OWNERS:
        found = found.where(S.owner == owner)
    if "environment" in call.query:
        found = found.where(S.environment == call.query["environment"])
    if "active" in call.query:
        found = found.where(S.active == call.query["active"])
    if "cursor" in call.query:
        found = found.where(S.id < call.query["cursor"])
    rows = call.session.scalars(found.order_by(S.id.desc()).limit(call.limit + 1)).all()
    return paged(rows, call.limit, lambda row: shown(call, row))


def _recreated(call: Call, made: t.Sequence[str]) -> t.Any:
    """Show what a creation made, with the secret that it showed."""
    try:
        row = subscribing.find(call.session, made[0], owner=call.owner)
        secret = subscribing.reveal_one(call.state, row, made[1])
    except SubscriptionMissingError:
        raise Refused(409, "What this request made the first time has been removed since.") from None
    if secret is None:
        raise Refused(409, f"The secret that {row.id} was made with is in force no more.")
    return Answer({**shown(call, row), "secret": shown_secret(secret)}, version=row.version)


def _faults(state: AppState, values: dict[str, t.Any]) -> dict[str, list[str]]:
    return subscribing.examine(state, values)


@operation(
    "POST",
    "/subscriptions",
    "Make a subscription",
    right="write",
    body=schemas.NewSubscription,
    answer=schemas.CreatedSubscription,
    status=201,
    errors=(409,),
    has_version=True,
    repeat=_recreated,
    faults=_faults,
)
def create_subscription(call: Call) -> t.Any:
    """Answers with the secret, which is shown here and after a rotation only.

    It is in force for every change that is committed after this answer.
    """
    values = dict(call.body)
    owner = values.pop("owner", call.principal.owner)
    if call.owner not in (ALL_OWNERS, owner):
        raise Refused(403, "Only operators may make subscriptions for another owner.")
    if owner is ALL_OWNERS:
        raise Refused(422, message := "Say whose it is.", fields={"owner": [message]})
    if not is_owner(owner):
        raise Refused(422, message := "Nobody can be this owner.", fields={"owner": [message]})
    environment = call.state.settings.environment
    if "environment" not in values and not isinstance(environment, str):
        raise Refused(
            422, "Say which environment.", fields={"environment": ["Say which: staging or production."]}
        )
    values.setdefault("environment", environment)
    row, secret = subscribing.create(call.state, call.session, owner=owner, **values)
    made = row.id, subscribing.secret_id(call.session, row)
    return Answer({**shown(call, row), "secret": shown_secret(secret)}, version=row.version, made=made)


@operation(
    "GET",
    "/subscriptions/<subscription_id>",
    "Read a subscription",
    right="read",
    answer=schemas.Subscription,
    has_version=True,
)
def get_subscription(call: Call, subscription_id: str) -> t.Any:
    """Its ETag is what `If-Match` takes when it is changed."""
    row = subscribing.find(call.session, subscription_id, owner=call.owner)
    return Answer(shown(call, row), version=row.version)


@operation(
    "PATCH",
    "/subscriptions/<subscription_id>",
    "Change a subscription",
    right="write",
    body=schemas.SubscriptionChange,
    answer=schemas.Subscription,
    errors=(409,),
    has_version=True,
    faults=_faults,
)
def change_subscription(call: Call, subscription_id: str) -> t.Any:
    """Changes what is given. `events` and `channels` together replace what it listens to.

    Switching off holds what is pending. Switching on again begins with a clean record, and needs `held` if there are
    held deliveries: `send` or `discard`.
    """
    row = subscribing.change(
        call.state, call.session, subscription_id, owner=call.owner, version=call.version, **call.body
    )
    return Answer(shown(call, row), version=row.version)


@operation(
    "DELETE",
    "/subscriptions/<subscription_id>",
    "Remove a subscription",
    right="write",
    status=204,
    has_version=True,
)
def delete_subscription(call: Call, subscription_id: str) -> t.Any:
    """What is pending or held for it is cancelled. Its log can be read until it is purged."""
    subscribing.remove(call.state, call.session, subscription_id, owner=call.owner, version=call.version)
    return Answer(None)
