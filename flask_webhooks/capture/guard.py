"""Keeps code of the host's that we call in a commit (schemas, properties, includes) from changing anything.

`guarding` is around all that happens in a commit on our behalf, `call` around each call of such code. What it does to
objects or to the session is undone before anything is written, and a warning names where; what would write at once
(`flush` or `commit` of a change, an UPDATE) is refused. A `commit` with nothing to write does nothing but warn.

While nothing is changed this costs some microseconds a commit: SQLAlchemy itself marks an object that was changed. The
marks of changes that the host has not flushed yet are removed meanwhile, so that a new mark is ours to undo.
"""

from __future__ import annotations

import logging
import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Session

from .. import absolute
from ..sql.transactions import is_conflict
from . import fence
from .fence import Refusal, running
from .guarded_session import GuardedSession, name_of_state
from .sqlalchemy_internals import (
    is_clean,
    state_of,
)
from .undo import Held, contents_of, is_overwritten, put_back, revert, session_of

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["About", "call", "guarding", "is_survived", "trial"]

State = orm.InstanceState[t.Any]
T = t.TypeVar("T")

logger = logging.getLogger("flask_webhooks.capture")


@dataclass(slots=True)
class About:
    """What code of the host's is called for."""

    what: str
    """`invoices.updated`"""
    place: str
    """The schema, the include or the property, in words."""
    rows: Sequence[t.Any] = ()
    """Objects that it is given: no event of SQLAlchemy's tells what becomes of the containers in their columns."""
    search: Callable[[Wanted], str] | None = None
    """Call it once more in parts, each with `trial`, and say which is the one that is looked for."""


class Trial(t.NamedTuple):
    """What came of calling a part of the host's code once more."""

    changes: bool
    ends: bool
    """Whether it called `commit()` or the like, with nothing to write."""
    error: Exception | None


Wanted = t.Callable[[Trial], bool]


