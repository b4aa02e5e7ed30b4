"""Resolved changes, and what the host emitted, to events: which happened, and whose they are."""

from __future__ import annotations

import logging
import typing as t
from collections import Counter
from dataclasses import replace

from sqlalchemy import inspect, orm

from ..catalog import EventType, Kind
from ..errors import EmitError, OwnerMissingError
from . import host_code
from .change import Change
from .events import UNREADABLE_OWNER, Emitted, PendingEvent
from .failures import check_fits, fail_or_log, name_of, on_error_of
from .loading import refresh
from .owner_moves import RowsBefore
from .owners import HiddenRow, load_linked, owner_of
from .sqlalchemy_internals import head_class, is_inside_flush, state_of

if t.TYPE_CHECKING:
    from .context import CommitContext
    from .registry import Registry
    from .side_session import SideSession

__all__ = ["detect"]

logger = logging.getLogger("flask_webhooks.capture")


def detect(
    context: CommitContext, past: RowsBefore, changes: t.Sequence[Change], emitted: t.Sequence[Emitted]
) -> list[PendingEvent]:
    """Return which events changes are, and those that the host emitted itself, each with its owner."""
    # What a filter of the host's hid when a deletion was prepared may have been changed since.
    context.side_session.forget_hidden_rows()
    found = _changed(context, past, changes)
    if emitted:
        context.stored.show_rows(item.obj for item in emitted if item.obj is not None)
        found += _emitted(context, changes, emitted)
    return found


def _changed(context: CommitContext, past: RowsBefore, changes: t.Sequence[Change]) -> list[PendingEvent]:
    """Return the events of changes; what nothing owns is logged and left out."""
    registry, rereading = context.registry, context.rereading
    concerned = [
        (change, events, may_have_moved)
        for change in changes
        if change.bound.channel.events or change.bound.owner_path
        if ((events := _possible(registry, change)), may_have_moved := past.may_have_moved(change))
        != ([], False)
    ]
    if len(concerned) > 1:
        refresh([change.obj for change, _, _ in concerned])
    linked = concerned if registry.is_linked else ()
    # Sessions refer to what is loaded only weakly: it must be held while owners are read.
    held = load_linked((change.bound, change.obj, change.values) for change, _, _ in linked)
    found: list[PendingEvent] = []
    ownerless: list[EventType] = []
    for change, events, may_have_moved in concerned:
        try:
            owner, before = rereading.owned(_owners, change, past, context.side_session, may_have_moved)
            moved = past.events_of_move(change, before, owner) if before != owner else ()
        except (
            orm.exc.ObjectDeletedError
        ):  # by a statement that nothing could follow: there is nothing to tell
            continue
        except Exception as error:  # a property of the host's
            found += _unowned(registry, change, events, error)
            continue
        if before != owner:
            found += [PendingEvent(event, whose, change.bound, obj, {}) for event, whose, obj in moved]
        elif owner is None:
            ownerless += events
        else:
            values = change.values if change.kind is Kind.UPDATED else {}
            is_moved = change.steps and change.kind is Kind.DELETED
            obj = past.snapshot_of(change) if is_moved else change.obj
            found += [PendingEvent(event, owner, change.bound, obj, values) for event in events]
    del held
    if ownerless:
        _log_ownerless(registry, context.side_session, ownerless)
    return found


def _possible(registry: Registry, change: Change) -> list[EventType]:
    possible = registry.events[change.bound.channel.name, None if change.steps else change.kind]
    return [event for event in possible if change.matches(event)]


def _owners(
    change: Change, past: RowsBefore, side_session: SideSession, may_have_moved: bool
) -> tuple[str | None, str | None]:
    """Return whose a row is, and whose it was."""
    owner = host_code.owned(
        change.bound, change.obj, owner_of, change.bound, change.obj, side_session.hidden_row
    )
    if not may_have_moved:
        return owner, owner
    return owner, host_code.owned(change.bound, change.obj, past.owner, change)


def _unowned(
    registry: Registry, change: Change, events: t.Sequence[EventType], error: Exception
) -> list[PendingEvent]:
    """Return the events of a row whose owner could not be read, to be recorded as broken; else log or raise."""
    lost = events or [next(iter(registry.events[change.bound.channel.name, None]))]
    if on_error_of(registry.state, lost[0]) == "record":
        return [
            PendingEvent(event, UNREADABLE_OWNER, change.bound, change.obj, {}, error=error) for event in lost
        ]
    fail_or_log(registry.state, lost[0], change.obj, error)
    return []


