"""Reads rows once more where dumping the objects in memory has failed, before an event is called broken.

What a host has in memory is not always what its schema expects: a value as it was assigned, in a row that was not
known to be read; an object without what its class makes when it is loaded; a relationship that still leads nowhere. The
row is right, so a fresh object of ours is dumped instead. All rows of a class are read together, once a commit.
"""

from __future__ import annotations

import logging
import typing as t

import sqlalchemy as sa

from ..errors import EmitError, PayloadError
from . import guard
from .fence import Refusal
from .sqlalchemy_internals import dirty_states_in, new_states_in, state_of

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from .events import PendingEvent
    from .loading import Path
    from .side_session import SideSession
    from .stored_values import StoredValues

__all__ = ["Rereading"]

T = t.TypeVar("T")
logger = logging.getLogger("flask_webhooks.capture")


class Rereading:
    """What one commit has read once more."""

    def __init__(self, session: Session, side_session: SideSession, stored: StoredValues) -> None:
        self._session, self._side_session, self._stored = session, side_session, stored
        self._found: dict[type, dict[t.Any, t.Any]] = {}
        self._is_shown = False

    def owned(self, read: Callable[..., T], *args: t.Any) -> T:
        """Read whose a row is; if that fails, with the values that the database has, of whatever rows were written."""
        try:
            return read(*args)
        except Exception as error:  # a property of the host's
            if self._is_shown or not _is_worth_it(error):
                raise
        self._show()
        return read(*args)

    def _show(self) -> None:
        if not self._is_shown:
            self._is_shown = True
            self._stored.show_rows(_touched(self._session))

    def made(
        self, item: PendingEvent, events: Sequence[PendingEvent], make: Callable[[PendingEvent], T]
    ) -> T:
        """Make something of an event; if that fails, of the same event with a fresh object for its row.

        :param events: all events of the commit: their rows are read together.
        :raises Exception: the first error, if the second object is no better.
        """
        try:
            return make(item)
        except Exception as error:  # whatever the host's schemas and properties raise
            if not _is_worth_it(error):
                raise
            first = error
        obj = self._fresh(item.obj, events)
        if obj is not None:
            try:
                found = make(item._replace(obj=obj))
            except Exception as error:  # as above
                if isinstance(error, sa.exc.DBAPIError) and not guard.is_survived(error):
                    raise
            else:
                logger.debug("message.reread: %s, for %s", item.event.name, first)
                return found
        raise first

    def _fresh(self, obj: t.Any, events: Sequence[PendingEvent]) -> t.Any:
        """Return a fresh object for the row of another; None if there is none, or it is fresh itself."""
        if obj is None or not self._is_hosts(obj):
            return None
        model = type(obj)
        # All rows of the class at once: what fails for one mostly fails for the next.
        if model not in self._found:
            self._show()
            same = [item for item in events if type(item.obj) is model and self._is_hosts(item.obj)]
            paths: set[Path] = {path for item in same for path in item.paths()}
            keys = {state_of(each).identity: None for each in (obj, *(item.obj for item in same))}
            self._found[model] = self._side_session.again(model, list(keys), paths)
        return self._found[model].get(state_of(obj).identity)

    def _is_hosts(self, obj: t.Any) -> bool:
        """Say whether it stands for a row and was not read by us."""
        state = state_of(obj)
        return (
            bool(state.persistent)
            and state.session is not None
            and not self._side_session.owns(state.session)
        )


def _is_worth_it(error: Exception) -> bool:
    """Say whether another object of the same row may do better."""
    if isinstance(error, PayloadError):
        return not isinstance(error.__cause__, Refusal)
    if isinstance(error, EmitError | Refusal):
        return False
    return not isinstance(error, sa.exc.DBAPIError) or guard.is_survived(error)


def _touched(session: Session) -> list[t.Any]:
    """Return the objects whose rows were written in the transaction, of whatever class."""
    found: dict[t.Any, t.Any] = {}
    transaction: t.Any = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        for state in (*new_states_in(transaction), *dirty_states_in(transaction)):
            if state.persistent and state.session is session:
                found[state] = state.obj()
        transaction = transaction.parent
    return [obj for obj in found.values() if obj is not None]
