"""One session while code of the host's runs that may only read: how it was before, and how it is restored."""

from __future__ import annotations

import typing as t

from sqlalchemy import orm
from sqlalchemy.orm import Session

from . import fence
from .sqlalchemy_internals import (
    add_new,
    add_persistent,
    deleted_states,
    expunge_states,
    modified_states,
    new_states,
)
from .undo import Contents, Held, Snapshot, revert

__all__ = ["GuardedSession", "name_of_state"]

State = orm.InstanceState[t.Any]
_NO_CONTENTS: dict[str, Contents] = {}
_ROUNDS = 3
"""How often changes are undone that undoing others has made."""


class GuardedSession:
    """One session, and a snapshot of what it had not flushed when we began."""

    def __init__(self, session: Session) -> None:
        self.session = session
        new, deleted, modified = new_states(session), deleted_states(session), modified_states(session)
        self._new, self._deleted = frozenset(new), frozenset(deleted)
        self._unflushed: dict[State, Snapshot] = {}
        if new or modified:  # not in a commit that has flushed everything
            self._unflushed = {state: Snapshot(state) for state in (*new, *modified)}
            # What the host has not flushed looks unchanged now: any mark comes from code that we call.
            for each in self._unflushed.values():
                each.unmark()
        self._taken: dict[State, tuple[Snapshot, bool]] = {}
        self.fenced: list[t.Any] = []

    def fence(self) -> None:
        """Refuse from here on what host code must not do."""
        self.fenced = fence.put_round(self.session)

    def take(self, states: t.Iterable[State]) -> None:
        """Take snapshots of objects before something changes them that SQLAlchemy does not mark."""
        for state in states:
            if state not in self._taken and state.obj() is not None:
                snapshot = self._unflushed.get(state) or Snapshot(state)
                self._taken[state] = snapshot, state in new_states(self.session)

    # ---- what was changed ------------------------------------------------------------------------------

    def is_touched(self) -> bool:
        if self._taken or self._is_dirty():
            return True
        return bool(self._unflushed) and any(each.is_touched() for each in self._unflushed.values())

    def has_to_write(self) -> bool:
        """Say whether a flush would write something that is not the host's own, which waits for its own flush."""
        return self._is_dirty() or any(state.modified for state in self._unflushed)

    def _is_dirty(self) -> bool:
        session = self.session
        if modified_states(session):
            return True
        return len(new_states(session)) != len(self._new) or len(deleted_states(session)) != len(
            self._deleted
        )

    def undo(self, helds: t.Mapping[State, Held]) -> list[str]:
        """Restore the session; return what was changed, in words."""
        found = []
        session = self.session
        for state in [state for state in new_states(session) if state not in self._new]:
            found.append(f"a new {state.class_.__name__}")
        for state in [state for state in deleted_states(session) if state not in self._deleted]:
            del deleted_states(session)[state]
            found.append(f"the deletion of {name_of_state(state)}")
        for state, (snapshot, was_new) in list(self._taken.items()):
            found += self._bring_back(state, was_new)
            snapshot.restore()
        self._taken.clear()
        for state, snapshot in self._unflushed.items():
            found += [f"{name_of_state(state)}.{name}" for name in snapshot.names_changed()]
            snapshot.restore()
            snapshot.unmark()
        # Collections of the host's may change their members when they are filled again.
        for attempt in range(_ROUNDS):
            for state in list(modified_states(session)):
                if not attempt:
                    found += [f"{name_of_state(state)}.{name}" for name in sorted(state.committed_state)]
                revert(state, helds[state][0] if state in helds else _NO_CONTENTS)
        # Last: undoing a change may add objects by cascades.
        self._drop_new()
        return found

    def _bring_back(self, state: State, was_new: bool) -> list[str]:
        session, snapshot = self.session, self._taken[state][0]
        if state.session_id == session.hash_key and (state in new_states(session)) == was_new:
            return []
        state.key = snapshot.key
        if was_new:
            add_new(session, state)
        else:
            session.identity_map.replace(state)
            add_persistent(session, state)
        return [f"{name_of_state(state)} was taken out of the session"]

    def _drop_new(self) -> None:
        made = [state for state in new_states(self.session) if state not in self._new]
        if made:
            expunge_states(self.session, made)

    def close(self) -> None:
        """Restore the session's methods and the objects with unflushed changes."""
        fence.take_down(self.fenced)
        for snapshot in self._unflushed.values():
            snapshot.restore()


def name_of_state(state: State) -> str:
    key = state.key[1] if state.key is not None else ("new",)
    return f"{state.class_.__name__} {','.join(map(str, key))}"
