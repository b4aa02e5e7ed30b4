"""Events to rows of messages and deliveries: the data, its extras, the key and the state of what each is about."""

from __future__ import annotations

import functools
import json
import logging
import time
import typing as t
from datetime import UTC, datetime

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import inspect

from .. import payload
from ..bindings import CHANGES
from ..bindings.schema_keys import attribute_of, key_of
from ..catalog import EventType, same
from ..config import ENVIRONMENTS
from ..errors import EmitError, PayloadError, PayloadTooLargeError
from ..messages import Row, delivery_row, message_row, size_of
from ..models import State
from ..outbox import recording
from . import guard, host_code
from .change import SERVER_GENERATED
from .events import UNKNOWN, UNREADABLE_OWNER, PendingEvent, Recorded
from .failures import LONGEST, REMEDY, about_of, check_fits, fail_or_log, named_error, unserialisable
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel, BoundInclude
    from ..state import AppState
    from .registry import Registry
    from .reread import Rereading

__all__ = ["deliveries_of", "remade", "status_of", "write"]


logger = logging.getLogger("flask_webhooks.capture")


Dumps = dict[tuple[int, t.Hashable], tuple[t.Any, str]]


def write(
    registry: Registry,
    connection: sa.Connection,
    events: t.Sequence[PendingEvent],
    rereading: Rereading | None = None,
) -> list[Recorded]:
    """Write messages and deliveries; return the messages that were new.

    :param rereading: what to do where an object cannot be dumped; None if all were read a moment ago.
    """
    state = registry.state
    now = datetime.now(UTC)
    clock = time.time_ns() // 1000
    dumps: Dumps = {}
    messages: list[Row] = []
    deliveries: list[Row] = []
    errors: dict[str, str] = {}
    # One instant for the commit: its messages happened together.
    make = functools.partial(_message, state, now, clock, dumps)
    for item in events:
        try:
            if item.error is not None:
                raise item.error
            message = make(item) if rereading is None else rereading.made(item, events, make)
        except Exception as error:  # whatever the host's schemas and properties raise
            reason = fail_or_log(state, item.event, item.obj, error)
            if reason is None:
                continue
            message = _broken(state, item, now, clock)
            errors[message["id"]] = reason
        messages.append(message)
        deliveries.extend(_deliveries(item, message, now, is_broken=message["id"] in errors))
    recorded = recording.record(connection, messages, deliveries, lambda: registry.fresh_engine(connection))
    return _noted(connection, recorded, errors, now) if errors else recorded


def remade(state: AppState, item: PendingEvent) -> Row:
    """Return the row of a message that was broken, made anew; the listeners of another environment are taken out.

    To be called inside `guarding`.

    :raises EmitError: it cannot be made, with what is wrong.
    """
    try:
        return _message(state, datetime.now(UTC), 0, {}, item)
    except Exception as error:  # whatever the host's schemas and properties raise
        if isinstance(error, sa.exc.DBAPIError) and not guard.is_survived(error):
            raise
        named = named_error(state, item.event, item.obj, error)
        raise type(named)(str(named).replace(REMEDY, "")) from error


def deliveries_of(item: PendingEvent, message: Row, now: datetime) -> list[Row]:
    """Return the rows of its deliveries."""
    return _deliveries(item, message, now)


def _noted(
    connection: sa.Connection, recorded: list[Recorded], errors: t.Mapping[str, str], now: datetime
) -> list[Recorded]:
    """Note which messages are broken, and why. Only here there may be no table for that: the host's commit goes on."""
    broken = {row["id"]: errors[row["id"]] for row in recorded if row["id"] in errors}
    if not broken:  # each had a `dedupe_key` that was used before
        return recorded
    try:
        with connection.begin_nested():
            recording.record_broken(connection, broken, now)
    except (sa.exc.ProgrammingError, sa.exc.OperationalError):
        logger.exception("message.lost: run `flask db upgrade`", extra={"messages": sorted(broken)})
        with connection.begin_nested():
            recording.unrecord(connection, sorted(broken))
        return [row for row in recorded if row["id"] not in broken]
    return [{**row, "error": broken[row["id"]]} if row["id"] in broken else row for row in recorded]


