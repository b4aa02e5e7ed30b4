"""The signing secrets of a subscription."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

from .. import models, subscriptions
from ..errors import ErrorText, SubscriptionChangedError
from . import schemas
from .operations import Answer, Call, operation


def _shown(call: Call, row: models.Subscription) -> dict[str, t.Any]:
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
    """All that sign now, the current one first. Needs the right `secrets`."""
    return _shown(call, subscriptions.find(call.session, subscription_id, owner=call.owner))


def _again(call: Call, made: t.Sequence[str], subscription_id: str) -> t.Any:
    row = subscriptions.find(call.session, subscription_id, owner=call.owner)
    return Answer(_shown(call, row), version=row.version)


@operation(
    "POST",
    "/subscriptions/<subscription_id>/secret/rotate",
    "Rotate the secret",
    right="secrets",
    body=schemas.Rotation,
    answer=schemas.Secrets,
    has_version=True,
    repeat=_again,
)
def rotate_secret(call: Call, subscription_id: str) -> t.Any:
    """Puts a new secret in force. For `overlap` seconds requests carry the signatures of the old ones as well."""
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
    call.session.expire(row, ["secrets"])
    return Answer(_shown(call, row), version=row.version)
