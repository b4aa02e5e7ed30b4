"""Deliveries (one message to one subscription) with their attempts; manual retry and cancellation."""

from __future__ import annotations

import json
import typing as t

from .. import models, queries
from ..delivery import body_of
from ..ids import made_at
from ..outcome import Failure
from ..principal import ALL_OWNERS
from ..queries import LogQuery
from ..queries.bounds import ATTEMPT, BODY, PAGE, fit, json_size
from ..web import Refused, manual
from . import schemas
from .operations import Answer, Call, operation
from .paging import event_names, owner_of, paged

__all__ = ["one"]

NEWEST = 10
"""Attempts in the answer for one delivery; `list_attempts` lists all."""
TOO_LARGE = "too_large"
"""The reason why a delivery is shown without its body; `get_body` returns it."""


@operation(
    "GET",
    "/deliveries",
    "List deliveries",
    right="read",
    query=schemas.DeliveryQuery,
    answer=schemas.DeliveryPage,
)
def list_deliveries(call: Call) -> t.Any:
    """The log, newest first. With a filter a page may be shorter than `limit`: continue while there is a `next`."""
    wanted = _wanted(call)
    # `message_subscription` is a cursor of the walk through messages: see `queries.delivery_lists`.
    if "_" in wanted.before and not queries.goes_by_event(call.session, wanted):
        raise Refused(
            422,
            message := "This cursor belongs to another list. Send the `next` of this one.",
            fields={"cursor": [message]},
        )
    found = queries.list_deliveries(call.session, wanted, call.limit)
    return paged(
        found.rows,
        call.limit,
        lambda row: _shown(row, found.events.get(row.message_id)),
        found.cursor,
        found.next,
    )


def _wanted(call: Call) -> LogQuery:
    """Return the query for the log. If an operator names a subscription, the query is for its owner."""
    owner, asked, names = owner_of(call), call.query.get("subscription"), event_names(call)
    if owner is ALL_OWNERS and asked is not None:
        owner = queries.owner_of(call.session, asked) or ALL_OWNERS
    subscriptions = None
    if owner is not ALL_OWNERS:
        subscriptions = tuple(queries.ids_with_log(call.session, owner, subscription_id=asked))
    elif asked is not None:
        subscriptions = ()
    return LogQuery(
        owner=owner,
        subscriptions=subscriptions,
        message=call.query.get("message", ""),
        state=call.query.get("state", ""),
        event=call.query["event"] if names is not None else "",
        names=None if names is None else tuple(names),
        since=call.query.get("since"),
        until=call.query.get("until"),
        before=call.query.get("cursor", ""),
    )


def _shown(row: t.Any, event: str | None) -> dict[str, t.Any]:
    found = {name: getattr(row, name) for name in queries.LINE}
    return {**found, "event": event, "created_at": made_at(row.id)}


# ---- one -------------------------------------------------------------------------------------------------


@operation("GET", "/deliveries/<delivery_id>", "Read a delivery", right="read", answer=schemas.OneDelivery)
def get_delivery(call: Call, delivery_id: str) -> t.Any:
    """The delivery with its newest attempts: exact request, response, timings. `attempts_next` leads to older ones."""
    return one(call, delivery_id)


def one(call: Call, delivery_id: str) -> dict[str, t.Any]:
    """Return a delivery with its newest attempts, in the form of `schemas.OneDelivery`."""
    row, _ = _find(call, delivery_id)
    events = queries.events_of(call.session, [row.message_id])
    body = body_of(call.state, call.session.connection(), row)
    text = None if body.data is None else body.data.decode(errors="replace")
    size, reason = json_size(text), body.reason
    if size > BODY:
        text, size, reason = None, 0, TOO_LARGE
    # The body comes first: attempts have a list of their own for those that no longer fit.
    page = _attempts(call, row.id, NEWEST, "", PAGE - size)
    return {
        **_shown(row, events.get(row.message_id)),
        "body": text,
        "body_reason": reason,
        "attempt_log": page["items"][::-1],
        "attempts_next": page["next"],
    }


@operation(
    "GET",
    "/deliveries/<delivery_id>/attempts",
    "List attempts",
    right="read",
    query=schemas.PageQuery,
    answer=schemas.AttemptPage,
)
def list_attempts(call: Call, delivery_id: str) -> t.Any:
    """The attempts of a delivery, newest first. A page may be shorter than `limit`; continue while `next` is given."""
    row, _ = _find(call, delivery_id)
    return _attempts(call, row.id, call.limit, call.query.get("cursor", ""), PAGE)


@operation(
    "GET",
    "/deliveries/<delivery_id>/body",
    "Download the body",
    right="read",
    mimetype="application/octet-stream",
)
def get_body(call: Call, delivery_id: str) -> t.Any:
    """The bytes that were sent last or will be sent, of any length. 404 if they are no longer known."""
    row, _ = _find(call, delivery_id)
    body = body_of(call.state, call.session.connection(), row)
    if body.data is None:
        raise Refused(404, f"The body is no longer known: {body.reason}.")
    return Answer(None, raw=body.data, mimetype="application/octet-stream", filename=f"{row.id}.json")


