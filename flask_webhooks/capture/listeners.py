"""The listeners on SQLAlchemy's sessions and rows: they collect changes, and record events before COMMIT."""

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
from .loading import unloading_relationships
from .lookup import SubscriptionLookup
from .mapper_plan import MapperPlan
from .registry import Registry, has_registries, registries_by_class, registry_for, registry_of
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
from .uncaptured import Observed, UncapturedChange, uncaptured_change
from .unit_of_work import (
    Item,
    UnitOfWork,
    Written,
    alive_in,
    enclosing,
    forget,
    is_committing,
    set_committing,
    unit_of,
    units_in,
    units_of,
)

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["ROW_LISTENERS", "add", "announce", "listen", "listen_to_statements", "registry_of"]

Seen = tuple[InstanceState[t.Any], MapperPlan]
_NOTHING = contextlib.nullcontext()
Flushed = tuple[Kind, InstanceState[t.Any], MapperPlan]


def listen() -> None:
    """Set the listeners, once per process; again behind those that came with another app."""
    for name, listener in _LISTENERS.items():
        # SQLAlchemy calls listeners in the order in which they were set: ours must see what the host's have done.
        if event.contains(Session, name, listener):
            event.remove(Session, name, listener)
        event.listen(Session, name, listener)


def listen_to_statements() -> None:
    """Look at ORM statements too: only where some app wants it, for it costs every SELECT some microseconds."""
    if not event.contains(Session, "do_orm_execute", _do_orm_execute):
        event.listen(Session, "do_orm_execute", _do_orm_execute)


def add(session: Session, registry: Registry, items: t.Iterable[Item]) -> None:
    """Keep what happened until the root transaction commits; write it at once if it is committing already."""
    unit = unit_of(session, registry)
    unit.items.setdefault(session.get_nested_transaction(), []).extend(items)
    if is_committing(session.get_transaction()):
        _record(session, unit)


def _record(session: Session, unit: UnitOfWork) -> None:
    """Write what happened. It is kept until the transaction ends: a commit that failed may be tried again."""
    # What happened in a savepoint that was rolled back never happened.
    alive = alive_in(session)
    items = {place: some for place, some in unit.items.items() if place in alive and some}
    if not items:
        return
    lookup = unit.lookup = unit.lookup or SubscriptionLookup(unit.registry)
    everything = [item for some in items.values() for item in some]
    try:
        with _NOTHING if session.expire_on_commit else unloading_relationships(session):
            recorded = record_events(unit.registry, session, lookup, unit.side_session, everything)
    except DBAPIError as error:
        unit.broken = f"{type(error).__name__}: {error}"
        raise
    unit.written.append(Written(session.get_nested_transaction(), lookup.connection, items, recorded))
    unit.items = {}


def _unwrite(session: Session, unit: UnitOfWork) -> None:
    """Undo what a commit wrote that then failed: the transaction goes on, and its next commit may have other events."""
    alive = alive_in(session)
    for written in reversed(list(unit.written)):
        if written.recorded and written.connection is not None:
            broken = [row["id"] for row in written.recorded if "error" in row]
            recording.unrecord(written.connection, [row["id"] for row in written.recorded], broken)
        unit.requeue(written, alive)


# ---- the listeners ---------------------------------------------------------------------------------------


def _before_flush(session: Session, context: UOWTransaction, instances: t.Any) -> None:
    # New objects have no old values: a flush that only inserts costs nothing here.
    if not deleted_states(session) and not dirty_states(session):
        return
    for unit in (units_in(session.get_transaction()) or {}).values():
        unit.flush = history.FlushState()  # a flush that failed has left what was true then
    to_delete = [*deleted_states(session), *orphans(session)]
    if to_delete:
        for registry, captured in _by_registry(session, to_delete).items():
            _prepare_deletion(session, unit_of(session, registry), captured)
    changed: dict[InstanceState[t.Any], tuple[str, ...]] = dict.fromkeys(dirty_states(session), ())
    for state in to_delete:
        changed.pop(state, None)
    for state, keys in reassigned(to_delete, changed).items():
        if state.session_id == session.hash_key and state not in to_delete:
            changed[state] = keys
    if changed:
        for registry, captured in _by_registry(session, changed).items():
            history.load_old(session, unit_of(session, registry).flush, captured, changed)


def _prepare_deletion(session: Session, unit: UnitOfWork, captured: list[Seen]) -> None:
    load_for_delete(
        session,
        unit.flush,
        captured,
        lambda: _is_matched(session, unit, captured),
        unit.side_session.new_session,
    )


