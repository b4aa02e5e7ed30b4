"""Code of the host's that we call (schemas, properties, includes) may read, and changes nothing.

`guarding` is around all that happens in a commit on our behalf, `call` around each call of such code. What it does to
objects or to the session is undone before anything is written, and a warning names where; what would write at once
(`flush`, `commit`, an UPDATE) is refused.

While nothing is changed this costs some microseconds a commit: SQLAlchemy itself notes what was changed, and what the
host has not flushed yet is laid aside meanwhile so that it shows.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import re
import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Session

from .undoing import Contents, Snapshot, contents_of, revert, session_of

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["About", "Refusal", "call", "guarding", "refuse", "trial"]

State = orm.InstanceState[t.Any]
T = t.TypeVar("T")

logger = logging.getLogger("flask_webhooks.capture")
_guard: contextvars.ContextVar[Guard | None] = contextvars.ContextVar("webhooks_guard", default=None)


class Refusal(RuntimeError):
    """Host code that is only to read wanted to write."""


@dataclass(slots=True)
class About:
    """What code of the host's is called for."""

    what: str
    """`invoices.updated`"""
    place: str
    """The schema, the include or the property, in words."""
    rows: Sequence[t.Any] = ()
    """Objects that it is given: no event of SQLAlchemy's tells what becomes of the containers in their columns."""
    search: Callable[[], str] | None = None
    """Call it once more in parts, each with `trial`, and say in which something was changed."""


_WRITES = (
    "commit",
    "rollback",
    "begin",
    "begin_nested",
    "prepare",
    "close",
    "reset",
    "invalidate",
    "expunge_all",
    "bulk_save_objects",
    "bulk_insert_mappings",
    "bulk_update_mappings",
)
"""Methods of a session that end its transaction, lose its objects, or write at once."""
_OF_CONNECTIONS = ("commit", "rollback", "close", "begin", "begin_nested", "invalidate", "detach")
"""The same of its connection."""
_ROUNDS = 3
"""How often changes are undone that undoing others has made."""
_READS = re.compile(r"[\s(]*(SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN|DESCRIBE|PRAGMA)\b", re.IGNORECASE)
_WRITE_INSIDE = re.compile(
    r"\b(INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE
)


def _is_reading(text: str) -> bool:
    return _READS.match(text) is not None and not _WRITE_INSIDE.search(text)