def _attempts(call: Call, delivery_id: str, limit: int, cursor: str, room: int) -> dict[str, t.Any]:
    rows = queries.attempts_of(call.session, delivery_id, limit + 1, cursor)
    return paged(rows, limit, _attempt, room=room)


def _find(call: Call, delivery_id: str) -> tuple[models.Delivery, models.Subscription]:
    found = queries.delivery_of(call.session, delivery_id, owner=call.owner)
    if found is None:
        raise Refused(404, "There is no such delivery.")
    return found


def _attempt(row: models.Attempt) -> dict[str, t.Any]:
    found = _attempt_without_body(row)
    if row.status is not None:
        legible = queries.of_attempt(row)
        # 100 bytes: the names of the fields that are added below.
        text = fit(legible.text, ATTEMPT - json_size(found) - json_size(legible.note) - 100)
        is_cut = len(text) < len(legible.text)
        found["response"] |= {
            "body": text,
            "body_note": legible.note,
            "truncated": row.response_truncated or is_cut,
        }
    return found


_ATTEMPT = tuple(name for name in schemas.Attempt().fields if name in models.Attempt.__table__.c)
"""The columns of the log that have the names of the schema."""


def _attempt_without_body(row: models.Attempt) -> dict[str, t.Any]:
    response = {
        "status": row.status,
        "headers": json.loads(row.response_headers) if row.response_headers else {},
    }
    return {
        **{name: getattr(row, name) for name in _ATTEMPT},
        "hint": Failure(row.failure).hint if row.failure in set(Failure) else None,
        "request": {
            "url": row.url,
            "headers": json.loads(row.request_headers),
            "body_sha256": row.body_sha256,
            "body_size": row.body_size,
        },
        "response": response if row.status is not None else None,
        "timings": {name: getattr(row, f"{name}_seconds") for name in schemas.Timings().fields},
    }


@operation(
    "GET",
    "/deliveries/<delivery_id>/response",
    "Download the response body",
    right="read",
    query=schemas.ResponseQuery,
    mimetype="application/octet-stream",
)
def get_response(call: Call, delivery_id: str) -> t.Any:
    """The original bytes of the body, as far as they are stored: neither decompressed nor decoded.

    The answer is empty if there was no response yet, or it had no body.
    """
    row, _ = _find(call, delivery_id)
    asked = call.query.get("attempt")
    attempt = queries.attempt_of(call.session, row.id, asked)
    if asked is not None and attempt is None:
        raise Refused(404, "There is no such attempt.")
    body = attempt.response_body if attempt is not None else None
    name = f"{attempt.id if attempt is not None else row.id}.bin"
    return Answer(None, raw=body or b"", mimetype="application/octet-stream", filename=name)


# ---- manual ----------------------------------------------------------------------------------------------


def _line(call: Call, delivery_id: str) -> dict[str, t.Any]:
    row, _ = _find(call, delivery_id)
    return _shown(row, queries.events_of(call.session, [row.message_id]).get(row.message_id))


def _repeat(call: Call, made: t.Sequence[str], delivery_id: str) -> t.Any:
    return _line(call, delivery_id)


@operation(
    "POST",
    "/deliveries/<delivery_id>/retry",
    "Send a delivery again",
    right="write",
    answer=schemas.Delivery,
    status=202,
    errors=(409,),
    repeat=_repeat,
)
def retry_delivery(call: Call, delivery_id: str) -> t.Any:
    """Makes the delivery due at once, whatever its state: same idempotency key and bytes, its whole schedule again."""
    owner = _find(call, delivery_id)[1].owner
    retried = manual.retry(call, delivery_id, owner)
    if retried is manual.Retried.BROKEN:
        raise Refused(
            409,
            "Its data could not be rendered: there is nothing to send until that is repaired.",
            code="broken",
        )
    if retried is manual.Retried.SWITCHED_OFF:
        raise Refused(409, "The subscription is switched off. Switch it on first.")
    return _line(call, delivery_id)


@operation(
    "POST",
    "/deliveries/<delivery_id>/cancel",
    "Cancel a delivery",
    right="write",
    answer=schemas.Delivery,
    errors=(409,),
    repeat=_repeat,
)
def cancel_delivery(call: Call, delivery_id: str) -> t.Any:
    """Cancels a delivery that is pending, held or broken. A request that is already under way is not stopped."""
    row, _ = _find(call, delivery_id)
    was = row.state
    if not manual.cancel_delivery(call, delivery_id):
        raise Refused(409, f"The delivery is {was}, so it cannot be cancelled.")
    return _line(call, delivery_id)