def _captured(mapper: orm.Mapper[t.Any], target: t.Any) -> tuple[Session, UnitOfWork, Seen] | None:
    """The session of an object whose row is about to be written, its unit of work, and what is captured of it."""
    state: t.Any = state_of(target)
    session = state.session
    registry = registry_for(session, state.class_) if session is not None else None
    plan = registry.plan(state.class_) if registry is not None else None
    if registry is None or plan is None:
        return None
    return session, unit_of(session, registry), (state, plan)


# The host's own listeners run after `_before_flush` and may change and delete more: here their work is known.
def _before_update(mapper: orm.Mapper[t.Any], connection: t.Any, target: t.Any) -> None:
    found = _captured(mapper, target)
    if found is not None:
        session, unit, captured = found
        if unit.flush.lacks(*captured):
            history.load_old(session, unit.flush, [captured])


def _before_delete(mapper: orm.Mapper[t.Any], connection: t.Any, target: t.Any) -> None:
    found = _captured(mapper, target)
    if found is not None:
        session, unit, captured = found
        if captured[0] not in unit.flush.prepared and captured[0] not in unit.flush.missing:
            _prepare_deletion(session, unit, [captured])


def _by_registry(session: Session, states: t.Iterable[InstanceState[t.Any]]) -> dict[Registry, list[Seen]]:
    found: dict[Registry, list[Seen]] = {}
    for state in states:
        cls = state.class_
        if registries_by_class.get(cls) == ():
            continue
        registry = registry_for(session, cls)
        plan = registry.plan(cls) if registry is not None else None
        if registry is not None and plan is not None:
            found.setdefault(registry, []).append((state, plan))
    return found


def _is_matched(session: Session, unit: UnitOfWork, states: t.Sequence[Seen]) -> bool:
    """Whether to load what a deletion's listeners might ask for.

    Inside the commit they can be asked for now. Before it a subscription may still be created: then all is loaded.
    """
    if unit.lookup is None or is_committing(session.get_transaction()):
        return True
    others = _by_registry(session, [*new_states(session), *dirty_states(session)]).get(unit.registry, ())
    unit.side_session.forget_hidden_rows()
    return unit.lookup.matches_deletion(session, states, others, unit.side_session.hidden_row)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    # Most flushes concern classes that are in no catalogue.
    for mapper in context.mappers:
        if registries_by_class.get(mapper.class_) != ():  # as `_is_any_known`
            break
    else:
        return
    for registry, (captured, uncaptured) in _flushed(session, context).items():
        unit = unit_of(session, registry)
        changes: list[Item] = [*history.changes(captured, unit.flush), *uncaptured]
        if unit.flush.is_used:
            unit.flush = history.FlushState()
        if changes:
            unit.items.setdefault(session.get_nested_transaction(), []).extend(changes)
    if is_committing(session.get_transaction()):
        event.listen(session, "after_flush_postexec", _record_late_flush)


def _flushed(
    session: Session, context: UOWTransaction
) -> dict[Registry, tuple[list[Flushed], list[UncapturedChange]]]:
    """What the unit of work did; `session.deleted` knows nothing of orphans that it deleted by itself.

    Deletions come first: one followed by an INSERT of the same key is an update.
    """
    created, updated, deleted = Kind.CREATED, Kind.UPDATED, Kind.DELETED
    found: dict[Registry, tuple[list[Flushed], list[Flushed], list[UncapturedChange]]] = {}
    last: type | None = None
    plan: MapperPlan | None = None
    observed: Observed | None = None
    gone: list[Flushed] = []
    rest: list[Flushed] = []
    uncaptured: list[UncapturedChange] = []
    for state, (is_delete, is_listed) in context.states.items():
        cls = state.class_
        if cls is not last:  # they come class by class
            last, plan, observed = cls, None, None
            registry = registry_for(session, cls)
            if registry is not None:
                plan, observed = registry.plan(cls), registry.observed(cls)
                gone, rest, uncaptured = found.setdefault(registry, ([], [], []))
        if (
            observed is not None
            and not is_delete
            and (change := uncaptured_change(state, observed)) is not None
        ):
            uncaptured.append(change)
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
    return {registry: (gone + rest, uncaptured) for registry, (gone, rest, uncaptured) in found.items()}


# Attributes cannot be refreshed inside a flush. Few hosts flush after us in a commit: so we listen for it only then.
def _record_late_flush(session: Session, context: UOWTransaction) -> None:
    root = session.get_transaction()
    units = units_in(root)
    if units is not None and is_committing(root):
        for unit in list(units.values()):
            here = session.get_nested_transaction()
            if any(unit.items.values()) and all(written.place is here for written in unit.written):
                _unwrite(session, unit)  # its events may be others now
            _record(session, unit)