class Guard:
    """All sessions that code of the host's may reach from one commit."""

    def __init__(self, sessions: Iterable[Session] = (), warned: set[tuple[str, str]] | None = None) -> None:
        """Begin to watch when entered.

        :param warned: of which events and schemas has been said that they end transactions: once is enough.
        """
        self._sessions = sessions
        self.about: About | None = None
        """What host code is running for; None: our own runs."""
        self.savepoints: list[sa.Connection] = []
        """Connections on which what host code reads is behind a savepoint."""
        self._guarded: dict[int, GuardedSession] = {}
        self._is_fenced = False
        """Host code was called: most dumps call none, so no session is fenced in before."""
        self._warned = set() if warned is None else warned
        self._refused: list[str] = []
        self._since = 0
        """How much had been refused before the host code began that is running."""
        self._passed: list[str] = []
        self._survived: list[sa.exc.DBAPIError] = []
        self._fatal: list[sa.exc.DBAPIError] = []
        self._is_quiet = False
        self._changes = 0

    def __enter__(self) -> Guard:
        # A context variable, for threads and greenlets run commits of their own meanwhile.
        self._mark = running.set(self)
        try:
            for session in self._sessions:
                self.cover(session)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # After an error the transaction is rolled back, and the savepoints with it.
            if kind is None and self.savepoints:
                self.release()
        finally:
            self.close()

    def cover(self, session: Session) -> None:
        """Watch a session too."""
        if session.hash_key not in self._guarded:
            guarded = self._guarded[session.hash_key] = GuardedSession(session)
            if self._is_fenced:
                guarded.fence()

    def guarded(self, session: Session) -> GuardedSession | None:
        """Return what is known of a session that is watched; None of others."""
        return self._guarded.get(session.hash_key)

    def refuse(self, what: str) -> t.NoReturn:
        """Raise what host code gets instead of writing."""
        # Noted, for host code may catch the refusal and go on as if it had written.
        self._refused.append(what)
        raise Refusal(_refusal(what))

    def may_end(self, session: t.Any) -> bool:
        """Say whether host code that ends a transaction has nothing to write, so that there is nothing to be done.

        When something was refused, the dump has failed already: `except: rollback(); raise` shall raise what it caught.
        """
        if len(self._refused) > self._since or is_clean(session):
            return True
        guarded = self.guarded(session)
        return guarded is not None and not guarded.has_to_write()

    def pass_over(self, session: t.Any, what: str) -> None:
        """Let host code do nothing instead of ending the transaction.

        :raises Refusal: it has something to write.
        """
        if not self.may_end(session):
            self.refuse(what)
        self._passed.append(what)

    def read(self, connection: sa.Connection, execute: Callable[[], T]) -> T:
        """Execute what host code reads. An error of the database then is that code's, and the transaction goes on."""
        can_save = fence.can_save(connection)
        if can_save and connection not in self.savepoints:
            self._by_us(connection, "do_savepoint")
            self.savepoints.append(connection)
        try:
            return execute()
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated or is_conflict(error):
                self._fatal.append(error)
            else:
                if can_save:
                    self._by_us(connection, "do_rollback_to_savepoint")
                self._survived.append(error)
            raise

    def release(self) -> None:
        """Let what is written from here on be in the transaction itself."""
        saved, self.savepoints = self.savepoints, []
        for connection in saved:
            if connection.in_transaction():
                self._by_us(connection, "do_release_savepoint")

    def _by_us(self, connection: sa.Connection, what: str) -> None:
        outer, self.about = self.about, None
        saved, self.savepoints = self.savepoints, []  # it is not for this statement that they are released
        try:
            getattr(connection.dialect, what)(connection, fence.SAVEPOINT)
        finally:
            self.about, self.savepoints = outer, saved

    def is_survived(self, error: BaseException) -> bool:
        """Whether an error of the database has left the transaction as it was."""
        return any(each is error for each in self._survived)

    def _sort(self, error: Exception) -> None:
        """An error that none of the watched connections has raised is of another, which the host's code has opened."""
        if isinstance(error, sa.exc.DBAPIError) and not any(each is error for each in self._fatal):
            self._survived.append(error)

    def call(self, about: About, function: Callable[..., T], *args: t.Any, **kwargs: t.Any) -> T:
        """Call code of the host's; undo and warn of what it changes.

        :raises Refusal: it wanted to write, whether it has caught that itself or not.
        """
        # Not before: putting a fence round costs more than most dumps.
        if not self._is_fenced:
            self._is_fenced = True
            for guarded in self._guarded.values():
                guarded.fence()
        helds = self._look(about.rows)
        outer, self.about = self.about, about
        since, self._since = self._since, len(self._refused)
        refused, passed = self._since, len(self._passed)
        # A URL that a schema makes must not depend on the request that happens to commit.
        urls = absolute.fix()
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if len(self._refused) > refused:  # whatever became of it on its way through SQLAlchemy
                raise Refusal(_refusal(self._refused[refused])) from error
            self._sort(error)
            raise
        finally:
            absolute.release(urls)
            self.about = None
            if self._is_touched(helds):
                changed = self.undo(helds)
                if changed and not self._is_quiet:
                    self._warn(about, changed)
            self.about, self._since = outer, since
        if len(self._refused) > refused:
            raise Refusal(_refusal(self._refused[refused]))
        if len(self._passed) > passed and not self._is_quiet:
            self._warn_of_end(about, self._passed[passed:])
        return result

    def trial(
        self, rows: Sequence[t.Any], function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any
    ) -> Trial:
        """Call a part once more, in silence, and undo what it does."""
        outer, self._is_quiet = self._is_quiet, True
        self._changes, passed = 0, len(self._passed)
        found: Exception | None = None
        try:
            self.call(About("", "", rows), function, *args, **kwargs)
        except Exception as error:  # what we look for
            found = error
        finally:
            self._is_quiet = outer
        return Trial(bool(self._changes), len(self._passed) > passed, found)

    def _look(self, rows: Sequence[t.Any]) -> dict[State, Held]:
        found: dict[State, Held] = {}
        for row in rows:
            state = state_of(row)
            if state.session_id is not None and state.session_id not in self._guarded:
                session = session_of(state)
                if session is not None:
                    self.cover(session)
            values = row.__dict__
            found[state] = contents_of(state), values, values.copy()
        return found

    def _is_touched(self, helds: t.Mapping[State, Held]) -> bool:
        for guarded in self._guarded.values():
            if guarded.is_touched():
                return True
        for state, (contents, values, before) in helds.items():
            if state.modified or is_overwritten(values, before):
                return True
            if contents and any(each.is_changed() for each in contents.values()):
                return True
        return False

    def undo(self, helds: t.Mapping[State, Held]) -> list[str]:
        """Undo whatever was changed; return what that was, in words."""
        found: list[str] = []
        for guarded in list(self._guarded.values()):
            if guarded.is_touched():
                found += guarded.undo(helds)
        for state, (contents, _, before) in helds.items():
            changed = [name for name, each in contents.items() if each.is_changed()]
            for name in changed:
                contents[name].put_back()
            if state.modified:  # of a row that was deleted: it is in no session's map
                changed += sorted(state.committed_state)
                revert(state, contents)
            changed += put_back(state, before)
            found += [f"{name_of_state(state)}.{name}" for name in changed]
        self._changes += len(found)
        return found

    def _warn(self, about: About, changed: Sequence[str]) -> None:
        place = _where(about, lambda trial: trial.changes)
        logger.warning(
            "dump.changed: %s changes what it dumps, %s, for %s. That was undone. Let it return the value instead of "
            "assigning it.",
            place,
            ", ".join(dict.fromkeys(changed)),
            about.what,
            extra={"event": about.what, "place": place},
        )

    def _warn_of_end(self, about: About, called: Sequence[str]) -> None:
        if (about.what, about.place) in self._warned:
            return
        self._warned.add((about.what, about.place))
        place = _where(about, lambda trial: trial.ends)
        logger.warning(
            "dump.ended: %s calls %s, for %s. It had nothing to write, so nothing was done: it runs inside the commit "
            "that it tells of. Let it read without ending the transaction, so without a decorator that commits.",
            place,
            ", ".join(dict.fromkeys(called)),
            about.what,
            extra={"event": about.what, "place": place},
        )

    def close(self) -> None:
        """Undo what is left: what listeners of the host's did when we loaded something."""
        running.reset(self._mark)
        changed = self.undo({})
        if changed:
            self._warn(About("what was loaded for events", "A listener of the app's"), changed)
        for guarded in reversed(list(self._guarded.values())):
            guarded.close()
        self._guarded.clear()  # they know us: no cycle shall keep a session alive