class _Guarded(Session):
    """What a session is while host code may run: to replace its methods one by one would cost each commit more."""

    def flush(self, *args: t.Any, **kwargs: t.Any) -> None:
        if not self._is_clean():
            refuse("flush()")
        super().flush(*args, **kwargs)

    def execute(self, statement: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        _refuse_writing(statement)
        return super().execute(statement, *args, **kwargs)

    def scalar(self, statement: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        _refuse_writing(statement)
        return super().scalar(statement, *args, **kwargs)

    def scalars(self, statement: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        _refuse_writing(statement)
        return super().scalars(statement, *args, **kwargs)

    def connection(self, *args: t.Any, **kwargs: t.Any) -> sa.Connection:
        connection = super().connection(*args, **kwargs)
        if (watched := _running(self)) is not None:
            watched.look_at(connection)
        return connection

    def _expunge_states(self, states: t.Iterable[State], to_transient: bool = False) -> None:
        states = list(states)
        if (watched := _running(self)) is not None:
            watched.take(states)
        super()._expunge_states(states, to_transient)

    def _expire_state(self, state: State, attribute_names: t.Any) -> None:
        if (watched := _running(self)) is not None:
            along = state.manager.mapper.cascade_iterator("refresh-expire", state)
            watched.take([state] if attribute_names else [state, *(other for _, _, other, _ in along)])
        super()._expire_state(state, attribute_names)

    def expire_all(self) -> None:
        if (watched := _running(self)) is not None:
            watched.take(self.identity_map.all_states())
        super().expire_all()


def _refusing(name: str) -> t.Callable[..., t.Any]:
    def method(self: _Guarded, *args: t.Any, **kwargs: t.Any) -> t.Any:
        refuse(f"{name}()")
        return getattr(super(_Guarded, self), name)(*args, **kwargs)

    return method


for _each in _WRITES:
    setattr(_Guarded, _each, _refusing(_each))


@functools.lru_cache(maxsize=64)
def _guarded(cls: t.Any) -> t.Any:
    return type(cls.__name__, (_Guarded, cls), {})


def _refuse_writing(statement: t.Any) -> None:
    guard = _guard.get()
    if guard is not None and guard.about is not None and not _only_reads(statement):
        guard.refuse(f"execute() with {str(statement).split(None, 1)[0]}")


def _running(session: Session) -> _Watched | None:
    """Return the session's watch while host code runs."""
    guard = _guard.get()
    return None if guard is None or guard.about is None else guard.watched(session)


class _Watched:
    """One session, and how it was when we began."""

    def __init__(self, guard: Guard, session: Session) -> None:
        self.session, self._guard = session, guard
        self._new, self._deleted = set(session._new), set(session._deleted)
        self._count, self._map = (len(self._new), len(self._deleted)), session.identity_map
        self._aside = {state: Snapshot(state) for state in (*session._new, *session.identity_map._modified)}
        for each in self._aside.values():
            each.lay_aside()
        self._taken: dict[State, tuple[Snapshot, bool]] = {}
        self._connections: list[sa.Connection] = []
        self._class: t.Any = type(session)
        if not isinstance(session, _Guarded):
            t.cast("t.Any", session).__class__ = _guarded(t.cast("t.Any", self._class))

    def look_at(self, connection: sa.Connection) -> None:
        """See to it that host code only reads on a connection that it has asked the session for."""
        if connection in self._connections:
            return
        self._connections.append(connection)
        sa.event.listen(connection, "before_cursor_execute", self._look)
        for name in _OF_CONNECTIONS:
            vars(connection)[name] = functools.partial(self._write, name, getattr(connection, name))

    def _write(self, name: str, method: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> t.Any:
        refuse(f"connection().{name}()")
        return method(*args, **kwargs)

    def _look(self, _: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        if not _is_reading(statement):
            refuse(f"connection().execute() with {statement.split(None, 1)[0]}")

    def take(self, states: t.Iterable[State]) -> None:
        """Note how objects are before something becomes of them that leaves no trace."""
        for state in states:
            if state not in self._taken and state.obj() is not None:
                snapshot = self._aside.get(state) or Snapshot(state)
                self._taken[state] = snapshot, state in self.session._new

    # ---- what was changed ------------------------------------------------------------------------------

    def is_touched(self) -> bool:
        session = self.session
        if self._map._modified or self._taken:
            return True
        if len(session._new) != self._count[0] or len(session._deleted) != self._count[1]:
            return True
        return bool(self._aside) and any(state.modified for state in self._aside)

    def undo(self, contents: t.Mapping[State, t.Mapping[str, Contents]]) -> list[str]:
        """Let the session be as it was; return in words what was changed."""
        found = []
        session = self.session
        for state in [state for state in session._new if state not in self._new]:
            found.append(f"a new {state.class_.__name__}")
        for state in [state for state in session._deleted if state not in self._deleted]:
            del session._deleted[state]
            found.append(f"the deletion of {_name(state)}")
        for state, (snapshot, was_new) in list(self._taken.items()):
            found += self._bring_back(state, was_new)
            snapshot.restore()
        self._taken.clear()
        for state, snapshot in self._aside.items():
            found += [f"{_name(state)}.{name}" for name in snapshot.names_changed()]
            snapshot.restore()
            snapshot.lay_aside()
        for attempt in range(
            _ROUNDS
        ):  # collections of the host's may change their members when they are filled again
            for state in list(session.identity_map._modified):
                if not attempt:
                    found += [f"{_name(state)}.{name}" for name in sorted(state.committed_state)]
                revert(state, contents.get(state, {}))
        self._drop_new()
        return found

    def _bring_back(self, state: State, was_new: bool) -> list[str]:
        session, snapshot = self.session, self._taken[state][0]
        if state.session_id == session.hash_key and (state in session._new) == was_new:
            return []
        state.key = snapshot.key
        if was_new:
            session._save_impl(state)
        else:
            session.identity_map.replace(state)
            session._update_impl(state)
        return [f"{_name(state)} was taken out of the session"]

    def _drop_new(self) -> None:
        made = [state for state in self.session._new if state not in self._new]
        if made:
            Session._expunge_states(self.session, made)

    def close(self) -> None:
        """Give the session its methods back, and what was laid aside."""
        for connection in self._connections:
            sa.event.remove(connection, "before_cursor_execute", self._look)
            for name in _OF_CONNECTIONS:
                vars(connection).pop(name, None)
        self.session.__class__ = self._class
        for snapshot in self._aside.values():
            snapshot.restore()


def _only_reads(statement: t.Any) -> bool:
    if isinstance(statement, sa.TextClause):
        return _is_reading(statement.text)
    if isinstance(statement, sa.schema.ExecutableDDLElement):
        return False
    inner = getattr(statement, "element", None)
    if getattr(statement, "is_dml", False) or (inner is not None and not _only_reads(inner)):
        return False
    return not any(
        getattr(cte.element, "is_dml", False) for cte in getattr(statement, "_independent_ctes", ())
    )


def _name(state: State) -> str:
    key = state.key[1] if state.key is not None else ("new",)
    return f"{state.class_.__name__} {','.join(map(str, key))}"


class Trial(t.NamedTuple):
    """What came of calling a part of the host's code once more."""

    changes: bool
    error: Exception | None


class Guard:
    """All sessions that code of the host's may reach from one commit."""

    def __init__(self) -> None:
        self.about: About | None = None
        """What host code is running for; None: our own runs."""
        self._watched: dict[int, _Watched] = {}
        self._refused: list[str] = []
        self._is_quiet = False
        self._changes = 0

    def cover(self, session: Session) -> None:
        """Watch a session too."""
        if session.hash_key not in self._watched:
            self._watched[session.hash_key] = _Watched(self, session)

    def watched(self, session: Session) -> _Watched | None:
        """Return the watch of a session."""
        return self._watched.get(session.hash_key)

    def refuse(self, what: str) -> t.NoReturn:
        """Raise what host code gets instead of writing."""
        self._refused.append(what)
        raise Refusal(_refusal(what))

    def call(self, about: About, function: Callable[..., T], *args: t.Any, **kwargs: t.Any) -> T:
        """Call code of the host's; undo and warn of what it changes.

        :raises Refusal: it wanted to write, whether it has caught that itself or not.
        """
        contents = self._look(about.rows)
        outer, self.about = self.about, about
        refused = len(self._refused)
        try:
            result = function(*args, **kwargs)
        finally:
            self.about = None
            if self._is_touched(contents):
                changed = self.undo(contents)
                if changed and not self._is_quiet:
                    self._warn(about, changed)
            self.about = outer
        if len(self._refused) > refused:
            raise Refusal(_refusal(self._refused[-1]))
        return result

    def trial(
        self, rows: Sequence[t.Any], function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any
    ) -> Trial:
        """Call a part once more, in silence, and undo what it does."""
        outer, self._is_quiet = self._is_quiet, True
        self._changes = 0
        try:
            self.call(About("", "", rows), function, *args, **kwargs)
        except Exception as error:  # what we look for
            return Trial(bool(self._changes), error)
        finally:
            self._is_quiet = outer
        return Trial(bool(self._changes), None)

    def _look(self, rows: Sequence[t.Any]) -> dict[State, dict[str, Contents]]:
        found = {}
        for row in rows:
            state = row._sa_instance_state
            if state.session_id is not None and state.session_id not in self._watched:
                session = session_of(state)
                if session is not None:
                    self.cover(session)
            found[state] = contents_of(state)
        return found

    def _is_touched(self, contents: t.Mapping[State, t.Mapping[str, Contents]]) -> bool:
        for watched in self._watched.values():
            if watched.is_touched():
                return True
        for state, held in contents.items():
            if state.modified or (held and any(each.is_changed() for each in held.values())):
                return True
        return False

    def undo(self, contents: t.Mapping[State, t.Mapping[str, Contents]]) -> list[str]:
        """Undo whatever was changed; return in words what."""
        found: list[str] = []
        for watched in list(self._watched.values()):
            if watched.is_touched():
                found += watched.undo(contents)
        for state, held in contents.items():
            changed = [name for name, each in held.items() if each.is_changed()]
            for name in changed:
                held[name].put_back()
            if state.modified:  # of a row that was deleted: it is in no session's map
                changed += sorted(state.committed_state)
                revert(state, held)
            found += [f"{_name(state)}.{name}" for name in changed]
        self._changes += len(found)
        return found

    def _warn(self, about: About, changed: Sequence[str]) -> None:
        place = about.place if about.search is None else f"{about.place}{about.search()}"
        logger.warning(
            "dump.changed: %s changes what it dumps, %s, for %s. That was undone. Let it return the value instead of "
            "assigning it.",
            place,
            ", ".join(dict.fromkeys(changed)),
            about.what,
            extra={"event": about.what, "place": place},
        )

    def close(self) -> None:
        """Undo what is left: what listeners of the host's did when we loaded something."""
        changed = self.undo({})
        if changed:
            self._warn(About("what was loaded for events", "A listener of the app's"), changed)
        for watched in reversed(list(self._watched.values())):
            watched.close()
        self._watched.clear()  # they know us: no cycle shall keep a session alive


def _refusal(what: str) -> str:
    return (
        f"it calls {what}, and may only read: it runs inside the commit that it tells of. Write before that"
    )


@contextlib.contextmanager
def guarding(*sessions: Session) -> Iterator[None]:
    """Watch these sessions, and those that `call` comes to."""
    guard = Guard()
    mark = _guard.set(guard)
    try:
        for session in sessions:
            guard.cover(session)
        yield
    finally:
        _guard.reset(mark)
        guard.close()


def call(about: About, function: Callable[..., T], *args: t.Any, **kwargs: t.Any) -> T:
    """Call code of the host's inside `guarding`; see `Guard.call`. Outside there is nothing to guard."""
    guard = _guard.get()
    return function(*args, **kwargs) if guard is None else guard.call(about, function, *args, **kwargs)


def trial(rows: Sequence[t.Any], function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> Trial:
    """Call a part of what the host's code did once more, to see whether it was that; nothing of it stays."""
    return (_guard.get() or Guard()).trial(rows, function, *args, **kwargs)


def refuse(what: str) -> None:
    """Refuse something that writes if code of the host's runs that may only read.

    :raises Refusal: it does.
    """
    guard = _guard.get()
    if guard is not None and guard.about is not None:
        guard.refuse(what)
