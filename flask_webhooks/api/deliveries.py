"""One message to one subscription: what was sent, what came back, and by hand once more."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

import sqlalchemy as sa

from .. import models, queries, replay, throttle
from .. import subscriptions as subscribing
from ..config import ENVIRONMENTS
from ..delivery import body_of
from ..ids import first_at, following, made_at
from ..models import State
from ..principal import ALL_OWNERS, Whose
from ..queries.bounds import ATTEMPT, BODY, PAGE, fit, json_size
from ..queries.deliveries import page
from ..queries.subscriptions import has_log
from ..retry import Failure
from ..sql.parameters import KeyedStatement, apart
from ..web import Refused
from . import paging, schemas
from .operations import Answer, Call, operation
from .paging import bounded, event_names, floor_of, newest, owner_of, paged, walk

__all__ = ["one"]

D, M, S = models.Delivery, models.Message, models.Subscription
_NAMES = (
    "id",
    "message_id",
    "subscription_id",
    "state",
    "reason",
    "attempts",
    "due_at",
    "finished_at",
    "trigger",
    "format",
)
NEWEST = 10
"""Attempts that a delivery is shown with; `list_attempts` has all."""
TOO_LARGE = "too_large"
"""Why a delivery is shown without its body: `get_body` has it."""
REMOVED = 25
"""Removed subscriptions of an environment, the newest, whose log is listed with all others; that of older ones is asked
for by id."""
RARE = 1_000
"""Messages up to which an event is rare for an owner."""
FIRST, LAST = "00000000-0000-7000-8000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"
"""The ids before and behind all others."""
_COLUMNS = tuple(getattr(D, name) for name in _NAMES)
_TABLE = t.cast("sa.Table", D.__table__)
_ROWS = KeyedStatement(_TABLE.c.id, lambda these: sa.select(*_COLUMNS).where(these))


@operation(
    "GET",
    "/deliveries",
    "List deliveries",
    right="read",
    query=schemas.DeliveryQuery,
    answer=schemas.DeliveryPage,
)
def list_deliveries(call: Call) -> t.Any:
    """The log, newest first. With a filter a page may hold fewer than `limit`: go on while there is a `next`."""
    owner = _owner(call)
    names = event_names(call)
    subscriptions = _subscriptions(call, owner)
    if "message" in call.query:
        return _page(call, _of_message(call, subscriptions), lambda row: str(row.id))
    if isinstance(owner, str) and names is not None and _goes_by_event(call, names, owner):
        return _by_event(call, names, subscriptions, owner)
    rows, behind = _by_delivery(call, subscriptions)
    return _page(call, rows, lambda row: str(row.id), behind)


def _page(
    call: Call, rows: t.Sequence[t.Any], cursor: t.Callable[[t.Any], str], floor: str | None = None
) -> dict[str, t.Any]:
    ids = {row.message_id for row in rows}
    events = {
        message: event
        for message, event in call.session.execute(sa.select(M.id, M.event).where(M.id.in_(ids)))
    }
    return paged(rows, call.limit, lambda row: _shown(row, events.get(row.message_id)), cursor, floor)


def _shown(row: t.Any, event: str | None) -> dict[str, t.Any]:
    found = {name: getattr(row, name) for name in _NAMES}
    return {**found, "event": event, "created_at": made_at(row.id)}


def _owner(call: Call) -> Whose:
    """Return whose deliveries are asked for: an operator who names a subscription has named its owner."""
    owner = owner_of(call)
    if owner is ALL_OWNERS and "subscription" in call.query:
        found = call.session.scalar(sa.select(S.owner).where(S.id == call.query["subscription"]))
        return ALL_OWNERS if found is None else found
    return owner


def _subscriptions(call: Call, owner: Whose) -> list[str] | None:
    """Return whose deliveries may be listed, removed subscriptions among them; None: an operator asks for all."""
    asked = call.query.get("subscription")
    if owner is ALL_OWNERS:
        return None if asked is None else []
    found = sa.select(S.id).where(S.owner == owner)
    if asked is not None:
        return list(call.session.scalars(found.where(S.id == asked)))
    keys = list(call.session.scalars(found.where(S.deleted_at.is_(None))))
    removed = found.where(S.deleted_at.is_not(None), has_log()).order_by(S.id.desc()).limit(REMOVED)
    # Each environment is a range of an index, read from its end.
    parts = [removed.where(S.environment == environment).subquery().select() for environment in ENVIRONMENTS]
    return [*keys, *call.session.scalars(sa.union_all(*parts))]


def _cursor(call: Call) -> str:
    """Return the delivery behind which a list by id begins; empty: its beginning."""
    cursor: str = call.query.get("cursor", "")
    if "_" in cursor:
        raise Refused(422, message := "This cursor is of another list.", fields={"cursor": [message]})
    return cursor


def _by_delivery(call: Call, subscriptions: t.Sequence[str] | None) -> tuple[list[t.Any], str | None]:
    """Return a page, and where the next one begins: what the console searches too."""
    wanted = queries.Search(
        subscriptions=None if subscriptions is None else tuple(subscriptions),
        state=call.query.get("state", ""),
        event="" if call.query.get("event") in (None, "*") else call.query["event"],
        since=call.query.get("since"),
        until=call.query.get("until"),
        before=_cursor(call),
    )
    connection = call.session.connection()
    ids, behind, _ = page(connection, wanted, call.limit, paging.REACH)
    return sorted(_ROWS.run(connection, ids), key=lambda row: str(row.id), reverse=True), behind


def _of_message(call: Call, subscriptions: t.Sequence[str] | None) -> list[t.Any]:
    found = apart(sa.select(*_COLUMNS).where(D.message_id == call.query["message"]))
    filters: list[sa.ColumnElement[bool]] = []
    if subscriptions is not None:
        filters.append(found.c.subscription_id.in_(subscriptions))
    if "state" in call.query:
        filters.append(found.c.state == call.query["state"])
    if cursor := _cursor(call):
        filters.append(found.c.id < cursor)
    ordered = bounded(sa.select(found), found.c.id, call.query).where(*filters).order_by(found.c.id.desc())
    return list(call.session.execute(ordered.limit(call.limit + 1)))


def _goes_by_event(call: Call, names: t.Sequence[str], owner: str) -> bool:
    """Say whether to walk the messages of some events, or the deliveries in a state; a cursor keeps to its walk.

    Most deliveries are delivered, so there the event tells more. Elsewhere it does if it is rare: no index knows both,
    and one more on the table that every commit writes is not worth what it would spare this list. A beginning in time
    bounds deliveries alone: a replay may have made them long after the message.
    """
    if "cursor" in call.query:
        return "_" in call.query["cursor"]
    if "since" in call.query:
        return False
    if call.query.get("state", State.DELIVERED) == State.DELIVERED:
        return True
    return floor_of(call.session, _walks(call, names, owner), RARE) is None


def _walks(call: Call, names: t.Sequence[str], owner: str, behind: str = LAST) -> list[sa.Select[t.Any]]:
    """The messages of an owner up to one of them, newest first: each event is a range of (owner, event, id)."""
    below = following(behind)
    return [walk(call, sa.select(M.id), M.id, {M.owner: owner, M.event: name}, below=below) for name in names]


def _by_event(
    call: Call, names: t.Sequence[str], subscriptions: t.Sequence[str] | None, owner: str
) -> dict[str, t.Any]:
    """Deliveries of some events, by their messages: a step of those, then what they led to, until a page is full.

    Never both in one statement: PostgreSQL would look for the state first where it believes that hardly any has it.
    """
    message, _, subscription = call.query.get("cursor", f"{LAST}_{LAST}").partition("_")
    if "until" in call.query:  # a delivery is never older than its message
        message = min(message, first_at(call.query["until"]))
    rows: list[t.Any] = []
    left, step = paging.REACH, call.limit + 1
    while left > 0 and len(rows) <= call.limit:
        ids = newest(call.session, _walks(call, names, owner, message), min(step, left))
        rows += _of_messages(call, [row.id for row in ids], subscription, subscriptions or ())
        left -= len(ids)
        if len(ids) < step:
            return _page(call, rows, _place)
        message, subscription, step = ids[-1].id, FIRST, paging.STEP
    return _page(call, rows, _place, f"{message}_{FIRST}")


def _place(row: t.Any) -> str:
    """Where a list by event goes on behind a row."""
    return f"{row.message_id}_{row.subscription_id}"


def _of_messages(
    call: Call, ids: t.Sequence[str], behind: str, subscriptions: t.Collection[str]
) -> list[t.Any]:
    """Return deliveries of some messages, newest message first; of the first one those behind a subscription."""
    if not ids:
        return []

    def make(these: sa.ColumnElement[bool]) -> sa.Select[t.Any]:
        found = apart(bounded(sa.select(*_COLUMNS), D.id, call.query).where(these))
        is_behind = sa.or_(found.c.message_id < ids[0], found.c.subscription_id < behind)
        filters = [is_behind, found.c.subscription_id.in_(subscriptions)]
        if "state" in call.query:
            filters.append(found.c.state == call.query["state"])
        order = found.c.message_id.desc(), found.c.subscription_id.desc()
        return sa.select(found).where(*filters).order_by(*order).limit(call.limit + 1)

    return list(KeyedStatement(_TABLE.c.message_id, make).run(call.session.connection(), ids))


# ---- one -------------------------------------------------------------------------------------------------


@operation("GET", "/deliveries/<delivery_id>", "Read a delivery", right="read", answer=schemas.OneDelivery)
def get_delivery(call: Call, delivery_id: str) -> t.Any:
    """With its newest attempts: the exact request, the response, the timings. `attempts_next` leads to older ones."""
    return one(call, delivery_id)


def one(call: Call, delivery_id: str) -> dict[str, t.Any]:
    """Return a delivery with its attempts, as the schema takes it."""
    row, _ = _own(call, delivery_id)
    message = call.session.get(M, row.message_id)
    body = body_of(call.state, call.session.connection(), row)
    text = None if body.data is None else body.data.decode(errors="replace")
    size, reason = json_size(text), body.reason
    if size > BODY:
        text, size, reason = None, 0, TOO_LARGE
    page = _attempts(call, row.id, NEWEST, "", PAGE - size)
    return {
        **_shown(row, message.event if message is not None else None),
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
    """Those of one delivery, newest first. A page may hold fewer than `limit`: go on while there is a `next`."""
    row, _ = _own(call, delivery_id)
    return _attempts(call, row.id, call.limit, call.query.get("cursor", ""), PAGE)


@operation(
    "GET",
    "/deliveries/<delivery_id>/body",
    "Download the body",
    right="read",
    mimetype="application/octet-stream",
)
def get_body(call: Call, delivery_id: str) -> t.Any:
    """The bytes that were sent last or will be sent, however many. 404 where nobody can tell them any more."""
    row, _ = _own(call, delivery_id)
    body = body_of(call.state, call.session.connection(), row)
    if body.data is None:
        raise Refused(404, f"The body is not known any more: {body.reason}.")
    return Answer(None, raw=body.data, mimetype="application/octet-stream", filename=f"{row.id}.json")


def _attempts(call: Call, delivery_id: str, limit: int, cursor: str, room: int) -> dict[str, t.Any]:
    rows = queries.attempts_of(call.session, delivery_id, limit + 1, cursor)
    return paged(rows, limit, _attempt, room=room)


def _own(call: Call, delivery_id: str) -> tuple[models.Delivery, models.Subscription]:
    row = call.session.get(D, delivery_id, populate_existing=True)
    subscription = call.session.get(S, row.subscription_id) if row is not None else None
    if row is None or subscription is None or call.owner not in (ALL_OWNERS, subscription.owner):
        raise Refused(404, "There is no such delivery.")
    return row, subscription


def _attempt(row: models.Attempt) -> dict[str, t.Any]:
    found = _attempt_without_body(row)
    if row.status is not None:
        legible = queries.of_attempt(row)
        text = fit(legible.text, ATTEMPT - json_size(found) - json_size(legible.note) - 100)
        is_cut = len(text) < len(legible.text)
        found["response"] |= {
            "body": text,
            "body_note": legible.note,
            "truncated": row.response_truncated or is_cut,
        }
    return found


def _attempt_without_body(row: models.Attempt) -> dict[str, t.Any]:
    response = {
        "status": row.status,
        "headers": json.loads(row.response_headers) if row.response_headers else {},
    }
    return {
        **{
            name: getattr(row, name)
            for name in ("id", "number", "trigger", "started_at", "failure", "detail", "worker")
        },
        "hint": Failure(row.failure).hint if row.failure in set(Failure) else None,
        "request": {
            "url": row.url,
            "headers": json.loads(row.request_headers),
            "body_sha256": row.body_sha256,
            "body_size": row.body_size,
        },
        "response": response if row.status is not None else None,
        "timings": {
            name: getattr(row, f"{name}_seconds") for name in ("dns", "connect", "tls", "first_byte", "total")
        },
    }


@operation(
    "GET",
    "/deliveries/<delivery_id>/response",
    "Download what was answered",
    right="read",
    query=schemas.ResponseQuery,
    mimetype="application/octet-stream",
)
def get_response(call: Call, delivery_id: str) -> t.Any:
    """The bytes of the body as they came, as far as they are kept: neither unpacked nor decoded.

    None where nothing has been answered yet, or without a body.
    """
    row, _ = _own(call, delivery_id)
    asked = call.query.get("attempt")
    attempt = queries.attempt_of(call.session, row.id, asked)
    if asked is not None and attempt is None:
        raise Refused(404, "There is no such attempt.")
    body = attempt.response_body if attempt is not None else None
    name = f"{attempt.id if attempt is not None else row.id}.bin"
    return Answer(None, raw=body or b"", mimetype="application/octet-stream", filename=name)


# ---- by hand ---------------------------------------------------------------------------------------------


def _again(call: Call, delivery_id: str) -> dict[str, t.Any]:
    row, _ = _own(call, delivery_id)
    event = call.session.scalar(sa.select(M.event).where(M.id == row.message_id))
    return _shown(row, event)


def _repeated(call: Call, made: t.Sequence[str], delivery_id: str) -> t.Any:
    return _again(call, delivery_id)


@operation(
    "POST",
    "/deliveries/<delivery_id>/retry",
    "Send a delivery again",
    right="write",
    answer=schemas.Delivery,
    status=202,
    errors=(409,),
    repeat=_repeated,
)
def retry_delivery(call: Call, delivery_id: str) -> t.Any:
    """Makes it due at once, whatever became of it: same idempotency key, same bytes, its whole schedule before it."""
    owner = _own(call, delivery_id)[1].owner
    throttle.count(call.state, call.session, call.account)
    throttle.begin_retry(call.state, call.session, owner, delivery_id)
    if replay.is_broken(call.session.connection(), delivery_id):
        raise Refused(
            409, "Its data could not be made: there is nothing to send until that is repaired.", code="broken"
        )
    if not replay.retry(call.session.connection(), delivery_id, datetime.now(UTC)):
        raise Refused(409, "The subscription is switched off. Switch it on first.")
    subscribing.afterwards(call.session, call.state.bell.ring)
    return _again(call, delivery_id)


@operation(
    "POST",
    "/deliveries/<delivery_id>/cancel",
    "Cancel a delivery",
    right="write",
    answer=schemas.Delivery,
    errors=(409,),
    repeat=_repeated,
)
def cancel_delivery(call: Call, delivery_id: str) -> t.Any:
    """Calls it off, if it is pending, held or broken. A request that is under way is not called back."""
    row, _ = _own(call, delivery_id)
    was = row.state
    call.session.rollback()
    if not replay.cancel(call.session.connection(), delivery_id, datetime.now(UTC)):
        raise Refused(409, f"It is {was}: there is nothing to call off.")
    return _again(call, delivery_id)
