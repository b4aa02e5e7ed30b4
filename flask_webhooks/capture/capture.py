"""The listeners on SQLAlchemy's sessions, and the buffer each session keeps while a transaction lasts."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import typing as t
import weakref
from dataclasses import dataclass, field

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction, attributes
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from .. import signals
from ..catalog import Kind
from ..errors import EmitError
from .changes import Change, Key, Values

if t.TYPE_CHECKING:
    from ..bindings import Bound
    from ..state import AppState
    from .settling import Emitted, Recorded

__all__ = ["Buffer", "Watch", "add", "install", "is_muted", "muted", "watch_of", "watching"]

INFO = "webhooks_capture"
OPT_OUT = "webhooks"
"""`Session(info={"webhooks": False})` is never looked at."""

logger = logging.getLogger("flask_webhooks.capture")
_muted: contextvars.ContextVar[bool] = contextvars.ContextVar("webhooks_muted", default=False)


@dataclass(slots=True)
class Buffer:
    """What one session has seen in its current root transaction."""

    watch: Watch
    changes: dict[SessionTransaction, list[Change | Emitted]] = field(default_factory=dict)
    """By the innermost transaction in which it happened."""
    late: bool = False
    """The root's `before_commit` has passed: what is flushed now is written at once."""
    recorded: list[Recorded] = field(default_factory=list)
    """What was written, for the signal after the commit."""


Settle = t.Callable[["AppState", Session, t.Sequence[t.Any]], "list[Recorded]"]
"""Writes what happened in a transaction; see `settling.settle`."""


class Watch:
    """The models of one app that are captured, and what to do when a transaction commits."""

    def __init__(
        self, state: AppState, settle: t.Callable[[AppState, Session, t.Any], list[Recorded]]
    ) -> None:
        self.state = state
        self.settle = settle
        self.models: dict[type, list[Bound]] = {}
        for bound in state.bound.values():
            if bound.model is not None:
                self.models.setdefault(bound.model, []).append(bound)
                _remember_old_values(bound.model)

    def bound(self, cls: type) -> tuple[Bound, ...]:
        """Return the channels that capture instances of `cls`: its own and those of the classes it inherits."""
        return tuple(bound for base in cls.__mro__ for bound in self.models.get(base, ()))


_watches: dict[int, weakref.ref[Watch]] = {}
_known: dict[type, tuple[weakref.ref[Watch], ...]] = {}
"""Mapped class to the apps that capture it; filled as classes are met, emptied when an app comes or goes."""


def install(state: AppState, settle: Settle) -> None:
    """Begin to capture for one app, for as long as the app lives."""
    _listen()
    watch = state.app.extensions[INFO] = Watch(state, settle)
    number = id(watch)
    _watches[number] = weakref.ref(watch, lambda _: _forget(number))
    _known.clear()


def _forget(number: int) -> None:
    _watches.pop(number, None)
    _known.clear()


def watch_of(state: AppState) -> Watch:
    """Return what `install` made for an app."""
    return t.cast("Watch", state.app.extensions[INFO])


def _listen() -> None:
    for name, listener in _LISTENERS.items():
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener)


def _remember_old_values(model: type) -> None:
    """Make SQLAlchemy load the old value of an expired column before it is set (else it is lost)."""
    mapper: t.Any = inspect(model)
    for attribute in mapper.column_attrs:
        column = getattr(model, attribute.key)
        if not event.contains(column, "set", _noop):
            event.listen(column, "set", _noop, active_history=True, propagate=True)


def _noop(*_: t.Any) -> None:
    pass


def is_muted() -> bool:
    """Whether this thread or greenlet is inside `muted()`."""
    return _muted.get()


@contextlib.contextmanager
def muted(session: Session | None) -> t.Iterator[None]:
    """Capture nothing of what is changed inside; what was changed before is kept.

    :param session: flushed on entry and on exit, so that the border is where the block is and not where
        SQLAlchemy happens to flush.
    """
    _flush(session)
    mark = _muted.set(True)
    try:
        yield
        _flush(session)
    finally:
        _muted.reset(mark)


def _flush(session: Session | None) -> None:
    if session is not None and (session.new or session.dirty or session.deleted):
        session.flush()


# ---- which app -------------------------------------------------------------------------------------------


def watching(session: Session, cls: type) -> Watch | None:
    """Return the app that captures `cls` in this session, or None."""
    refs = _known.get(cls)
    if refs is None:
        refs = _known[cls] = tuple(ref for ref in _watches.values() if (watch := ref()) and watch.bound(cls))
    if not refs or _muted.get() or session.info.get(OPT_OUT) is False:
        return None
    buffer = session.info.get(INFO)
    if buffer is not None:
        return t.cast("Watch", buffer.watch) if buffer.watch.bound(cls) else None
    return _choose(session, cls, [watch for ref in refs if (watch := ref()) is not None])


def _choose(session: Session, cls: type, watches: list[Watch]) -> Watch:
    if len(watches) == 1:
        return watches[0]
    engine = session.get_bind(mapper=inspect(cls)).engine
    same = [watch for watch in watches if watch.state.engine is engine] or [
        watch for watch in watches if watch.state.engine.url == engine.url
    ]
    if len(same) != 1:
        raise EmitError(
            f"{len(watches)} apps capture {cls.__name__}, and the session's engine {engine.url!r} belongs to "
            f"{len(same)} of them. Use the engine of one app, or opt out with Session(info={{'{OPT_OUT}': False}})."
        )
    return same[0]


