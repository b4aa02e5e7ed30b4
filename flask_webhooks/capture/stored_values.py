"""Shows objects as the database has their rows while a commit's events are made: `"7"` was assigned, 7 is stored.

What can be said by a column's type is said so. The rest is read: those columns, of those rows, in one statement for a
class. When the events are made the host finds its values again.
"""

from __future__ import annotations

import datetime as dt
import typing as t

from sqlalchemy.ext.mutable import Mutable
from sqlalchemy.orm import Session

from ..bindings.owner_steps import SIGN, KeyLink, at_hand, link_of
from ..bindings.serializers import each_in
from ..bindings.stored_values import Forms
from ..catalog import Kind
from .change import SERVER_GENERATED, Change, Key
from .history import OldValues, State, is_assigned, mistrusted, select_old
from .sqlalchemy_internals import (
    STATE,
    deleted_states_in,
    dirty_states_in,
    head_class,
    is_deleted,
    new_states_in,
    state_of,
)

if t.TYPE_CHECKING:
    from .events import PendingEvent
    from .loading import Path
    from .mapper_plan import MapperPlan
    from .registry import Registry

__all__ = ["StoredValues", "owner_stored"]

Missing = dict[tuple[Session, type], list[tuple[State, set[str]]]]


class StoredValues:
    """The values that were changed for values of rows in one commit."""

    def __init__(self, registry: Registry, session: Session) -> None:
        self._registry = registry
        self._mistrusted = mistrusted(session)
        self._done: set[State] = set()
        self._put: list[tuple[dict[str, t.Any], str, t.Any, t.Any]] = []
        self._hidden: dict[tuple[int, str], tuple[dict[str, t.Any], t.Any]] = {}

    def __enter__(self) -> StoredValues:
        return self

    def __exit__(self, *_: t.Any) -> None:
        for (_id, name), (held, next_on_path) in self._hidden.items():
            held[name] = next_on_path
        for held, name, assigned, shown in reversed(self._put):
            # Unless the host's code has loaded the attribute anew meanwhile.
            if held.get(name, SERVER_GENERATED) is shown:
                held[name] = assigned

    def show_deciding(self, changes: t.Sequence[Change], open_ones: t.Sequence[Change]) -> None:
        """Show what decides whose rows are and what happened to them.

        :param open_ones: changes whose new values have to be known. What is read is read for all rows of a class.
        """
        asked = {type(change.obj) for change in open_ones if self._is_waiting(change)}
        last: type | None = None
        forms: Forms | None = None
        for obj in self._deciding(changes):
            if type(obj) is not last:  # they come class by class
                last = type(obj)
                plan = self._registry.plan(last)
                forms = plan.leading_forms if plan is not None else None
            state: State = state_of(obj)
            # One value that only the row can tell makes a SELECT: then all rows of the class are read by it.
            if (forms is not None and self._show(state, forms)) or (
                self._mistrusted and state in self._mistrusted
            ):
                asked.add(type(obj))
        if asked:
            self.show_rows(obj for obj in list(self._deciding(changes)) if type(obj) in asked)

    def _deciding(self, changes: t.Sequence[Change]) -> t.Iterator[t.Any]:
        """The rows that changed and those on the way to their owners, some perhaps several times."""
        deleted = Kind.DELETED
        for change in changes:
            if change.kind is not deleted:
                yield change.obj
            path = change.bound.owner_path
            if path is not None and len(path) > 1:
                reached: dict[int, t.Any] = {}
                _reach(reached, [change.obj], path)
                yield from reached.values()

    def _is_waiting(self, change: Change) -> bool:
        """Whether a value that is to be known is in the object, as it was assigned."""
        held = change.obj.__dict__
        return any(new is SERVER_GENERATED and name in held for name, (_, new) in change.values.items())

    def show_read(self, events: t.Iterable[PendingEvent]) -> None:
        """Show rows whose events will be dumped, and what they lead to where that is read too."""
        reached: dict[int, t.Any] = {}
        for item in events:
            if item.bound is None or item.obj is None:
                continue
            reached[id(item.obj)] = item.obj
            for path in item.paths():
                _reach(reached, [item.obj], path)
        self.show_rows(reached.values())

    def hide(self, obj: t.Any, name: str) -> None:
        """Remove a loaded relationship, so that it is loaded again; `__exit__` restores what the host had."""
        held = obj.__dict__
        self._hidden.setdefault((id(held), name), (held, held[name]))
        del held[name]

    def hide_deleted(
        self, session: Session, events: t.Iterable[PendingEvent], deleted: t.Container[Key]
    ) -> None:
        """Hide attributes that lead to deleted rows: objects go on holding these until they expire.

        :param deleted: keys of rows that statements have deleted, of whose objects SQLAlchemy may not know it.
        """
        # Most transactions delete nothing, and end here.
        if not deleted and not _has_deleted(session):
            return
        here = session.hash_key
        for item in events:
            for path in item.paths() if item.obj is not None else ():
                objects = [item.obj]
                for name in path:
                    for obj in objects:
                        state: State = state_of(obj)
                        if state.session_id == here and state.persistent and name in state.dict:
                            if any(_is_gone(each, deleted) for each in each_in(state.dict[name])):
                                self.hide(obj, name)
                    objects = _ahead(objects, name)

    def show_rows(self, objects: t.Iterable[t.Any]) -> None:
        """Show all columns of rows."""
        missing: Missing = {}
        for obj in objects:
            state: State = state_of(obj)
            if state in self._done or not state.persistent:
                continue
            self._done.add(state)
            unsure = self._show(state, self._registry.all_forms(type(obj)))
            if unsure:
                session = t.cast("Session", state.session)
                missing.setdefault((session, type(obj)), []).append((state, unsure))
        for (session, cls), wanted in missing.items():
            found: dict[State, OldValues] = {state: OldValues() for state, _ in wanted}
            select_old(session, cls, wanted, found)
            for state, row in found.items():
                for name, value in row.items():
                    self._replace(state.dict, name, value)

    def _show(self, state: State, forms: Forms) -> set[str]:
        """Show what can be said; return the columns of which only the row can tell."""
        unsure: set[str] = set()
        held = state.dict
        for name, form in forms.in_doubt(held):
            if name not in held:
                continue
            value = held[name]
            if form.is_opaque:
                if self._is_assigned(state, name, value):
                    unsure.add(name)
                continue
            found = form(value)
            if form.is_zoned and type(value) is dt.datetime and value.tzinfo is not None:
                found = self._in_zone(state, value, found)
            if found is SERVER_GENERATED:
                unsure.add(name)
            elif found is not value:
                self._replace(held, name, found)
        if self._mistrusted and state in self._mistrusted:
            unsure.update(state.mapper.column_attrs.keys() & held.keys())
        return unsure

    def _is_assigned(self, state: State, name: str, value: t.Any) -> bool:
        if self._registry.plan(state.class_) is not None:
            return is_assigned(state, name, value)
        # The class is not captured: whatever was written in this transaction may have been assigned.
        transaction: t.Any = t.cast("Session", state.session).get_nested_transaction()
        transaction = transaction or t.cast("Session", state.session).get_transaction()
        while transaction is not None:
            if state in new_states_in(transaction) or state in dirty_states_in(transaction):
                return True
            transaction = transaction.parent
        return False

    def _in_zone(self, state: State, value: dt.datetime, found: t.Any) -> t.Any:
        """Return an instant in the zone in which the connection would give it back, else what was found."""
        session = t.cast("Session", state.session)
        driver: t.Any = session.connection(bind_arguments={"mapper": state.mapper}).connection
        zone = getattr(getattr(driver.driver_connection, "info", None), "timezone", None)
        if zone is None:  # another driver than psycopg
            return found
        there = value.astimezone(zone)
        return value if there.utcoffset() == value.utcoffset() else there

    def _replace(self, held: dict[str, t.Any], name: str, value: t.Any) -> None:
        assigned = held[name]
        # The host's code expects the tracking class, whose methods it may call.
        if isinstance(assigned, Mutable) and not isinstance(value, Mutable):
            value = type(assigned).coerce(name, value)
        held[name] = value
        self._put.append((held, name, assigned, value))