def _broken(state: AppState, item: PendingEvent, now: datetime, clock: int) -> Row:
    """The row of a message without data."""
    return message_row(
        item.event,
        owner=item.owner
        if len(item.owner) <= LONGEST and recording.is_text(item.owner)
        else UNREADABLE_OWNER,
        environment=state.settings.only_environment or UNKNOWN,
        occurred_at=now,
        clock=clock,
        entity_id=item.entity_id if item.obj is None else _identity_of(item.obj),
        status=item.status,
        data=item.text or "null",
        extras=None,
        size=size_of(item.text),
        dedupe_key=item.dedupe_key,
    )


def _identity_of(obj: t.Any) -> str | None:
    """The key of a row, as it is in memory; None if it has none that fits."""
    state = inspect(obj)
    key = state.identity or [
        state.dict.get(state.mapper.get_property_by_column(column).key) for column in state.mapper.primary_key
    ]
    text = ",".join(map(str, key))
    return text if None not in key and len(text) <= LONGEST and recording.is_text(text) else None


def _message(state: AppState, now: datetime, clock: int, dumps: Dumps, item: PendingEvent) -> Row:
    data, text = _data(item, dumps)
    extras = _extras(item, data)
    entity_id, status = _entity(item, data)
    size = size_of(text, extras)
    # Both parts are sent, so both count.
    if size > state.settings.payload_limit:
        raise PayloadTooLargeError(
            f"The data of {about_of(item.event, item.obj)} has {size} bytes; WEBHOOKS_PAYLOAD_LIMIT is "
            f"{state.settings.payload_limit}. Send less, or raise the limit.",
            event=item.event.name,
            size=size,
            limit=state.settings.payload_limit,
        )
    return message_row(
        item.event,
        owner=item.owner,
        environment=_environment(state, item, data),
        occurred_at=now,
        clock=clock,
        entity_id=entity_id,
        status=status,
        data=text,
        extras=extras,
        size=size,
        dedupe_key=item.dedupe_key,
    )


def _data(item: PendingEvent, dumps: Dumps) -> tuple[t.Any, str]:
    """Return the main object as a dict and as JSON; one that several events are about is dumped once.

    Of emitted data only the JSON was kept: what the host passed may be another's by now.
    """
    if item.text is not None:
        return None, item.text
    assert item.bound is not None  # noqa: S101  # an object without a bound channel is refused by emit()
    key = (id(item.obj), item.event.schema or item.bound.plain)
    if key not in dumps:
        data = host_code.dump(item.bound, item.event, item.obj)
        dumps[key] = data, payload.encode(data)
    return dumps[key]


def _extras(item: PendingEvent, data: t.Any) -> str | None:
    """Return as JSON what listeners asked for in addition to the main object, all of it together; None for nothing."""
    asked = item.includes_wanted()
    if not asked and not item.values:
        return None
    extras = {include.name: _included(item.event, include, item.obj) for include in asked}
    if item.values and any(CHANGES in listener.includes for listener in item.listeners):
        extras[CHANGES] = _changes(item, data)
    if not extras:
        return None
    hidden = extras.keys() & data.keys() if isinstance(data, dict) else ()
    if hidden:  # a field of that name is refused at the start; this one a hook or a method has put there
        logger.warning(
            "include.hides: the data of %s has %s already, and who asks for the include of that name gets that "
            "instead. Call the include otherwise.",
            about_of(item.event, item.obj),
            ", ".join(map(repr, sorted(hidden))),
            extra={"event": item.event.name, "includes": sorted(hidden)},
        )
    try:
        return payload.encode(extras, root="includes")
    except PayloadError:
        if CHANGES not in extras:
            raise
        extras[CHANGES] = {name: pair if _is_json(pair) else {} for name, pair in extras[CHANGES].items()}
        return payload.encode(extras, root="includes")


def _is_json(pair: t.Any) -> bool:
    try:
        payload.encode(pair)
    except PayloadError:
        return False
    return True


def _included(event: EventType, include: BoundInclude, obj: t.Any) -> t.Any:
    """Dump an include; an error says which one, and at what field."""
    try:
        return host_code.included(event, include, obj)
    except sa.exc.DBAPIError:
        raise
    except Exception as error:  # whatever the host's schemas and properties raise
        raise PayloadError(
            unserialisable(f"the include {include.name!r}", _field_inside(include, obj), error)
        ) from error


