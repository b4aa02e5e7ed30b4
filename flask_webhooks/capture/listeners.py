"""The listeners on SQLAlchemy's sessions and rows."""

from __future__ import annotations

import contextlib
import typing as t

from sqlalchemy import event, orm
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, SessionTransaction, UOWTransaction

from .. import signals
from ..catalog import Kind
from ..errors import EmitError
from ..outbox import recording
from . import bulk, history
from .commit import record_events
from .deletes import load_for_delete, orphans, reassigned
from .events import Recorded
from .loading import leaving_no_trace
from .mapper_plan import MapperPlan
from .matching import SubscriptionLookup
from .registry import Registry, anybody, known, registry_of, watching
from .sqlalchemy_internals import (
    deleted_states,
    dirty_states,
    forget_inherited_yield_per,
    modified_states,
    new_states,
    running_method,
    savepoint_of,
    state_of,
)
from .traces import Shown, Trace, trace
from .unit_of_work import (
    Item,
    UnitOfWork,
    Written,
    alive_in,
    around,
    buffer_of,
    buffers_of,
    forget,
    is_late,
    kept,
    set_late,
)

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["ROW_LISTENERS", "add", "listen", "listen_to_statements", "registry_of", "tell"]

Seen = tuple[InstanceState[t.Any], MapperPlan]
_NOTHING = contextlib.nullcontext()
Flushed = tuple[Kind, InstanceState[t.Any], MapperPlan]


def listen() -> None:
    """Set the listeners, once per process; again behind those that came with another app."""
    for name, listener in _LISTENERS.items():
        if event.contains(Session, name, listener):
            event.remove(Session, name, listener)
        event.listen(Session, name, listener)


def listen_to_statements() -> None:
    """Look at ORM statements too: only where some app wants it, for it costs every SELECT some microseconds."""
    if not event.contains(Session, "do_orm_execute", _do_orm_execute):
        event.listen(Session, "do_orm_execute", _do_orm_execute)


def add(session: Session, watch: Registry, items: t.Iterable[Item]) -> None:
    """Keep what happened until the root transaction commits; write it at once if it is committing already."""
    buffer = buffer_of(session, watch)
    buffer.items.setdefault(session.get_nested_transaction(), []).extend(items)
    if is_late(session.get_transaction()):
        _settle(session, buffer)


def _settle(session: Session, buffer: UnitOfWork) -> None:
    """Write what happened. It is kept until the transaction ends: a commit that failed may be tried again."""
    alive = alive_in(session)
    items = {place: some for place, some in buffer.items.items() if place in alive and some}
    if not items:
        return
    hearing = buffer.hearing = buffer.hearing or SubscriptionLookup(buffer.watch)
    everything = [item for some in items.values() for item in some]
    try:
        with _NOTHING if session.expire_on_commit else leaving_no_trace(session):
            recorded = record_events(buffer.watch, session, hearing, buffer.aside, everything)
    except DBAPIError as error:
        buffer.broken = f"{type(error).__name__}: {error}"
        raise
    buffer.written.append(Written(session.get_nested_transaction(), hearing.connection, items, recorded))
    buffer.items = {}


def _begin_again(session: Session, buffer: UnitOfWork) -> None:
    """Undo what a commit wrote that then failed: the transaction goes on, and may come to something else."""
    alive = alive_in(session)
    for written in reversed(list(buffer.written)):
        if written.recorded and written.connection is not None:
            broken = [row["id"] for row in written.recorded if "error" in row]
            recording.unrecord(written.connection, [row["id"] for row in written.recorded], broken)
        buffer.take_back(written, alive)


# ---- the listeners ---------------------------------------------------------------------------------------


def _before_flush(session: Session, context: UOWTransaction, instances: t.Any) -> None:
    if not deleted_states(session) and not dirty_states(session):
        return
    for buffer in (kept(session.get_transaction()) or {}).values():
        buffer.flush = history.FlushState()  # a flush that failed has left what was true then
    doomed = [*deleted_states(session), *orphans(session)]
    if doomed:
        for watch, seen in _watched(session, doomed).items():
            _prepare_deletion(session, buffer_of(session, watch), seen)
    changed: dict[InstanceState[t.Any], tuple[str, ...]] = dict.fromkeys(dirty_states(session), ())
    for state in doomed:
        changed.pop(state, None)
    for state, keys in reassigned(doomed, changed).items():
        if state.session_id == session.hash_key and state not in doomed:
            changed[state] = keys
    if changed:
        for watch, seen in _watched(session, changed).items():
            history.look(session, buffer_of(session, watch).flush, seen, changed)


def _prepare_deletion(session: Session, buffer: UnitOfWork, seen: list[Seen]) -> None:
    load_for_delete(
        session, buffer.flush, seen, lambda: _is_heard(session, buffer, seen), buffer.aside.another
    )


