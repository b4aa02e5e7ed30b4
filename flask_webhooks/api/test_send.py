"""The test request."""

from __future__ import annotations

import re
import typing as t

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .. import absolute, subscriptions
from ..catalog import unknown_event
from ..delivery import TEST_EVENT, Subject
from ..errors import PayloadError
from ..reference import sample_data
from ..state import AppState
from ..web import Refused, manual
from . import schemas
from .deliveries import one
from .operations import Answer, Call, operation


def _repeat(call: Call, made: t.Sequence[str], subscription_id: str) -> t.Any:
    return one(call, made[0])


@operation(
    "POST",
    "/subscriptions/<subscription_id>/test",
    "Send a test",
    right="write",
    body=schemas.Trial,
    answer=schemas.OneDelivery,
    errors=(409,),
    is_final=True,
    repeat=_repeat,
)
def try_subscription(call: Call, subscription_id: str) -> t.Any:
    """Sends a test at once and answers with the attempt, whatever its outcome. It is never retried nor counted.

    It works while the subscription is switched off, so that a receiver can be tried first.
    """
    row = subscriptions.find(call.session, subscription_id, owner=call.owner)
    owner, format = row.owner, row.format
    call.session.rollback()  # returns the connection to the pool: the host's schemas may need one for the data
    subject = _subject(call, owner)
    try:
        delivery_id = manual.send_test(call, subscription_id, subject, format)
    except PayloadError as error:
        raise Refused(422, str(error), fields={"event": [str(error)]}) from error
    found = one(call, delivery_id)
    # The Idempotency-Key of this request is written next, and a transaction of SQLite that has read may not begin to
    # write.
    call.session.rollback()
    return Answer(found, made=(delivery_id,))


def _subject(call: Call, owner: str) -> Subject:
    name, entity_id = call.body.get("event"), call.body.get("entity_id")
    if name is None or name == TEST_EVENT:
        if entity_id is not None:
            raise Refused(
                422, "Name the event of the record.", fields={"event": ["Name the event of the record."]}
            )
        return Subject()
    event = call.state.catalog.events.get(name)
    if event is None:
        message: str = unknown_event(name, call.state.catalog.suggest(name))
        raise Refused(422, message, fields={"event": [message]})
    bound = call.state.bound[event.channel]
    if entity_id is None:
        return Subject(name, sample_data(bound, event))
    if bound.model is None:
        message = f"The channel {event.channel} has no records: its events come from code alone."
        raise Refused(422, message, fields={"entity_id": [message]})
    data = _dumped(call.state, bound, event, entity_id, owner)
    if data is None:
        message = f"There is no such record in {event.channel}."
        raise Refused(422, message, fields={"entity_id": [message]})
    return Subject(name, data, entity_id)


def _dumped(state: AppState, bound: t.Any, event: t.Any, key: str, owner: str) -> dict[str, t.Any] | None:
    """Return the data of a record; None if it does not exist or belongs to another owner."""
    mapper: t.Any = sa.inspect(bound.model)
    parts = key.split(",")
    if len(parts) != len(mapper.primary_key):
        return None
    # On the connection of `db.session`: a schema may query it too, and so the request needs one connection, not two.
    host = state.host_session
    try:
        connection = host.connection(bind_arguments={"mapper": mapper})
        with Session(connection, info={"webhooks": False}) as session:
            row = _row(session, bound.model, mapper, parts)
            if row is None or bound.owner(row) != owner:
                return None
            with absolute.fixed():
                data: dict[str, t.Any] = bound.dump(row, event)
            return data
    finally:
        host.rollback()


def _row(session: Session, model: t.Any, mapper: t.Any, parts: t.Sequence[str]) -> t.Any:
    """Return the row with this key; None if it does not exist, or if the key's columns cannot hold such values."""
    try:
        identity = [_typed(column, part) for column, part in zip(mapper.primary_key, parts, strict=True)]
        return session.get(model, identity[0] if len(identity) == 1 else tuple(identity))
    except (ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError):
        return None
    except (
        sa.exc.StatementError
    ) as error:  # the driver refuses the value, unless the connection itself failed
        if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
            raise
        return None


def _typed(column: sa.Column[t.Any], text: str) -> t.Any:
    kind = column.type.python_type
    if kind is int:
        # 19 digits are those of a BIGINT. `int` would also accept spaces, underscores and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            raise ValueError
        return int(text)
    return kind(text)
