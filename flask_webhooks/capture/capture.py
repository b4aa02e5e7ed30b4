"""The listeners on SQLAlchemy's sessions, and the buffer each session keeps while a transaction lasts."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, SessionTransaction, UOWTransaction

from .. import signals
from ..catalog import Kind
from ..errors import EmitError
from . import bulk, reading
from .changes import Change
from .hearing import Hearing
from .settling import Emitted, Recorded, settle
from .watching import INFO, Plan, Watch, anybody, known, watch_of, watching

__all__ = ["add", "listen", "watch_of"]

Item = Change | Emitted
Seen = tuple[InstanceState[t.Any], Plan]
Flushed = tuple[Kind, InstanceState[t.Any], Plan]


@dataclass(slots=True, eq=False)
class Buffer:
    """What one session has seen for one app in its current root transaction."""

    watch: Watch
    aside: bulk.Aside
    """Rows that no object of the host's session stands for."""
    items: dict[SessionTransaction | None, list[Item]] = field(default_factory=dict)
    """By the innermost savepoint in which it happened; None: outside of any."""
    hearing: Hearing | None = None
    """Who listens: what this commit has asked so far; None before it began."""
    olds: dict[InstanceState[t.Any], reading.Olds] = field(default_factory=dict)
    """Of the flush that is running."""
    recorded: list[Recorded] = field(default_factory=list)
    """What was written, for the signal after the commit."""
    broken: str | None = None
    """Why the transaction can only be rolled back."""


class Buffers(dict[Watch, Buffer]):
    """The buffers of one root transaction: one for each app that captures something in it.

    They are an attribute of the transaction and end with it, however it ends: a listener for that would be called
    at every flush of everybody.
    """

    late = False
    """The root's `before_commit` has passed: what is flushed now is written at once."""
    has_bulk = False
    """A bulk statement has changed rows."""


def listen() -> None:
    """Set the listeners, once per process."""
    for name, listener in _LISTENERS.items():
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener)


def listen_to_statements() -> None:
    """Look at ORM statements too: only where some app wants it, for it costs every SELECT some microseconds."""
    if not event.contains(Session, "do_orm_execute", _do_orm_execute):
        event.listen(Session, "do_orm_execute", _do_orm_execute)


def buffer_of(session: Session, watch: Watch) -> Buffer:
    """Return the buffer of the session's transaction, made anew if there is none."""
    buffers = _buffers(session)
    buffer = buffers.get(watch)
    if buffer is None:
        buffer = buffers[watch] = Buffer(watch, bulk.Aside(session, watch))
    return buffer


def _buffers(session: Session) -> Buffers:
    transaction = session.get_transaction()
    if transaction is None:  # emit() before anything else: begin as any statement would
        session.connection()
        transaction = t.cast("SessionTransaction", session.get_transaction())
    buffers = _kept(transaction)
    if buffers is None:
        buffers = Buffers()
        setattr(transaction, INFO, buffers)
    return buffers


def _kept(transaction: SessionTransaction | None) -> Buffers | None:
    return getattr(transaction, INFO, None)


def add(session: Session, watch: Watch, items: t.Iterable[Item]) -> None:
    """Keep what happened until the root transaction commits; write it at once if it is committing already."""
    buffer = buffer_of(session, watch)
    buffer.items.setdefault(session.get_nested_transaction(), []).extend(items)
    if _buffers(session).late:
        _settle(session, buffer)


def _settle(session: Session, buffer: Buffer) -> None:
    """Write what happened, and forget it only when it is written: a commit that failed may be tried again."""
    items = _alive(session, buffer)
    if not items:
        return
    if buffer.hearing is None:
        buffer.hearing = Hearing(buffer.watch)
    try:
        buffer.recorded.extend(settle(buffer.watch, session, buffer.hearing, buffer.aside, items))
    except DBAPIError as error:
        buffer.broken = f"{type(error).__name__}: {error}"
        raise
    buffer.items.clear()


def _alive(session: Session, buffer: Buffer) -> list[Item]:
    """What happened in savepoints that are still open, or in none; one that was just closed is rolled back too."""
    savepoint = session.get_nested_transaction()
    alive = {None, savepoint}
    while savepoint is not None:
        savepoint = _around(savepoint)
        alive.add(savepoint)
    return [item for place, some in buffer.items.items() if place in alive for item in some]


# ---- the listeners ---------------------------------------------------------------------------------------


def _before_flush(session: Session, context: UOWTransaction, instances: t.Any) -> None:
    if session._deleted:
        for watch, seen in _watched(session, list(session._deleted)).items():
            buffer = buffer_of(session, watch)
            reading.load_for_delete(
                session,
                seen,
                lambda states, b=buffer: _is_heard(session, b, states),  # type: ignore[misc]
            )
    if session._dirty_states:
        dirty = [state for state in session._dirty_states if state not in session._deleted]
        for watch, seen in _watched(session, dirty).items():
            buffer_of(session, watch).olds = reading.old_values(session, seen)


def _watched(session: Session, states: t.Iterable[InstanceState[t.Any]]) -> dict[Watch, list[Seen]]:
    found: dict[Watch, list[Seen]] = {}
    for state in states:
        cls = state.class_
        if known.get(cls) == ():
            continue
        watch = watching(session, cls)
        plan = watch.plan(cls) if watch is not None else None
        if watch is not None and plan is not None:
            found.setdefault(watch, []).append((state, plan))
    return found


def _is_heard(session: Session, buffer: Buffer, states: t.Sequence[Seen]) -> bool:
    """Whether to load what a deletion's listeners might ask for.

    Inside the commit they can be asked for now. Before it, somebody may still come: then all is loaded.
    """
    if buffer.hearing is None or _buffers(session).late:
        return True
    return buffer.hearing.is_deletion_heard(session, [(state.obj(), plan.bounds) for state, plan in states])