def _log_ownerless(registry: Registry, side_session: SideSession, events: t.Sequence[EventType]) -> None:
    """Warn of events without an owner, and count them, if any subscription listens to such events."""
    counts = Counter(event.name for event in events)
    about = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    if not side_session.has_listener(counts):
        logger.debug("message.ownerless: %s", about)
        return
    registry.state.ownerless.update(counts)
    logger.warning(
        "message.ownerless: the rows of %s have no owner, so their events go to no subscription. Look at `owner` in "
        "the catalogue, and at these rows.",
        about,
        extra={"events": dict(counts)},
    )


# ---- what the host emitted ---------------------------------------------------------------------------------


def _emitted(
    context: CommitContext, changes: t.Sequence[Change], items: t.Sequence[Emitted]
) -> list[PendingEvent]:
    """Return the events that the host emitted; of objects as they are now, or as they were last."""
    state, hidden_row = context.registry.state, context.side_session.hidden_row
    refresh([item.obj for item in items if item.obj is not None])
    deleted = {change.key: change for change in changes if change.kind is Kind.DELETED}
    found: list[PendingEvent] = []
    for each in items:
        item = _with_snapshot(deleted, each)
        owner, error = item.owner, None
        try:
            if item.obj is not None:
                owner = context.rereading.owned(_owner_now, item, hidden_row)
        except Exception as raised:  # a property of the host's, or nothing to tell
            if on_error_of(state, item.event) != "record":
                fail_or_log(state, item.event, item.obj, raised)
                continue
            error = raised
        # emit() refuses data without an owner; UNREADABLE_OWNER stands for an object's that could not be read.
        found.append(
            PendingEvent(
                item.event,
                owner or UNREADABLE_OWNER,
                item.bound,
                item.obj,
                {},
                item.text,
                item.entity_id,
                item.status,
                item.dedupe_key,
                error=error,
            )
        )
    return found


def _with_snapshot(deleted: t.Mapping[t.Any, Change], item: Emitted) -> Emitted:
    """Let an event that was emitted for an object that is deleted by now show what the row was."""
    if not deleted or item.obj is None or item.bound is None or not state_of(item.obj).deleted:
        return item
    state: t.Any = state_of(item.obj)
    change = deleted.get((item.bound.channel.name, head_class(state.mapper), *state.identity))
    return item if change is None else replace(item, obj=change.obj)


def _owner_now(item: Emitted, hidden_row: HiddenRow) -> str:
    """Return whose an emitted object is.

    :raises EmitError: no row stands for it, or it has no owner.
    """
    state = inspect(item.obj)
    about = f"{item.event.name} was emitted for {name_of(item.obj)}"
    if not (state.persistent or state.deleted or _is_being_flushed(state)):
        raise EmitError(f"{about}, {_DETACHED if state.detached else _TRANSIENT}")
    try:
        state.mapper.primary_key_from_instance(item.obj)  # of an expired one this loads all
        owner = item.owner
        if owner is None and item.bound is not None:
            owner = host_code.owned(item.bound, item.obj, owner_of, item.bound, item.obj, hidden_row)
    except orm.exc.ObjectDeletedError as error:
        raise EmitError(f"{about}, whose row is gone. Emit before it is deleted, or pass a dict.") from error
    if owner is None:
        raise OwnerMissingError(f"{about}, which has no owner. Pass owner=...", event=item.event.name)
    check_fits(item.event, item.obj, "owner", owner)
    return owner


_DETACHED = "which is in no session and cannot be read. Add it to the session again, or pass a dict."
_TRANSIENT = (
    "which is not in the database: it was never added, or its savepoint was rolled back. Add it before the commit, "
    "or pass a dict."
)


def _is_being_flushed(state: orm.InstanceState[t.Any]) -> bool:
    """Whether its INSERT belongs to the flush that is running: a listener of that has emitted it."""
    session: t.Any = state.session
    if session is None or not is_inside_flush(session):
        return False
    return None not in state.mapper.primary_key_from_instance(state.obj())