def _where(about: About, is_wanted: Wanted) -> str:
    """Return the place that an event's code is in, with the field if that can be found."""
    return about.place if about.search is None else f"{about.place}{about.search(is_wanted)}"


def _refusal(what: str) -> str:
    return (
        f"it calls {what}, and may only read: it runs inside the commit that it tells of. Write before that"
    )


def guarding(*sessions: Session, warned: set[tuple[str, str]] | None = None) -> Guard:
    """Watch these sessions inside a `with`, and those that `call` reaches.

    :param warned: see `Guard`.
    """
    return Guard(sessions, warned)


def call(about: About, function: Callable[..., T], *args: t.Any, **kwargs: t.Any) -> T:
    """Call code of the host's inside `guarding`; see `Guard.call`. Outside there is nothing to guard."""
    guard = t.cast("Guard | None", running.get())
    if guard is not None:
        return guard.call(about, function, *args, **kwargs)
    with absolute.fixed():
        return function(*args, **kwargs)


def trial(rows: Sequence[t.Any], function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> Trial:
    """Call a part of what the host's code did once more, to see whether it was that; nothing of it stays."""
    guard = t.cast("Guard | None", running.get())
    return (guard or Guard()).trial(rows, function, *args, **kwargs)


def is_survived(error: BaseException) -> bool:
    """Whether an error of the database came to host code that was reading, and the transaction goes on."""
    guard = t.cast("Guard | None", running.get())
    return guard is not None and guard.is_survived(error)
