"""Sessions, transactions and connections that refuse to write while code of the host's runs that may only read.

For as long each of them is an object of a subclass of its own class. The methods that refuse are those that all others
of SQLAlchemy call in the end, so it does not matter by which name the host ends a transaction, nor on which object.
"""

from __future__ import annotations

import contextvars
import functools
import re
import typing as t

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine.base import NestedTransaction, RootTransaction, TwoPhaseTransaction
from sqlalchemy.orm import Session, SessionTransaction

from ..sql.transactions import is_autocommit
from .sqlalchemy_internals import connections_in, nested_transaction_of, transaction_of

if t.TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Refusal", "put_round", "refuse", "running", "take_down"]

State = orm.InstanceState[t.Any]


class FencedSession(t.Protocol):
    """What a fence asks of the guard about one session."""

    fenced: list[t.Any]

    def take(self, states: t.Iterable[State]) -> None:
        """Note how objects are before something becomes of them that leaves no trace."""


class Warden(t.Protocol):
    """What a fence asks of the guard: `guard.Guard` is the only one."""

    about: t.Any
    savepoints: list[sa.Connection]

    def refuse(self, what: str) -> t.NoReturn:
        """Raise what host code gets instead of writing."""

    def pass_over(self, session: t.Any, what: str) -> None:
        """Let host code do nothing instead of ending the transaction."""

    def may_end(self, session: t.Any) -> bool:
        """Say whether host code that ends a transaction has nothing to write."""

    def guarded(self, session: Session) -> FencedSession | None:
        """Return what is known of a session."""

    def read(self, connection: sa.Connection, execute: Callable[[], t.Any]) -> t.Any:
        """Execute what host code reads."""

    def release(self) -> None:
        """Let what is written from here on be in the transaction itself."""