def _reach(found: dict[int, t.Any], objects: t.Sequence[t.Any], path: Path) -> None:
    """Add what is loaded along a path."""
    for name in path:
        objects = _ahead(objects, name)
        found.update((id(each), each) for each in objects)


def _ahead(objects: t.Iterable[t.Any], name: str) -> list[t.Any]:
    found = [each for obj in objects for each in each_in(_loaded(obj, name))]
    return [each for each in found if hasattr(each, STATE)]


def _has_deleted(session: t.Any) -> bool:
    """Whether a transaction has deleted objects that it knew."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        if deleted_states_in(transaction):
            return True
        transaction = transaction.parent
    return False


def _is_gone(obj: t.Any, gone: t.Container[Key]) -> bool:
    state = getattr(obj, STATE, None)
    if state is None or state.key is None:
        return False
    return bool(is_deleted(state)) or (head_class(state.mapper), *state.key[1]) in gone


def _loaded(obj: t.Any, name: str) -> t.Any:
    if not name.endswith(SIGN):
        return obj.__dict__.get(name)
    return at_hand(obj, t.cast("KeyLink", link_of(state_of(obj).mapper, name)))


def owner_stored(plan: MapperPlan, obj: t.Any, name: str) -> t.Any:
    """Return a column that names the owner as the row has it; `SERVER_GENERATED` where only the row can tell."""
    value = obj.__dict__.get(name)
    form = plan.forms.get(name)
    if form is None or not form.may_change(type(value)):
        return value
    if form.is_opaque:
        return SERVER_GENERATED if is_assigned(state_of(obj), name, value) else value
    return plan.stored(name, value)