def _field_inside(include: BoundInclude, obj: t.Any) -> str:
    rows = host_code.rows_of(include, obj)
    return next((field for row in rows if (field := host_code.at_field(include.schema, row))), "")


def _changes(item: PendingEvent, data: t.Any) -> dict[str, dict[str, t.Any]]:
    """Return what changed, as the schema that made `data` tells it."""
    assert item.bound is not None  # noqa: S101  # only rows of a channel have old values
    changes = item.bound.changes[item.event.name]
    old_values = {}
    for name in changes.columns & item.values.keys():
        old, new = item.values[name]
        if not same(old, getattr(item.obj, name) if new is SERVER_GENERATED else new):
            old_values[name] = old
    found = host_code.by_schema(item.bound, item.event, item.obj, changes, item.obj, old_values, data)
    return dict(sorted(found.items()))


def _environment(state: AppState, item: PendingEvent, data: t.Any) -> str:
    environment = state.settings.environment
    if isinstance(environment, str):
        return environment
    if item.text is not None:
        data = json.loads(item.text)
    about = guard.About(item.event.name, "WEBHOOKS_ENVIRONMENT")
    chosen = guard.call(about, environment, item.event.name, data, item.owner)
    if chosen not in ENVIRONMENTS:
        raise EmitError(
            f"WEBHOOKS_ENVIRONMENT returned {chosen!r} for {item.event.name}. Return one of {ENVIRONMENTS}."
        )
    return chosen


def _entity(item: PendingEvent, data: t.Any) -> tuple[str | None, str | None]:
    """Return the key and the state of what the event is about."""
    obj = item.obj
    if obj is None:
        return item.entity_id, item.status
    key = ",".join(map(str, state_of(obj).mapper.primary_key_from_instance(obj)))
    status = status_of(item.event, data, item.bound, obj)
    for field, value in (("primary key", key), ("owner", item.owner), ("status", status)):
        check_fits(item.event, obj, field, value)
    return key, status


def status_of(
    event: EventType, data: t.Any, bound: BoundChannel | None = None, obj: t.Any = None
) -> str | None:
    """Return the value of the column that the event's condition is about, else of `status`; cut to what fits.

    It goes to receivers: what `data` does not have is sent only if the catalogue names it, as in `to: paid`. Without a
    schema a property of that name is sent too.
    """
    name = next(iter(event.when), "status")
    schema = bound.schemas.get(event.name) if bound is not None else None
    value = data.get(name) if isinstance(data, dict) else None
    if value is None and bound is not None and isinstance(data, dict):
        value = data.get(_key_of(schema, name))
    if value is None and bound is not None and obj is not None:
        is_told = name in event.when and event.when[name].enters is not None
        is_bare = schema is None and not (bound.plain is not None and bound.plain.is_chosen)
        if is_told or (is_bare and name not in bound.columns):
            value = host_code.status(event, obj, name)
    value = getattr(value, "value", value)
    return None if value is None else str(value)[:LONGEST]


def _key_of(schema: ma.Schema | None, column: str) -> str:
    """Return the key that a column has in what a schema dumps."""
    fields = schema.dump_fields.items() if schema is not None else ()
    return next(
        (key_of(name, field) for name, field in fields if attribute_of(name, field) == column), column
    )


def _deliveries(item: PendingEvent, message: Row, now: datetime, *, is_broken: bool = False) -> list[Row]:
    """Make a row for each listener: due now, held while its subscription is off, or waiting for the data's repair."""
    known = frozenset(item.bound.includes if item.bound else ()) | {CHANGES}
    rows = []
    environment = message["environment"]
    for wanted in item.listeners:
        # Which environment it is may only be known with its data (a callable in the settings).
        if environment not in (wanted.environment, UNKNOWN):
            continue
        state, reason = _BROKEN if is_broken else _PENDING if wanted.active else _HELD
        row = delivery_row(
            item.event,
            message["id"],
            wanted.subscription_id,
            format=wanted.format,
            includes=wanted.includes & known if wanted.includes else (),
            state=state,
            reason=reason,
            due_at=now if reason is None else None,
        )
        rows.append(row)
    return rows


# States with their reasons, as text: an enum looks its values up slowly.
_PENDING: tuple[str, str | None] = (State.PENDING.value, None)
_HELD: tuple[str, str | None] = (State.HELD.value, "off")
_BROKEN: tuple[str, str | None] = (State.BROKEN.value, "broken")