def _row(mapper: orm.Mapper[t.Any], target: t.Any) -> tuple[Session, UnitOfWork, Seen] | None:
    """The session of an object whose row is about to be written, its buffer, and what is captured of it."""
    state: t.Any = state_of(target)
    session = state.session
    watch = watching(session, state.class_) if session is not None else None
    plan = watch.plan(state.class_) if watch is not None else None
    if watch is None or plan is None:
        return None
    return session, buffer_of(session, watch), (state, plan)


# The host's own listeners run after `_before_flush` and may change and delete more: here their work is known.
def _before_update(mapper: orm.Mapper[t.Any], connection: t.Any, target: t.Any) -> None:
    found = _row(mapper, target)
    if found is not None:
        session, buffer, seen = found
        if buffer.flush.lacks(*seen):
            history.look(session, buffer.flush, [seen])


def _before_delete(mapper: orm.Mapper[t.Any], connection: t.Any, target: t.Any) -> None:
    found = _row(mapper, target)
    if found is not None:
        session, buffer, seen = found
        if seen[0] not in buffer.flush.shown and seen[0] not in buffer.flush.gone:
            _prepare_deletion(session, buffer, [seen])


def _watched(session: Session, states: t.Iterable[InstanceState[t.Any]]) -> dict[Registry, list[Seen]]:
    found: dict[Registry, list[Seen]] = {}
    for state in states:
        cls = state.class_
        if known.get(cls) == ():
            continue
        watch = watching(session, cls)
        plan = watch.plan(cls) if watch is not None else None
        if watch is not None and plan is not None:
            found.setdefault(watch, []).append((state, plan))
    return found


def _is_heard(session: Session, buffer: UnitOfWork, states: t.Sequence[Seen]) -> bool:
    """Whether to load what a deletion's listeners might ask for.

    Inside the commit they can be asked for now. Before it, somebody may still come: then all is loaded.
    """
    if buffer.hearing is None or is_late(session.get_transaction()):
        return True
    others = _watched(session, [*new_states(session), *dirty_states(session)]).get(buffer.watch, ())
    buffer.aside.begin()
    return buffer.hearing.matches_deletion(session, states, others, buffer.aside.hidden_row)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    for mapper in context.mappers:
        if known.get(mapper.class_) != ():  # as `_is_any_known`
            break
    else:
        return
    for watch, (seen, traces) in _flushed(session, context).items():
        buffer = buffer_of(session, watch)
        changes: list[Item] = [*history.changes(seen, buffer.flush), *traces]
        if buffer.flush.is_used:
            buffer.flush = history.FlushState()
        if changes:
            buffer.items.setdefault(session.get_nested_transaction(), []).extend(changes)
    if is_late(session.get_transaction()):
        event.listen(session, "after_flush_postexec", _settle_late)


def _flushed(session: Session, context: UOWTransaction) -> dict[Registry, tuple[list[Flushed], list[Trace]]]:
    """What the unit of work did; `session.deleted` knows nothing of orphans that it deleted by itself.

    Deletions come first: one followed by an INSERT of the same key is an update.
    """
    created, updated, deleted = Kind.CREATED, Kind.UPDATED, Kind.DELETED
    found: dict[Registry, tuple[list[Flushed], list[Flushed], list[Trace]]] = {}
    last: type | None = None
    plan: MapperPlan | None = None
    shown: Shown | None = None
    gone: list[Flushed] = []
    rest: list[Flushed] = []
    traces: list[Trace] = []
    for state, (is_delete, is_listed) in context.states.items():
        cls = state.class_
        if cls is not last:  # they come class by class
            last, plan, shown = cls, None, None
            watch = watching(session, cls)
            if watch is not None:
                plan, shown = watch.plan(cls), watch.shown(cls)
                gone, rest, traces = found.setdefault(watch, ([], [], []))
        if shown is not None and not is_delete and (noted := trace(state, shown)) is not None:
            traces.append(noted)
        if plan is None:
            continue
        if is_delete:
            # An UPDATE instead of DELETE and INSERT takes the deleted one off the unit's list.
            if not is_listed or state in deleted_states(session):
                gone.append((deleted, state, plan))
        elif state.key is not None:
            rest.append((updated, state, plan))
        elif not is_listed:
            rest.append((created, state, plan))
    return {watch: (gone + rest, traces) for watch, (gone, rest, traces) in found.items()}


# Attributes cannot be refreshed inside a flush. Almost nobody flushes after us in a commit: so it is listened for then.
def _settle_late(session: Session, context: UOWTransaction) -> None:
    root = session.get_transaction()
    buffers = kept(root)
    if buffers is not None and is_late(root):
        for buffer in list(buffers.values()):
            here = session.get_nested_transaction()
            if any(buffer.items.values()) and all(written.place is here for written in buffer.written):
                _begin_again(session, buffer)  # what it comes to may be something else now
            _settle(session, buffer)


