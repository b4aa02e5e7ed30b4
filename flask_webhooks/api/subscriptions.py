"""Subscriptions: list, create, read, change, remove; their secrets: show and rotate."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

from .. import models, subscriptions
from ..errors import ErrorText, SubscriptionChangedError, SubscriptionMissingError
from ..principal import ALL_OWNERS
from ..state import AppState
from ..subscriptions import SubscriptionInput
from ..web import Refused
from . import schemas
from .operations import Answer, Call, operation
from .paging import owner_of, paged

__all__ = ["shown"]


def shown(call: Call, row: models.Subscription) -> dict[str, t.Any]:
    """Return a subscription in the form of its schema; only operators see the owner."""
    found = subscriptions.shown(call.state, row)
    if not call.principal.operator:
        del found["owner"]
    return found


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
    rows = subscriptions.listed(
        call.session,
        owner=owner_of(call),
        environment=call.query.get("environment"),
        active=call.query.get("active"),
        before=call.query.get("cursor"),
        most=call.limit + 1,  # the additional row shows that there is another page
    )
    return paged(rows, call.limit, lambda row: shown(call, row))


def _repeat_create(call: Call, made: t.Sequence[str]) -> t.Any:
    """Return the subscription that the first request with this key created, with the same secret."""
    try:
        row = subscriptions.find(call.session, made[0], owner=call.owner)
        secret = subscriptions.reveal_one(call.state, row, made[1])
    except SubscriptionMissingError:
        raise Refused(
            409, "The subscription that this request created the first time has been removed since."
        ) from None
    if secret is None:
        raise Refused(409, f"The secret that {row.id} was created with is no longer valid.")
    return Answer({**shown(call, row), "secret": secret.shown}, version=row.version)


def _faults(state: AppState, values: dict[str, t.Any]) -> dict[str, list[str]]:
    return subscriptions.examine(state, SubscriptionInput.of(values))


@operation(
    "POST",
    "/subscriptions",
    "Create a subscription",
    right="write",
    body=schemas.NewSubscription,
    answer=schemas.CreatedSubscription,
    status=201,
    errors=(409,),
    has_version=True,
    repeat=_repeat_create,
    faults=_faults,
)
def create_subscription(call: Call) -> t.Any:
    """The answer has the secret, which is shown only here and after a rotation.

    The subscription applies to every change that is committed after this answer.
    """
    owner = call.body.get("owner", call.principal.owner)
    if call.owner not in (ALL_OWNERS, owner):
        raise Refused(403, "Only operators may create subscriptions for another owner.")
    row, secret = subscriptions.create(call.state, call.session, SubscriptionInput.of(call.body), owner=owner)
    # The id of the secret too: a repeated request must not show the one of a later rotation.
    made = row.id, subscriptions.secret_id(call.session, row)
    return Answer({**shown(call, row), "secret": secret.shown}, version=row.version, made=made)


@operation(
    "GET",
    "/subscriptions/<subscription_id>",
    "Read a subscription",
    right="read",
    answer=schemas.Subscription,
    has_version=True,
)
def get_subscription(call: Call, subscription_id: str) -> t.Any:
    """Send the ETag of the answer as `If-Match` when you change it."""
    row = subscriptions.find(call.session, subscription_id, owner=call.owner)
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
    """Changes the given fields. `events` and `channels` together replace its listeners.

    Switching it off holds pending deliveries. Switching it on again resets its health, and needs `held` if there are
    held deliveries: `send` or `discard`.
    """
    given = SubscriptionInput.of(call.body)
    row = subscriptions.change(
        call.state, call.session, subscription_id, given, owner=call.owner, version=call.version
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
    """Cancels its pending and held deliveries. Its log can be read until it is purged."""
    subscriptions.remove(call.state, call.session, subscription_id, owner=call.owner, version=call.version)
    return Answer(None)


# ---- secrets ---------------------------------------------------------------------------------------------


def _shown_secrets(call: Call, row: models.Subscription) -> dict[str, t.Any]:
    secrets = [
        {"secret": secret.shown, "created_at": kept.created_at, "expires_at": kept.expires_at}
        for kept, secret in subscriptions.reveal(call.state, row, datetime.now(UTC))
    ]
    return {"secret": secrets[0]["secret"] if secrets else "", "secrets": secrets}


@operation(
    "GET",
    "/subscriptions/<subscription_id>/secret",
    "Show the secrets",
    right="secrets",
    answer=schemas.Secrets,
)
def get_secret(call: Call, subscription_id: str) -> t.Any:
    """All valid secrets, the current one first."""
    return _shown_secrets(call, subscriptions.find(call.session, subscription_id, owner=call.owner))


def _repeat_rotate(call: Call, made: t.Sequence[str], subscription_id: str) -> t.Any:
    row = subscriptions.find(call.session, subscription_id, owner=call.owner)
    return Answer(_shown_secrets(call, row), version=row.version)


@operation(
    "POST",
    "/subscriptions/<subscription_id>/secret/rotate",
    "Rotate the secret",
    right="secrets",
    body=schemas.Rotation,
    answer=schemas.Secrets,
    has_version=True,
    repeat=_repeat_rotate,
)
def rotate_secret(call: Call, subscription_id: str) -> t.Any:
    """Requests are signed with a new secret; for `overlap` seconds they carry signatures of the old ones as well."""
    row = subscriptions.find(call.session, subscription_id, owner=call.owner, to_change=True)
    if call.version not in (None, row.version):
        raise SubscriptionChangedError(ErrorText("changed_by_another"))
    subscriptions.rotate(
        call.state,
        call.session,
        row,
        now=datetime.now(UTC),
        overlap=timedelta(seconds=call.body["overlap"]),
        secret=call.body.get("secret"),
    )
    call.session.expire(row, ["secrets"])  # `rotate` adds a row without touching the loaded list
    return Answer(_shown_secrets(call, row), version=row.version)
