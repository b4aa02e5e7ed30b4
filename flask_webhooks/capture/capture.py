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


@dataclass(slots=True, eq=False)
class Buffer:
    """What one session has seen for one app in its current root transaction."""

    watch: Watch
    aside: bulk.Aside
    """Rows that no object of the host's session stands for."""
    items: dict[SessionTransaction, list[Item]] = field(default_factory=dict)
    """By the innermost transaction in which it happened."""
    hearing: Hearing | None = None
    """Who listens: what this commit has asked so far; None before it began."""
    olds: dict[InstanceState[t.Any], reading.Olds] = field(default_factory=dict)
    """Of the flush that is running."""
    recorded: list[Recorded] = field(default_factory=list)
    """What was written, for the signal after the commit."""
    broken: str | None = None
    """Why the transaction can only be rolled back."""


class Buffers(dict[Watch, Buffer]):
    """The buffers of one session's root transaction: one for each app that captures something in it."""

    late = False
    """The root's `before_commit` has passed: what is flushed now is written at once."""


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
    buffers: Buffers | None = session.info.get(INFO)
    if buffers is None:
        buffers = session.info[INFO] = Buffers()
    return buffers


def _innermost(session: Session) -> SessionTransaction:
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:  # emit() before anything else: begin as any statement would
        session.connection()
        transaction = session.get_transaction()
    return t.cast("SessionTransaction", transaction)


def add(session: Session, watch: Watch, items: t.Iterable[Item], *, flushing: bool = False) -> None:
    """Keep what happened until the root transaction commits; write it at once if it is committing already.

    :param flushing: attributes cannot be refreshed inside a flush: wait for its end.
    """
    buffer = buffer_of(session, watch)
    buffer.items.setdefault(_innermost(session), []).extend(items)
    if not flushing and _buffers(session).late:
        _settle(session, buffer)


def _settle(session: Session, buffer: Buffer) -> None:
    """Write what happened, and forget it only when it is written: a commit that failed may be tried again."""
    items = [item for some in buffer.items.values() for item in some]
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


# ---- the listeners ---------------------------------------------------------------------------------------


def _before_flush(session: Session, context: UOWTransaction, instances: t.Any) -> None:
    if not anybody():
        return
    for watch, seen in _watched(session, session.deleted).items():
        buffer = buffer_of(session, watch)
        reading.load_for_delete(session, seen, lambda states, b=buffer: _is_heard(session, b, states))  # type: ignore[misc]
    for watch, seen in _watched(session, session.dirty).items():
        buffer_of(session, watch).olds = reading.old_values(session, seen)


def _watched(session: Session, objects: t.Iterable[t.Any]) -> dict[Watch, list[Seen]]:
    found: dict[Watch, list[Seen]] = {}
    for obj in objects:
        cls = type(obj)
        if known.get(cls) == ():
            continue
        watch = watching(session, cls)
        plan = watch.plan(cls) if watch is not None else None
        if watch is not None and plan is not None:
            found.setdefault(watch, []).append((obj._sa_instance_state, plan))
    return found


def _is_heard(session: Session, buffer: Buffer, states: t.Sequence[Seen]) -> bool:
    """Whether to load what a deletion's listeners might ask for.

    Inside the commit they can be asked for now. Before it, somebody may still come: then all is loaded.
    """
    if buffer.hearing is None or _buffers(session).late:
        return True
    return buffer.hearing.is_deletion_heard(session, [(state.obj(), plan.bounds) for state, plan in states])


def _after_flush(session: Session, context: UOWTransaction) -> None:
    if not anybody():
        return
    found: dict[Watch, list[tuple[Kind, InstanceState[t.Any], Plan]]] = {}
    last: type | None = None
    watch = plan = None
    for kind, state in _states(session, context):
        cls = state.class_
        if cls is not last:  # they come class by class
            last, watch = cls, None if known.get(cls) == () else watching(session, cls)
            plan = watch.plan(cls) if watch is not None else None
        if watch is not None and plan is not None:
            found.setdefault(watch, []).append((kind, state, plan))
    for watch, seen in found.items():
        buffer = buffer_of(session, watch)
        changes = reading.changes(seen, buffer.olds)
        buffer.olds = {}
        if changes:
            add(session, watch, changes, flushing=True)


def _states(session: Session, context: UOWTransaction) -> list[tuple[Kind, InstanceState[t.Any]]]:
    """What the unit of work did; `session.deleted` knows nothing of orphans that it deleted by itself.

    Deletions come first: one followed by an INSERT of the same key is an update.
    """
    gone, rest = [], []
    for state, (is_delete, is_listed) in context.states.items():
        if is_delete:
            # An UPDATE instead of DELETE and INSERT takes the deleted one off the unit's list.
            if not is_listed or state in session._deleted:
                gone.append((Kind.DELETED, state))
        elif state.key is not None:
            rest.append((Kind.UPDATED, state))
        elif not is_listed:
            rest.append((Kind.CREATED, state))
    return gone + rest


def _after_flush_postexec(session: Session, context: UOWTransaction) -> None:
    buffers: Buffers | None = session.info.get(INFO)
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
    result, changes = bulk.run(execution, watch, buffer_of(session, watch).aside)
    if changes:
        add(session, watch, changes)
    return result


def _before_commit(session: Session) -> None:
    if not anybody() or session.in_nested_transaction():
        return
    buffers = _buffers(session)
    buffers.late = False
    for buffer in buffers.values():
        _refuse_broken(buffer)
        buffer.hearing = None
    _open_ears(session, buffers)
    session.flush()
    for buffer in list(buffers.values()):
        _settle(session, buffer)
    buffers.late = True


def _open_ears(session: Session, buffers: Buffers) -> None:
    """From here on somebody who listens can be asked for: the commit has begun."""
    for watch in _watched(session, session.deleted):
        buffer_of(session, watch)
    for buffer in buffers.values():
        buffer.hearing = Hearing(buffer.watch)


def _refuse_broken(buffer: Buffer) -> None:
    if buffer.broken is not None:
        raise EmitError(
            f"The webhook events of this transaction could not be written ({buffer.broken}). Roll it back."
        )


def _after_commit(session: Session) -> None:
    buffers: Buffers | None = session.info.get(INFO)
    if not buffers:
        return
    nested = session.get_nested_transaction()
    for buffer in buffers.values():
        if nested is not None:
            items = buffer.items.pop(nested, None)
            if items:
                buffer.items.setdefault(_around(nested), []).extend(items)
        elif buffer.recorded:
            recorded, buffer.recorded = buffer.recorded, []
            buffer.watch.state.bell.ring()
            signals.send(signals.message_recorded, buffer.watch.state.app, messages=recorded)


def _around(transaction: SessionTransaction) -> SessionTransaction:
    """Return the savepoint or root transaction around a savepoint (flushes have transactions of their own)."""
    outer = t.cast("SessionTransaction", transaction.parent)
    while outer.parent is not None and not outer.nested:
        outer = outer.parent
    return outer


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    buffers: Buffers | None = session.info.get(INFO)
    if buffers is None:
        return
    for buffer in buffers.values():
        buffer.items.pop(transaction, None)
        if transaction.parent is None:
            buffer.aside.close()
    if transaction.parent is None:
        del session.info[INFO]


_LISTENERS: dict[str, t.Callable[..., None]] = {
    "before_flush": _before_flush,
    "after_flush": _after_flush,
    "after_flush_postexec": _after_flush_postexec,
    "before_commit": _before_commit,
    "after_commit": _after_commit,
    "after_transaction_end": _after_transaction_end,
}