def _do_orm_execute(execution: ORMExecuteState) -> t.Any:
    if execution.is_select:
        forget_inherited_yield_per(execution)
        return None
    if not has_registries() or not execution.is_orm_statement:
        return None
    session = execution.session
    mapper = execution.bind_mapper
    registry = (
        registry_for(session, mapper.class_) or bulk.registry_below(session, mapper) if mapper else None
    )
    if registry is None or not registry.follows_bulk:
        return None
    side_session = unit_of(session, registry).side_session
    if registry.plan(t.cast("t.Any", mapper).class_) is not None:
        units_of(session).has_bulk = True
    given = execution.parameters
    result, changes = bulk.run(execution, registry, side_session)
    if changes:
        add(session, registry, changes)
    elif result is None:
        side_session.unread_classes.add(t.cast("t.Any", mapper).class_)
        if execution.parameters is not given:
            # SQLAlchemy 2.0 would go on with what the host passed: an iterator that has given its rows to us.
            return execution.invoke_statement()
    return result


def _before_commit(session: Session) -> None:
    if savepoint_of(session) is not None and not _is_ending(session):
        return
    root = session.get_transaction()
    if units_in(root) is None and not _is_any_known(session):
        set_committing(root, True)
        return
    set_committing(root, False)
    units = units_of(session)
    if deleted_states(session):
        for registry in _by_registry(session, list(deleted_states(session))):
            unit_of(session, registry)
    for unit in units.values():
        _refuse_broken(unit)
        if unit.written:
            _unwrite(session, unit)
        unit.lookup = SubscriptionLookup(
            unit.registry
        )  # from here on a subscription that is created comes too late
    if not _has_later_listeners(session):
        session.flush()
    for unit in list(units.values()):
        _record(session, unit)
    set_committing(root, True)


def _has_later_listeners(session: Session) -> bool:
    """Whether listeners of the host's come after this one: they may want to see what is not flushed yet.

    SQLAlchemy flushes when all have been called; `_record_late_flush` records what that did.
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
        savepoint = enclosing(savepoint)
    root = session.get_transaction()
    return root is not None and running_method(root) is not None


def _is_any_known(session: Session) -> bool:
    """Whether something waits to be flushed that an app captures, or that is met for the first time."""
    for state in new_states(session):
        if registries_by_class.get(state.class_) != ():
            return True
    if not deleted_states(session) and not modified_states(session):
        return False
    return any(
        registries_by_class.get(state.class_) != ()
        for state in (*deleted_states(session), *dirty_states(session))
    )


def _refuse_broken(unit: UnitOfWork) -> None:
    if unit.broken is not None:
        raise EmitError(
            f"The webhook events of this transaction could not be written ({unit.broken}). Roll it back."
        )


def _after_commit(session: Session) -> None:
    root = session.get_transaction()
    units = units_in(root)
    if not units:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        forget(root)
        if session.expire_on_commit:
            history.trust(session)
    for unit in units.values():
        if nested is not None:
            _release(unit, nested, enclosing(nested))
        elif recorded := unit.recorded():
            announce(unit.registry.state, recorded)


def announce(state: AppState, recorded: t.Sequence[Recorded]) -> None:
    """Ring the bell and send the signals, after the commit."""
    whole = [row for row in recorded if "error" not in row]
    if whole:
        state.bell.ring_soon()
        signals.send(signals.message_recorded, state.app, messages=whole)
    if len(whole) < len(recorded):
        names = ("id", "event", "owner", "environment", "occurred_at", "entity_id", "error")
        broken = [{name: row[name] for name in names} for row in recorded if "error" in row]
        signals.send(signals.message_broken, state.app, messages=broken)


def _release(unit: UnitOfWork, savepoint: SessionTransaction, enclosing: SessionTransaction | None) -> None:
    """Let what happened in a savepoint, and what was written in it, belong to what is around it."""
    for items in (unit.items, *(written.items for written in unit.written)):
        some = items.pop(savepoint, None)
        if some:
            items.setdefault(enclosing, []).extend(some)
    for written in unit.written:
        if written.place is savepoint:
            written.place = enclosing


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    if not transaction.nested:
        forget(transaction)
        history.trust(session)
        return
    units = units_in(session.get_transaction())
    if units is not None:
        if units.has_bulk:
            history.mistrust(session)
        alive = alive_in(session)
        for unit in units.values():
            unit.items = {place: items for place, items in unit.items.items() if place in alive}
            for written in reversed(list(unit.written)):
                if written.place not in alive:
                    unit.requeue(written, alive)


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