def buffer_of(session: Session, watch: Watch) -> Buffer:
    """Return the buffer of the session's transaction, made anew if there is none."""
    buffer = session.info.get(INFO)
    if buffer is None:
        buffer = session.info[INFO] = Buffer(watch)
    return t.cast("Buffer", buffer)


def _innermost(session: Session) -> SessionTransaction:
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:  # emit() before anything else: begin as any statement would
        session.connection()
        transaction = session.get_transaction()
    return t.cast("SessionTransaction", transaction)


def add(session: Session, watch: Watch, items: t.Iterable[Change | Emitted]) -> None:
    """Keep what happened until the root transaction commits; write it at once if it is committing already."""
    buffer = buffer_of(session, watch)
    if buffer.late:
        buffer.recorded.extend(watch.settle(watch.state, session, list(items)))
    else:
        buffer.changes.setdefault(_innermost(session), []).extend(items)


# ---- the listeners ---------------------------------------------------------------------------------------


def _before_flush(session: Session, context: UOWTransaction, instances: t.Any) -> None:
    if not _watches or not session.deleted:
        return
    for obj in session.deleted:
        watch = watching(session, type(obj))
        if watch is not None:
            for bound in watch.bound(type(obj)):
                _load(obj, bound)


def _load(obj: t.Any, bound: Bound) -> None:
    """Load what of an object would be gone after its DELETE: expired columns, and what it touches."""
    unloaded = inspect(obj).unloaded
    for name in bound.columns & unloaded:
        getattr(obj, name)
    for name in {touch.relationship for touch in bound.touches} & unloaded:
        getattr(obj, name)
    if any(Kind.DELETED in event.on for event in bound.channel.events.values()):
        wanted = {trail[0] for trail in bound.trails}
        wanted |= {include.path[0] for include in bound.includes.values() if include.relationships}
        for name in wanted & unloaded:
            getattr(obj, name)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    if not _watches:
        return
    found: dict[Watch, list[Change | Emitted]] = {}
    for kind, objects in (
        (Kind.CREATED, session.new),
        (Kind.UPDATED, session.dirty),
        (Kind.DELETED, session.deleted),
    ):
        for obj in objects:
            cls = type(obj)
            if _known.get(cls) == ():
                continue
            watch = watching(session, cls)
            if watch is not None:
                found.setdefault(watch, []).extend(_changes(kind, obj, watch.bound(cls)))
    for watch, changes in found.items():
        if changes:
            _keep(session, watch, changes)


def _keep(session: Session, watch: Watch, changes: list[Change | Emitted]) -> None:
    buffer = buffer_of(session, watch)
    if buffer.late:
        # Attributes cannot be refreshed inside a flush: wait for its end.
        buffer.changes.setdefault(_innermost(session), []).extend(changes)
    else:
        add(session, watch, changes)


def _after_flush_postexec(session: Session, context: UOWTransaction) -> None:
    buffer: Buffer | None = session.info.get(INFO)
    if buffer is None or not buffer.late or not buffer.changes:
        return
    items = [item for changes in buffer.changes.values() for item in changes]
    buffer.changes.clear()
    buffer.recorded.extend(buffer.watch.settle(buffer.watch.state, session, items))


def _changes(kind: Kind, obj: t.Any, bounds: tuple[Bound, ...]) -> t.Iterator[Change]:
    state = inspect(obj)
    key: Key = (state.mapper.base_mapper.class_, *state.mapper.primary_key_from_instance(obj))
    for bound in bounds:
        if kind is not Kind.UPDATED:
            yield Change(kind, bound, (bound.channel.name, *key), obj, _values(kind, obj, bound))
            continue
        values = _history(obj, bound)
        if values:
            old = (bound.channel.name, key[0], *state.identity) if state.identity else None
            new = (bound.channel.name, *key)
            moved = new if old is not None and old != new else None
            yield Change(kind, bound, old or new, obj, values, moved)


def _values(kind: Kind, obj: t.Any, bound: Bound) -> Values:
    """Return the values of a created or deleted object; what is not loaded is not asked for."""
    loaded = attributes.instance_dict(obj)
    if kind is Kind.CREATED:
        return {name: (None, loaded[name]) for name in bound.columns if name in loaded}
    return {name: (loaded[name], None) for name in bound.columns if name in loaded}


def _history(obj: t.Any, bound: Bound) -> Values:
    """Return the columns that this flush changed, with their old values."""
    values: Values = {}
    for name in bound.columns:
        history = attributes.get_history(obj, name, PASSIVE_NO_INITIALIZE)
        if history.added or history.deleted:
            old = history.deleted[0] if history.deleted else None
            new = history.added[0] if history.added else None
            values[name] = (old, new)
    return values


def _before_commit(session: Session) -> None:
    if not _watches or session.in_nested_transaction():
        return
    session.flush()
    buffer: Buffer | None = session.info.get(INFO)
    if buffer is None:
        return
    items = buffer.changes.pop(t.cast("SessionTransaction", session.get_transaction()), [])
    buffer.late = True
    if items:
        buffer.recorded.extend(buffer.watch.settle(buffer.watch.state, session, items))


def _after_commit(session: Session) -> None:
    buffer: Buffer | None = session.info.get(INFO)
    if buffer is None:
        return
    nested = session.get_nested_transaction()
    if nested is not None:
        items = buffer.changes.pop(nested, None)
        if items:
            buffer.changes.setdefault(_around(nested), []).extend(items)
        return
    if buffer.recorded:
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
    buffer: Buffer | None = session.info.get(INFO)
    if buffer is None:
        return
    buffer.changes.pop(transaction, None)
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