def _after_flush(session: Session, context: UOWTransaction) -> None:
    for mapper in context.mappers:
        if known.get(mapper.class_) != ():  # as `_is_any_known`
            break
    else:
        return
    for watch, seen in _flushed(session, context).items():
        buffer = buffer_of(session, watch)
        changes = reading.changes(seen, buffer.olds)
        buffer.olds = {}
        if changes:
            buffer.items.setdefault(session.get_nested_transaction(), []).extend(changes)
    if _buffers(session).late:
        event.listen(session, "after_flush_postexec", _settle_late)


def _flushed(session: Session, context: UOWTransaction) -> dict[Watch, list[Flushed]]:
    """What the unit of work did; `session.deleted` knows nothing of orphans that it deleted by itself.

    Deletions come first: one followed by an INSERT of the same key is an update.
    """
    created, updated, deleted = Kind.CREATED, Kind.UPDATED, Kind.DELETED
    found: dict[Watch, tuple[list[Flushed], list[Flushed]]] = {}
    last: type | None = None
    plan: Plan | None = None
    gone: list[Flushed] = []
    rest: list[Flushed] = []
    for state, (is_delete, is_listed) in context.states.items():
        cls = state.class_
        if cls is not last:  # they come class by class
            last, plan = cls, None
            watch = watching(session, cls)
            if watch is not None:
                plan = watch.plan(cls)
                gone, rest = found.setdefault(watch, ([], []))
        if plan is None:
            continue
        if is_delete:
            # An UPDATE instead of DELETE and INSERT takes the deleted one off the unit's list.
            if not is_listed or state in session._deleted:
                gone.append((deleted, state, plan))
        elif state.key is not None:
            rest.append((updated, state, plan))
        elif not is_listed:
            rest.append((created, state, plan))
    return {watch: gone + rest for watch, (gone, rest) in found.items()}


# Attributes cannot be refreshed inside a flush. Almost nobody flushes after us in a commit: so it is listened for then.
def _settle_late(session: Session, context: UOWTransaction) -> None:
    buffers = _kept(session.get_transaction())
    if buffers is not None and buffers.late:
        for buffer in list(buffers.values()):
            _settle(session, buffer)


def _do_orm_execute(execution: ORMExecuteState) -> t.Any:
    if not anybody() or execution.is_select or not execution.is_orm_statement:
        return None
    session = execution.session
    mapper = execution.bind_mapper
    watch = watching(session, mapper.class_) or bulk.watch_below(session, mapper) if mapper else None
    if watch is None or watch.state.settings.bulk == "ignore":
        return None
    _buffers(session).has_bulk = True
    result, changes = bulk.run(execution, watch, buffer_of(session, watch).aside)
    if changes:
        add(session, watch, changes)
    return result


def _before_commit(session: Session) -> None:
    if session.in_nested_transaction() and not _is_ending(session.get_transaction()):
        return
    buffers = _buffers(session)
    buffers.late = False
    if session._deleted:
        for watch in _watched(session, list(session._deleted)):
            buffer_of(session, watch)
    for buffer in buffers.values():
        _refuse_broken(buffer)
        buffer.hearing = Hearing(buffer.watch)  # from here on somebody who listens can be asked for
    if buffers or _is_any_known(session):
        session.flush()
        for buffer in list(buffers.values()):
            _settle(session, buffer)
    buffers.late = True


def _is_ending(root: t.Any) -> bool:
    """Whether it is the root that commits, with savepoints still open, and not one of these."""
    return root._current_fn is not None


def _is_any_known(session: Session) -> bool:
    """Whether something waits to be flushed that somebody captures, or that is met for the first time."""
    for states in (session._new, session._deleted, session._dirty_states):
        for state in states:
            if known.get(state.class_) != ():
                return True
    return False


def _refuse_broken(buffer: Buffer) -> None:
    if buffer.broken is not None:
        raise EmitError(
            f"The webhook events of this transaction could not be written ({buffer.broken}). Roll it back."
        )


def _after_commit(session: Session) -> None:
    root = session.get_transaction()
    buffers = _kept(root)
    if not buffers:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        _forget(root)
    for buffer in buffers.values():
        if nested is not None:
            items = buffer.items.pop(nested, None)
            if items:
                buffer.items.setdefault(_around(nested), []).extend(items)
        elif buffer.recorded:
            buffer.watch.state.bell.ring_soon()
            signals.send(signals.message_recorded, buffer.watch.state.app, messages=buffer.recorded)


def _around(savepoint: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint around a savepoint (flushes have transactions of their own), None for the root."""
    outer = savepoint.parent
    while outer is not None and not outer.nested:
        outer = outer.parent
    return outer


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    if not transaction.nested:
        _forget(transaction)
        return
    buffers = _kept(session.get_transaction())
    if buffers is not None:
        if buffers.has_bulk:  # SQLAlchemy lets stand what was loaded after a bulk statement that never was
            session.expire_all()
        for buffer in buffers.values():
            buffer.items.pop(transaction, None)


def _forget(root: SessionTransaction | None) -> None:
    buffers = _kept(root)
    if buffers is not None:
        delattr(root, INFO)
        for buffer in buffers.values():
            buffer.items.clear()
            buffer.aside.close()


_LISTENERS: dict[str, t.Callable[..., None]] = {
    "before_flush": _before_flush,
    "after_flush": _after_flush,
    "before_commit": _before_commit,
    "after_commit": _after_commit,
    "after_soft_rollback": _after_soft_rollback,
}
