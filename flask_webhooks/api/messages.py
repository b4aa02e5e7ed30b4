"""What happened, and where each went."""

from __future__ import annotations

import json
import typing as t

import sqlalchemy as sa

from .. import models
from ..catalog import RESERVED_CHANNEL
from ..config import ENVIRONMENTS
from ..ids import is_backfilled
from ..principal import ALL_OWNERS
from ..queries.bounds import BODY, PAGE, json_size
from ..web import Refused
from . import schemas
from .deliveries import TOO_LARGE
from .operations import Answer, Call, operation
from .paging import event_names, owner_of, paged, sifted, span, walk

M, D, S = models.Message, models.Delivery, models.Subscription
_COLUMNS = (
    M.id,
    M.event,
    M.channel,
    M.owner,
    M.environment,
    M.occurred_at,
    M.text,
    M.entity_id,
    M.sequence,
    M.size,
)
"""All but the data, which may be large."""


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
    """What happened, newest first. A page may hold fewer than `limit`: go on while there is a `next`."""
    found = t.cast("t.Any", sa.select(*_COLUMNS))
    owner = owner_of(call)
    names = event_names(call)
    environment: str | None = call.query.get("environment")
    # Each walk is a range of one index, read from its end: the log's length does not matter.
    ranges: list[dict[t.Any, str]] = [{}]
    if owner is not ALL_OWNERS and names is not None:
        ranges = [{M.owner: owner, M.event: name} for name in names]
    elif owner is not ALL_OWNERS:
        asked = [environment] if environment is not None else list(ENVIRONMENTS)
        ranges = [{M.owner: owner, M.environment: each} for each in asked]

    def walks(below: str | None) -> list[sa.Select[t.Any]]:
        return [walk(call, found, M.id, equal, below=below) for equal in ranges]

    def is_wanted(row: t.Any) -> bool:
        return environment in (None, row.environment) and (names is None or row.event in names)

    since, below = span(call.query)
    rows, behind = sifted(call.session, walks, call.limit + 1, is_wanted, since=since, below=below)
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
    """Its data, and for every subscription of its owner the delivery, or why there is none.

    Of very many subscriptions a page, in the order of their ids; `cursor` and `limit` are theirs.
    """
    row = _own(call, message_id)
    data, includes = json.loads(row.data), json.loads(row.extras or "{}")
    is_large = json_size(data) + json_size(includes) > BODY
    found = _shown(call, row)
    found["data"] = None if is_large else data
    found["data_reason"] = TOO_LARGE if is_large else None
    found["includes"] = {} if is_large else includes
    broken = call.session.get(models.BrokenMessage, message_id)
    found["broken"] = broken is not None
    if broken is not None and call.principal.operator:
        found["error"] = broken.error
    page = _outcomes(call, row, PAGE - json_size(found))
    return {**found, "subscriptions": page["items"], "next": page["next"]}


@operation(
    "GET", "/messages/<message_id>/data", "Download the data", right="read", mimetype="application/json"
)
def get_data(call: Call, message_id: str) -> t.Any:
    """`data` and `includes` of a message, however large: one JSON object of both."""
    row = _own(call, message_id)
    text = f'{{"data": {row.data}, "includes": {row.extras or "{}"}}}'
    return Answer(None, raw=text.encode(), filename=f"{row.id}.json")


def _own(call: Call, message_id: str) -> models.Message:
    row = call.session.get(M, message_id)
    if row is None or call.owner not in (ALL_OWNERS, row.owner):
        raise Refused(404, "There is no such message. What happened while events were muted leaves none.")
    return row


def _outcomes(call: Call, message: models.Message, room: int) -> dict[str, t.Any]:
    """Return a page of the owner's subscriptions; of the removed ones only those that have a delivery of it."""
    mine = D.message_id == message.id
    has_delivery = sa.exists().where(mine, D.subscription_id == S.id)
    found = sa.select(S).where(S.owner == message.owner, sa.or_(S.deleted_at.is_(None), has_delivery))
    if "cursor" in call.query:
        found = found.where(S.id > call.query["cursor"])
    rows = call.session.scalars(found.order_by(S.id).limit(call.limit + 1)).all()
    those = sa.select(D).where(mine, D.subscription_id.in_([row.id for row in rows]))
    deliveries = {
        each.subscription_id: each for each in call.session.scalars(those.options(sa.orm.defer(D.body)))
    }
    return paged(
        rows, call.limit, lambda row: _outcome(call, message, row, deliveries.get(row.id)), room=room
    )


def _outcome(
    call: Call, message: models.Message, row: models.Subscription, delivery: models.Delivery | None
) -> dict[str, t.Any]:
    reason, explanation = _told(delivery) if delivery is not None else _why_not(call, message, row)
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
    "held": "The subscription is switched off: it waits until that is switched on again.",
    "cancelled": "It was called off.",
    "broken": "Its data could not be made. It waits until the operator of this service has repaired that.",
}


_CANCELLED = {
    "outdated": "A backfill had made it, and a newer event of the same object was sent instead.",
}


def _told(delivery: models.Delivery) -> tuple[str | None, str]:
    explanation = _STATES[delivery.state]
    if delivery.state == "cancelled":
        explanation = _CANCELLED.get(delivery.reason or "", explanation)
    return delivery.reason, explanation


def _why_not(call: Call, message: models.Message, row: models.Subscription) -> tuple[str, str]:
    """Return why a subscription has no delivery of a message: the first reason that holds."""
    if message.channel == RESERVED_CHANNEL:
        return "test", "It was a test of another subscription."
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
        return "backfill", "A backfill made it for another subscription alone."
    return "listened_later", (
        "The subscription listens to it today, but did not when this was recorded. A replay with `missed` sends it."
    )
