"""Events that the host emits itself, beside those that changes of its models make."""

from __future__ import annotations

import typing as t

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Session

from .. import payload
from ..errors import OwnerMissingError, PayloadError, PayloadTooLargeError, UnknownEventError
from .capture import add
from .settling import Emitted
from .watching import OPT_OUT, is_muted, watch_of
from .writing import size_of

if t.TYPE_CHECKING:
    from ..bindings import Bound
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
    :param dedupe_key: a second event of this name, owner and key does nothing, also in a later transaction.
    :raises UnknownEventError: with the nearest name.
    :raises OwnerMissingError: for data without `owner`.
    :raises PayloadError: data that JSON cannot hold, with the path to it.
    :raises PayloadTooLargeError: over `WEBHOOKS_PAYLOAD_LIMIT`.
    """
    known = state.catalog.events.get(event)
    if known is None:
        near = state.catalog.suggest(event)
        remedy = f"Did you mean {near}?" if near else "Declare it in the catalogue."
        raise UnknownEventError(f"{event!r} is not an event of the catalogue. {remedy}")
    if is_muted() or session.info.get(OPT_OUT) is False:
        return
    items = [_item(state, known, data, owner, dedupe_key) for data in rows]
    add(session, watch_of(state), items)


def _item(
    state: AppState, event: EventType, data: t.Any, owner: str | None, dedupe_key: str | None
) -> Emitted:
    owner = None if owner is None else str(owner)
    if _is_mapped(data):
        bound = state.bound.get(event.channel)
        if bound is None or bound.model is None or not isinstance(data, bound.model):
            raise PayloadError(
                f"{event.name} was emitted with an instance of {type(data).__name__}, which is not the model of "
                f"channel {event.channel}. Pass a dict, or name the model in the catalogue."
            )
        if owner is None and bound.owner(data) is None and not _may_get_one(bound, data):
            raise OwnerMissingError(
                f"{event.name} was emitted with a {type(data).__name__} that has no owner. Pass owner=..."
            )
        return Emitted(event, owner, None, None, data, bound, dedupe_key)
    if owner is None:
        raise OwnerMissingError(f"{event.name} was emitted without an owner. Pass owner=...")
    text = _encoded(event.name, data)
    size = size_of(text)
    if size > state.settings.payload_limit:
        raise PayloadTooLargeError(
            f"The data of {event.name} has {size} bytes; WEBHOOKS_PAYLOAD_LIMIT is "
            f"{state.settings.payload_limit}. Send less, or raise the limit."
        )
    return Emitted(event, owner, text, data, None, None, dedupe_key)


def _may_get_one(bound: Bound, obj: t.Any) -> bool:
    """Whether the flush may give a new object its owner: a default, or the key of something it belongs to."""
    state: t.Any = inspect(obj)
    path = bound.channel.owner
    if path is None or state.persistent:
        return False
    attribute = state.mapper.column_attrs.get(path[0])
    if attribute is None:
        return True
    column = attribute.columns[0]
    return bool(column.foreign_keys) or not (column.default is None and column.server_default is None)


def _encoded(name: str, data: t.Any) -> str:
    try:
        return payload.encode(data)
    except PayloadError as error:
        raise PayloadError(f"{name}: {error}") from error


def _is_mapped(data: t.Any) -> bool:
    try:
        return inspect(type(data), raiseerr=False) is not None and hasattr(data, "_sa_instance_state")
    except NoInspectionAvailable:
        return False
