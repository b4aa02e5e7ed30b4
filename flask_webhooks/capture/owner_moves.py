"""Rows that move from one owner to another: deleted for the one, created for the other.

A row moves when what its path to the owner goes by was changed: its own column or key, or one of a row on the way.
Neither owner sees the other's values: the owner of before gets the row as it was before the transaction, with what it
led to then, as an object of ours like the snapshots of deleted rows.
"""

from __future__ import annotations

import functools
import typing as t
import weakref
from dataclasses import dataclass, field

from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, object_session
from sqlalchemy.orm.base import ATTR_WAS_SET, PASSIVE_NO_RESULT

from ..bindings.owner_steps import Relation, link_of
from ..bindings.serializers import each_in, listed
from ..catalog import EventType, Kind
from .change import Change, Key, Values
from .loading import Path, attributes_of, load, value
from .owners import next_on_path
from .references import referred
from .snapshots import as_before
from .sqlalchemy_internals import STATE, head_class, is_deleted, state_of
from .uncaptured import LinkHistory, UncapturedChange

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .context import CommitContext
    from .events import PendingEvent

__all__ = ["RowsBefore"]

_QUERIES = ("dynamic", "write_only")

MoveEvent = tuple[EventType, str, t.Any]
"""An event, whom it is for, and the object that it shows."""


@dataclass(slots=True)
class _Row:
    """What happened to one row, in whatever channels it is."""

    kind: Kind
    obj: t.Any
    old_values: dict[str, t.Any] = field(default_factory=dict)


