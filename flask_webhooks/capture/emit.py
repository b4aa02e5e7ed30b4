"""Events that the host emits itself, in addition to those that changes of its models make."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError

from .. import payload
from ..errors import EmitError, OwnerMissingError, PayloadError, PayloadTooLargeError
from ..messages import size_of
from .events import Emitted
from .failures import check_fits, name_of
from .fence import Refusal, refuse
from .host_code import at_field, owned, reading_owners
from .listeners import add
from .messages import status_of
from .owners import may_be_hidden, owner_of
from .registry import OPT_OUT, is_muted, registry_of
from .sqlalchemy_internals import STATE

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from ..catalog import EventType
    from ..state import AppState

__all__ = ["emit_many"]


def emit_many(
    state: AppState,
    session: Session,
    event: str,
    rows: t.Iterable[t.Any],
    *,
    owner: str | None = None,
    dedupe_key: str | None = None,
) -> None:
    """Add an event for each of `rows` to the session's transaction.

    :param rows: anything JSON can hold, or instances of the channel's model, dumped at commit with their last state.
    :param owner: whose they are; may be left out for instances that know their owner.
    :param dedupe_key: a second event of this name, owner and key does nothing, also in a later transaction; so it is
        for one row.
    :raises EmitError: more rows than one with a `dedupe_key`; a key or owner that does not fit into our columns; a
        transaction that is over, as in `after_commit`.
    :raises UnknownEventError: with the nearest name.
    :raises OwnerMissingError: for data without `owner`.
    :raises PayloadError: data that JSON cannot hold, with the path to it.
    :raises PayloadTooLargeError: over `WEBHOOKS_PAYLOAD_LIMIT`.
    """
    refuse("emit()")
    known = state.catalog.event_called(event, "Declare it in the catalogue.")
    owner = None if owner is None else str(owner)
    if owner is not None and not owner.strip():
        raise OwnerMissingError(
            f"{event} was emitted with the owner {owner!r}. Pass the key of an account.", event=event
        )
    dedupe_key = None if dedupe_key is None else str(dedupe_key)
    check_fits(known, None, "owner", owner)
    check_fits(known, None, "dedupe_key", dedupe_key)
    # A property of the host's may load, and must not flush what the host has not finished.
    with reading_owners(session, [state.bound[known.channel]], registry_of(state).warned):
        items = [_item(state, known, data, owner, dedupe_key) for data in rows]
    if dedupe_key is not None and len(items) > 1:
        raise EmitError(
            f"{event} was emitted for {len(items)} rows with one dedupe_key, {dedupe_key!r}: all but the first would "
            "do nothing. Emit them one by one, each with a key of its own."
        )
    if is_muted() or session.info.get(OPT_OUT) is False:
        return
    # After muted(): there a transaction that is over is no mistake.
    _refuse_ended(session, event)
    add(session, registry_of(state), items)


def _refuse_ended(session: Session, event: str) -> None:
    """Nothing that comes after a commit or a failed flush can be in their transaction: it would be lost."""
    if not session.is_active:
        raise EmitError(
            f"{event} was emitted in a transaction that is over: it has been committed, or has failed. Emit before the "
            "commit (`before_commit` is early enough, `after_commit` and `models_committed` are too late), or pass "
            "session=... another one, and commit that."
        )


def _item(
    state: AppState, event: EventType, data: t.Any, owner: str | None, dedupe_key: str | None
) -> Emitted:
    if _is_mapped(data):
        return _item_of(state.bound.get(event.channel), event, data, owner, dedupe_key)
    owner = state.catalog.channels[event.channel].sole_owner if owner is None else owner
    if owner is None:
        raise OwnerMissingError(
            f"{event.name} was emitted without an owner. Pass owner=...", event=event.name
        )
    bound = state.bound.get(event.channel)
    made = _passed(bound, event, data)
    # Encoded now: the host may go on changing what it passed.
    text = _encoded(event.name, made)
    size = size_of(text)
    if size > state.settings.payload_limit:
        raise PayloadTooLargeError(
            f"The data of {event.name} has {size} bytes; WEBHOOKS_PAYLOAD_LIMIT is "
            f"{state.settings.payload_limit}. Send less, or raise the limit.",
            event=event.name,
            size=size,
            limit=state.settings.payload_limit,
        )
    value = data.get("id") if isinstance(data, Mapping) else None
    value = getattr(value, "value", value)
    entity_id = None if value is None else str(value)
    status = status_of(event, made, bound)
    check_fits(event, None, "id of the data", entity_id)
    check_fits(event, None, "status of the data", status)
    return Emitted(event, owner, text, entity_id, status, dedupe_key=dedupe_key)


def _item_of(
    bound: BoundChannel | None, event: EventType, obj: t.Any, owner: str | None, dedupe_key: str | None
) -> Emitted:
    kind = type(obj).__name__
    if bound is None or bound.model is None or not isinstance(obj, bound.model):
        raise PayloadError(
            f"{event.name} was emitted with an instance of {kind}, which is not the model of "
            f"channel {event.channel}. Pass a dict, or name the model in the catalogue."
        )
    try:
        whose = owned(bound, obj, owner_of, bound, obj) if owner is None else owner
        is_owned = whose is not None or owned(bound, obj, _may_get_one, bound, obj)
    except Refusal:  # that the owner's property wants to write is said at the commit
        is_owned = True
    except (DetachedInstanceError, ObjectDeletedError) as error:
        raise EmitError(
            f"{event.name} was emitted with a {name_of(obj)} that cannot be read: it is detached, or its row is gone. "
            "Add it to the session again, or pass a dict."
        ) from error
    if not is_owned:
        raise OwnerMissingError(
            f"{event.name} was emitted with a {kind} that has no owner. Pass owner=...", event=event.name
        )
    return Emitted(event, owner, obj=obj, bound=bound, dedupe_key=dedupe_key)


def _may_get_one(bound: BoundChannel, obj: t.Any) -> bool:
    """Whether the flush may give a new object its owner: a default, or the key of something it belongs to."""
    state: t.Any = inspect(obj)
    path = bound.owner_path
    if not path:
        return False
    if state.persistent:
        return may_be_hidden(bound, obj)
    attribute = state.mapper.column_attrs.get(path[0])
    if attribute is None:
        return True
    column = attribute.columns[0]
    return bool(column.foreign_keys) or not (column.default is None and column.server_default is None)


def _passed(bound: BoundChannel | None, event: EventType, data: t.Any) -> t.Any:
    """Pass data through the schema of its event, as a row would be.

    :raises PayloadError: names the event, and the path or the field.
    """
    given = bound.given.get(event.name) if bound is not None else None
    if bound is None or given is None:
        return data
    try:
        return given(data)
    except PayloadError as error:
        raise PayloadError(f"{event.name}: {error}") from error
    except Exception as error:  # whatever the host's schema raises
        field = at_field(bound.schemas.get(event.name), data)
        raise PayloadError(
            f"{event.name} cannot be serialised{field}: {type(error).__name__}: {error}. Pass values as a row has "
            "them, which the schema dumps, or mend the schema."
        ) from error


def _encoded(name: str, data: t.Any) -> str:
    try:
        return payload.encode(data)
    except PayloadError as error:
        raise PayloadError(f"{name}: {error}") from error


def _is_mapped(data: t.Any) -> bool:
    try:
        return inspect(type(data), raiseerr=False) is not None and hasattr(data, STATE)
    except NoInspectionAvailable:
        return False