running: contextvars.ContextVar[Warden | None] = contextvars.ContextVar("webhooks_guard", default=None)
"""Whose `about` says whether host code runs right now."""
SAVEPOINT = "webhooks_dump"
_READS = re.compile(
    r"(?:[\s(]|--[^\n]*\n|/\*(?!!).*?\*/)*(SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN|DESCRIBE|PRAGMA)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Comments may come first: hosts say in them where a statement is from. MySQL runs what is in one of `/*!`."""
_WRITE_INSIDE = re.compile(
    r"\b(INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE
)


class Refusal(RuntimeError):
    """Raised in code of the host's that may only read and tried to write."""


def refuse(what: str) -> None:
    """Refuse something that writes if code of the host's runs that may only read.

    :raises Refusal: it does.
    """
    guard = running.get()
    if guard is not None and guard.about is not None:
        guard.refuse(what)


def pass_over(session: Session, what: str) -> bool:
    """Say whether code of the host's runs that may only read: then its commit or rollback does nothing.

    :raises Refusal: it has something to write.
    """
    guard = running.get()
    if guard is None or guard.about is None:
        return False
    guard.pass_over(session, what)
    return True


def put_round(session: Session) -> list[t.Any]:
    """Fence in a session with its transactions and connections; return them, for `take_down`."""
    found: list[t.Any] = []
    _fence(session, found)
    transaction: t.Any = transaction_of(session)
    # A savepoint has the transaction around it as its parent: host code may end any of them.
    while transaction is not None:
        _fence(transaction, found)
        for each in connections_in(transaction).values():
            _fence_connection(each[0], found)
        transaction = transaction.parent
    return found


def take_down(fenced: t.Sequence[t.Any]) -> None:
    """Give each object its own class back."""
    for each in fenced:
        # The class made by `_fenced` is first, the fence second, and its own class third.
        each.__class__ = each.__class__.__mro__[2]


def _fence(each: t.Any, found: list[t.Any]) -> None:
    fenced = _fenced(t.cast("t.Any", type(each)))
    if fenced is not None:
        each.__class__ = fenced
        found.append(each)


def _fence_connection(connection: t.Any, found: list[t.Any]) -> None:
    if not isinstance(connection, _Connection):
        _fence(connection, found)
        for each in nested_transaction_of(connection):
            if each is not None:
                _fence(each, found)


@functools.lru_cache(maxsize=256)
def _fenced(cls: t.Any) -> t.Any:
    """Return the class that fences in objects of another; None for one that does so itself."""
    # A session that two commits reach is fenced in once.
    if issubclass(cls, tuple(_FENCES.values())):
        return None
    # A subclass of the host's keeps its own methods: the fence comes before it.
    fence = next(fence for base, fence in _FENCES.items() if issubclass(cls, base))
    return type(cls.__name__, (fence, cls), {"__slots__": ()})


def _fences(session: Session) -> list[t.Any]:
    """Return the list of what was fenced in with a session."""
    guard = running.get()
    guarded = guard.guarded(session) if guard is not None else None
    return [] if guarded is None else guarded.fenced


class _Session(Session):
    """A session: objects are noted before they leave it, and it is neither flushed nor closed."""

    def _flush(self: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        guard = running.get()
        if guard is None or guard.about is None:
            super()._flush(*args, **kwargs)
        elif not guard.may_end(self):
            guard.refuse("flush()")

    def begin(self: t.Any, nested: bool = False) -> t.Any:
        """Begin a transaction; a savepoint that only something is read behind needs not be there."""
        if nested and pass_over(self, "begin_nested()"):
            return _Idle(self)
        return super().begin(nested)

    def _close_impl(self, *args: t.Any, **kwargs: t.Any) -> None:
        refuse("close()")
        super()._close_impl(*args, **kwargs)

    def expunge_all(self) -> None:
        refuse("expunge_all()")
        super().expunge_all()

    def _autobegin_t(self: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        # Host code that reads first begins the transaction: its connections must be fenced in as well.
        transaction = super()._autobegin_t(*args, **kwargs)
        _fence(transaction, _fences(self))
        return transaction

    def _expunge_states(self, states: t.Iterable[State], to_transient: bool = False) -> None:
        # They are used twice, and may come as an iterator.
        states = list(states)
        if (guarded := _guarded(self)) is not None:
            guarded.take(states)
        super()._expunge_states(states, to_transient)

    def _expire_state(self, state: State, attribute_names: t.Any) -> None:
        if (guarded := _guarded(self)) is not None:
            along = state.manager.mapper.cascade_iterator("refresh-expire", state)
            guarded.take([state] if attribute_names else [state, *(other for _, _, other, _ in along)])
        super()._expire_state(state, attribute_names)

    def expire_all(self: t.Any) -> None:
        if (guarded := _guarded(self)) is not None:
            guarded.take(self.identity_map.all_states())
        super().expire_all()


def _guarded(session: t.Any) -> t.Any:
    """Return what the guard knows of a session while host code runs."""
    guard = running.get()
    return None if guard is None or guard.about is None else guard.guarded(session)


class _Idle:
    """What host code that only reads gets for a savepoint."""

    is_active = nested = True

    def __init__(self, session: Session) -> None:
        self.session = session

    def commit(self) -> None:
        """Nothing was written, so there is nothing to be released, and nothing to take back."""
        pass_over(self.session, "begin_nested()")

    rollback = close = commit

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: t.Any) -> None:
        if kind is None:
            self.commit()


class _SessionTransaction(SessionTransaction):
    """A session's transaction: the host goes on with it, and whatever connection it gives is fenced in too."""

    def commit(self: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        if not pass_over(self.session, "commit()"):
            super().commit(*args, **kwargs)

    def rollback(self: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        if not pass_over(self.session, "rollback()"):
            super().rollback(*args, **kwargs)

    def _connection_for_bind(self: t.Any, *args: t.Any) -> sa.Connection:
        connection: sa.Connection = super()._connection_for_bind(*args)
        _fence_connection(connection, _fences(self.session))
        return connection


class _Root(RootTransaction):
    """The transaction of a connection."""

    __slots__ = ()


class _Nested(NestedTransaction):
    """A savepoint of a connection."""

    __slots__ = ()


class _TwoPhase(TwoPhaseTransaction):
    """The transaction of a connection with two phases."""

    __slots__ = ()


class _Connection(sa.Connection):
    """A connection: statements are looked at, whoever executes them."""

    def _execute_context(
        self, dialect: t.Any, constructor: t.Any, statement: t.Any, *args: t.Any, **kwargs: t.Any
    ) -> t.Any:
        guard, execute = running.get(), super()._execute_context
        if guard is None:
            return execute(dialect, constructor, statement, *args, **kwargs)
        if guard.about is None:
            if guard.savepoints:
                guard.release()  # what is written now shall stay, whatever host code does later
            return execute(dialect, constructor, statement, *args, **kwargs)
        # By the text that is sent, since textual SQL has no other sign.
        if not _is_reading(text := str(statement)):
            guard.refuse(f"execute() with {text.split(None, 1)[0]}")
        return guard.read(
            t.cast("t.Any", self), lambda: execute(dialect, constructor, statement, *args, **kwargs)
        )

    @property
    def connection(self) -> t.Any:
        """Refused: what is done with the driver's own connection cannot be seen."""
        refuse("connection().connection")
        return super().connection


def _is_reading(text: str) -> bool:
    return _READS.match(text) is not None and not _WRITE_INSIDE.search(text)


def _refusing(cls: type, name: str, said: str) -> Callable[..., t.Any]:
    def method(self: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        refuse(f"{said}()")
        return getattr(super(cls, self), name)(*args, **kwargs)

    return method


_FENCES: dict[type, type] = {
    Session: _Session,
    SessionTransaction: _SessionTransaction,
    sa.Connection: _Connection,
    TwoPhaseTransaction: _TwoPhase,
    NestedTransaction: _Nested,
    RootTransaction: _Root,
}
_ENDS = {"_do_commit": "commit", "_do_rollback": "rollback", "_do_close": "close"}
_REFUSED: dict[type, dict[str, str]] = {
    # Before it says that it flushes: what SQLAlchemy 2.0.38 does not take back when it cannot begin.
    _Session: {"_bulk_save_mappings": "bulk_save_objects"},
    _SessionTransaction: {
        "close": "close",
        "prepare": "prepare",
        "_begin": "begin_nested",
    },
    _Root: _ENDS,
    _Nested: _ENDS,
    _TwoPhase: {**_ENDS, "prepare": "prepare"},
    _Connection: {
        "_savepoint_impl": "begin_nested",
        "close": "close",
        "invalidate": "invalidate",
        "detach": "detach",
    },
}
"""What ends a transaction, or begins one inside it: by the name it is called by in the end, and by the usual one."""
for _cls, _names in _REFUSED.items():
    for _name, _said in _names.items():
        setattr(_cls, _name, _refusing(_cls, _name, _said))


def can_save(connection: sa.Connection) -> bool:
    """Whether an error makes the database refuse the rest of the transaction, and a savepoint is there for that."""
    return (
        connection.dialect.name == "postgresql"
        and connection.in_transaction()
        and not is_autocommit(connection)
    )
