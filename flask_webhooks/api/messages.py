"""Recorded messages, and for each subscription the delivery of one, or the reason why there is none."""

from __future__ import annotations

import json
import typing as t

from .. import models, queries
from ..catalog import RESERVED_CHANNEL
from ..ids import is_backfilled
from ..queries import LogQuery
from ..queries.bounds import BODY, PAGE, json_size
from ..web import Refused
from . import schemas
from .deliveries import TOO_LARGE
from .operations import Answer, Call, operation
from .paging import event_names, owner_of, paged


def _shown(call: Call, row: t.Any) -> dict[str, t.Any]:
    found = {
        name: getattr(row, name) for name in schemas.Message().fields if name not in ("is_test", "owner")
    }
    found["is_test"] = row.channel == RESERVED_CHANNEL
    if call.principal.operator:
        found["owner"] = row.owner
    return found


@operation(
    "GET", "/messages", "List messages", right="read", query=schemas.MessageQuery, answer=schemas.MessagePage
)
def list_messages(call: Call) -> t.Any:
    """Recorded events, newest first. A page may be shorter than `limit`; continue while `next` is given."""
    names = event_names(call)
    wanted = LogQuery(
        owner=owner_of(call),
        environment=call.query.get("environment", ""),
        names=None if names is None else tuple(names),
        since=call.query.get("since"),
        until=call.query.get("until"),
        before=call.query.get("cursor", ""),
    )
    rows, behind = queries.list_messages(call.session, wanted, call.limit + 1)
    return paged(rows, call.limit, lambda row: _shown(call, row), floor=behind)


@operation(
    "GET",
    "/messages/<message_id>",
    "Read a message",
    right="read",
    query=schemas.PageQuery,
    answer=schemas.MessageDetail,
)
def get_message(call: Call, message_id: str) -> t.Any:
    """The data, and for every subscription of the owner its delivery, or the reason why it has none.

    `cursor` and `limit` are those of the subscriptions, which are in the order of their ids.
    """
    row = _find(call, message_id)
    data, includes = json.loads(row.data), json.loads(row.extras or "{}")
    is_large = json_size(data) + json_size(includes) > BODY
    found = _shown(call, row)
    found["data"] = None if is_large else data
    found["data_reason"] = TOO_LARGE if is_large else None
    found["includes"] = {} if is_large else includes
    error = queries.error_of(call.session, message_id)
    found["broken"] = error is not None
    if error is not None and call.principal.operator:  # it may name columns and values of the host
        found["error"] = error
    page = _outcomes(call, row, PAGE - json_size(found))
    return {**found, "subscriptions": page["items"], "next": page["next"]}


@operation(
    "GET", "/messages/<message_id>/data", "Download the data", right="read", mimetype="application/json"
)
def get_data(call: Call, message_id: str) -> t.Any:
    """`data` and `includes` of a message in one JSON object, of any length."""
    row = _find(call, message_id)
    # Both columns are JSON already: parsing them would take as much memory again.
    text = f'{{"data": {row.data}, "includes": {row.extras or "{}"}}}'
    return Answer(None, raw=text.encode(), filename=f"{row.id}.json")


def _find(call: Call, message_id: str) -> models.Message:
    row = queries.message_of(call.session, message_id, owner=call.owner)
    if row is None:
        raise Refused(404, "There is no such message. Events leave none while they are muted.")
    return row


def _outcomes(call: Call, message: models.Message, room: int) -> dict[str, t.Any]:
    """Return a page of the owner's subscriptions; a removed one is included only if it has a delivery of it."""
    behind = call.query.get("cursor", "")
    rows, deliveries = queries.outcomes(call.session, message, behind, call.limit + 1)
    return paged(
        rows, call.limit, lambda row: _outcome(call, message, row, deliveries.get(row.id)), room=room
    )


def _outcome(
    call: Call, message: models.Message, row: models.Subscription, delivery: models.Delivery | None
) -> dict[str, t.Any]:
    reason, explanation = _state_of(delivery) if delivery is not None else _why_not(call, message, row)
    return {
        "subscription_id": row.id,
        "url": row.url,
        "delivery_id": delivery.id if delivery is not None else None,
        "state": delivery.state if delivery is not None else None,
        "reason": reason,
        "explanation": explanation,
    }


_STATES = {
    "pending": "It will be sent, or sent again, at due_at.",
    "delivered": "The receiver answered 2xx.",
    "failed": "Every attempt failed; see its log.",
    "held": "The subscription is switched off. The delivery waits until it is switched on again.",
    "cancelled": "The delivery was cancelled.",
    "broken": "The data could not be rendered. The delivery waits until the operator of this service has repaired it.",
}


_CANCELLED = {
    "outdated": "A backfill recorded it, and a newer event of the same object was sent instead.",
}


def _state_of(delivery: models.Delivery) -> tuple[str | None, str]:
    explanation = _STATES[delivery.state]
    if delivery.state == "cancelled":
        explanation = _CANCELLED.get(delivery.reason or "", explanation)
    return delivery.reason, explanation


def _why_not(call: Call, message: models.Message, row: models.Subscription) -> tuple[str, str]:
    """Return the code and the text of the first reason why a subscription has no delivery of a message."""
    if message.channel == RESERVED_CHANNEL:
        return "test", "It is a test of another subscription."
    if row.environment != message.environment:
        return (
            "other_environment",
            f"The subscription is for {row.environment}, this is {message.environment}.",
        )
    channel = call.state.catalog.channels.get(message.channel)
    patterns = {listener.event for listener in row.listeners}
    listens = not patterns.isdisjoint(call.state.catalog.patterns(message.event))
    if not listens and "*" in patterns and channel is not None and channel.exclusive is not None:
        return "exclusive", f'The channel {message.channel} is exclusive: "*" leaves it out. Name it.'
    if not listens:
        return "not_listening", f"The subscription does not listen to {message.event}."
    if row.created_at > message.occurred_at:
        return "newer", "The subscription is newer than the message. A replay with `missed` sends it."
    if is_backfilled(message.dedupe_key):
        return "backfill", "A backfill recorded it for another subscription only."
    return "listened_later", (
        "The subscription listens to it today, but did not when this was recorded. A replay with `missed` sends it."
    )