class RowsBefore:
    """The rows of one transaction as they were before it."""

    def __init__(
        self, context: CommitContext, changes: t.Sequence[Change], uncaptured: t.Sequence[UncapturedChange]
    ) -> None:
        self._registry, self._session = context.registry, context.session
        self._changes, self._uncaptured = changes, uncaptured
        self._hidden_row = context.side_session.hidden_row
        self._unread_classes = tuple(context.side_session.unread_classes)
        # Asked for each change, so worked out once: mostly no row has moved, and nothing else here runs.
        updated = Kind.UPDATED
        self._leading = {change.key for change in changes if change.kind is updated and self._leads(change)}
        """Rows whose path may have led to another owner before: mostly none."""
        self._rows: dict[Key, _Row] | None = None
        self._rows_before: dict[Key, _Row] = {}
        self._snapshots: dict[Key, t.Any] = {}
        self._sources: dict[int, t.Any] = {}
        """What an object of ours shows, by its id: the row as it is now."""

    # ---- whose it was ----

    def _leads(self, change: Change) -> bool:
        """Say whether something was changed that a path to an owner goes by; unknown of properties."""
        model, path = change.bound.model, change.bound.owner_path
        if model is None or not change.values:
            return False
        leading = self._registry.leading.get(model, frozenset())
        if path and path[0] not in leading and path[0] not in change.bound.columns:
            return True
        return not leading.isdisjoint(change.values)

    def may_have_moved(self, change: Change) -> bool:
        """Say whether its owner may have been another before."""
        path = change.bound.owner_path
        # A row that was created had no owner before.
        if not self._leading or not path or change.kind is Kind.CREATED:
            return False
        return change.key in self._leading or (len(path) > 1 and path[0] not in change.bound.columns)

    def owner(self, change: Change) -> str | None:
        """Return whose the row was."""
        found: t.Any = change.obj
        for name in change.bound.owner_path or ():
            found = self._followed(found, name) if hasattr(found, STATE) else getattr(found, name)
            if found is None:
                return None
        return str(found) or None

    def _followed(self, obj: t.Any, name: str) -> t.Any:
        """Return what an attribute led to: of a column its value, of a relationship an object as it is now."""
        mapper: orm.Mapper[t.Any] = inspect(obj).mapper
        # A synonym is no attribute of the row: what stands behind it was changed.
        while name in mapper.synonyms:
            name = mapper.synonyms[name].name
        relation = link_of(mapper, name)
        if relation is not None:
            return self._parent_before(obj, relation, is_shown=False)
        if name in mapper.column_attrs:
            old_values = self._old_values(obj)
            return old_values[name] if name in old_values else value(obj, name)
        return getattr(self._snapshot(obj), name)

    # ---- what it was ----

    def events_of_move(self, change: Change, before: str | None, now: str | None) -> list[MoveEvent]:
        """Return the events of a move, or of a deletion of what was another's before.

        `moved_out` and `moved_in` take the place of `deleted` and `created` in a channel that has them.
        """
        # It was deleted as a row of its owner of before: for the other owner it came and went in one transaction.
        if change.kind is Kind.DELETED:
            possible = self._registry.events[change.bound.channel.name, Kind.DELETED]
            gone = [event for event in possible if before is not None and change.matches(event)]
            return [(event, str(before), self._snapshot(change.obj)) for event in gone]
        found: list[MoveEvent] = []
        names = change.bound.watch
        if before is not None:
            old_values = self._old_values(change.obj)
            lasts = {
                name: (old_values[name] if name in old_values else value(change.obj, name), None)
                for name in names
            }
            happened = list(self._matching(change.bound, (Kind.MOVED_OUT, Kind.DELETED), lasts))
            found += [(event, before, self._snapshot(change.obj)) for event in happened]
        if now is not None:
            firsts = {name: (None, value(change.obj, name)) for name in names}
            happened = list(self._matching(change.bound, (Kind.MOVED_IN, Kind.CREATED), firsts))
            found += [(event, now, change.obj) for event in happened]
        return found

    def snapshot_of(self, change: Change) -> t.Any:
        """Return the object that shows a deleted row: as it was before, if it had moved when it was deleted."""
        moves = (step for step in change.steps if step.kind is Kind.UPDATED)
        if all(change.plan.leading.isdisjoint(step.values) for step in moves):
            return change.obj
        return self._snapshot(change.obj)

    def _matching(
        self, bound: BoundChannel, kinds: tuple[Kind, Kind], values: Values
    ) -> t.Iterator[EventType]:
        events = self._registry.events
        kind = next((each for each in kinds if events[bound.channel.name, each]), kinds[-1])
        yield from (event for event in events[bound.channel.name, kind] if event.matches(kind, values))

    def complete(self, events: t.Iterable[PendingEvent]) -> None:
        """Load all that dumps will read of the objects that show rows as they were."""
        if not self._sources:  # as mostly
            return
        wanted: dict[int, tuple[t.Any, set[Path]]] = {}
        for item in events:
            source = self._sources.get(id(item.obj))
            if source is not None and item.bound is not None:
                _, paths = wanted.setdefault(id(item.obj), (item.obj, set()))
                paths.update(item.bound.read_paths)
                paths.update(path for include in item.includes_wanted() for path in include.read_paths)
        # By class, so that a bulk move costs a few statements.
        groups: dict[tuple[Session, type], tuple[list[t.Any], set[Path]]] = {}
        for number, (_, paths) in wanted.items():
            source = self._sources[number]
            state = inspect(source)
            if state.session is not None and state.persistent:
                identities, all_paths = groups.setdefault((state.session, type(source)), ([], set()))
                identities.append(state.identity)
                all_paths |= paths
        for (session, model), (identities, paths) in groups.items():
            load(session, model, identities, [path for path in paths if path], columns=True)
        for shown, paths in wanted.values():
            self._fill(shown, paths)

    def _fill(self, shown: t.Any, paths: t.Iterable[Path]) -> None:
        source = self._sources[id(shown)]
        held = shown.__dict__
        mapper: orm.Mapper[t.Any] = inspect(source).mapper
        for name in mapper.column_attrs.keys():
            if name not in held:
                held[name] = value(source, name)
        # Shorter paths first: what they lead to is filled before what hangs on it.
        for path in sorted(paths):
            relation = mapper.relationships.get(path[0]) if path else None
            if relation is None:
                continue
            if path[0] not in held:
                held[path[0]] = self.related(source, relation)
            for member in each_in(held[path[0]]):
                if member is not None:
                    self._fill(member, [path[1:]])

    # ---- what it led to ----

    def related(self, obj: t.Any, relation: orm.RelationshipProperty[t.Any]) -> t.Any:
        """Return what a relationship led to, as it was."""
        if relation.direction is orm.MANYTOONE and not relation.uselist:
            return self._snapshot_or_none(self._parent_before(obj, relation))
        now = value(obj, relation.key)
        if not relation.uselist:
            members = self._members(obj, relation, [] if now is None else [now])
            return members[0] if members else None
        if isinstance(now, dict):
            stayed = {id(each) for each in self._stayed(obj, relation, listed(now))}
            return {key: self._snapshot(each) for key, each in now.items() if id(each) in stayed}
        members = self._members(obj, relation, listed(now))
        return set(members) if isinstance(now, set) else members

    def _members(
        self, obj: t.Any, relation: orm.RelationshipProperty[t.Any], now: t.Iterable[t.Any]
    ) -> list[t.Any]:
        found = [*self._stayed(obj, relation, now), *self._links.taken(relation, obj)]
        found = [each for each in found if not isinstance(each, self._unread_classes)]
        # Rows that have left the collection since are among the changes alone.
        known = {inspect(each).key for each in found}
        found += [
            row.obj
            for row in self._known_rows().values()
            if row.kind is not Kind.CREATED
            and isinstance(row.obj, relation.mapper.class_)
            and inspect(row.obj).key not in known
            and self._was_member(row, obj, relation)
        ]
        return [self._snapshot(each) for each in found]

    def _stayed(
        self, obj: t.Any, relation: orm.RelationshipProperty[t.Any], now: t.Iterable[t.Any]
    ) -> t.Iterator[t.Any]:
        """Those of its members that were so before."""
        for each in now:
            row = self._row_of(each)
            if self._links.is_new(relation, obj, each) or (row is None and self._was_temporary(each)):
                continue
            if row is None or (
                row.kind is not Kind.CREATED and self._was_member(row, obj, relation) is not False
            ):
                yield each

    def _was_temporary(self, obj: t.Any) -> bool:
        """Say whether it was made in this transaction and deleted again."""
        return is_deleted(inspect(obj)) and self._registry.plan(type(obj)) is not None

    def _was_member(self, row: _Row, obj: t.Any, relation: orm.RelationshipProperty[t.Any]) -> bool | None:
        """Say whether a row was a member before; None if that was not changed."""
        if relation.direction is not orm.ONETOMANY:
            return None
        old_values = self._old_values(obj)
        answer: bool | None = None
        for local, remote in relation.local_remote_pairs or ():
            [mine] = attributes_of(relation.parent, [local]) or ("",)
            [theirs] = attributes_of(relation.mapper, [remote]) or ("",)
            # Only a changed foreign key can tell: an unchanged one is as the collection shows it.
            if theirs in row.old_values and mine:
                if row.old_values[theirs] != (old_values[mine] if mine in old_values else value(obj, mine)):
                    return False
                answer = True
        return answer

    def _parent_before(self, obj: t.Any, relation: Relation, *, is_shown: bool = True) -> t.Any:
        """Return what a relationship to one led to: the object that stands for that row now.

        :param is_shown: leave out what a filter of the host's hides.
        """
        old_values = self._old_values(obj)
        names = attributes_of(relation.parent, relation.local_columns)
        if relation.direction is not orm.MANYTOONE or old_values.keys().isdisjoint(names):
            return value(obj, relation.key) if is_shown else next_on_path(obj, relation.key, self._hidden_row)
        values = {name: old_values[name] if name in old_values else value(obj, name) for name in names}
        # A deleted parent is in no session any more, but a snapshot of it is among the changes.
        gone = self._rows_before.get(_key_referred_to(relation, values))
        if gone is not None:
            return gone.obj
        found = referred(object_session(obj) or self._session, relation, values)
        if found is None and None not in values.values():
            found = self._deleted_parent(relation, values)
        is_hidden = found is None and not is_shown and None not in values.values()
        return self._hidden_row(relation, values) if is_hidden else found

    def _deleted_parent(self, relation: Relation, values: t.Mapping[str, t.Any]) -> t.Any:
        """Return the snapshot of a deleted row that a foreign key referred to by another column than the key."""
        pairs = [
            (attributes_of(relation.parent, [local]), attributes_of(relation.mapper, [remote]))
            for local, remote in relation.local_remote_pairs or ()
        ]
        # Rare: most foreign keys refer to the primary key, by which `_rows_before` finds it.
        for row in self._known_rows().values():
            if row.kind is Kind.DELETED and isinstance(row.obj, relation.mapper.class_):
                was = {**row.obj.__dict__, **row.old_values}
                if all(here and there and was.get(there[0]) == values.get(here[0]) for here, there in pairs):
                    return row.obj
        return None

    def _snapshot_or_none(self, obj: t.Any) -> t.Any:
        return None if obj is None or isinstance(obj, self._unread_classes) else self._snapshot(obj)

    def _snapshot(self, obj: t.Any) -> t.Any:
        """Return an object that shows a row as it was."""
        state = inspect(obj)
        row = self._row_of(obj)
        if state.key is None:
            return obj
        obj = obj if row is None else row.obj  # what remains of it, of a deleted one
        key = _key_of(state)
        # One object for a row, whoever leads to it: snapshots refer to each other.
        if key not in self._snapshots:
            shown = self._snapshots[key] = as_before(inspect(obj), {} if row is None else row.old_values)
            self._sources[id(shown)] = obj
            self._load_as_before(shown, obj)
        return self._snapshots[key]

    def _load_as_before(self, shown: t.Any, obj: t.Any) -> None:
        """Let its relationships load rows as they were: loaded by SQLAlchemy, they would be as they are now."""
        state = inspect(shown)
        me = weakref.ref(self)  # a cycle would keep the host's session

        def lead(relation: orm.RelationshipProperty[t.Any], state: t.Any, passive: t.Any) -> t.Any:
            past = me()
            if past is None:
                return PASSIVE_NO_RESULT
            state.dict[relation.key] = past.related(obj, relation)
            return ATTR_WAS_SET

        # SQLAlchemy asks these for an attribute that is not loaded, before the loaders of the mapper.
        state.callables = {
            relation.key: functools.partial(lead, relation)
            for relation in state.mapper.relationships
            if relation.lazy not in _QUERIES
        }

    # ---- what is known ----

    @functools.cached_property
    def _links(self) -> LinkHistory:
        return LinkHistory(self._uncaptured)

    def _old_values(self, obj: t.Any) -> t.Mapping[str, t.Any]:
        row = self._row_of(obj)
        return {} if row is None else row.old_values

    def _row_of(self, obj: t.Any) -> _Row | None:
        state = inspect(obj)
        return None if state.key is None else self._known_rows().get(_key_of(state))

    def _known_rows(self) -> dict[Key, _Row]:
        if self._rows is None:
            self._rows = {}
            for change in self._changes:
                if change.obj is None or state_of(change.obj).key is None:
                    continue
                row = self._rows.setdefault(_key_of(state_of(change.obj)), _Row(change.kind, change.obj))
                if change.kind is not Kind.CREATED:
                    row.old_values.update({name: old for name, (old, _) in change.values.items()})
            # After the changes, which know more: their old values come from the database where need be.
            for each in self._uncaptured:
                if (state := inspect(each.obj)).key is not None:
                    kind = Kind.CREATED if each.is_new else Kind.UPDATED
                    row = self._rows.setdefault(_key_of(state), _Row(kind, each.obj))
                    row.old_values = {**each.old_values, **row.old_values}
            for key, row in self._rows.items():
                names = attributes_of(inspect(row.obj).mapper, inspect(row.obj).mapper.primary_key)
                pairs = zip(names, key[1:], strict=True)
                self._rows_before[(key[0], *(row.old_values.get(name, now) for name, now in pairs))] = row
        return self._rows


def _key_of(state: orm.InstanceState[t.Any]) -> Key:
    return (head_class(state.mapper), *t.cast("t.Any", state.key)[1])


def _key_referred_to(relation: Relation, values: t.Mapping[str, t.Any]) -> Key:
    """The key of the row that a foreign key names; of none if it names another column than the key."""
    target = relation.mapper
    by_column = {
        target.get_property_by_column(remote).key: values.get(name)
        for local, remote in relation.local_remote_pairs or ()
        for name in attributes_of(relation.parent, [local])
    }
    keys = attributes_of(target, target.primary_key)
    if by_column.keys() != set(keys):
        return ()
    return (head_class(target), *(by_column[key] for key in keys))