def _do_orm_execute(execution: ORMExecuteState) -> t.Any:
    if execution.is_select:
        forget_inherited_yield_per(execution)
        return None
    if not anybody() or not execution.is_orm_statement:
        return None
    session = execution.session
    mapper = execution.bind_mapper
    watch = watching(session, mapper.class_) or bulk.watch_below(session, mapper) if mapper else None
    if watch is None or not watch.is_minding:
        return None
    aside = buffer_of(session, watch).aside
    if watch.plan(t.cast("t.Any", mapper).class_) is not None:
        buffers_of(session).has_bulk = True
    result, changes = bulk.run(execution, watch, aside)
    if changes:
        add(session, watch, changes)
    elif result is None:
        aside.unread_classes.add(t.cast("t.Any", mapper).class_)
    return result


def _before_commit(session: Session) -> None:
    if savepoint_of(session) is not None and not _is_ending(session):
        return
    root = session.get_transaction()
    if kept(root) is None and not _is_any_known(session):
        set_late(root, True)
        return
    set_late(root, False)
    buffers = buffers_of(session)
    if deleted_states(session):
        for watch in _watched(session, list(deleted_states(session))):
            buffer_of(session, watch)
    for buffer in buffers.values():
        _refuse_broken(buffer)
        if buffer.written:
            _begin_again(session, buffer)
        buffer.hearing = SubscriptionLookup(
            buffer.watch
        )  # from here on somebody who listens can be asked for
    if not _is_followed(session):
        session.flush()
    for buffer in list(buffers.values()):
        _settle(session, buffer)
    set_late(root, True)


def _is_followed(session: Session) -> bool:
    """Whether listeners of the host's come after this one: they may want to see what is not flushed yet.

    SQLAlchemy flushes when all have been called; `_settle_late` sees what that comes to.
    """
    return list(session.dispatch.before_commit)[-1] is not _before_commit


def _is_ending(session: Session) -> bool:
    """Whether it is the root that commits, with savepoints still open, and not one of these.

    A savepoint may end inside the root's commit too: when a listener of the host's has made one.
    """
    savepoint: t.Any = session.get_nested_transaction()
    while savepoint is not None:
        if running_method(savepoint) is not None:
            return False
        savepoint = around(savepoint)
    root = session.get_transaction()
    return root is not None and running_method(root) is not None


def _is_any_known(session: Session) -> bool:
    """Whether something waits to be flushed that somebody captures, or that is met for the first time."""
    for state in new_states(session):
        if known.get(state.class_) != ():
            return True
    if not deleted_states(session) and not modified_states(session):
        return False
    return any(known.get(state.class_) != () for state in (*deleted_states(session), *dirty_states(session)))


def _refuse_broken(buffer: UnitOfWork) -> None:
    if buffer.broken is not None:
        raise EmitError(
            f"The webhook events of this transaction could not be written ({buffer.broken}). Roll it back."
        )


def _after_commit(session: Session) -> None:
    root = session.get_transaction()
    buffers = kept(root)
    if not buffers:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        forget(root)
        if session.expire_on_commit:
            history.trust(session)
    for buffer in buffers.values():
        if nested is not None:
            _release(buffer, nested, around(nested))
        elif recorded := buffer.recorded():
            tell(buffer.watch.state, recorded)


def tell(state: AppState, recorded: t.Sequence[Recorded]) -> None:
    """Ring the bell and send the signals, after the commit."""
    whole = [row for row in recorded if "error" not in row]
    if whole:
        state.bell.ring_soon()
        signals.send(signals.message_recorded, state.app, messages=whole)
    if len(whole) < len(recorded):
        names = ("id", "event", "owner", "environment", "occurred_at", "entity_id", "error")
        broken = [{name: row[name] for name in names} for row in recorded if "error" in row]
        signals.send(signals.message_broken, state.app, messages=broken)


def _release(buffer: UnitOfWork, savepoint: SessionTransaction, around: SessionTransaction | None) -> None:
    """Let what happened in a savepoint, and what was written in it, belong to what is around it."""
    for items in (buffer.items, *(written.items for written in buffer.written)):
        some = items.pop(savepoint, None)
        if some:
            items.setdefault(around, []).extend(some)
    for written in buffer.written:
        if written.place is savepoint:
            written.place = around


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    if not transaction.nested:
        forget(transaction)
        history.trust(session)
        return
    buffers = kept(session.get_transaction())
    if buffers is not None:
        if buffers.has_bulk:
            history.mistrust(session)
        alive = alive_in(session)
        for buffer in buffers.values():
            buffer.items = {place: items for place, items in buffer.items.items() if place in alive}
            for written in reversed(list(buffer.written)):
                if written.place not in alive:
                    buffer.take_back(written, alive)


_LISTENERS: dict[str, t.Callable[..., None]] = {
    "before_flush": _before_flush,
    "after_flush": _after_flush,
    "before_commit": _before_commit,
    "after_commit": _after_commit,
    "after_soft_rollback": _after_soft_rollback,
}
ROW_LISTENERS: dict[str, t.Callable[..., None]] = {
    "before_update": _before_update,
    "before_delete": _before_delete,
}
