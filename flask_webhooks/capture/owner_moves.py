"""A row that goes from one owner to another: gone for the one, new for the other, and neither sees the other's values.

A row moves when what its path to the owner goes by was changed: its own column or key, or one of a row on the way. Its
owner of before is shown the row as it was before the transaction, with what it led to then: by objects of our own, like
those that remain of deleted rows.
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
from .loading import Path, attributes_of, led, load, referred, value
from .snapshots import as_before
from .sqlalchemy_internals import STATE, head_class, is_deleted, state_of
from .traces import Links, Trace

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from .events import PendingEvent
    from .registry import Registry
    from .side_session import SideSession

__all__ = ["Past"]

_QUERIES = ("dynamic", "write_only")

MoveEvent = tuple[EventType, str, t.Any]
"""An event, whom it is for, and the object that it shows."""


@dataclass(slots=True)
class _Row:
    """What happened to one row, in whatever channels it is."""

    kind: Kind
    obj: t.Any
    olds: dict[str, t.Any] = field(default_factory=dict)


class Past:
    """The rows of one transaction as they were before it."""

    def __init__(
        self,
        registry: Registry,
        session: Session,
        changes: t.Sequence[Change],
        traces: t.Sequence[Trace],
        side_session: SideSession,
    ) -> None:
        self._registry, self._session, self._changes, self._traces = registry, session, changes, traces
        self._hidden_row, self._unread_classes = side_session.hidden_row, tuple(side_session.unread_classes)
        updated = Kind.UPDATED
        self._leading = {change.key for change in changes if change.kind is updated and self._leads(change)}
        """Rows whose path may have led to another owner before: mostly none."""
        self._rows: dict[Key, _Row] | None = None
        self._rows_before: dict[Key, _Row] = {}
        self._shown: dict[Key, t.Any] = {}
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
        if not self._leading or not path or change.kind is Kind.CREATED:
            return False
        return change.key in self._leading or (len(path) > 1 and path[0] not in change.bound.columns)

    def owner(self, change: Change) -> str | None:
        """Return whose the row was."""
        found: t.Any = change.obj
        for name in change.bound.owner_path or ():
            found = self._led(found, name) if hasattr(found, STATE) else getattr(found, name)
            if found is None:
                return None
        return str(found) or None

    def _led(self, obj: t.Any, name: str) -> t.Any:
        """Return what an attribute led to: of a column its value, of a relationship an object as it is now."""
        mapper: orm.Mapper[t.Any] = inspect(obj).mapper
        while name in mapper.synonyms:
            name = mapper.synonyms[name].name
        relation = link_of(mapper, name)
        if relation is not None:
            return self._one(obj, relation, is_shown=False)
        if name in mapper.column_attrs:
            olds = self._olds(obj)
            return olds[name] if name in olds else value(obj, name)
        return getattr(self._show(obj), name)

    # ---- what it was ----

    def events_of_move(self, change: Change, before: str | None, now: str | None) -> list[MoveEvent]:
        """Return the events of a move, or of a deletion of what was another's before.

        `moved_out` and `moved_in` take the place of `deleted` and `created` in a channel that has them.
        """
        if change.kind is Kind.DELETED:
            possible = self._registry.events[change.bound.channel.name, Kind.DELETED]
            gone = [event for event in possible if before is not None and change.matches(event)]
            return [(event, str(before), self._show(change.obj)) for event in gone]
        found: list[MoveEvent] = []
        names = change.bound.watch
        if before is not None:
            olds = self._olds(change.obj)
            lasts = {name: (olds[name] if name in olds else value(change.obj, name), None) for name in names}
            happened = list(self._happened(change.bound, (Kind.MOVED_OUT, Kind.DELETED), lasts))
            found += [(event, before, self._show(change.obj)) for event in happened]
        if now is not None:
            firsts = {name: (None, value(change.obj, name)) for name in names}
            happened = list(self._happened(change.bound, (Kind.MOVED_IN, Kind.CREATED), firsts))
            found += [(event, now, change.obj) for event in happened]
        return found

    def snapshot_of(self, change: Change) -> t.Any:
        """Return the object that shows a deleted row: as it was before, if it had moved when it was deleted."""
        plan = self._registry.plan(type(change.obj))
        moves = (step for step in change.steps if step.kind is Kind.UPDATED)
        if plan is None or all(plan.leading.isdisjoint(step.values) for step in moves):
            return change.obj
        return self._show(change.obj)

    def _happened(
        self, bound: BoundChannel, kinds: tuple[Kind, Kind], values: Values
    ) -> t.Iterator[EventType]:
        events = self._registry.events
        kind = next((each for each in kinds if events[bound.channel.name, each]), kinds[-1])
        yield from (event for event in events[bound.channel.name, kind] if event.matches(kind, values))

    def complete(self, events: t.Iterable[PendingEvent]) -> None:
        """Give the objects that show what was everything that somebody will read of them."""
        wanted: dict[int, tuple[t.Any, set[Path]]] = {}
        for item in events:
            source = self._sources.get(id(item.obj))
            if source is not None and item.bound is not None:
                _, paths = wanted.setdefault(id(item.obj), (item.obj, set()))
                paths.update(item.bound.trails)
                paths.update(path for include in item.includes_wanted() for path in include.trails)
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
            return self._shown_or_none(self._one(obj, relation))
        now = value(obj, relation.key)
        if not relation.uselist:
            members = self._members(obj, relation, [] if now is None else [now])
            return members[0] if members else None
        if isinstance(now, dict):
            stayed = {id(each) for each in self._stayed(obj, relation, listed(now))}
            return {key: self._show(each) for key, each in now.items() if id(each) in stayed}
        members = self._members(obj, relation, listed(now))
        return set(members) if isinstance(now, set) else members

    def _members(
        self, obj: t.Any, relation: orm.RelationshipProperty[t.Any], now: t.Iterable[t.Any]
    ) -> list[t.Any]:
        found = [*self._stayed(obj, relation, now), *self._links.taken(relation, obj)]
        found = [each for each in found if not isinstance(each, self._unread_classes)]
        known = {inspect(each).key for each in found}
        found += [
            row.obj
            for row in self._rows_known().values()
            if row.kind is not Kind.CREATED
            and isinstance(row.obj, relation.mapper.class_)
            and inspect(row.obj).key not in known
            and self._belonged(row, obj, relation)
        ]
        return [self._show(each) for each in found]

    def _stayed(
        self, obj: t.Any, relation: orm.RelationshipProperty[t.Any], now: t.Iterable[t.Any]
    ) -> t.Iterator[t.Any]:
        """Those of its members that were so before."""
        for each in now:
            row = self._row(each)
            if self._links.is_new(relation, obj, each) or (row is None and self._is_passing(each)):
                continue
            if row is None or (
                row.kind is not Kind.CREATED and self._belonged(row, obj, relation) is not False
            ):
                yield each

    def _is_passing(self, obj: t.Any) -> bool:
        """Say whether it was made in this transaction and deleted again."""
        return is_deleted(inspect(obj)) and self._registry.plan(type(obj)) is not None

    def _belonged(self, row: _Row, obj: t.Any, relation: orm.RelationshipProperty[t.Any]) -> bool | None:
        """Say whether a row was a member before; None if that was not changed."""
        if relation.direction is not orm.ONETOMANY:
            return None
        olds = self._olds(obj)
        answer: bool | None = None
        for local, remote in relation.local_remote_pairs or ():
            [mine] = attributes_of(relation.parent, [local]) or ("",)
            [theirs] = attributes_of(relation.mapper, [remote]) or ("",)
            if theirs in row.olds and mine:
                if row.olds[theirs] != (olds[mine] if mine in olds else value(obj, mine)):
                    return False
                answer = True
        return answer

    def _one(self, obj: t.Any, relation: Relation, *, is_shown: bool = True) -> t.Any:
        """Return what a relationship to one led to: the object that stands for that row now.

        :param is_shown: leave out what a filter of the host's hides.
        """
        olds = self._olds(obj)
        names = attributes_of(relation.parent, relation.local_columns)
        if relation.direction is not orm.MANYTOONE or olds.keys().isdisjoint(names):
            return value(obj, relation.key) if is_shown else led(obj, relation.key, self._hidden_row)
        values = {name: olds[name] if name in olds else value(obj, name) for name in names}
        gone = self._rows_before.get(_key_led_to(relation, values))
        if gone is not None:
            return gone.obj
        found = referred(object_session(obj) or self._session, relation, values)
        if found is None and None not in values.values():
            found = self._gone_by(relation, values)
        is_hidden = found is None and not is_shown and None not in values.values()
        return self._hidden_row(relation, values) if is_hidden else found

    def _gone_by(self, relation: Relation, values: t.Mapping[str, t.Any]) -> t.Any:
        """Return what remains of a deleted row that a foreign key led to by another column than the key."""
        pairs = [
            (attributes_of(relation.parent, [local]), attributes_of(relation.mapper, [remote]))
            for local, remote in relation.local_remote_pairs or ()
        ]
        for row in self._rows_known().values():
            if row.kind is Kind.DELETED and isinstance(row.obj, relation.mapper.class_):
                was = {**row.obj.__dict__, **row.olds}
                if all(here and there and was.get(there[0]) == values.get(here[0]) for here, there in pairs):
                    return row.obj
        return None

    def _shown_or_none(self, obj: t.Any) -> t.Any:
        return None if obj is None or isinstance(obj, self._unread_classes) else self._show(obj)

    def _show(self, obj: t.Any) -> t.Any:
        """Return an object that shows a row as it was."""
        state = inspect(obj)
        row = self._row(obj)
        if state.key is None:
            return obj
        obj = obj if row is None else row.obj  # what remains of it, of a deleted one
        key = _key_of(state)
        if key not in self._shown:
            shown = self._shown[key] = as_before(inspect(obj), {} if row is None else row.olds)
            self._sources[id(shown)] = obj
            self._let_lead(shown, obj)
        return self._shown[key]

    def _let_lead(self, shown: t.Any, obj: t.Any) -> None:
        """Let it lead to rows as they were, whoever asks: loaded by a property, they would be as they are."""
        state = inspect(shown)
        me = weakref.ref(self)  # a cycle would keep the host's session

        def lead(relation: orm.RelationshipProperty[t.Any], state: t.Any, passive: t.Any) -> t.Any:
            past = me()
            if past is None:
                return PASSIVE_NO_RESULT
            state.dict[relation.key] = past.related(obj, relation)
            return ATTR_WAS_SET

        state.callables = {
            relation.key: functools.partial(lead, relation)
            for relation in state.mapper.relationships
            if relation.lazy not in _QUERIES
        }

    # ---- what is known ----

    @functools.cached_property
    def _links(self) -> Links:
        return Links(self._traces)

    def _olds(self, obj: t.Any) -> t.Mapping[str, t.Any]:
        row = self._row(obj)
        return {} if row is None else row.olds

    def _row(self, obj: t.Any) -> _Row | None:
        state = inspect(obj)
        return None if state.key is None else self._rows_known().get(_key_of(state))

    def _rows_known(self) -> dict[Key, _Row]:
        if self._rows is None:
            self._rows = {}
            for change in self._changes:
                if change.obj is None or state_of(change.obj).key is None:
                    continue
                row = self._rows.setdefault(_key_of(state_of(change.obj)), _Row(change.kind, change.obj))
                if change.kind is not Kind.CREATED:
                    row.olds.update({name: old for name, (old, _) in change.values.items()})
            for each in self._traces:
                if (state := inspect(each.obj)).key is not None:
                    kind = Kind.CREATED if each.is_new else Kind.UPDATED
                    row = self._rows.setdefault(_key_of(state), _Row(kind, each.obj))
                    row.olds = {**each.olds, **row.olds}
            for key, row in self._rows.items():
                names = attributes_of(inspect(row.obj).mapper, inspect(row.obj).mapper.primary_key)
                pairs = zip(names, key[1:], strict=True)
                self._rows_before[(key[0], *(row.olds.get(name, now) for name, now in pairs))] = row
        return self._rows


def _key_of(state: orm.InstanceState[t.Any]) -> Key:
    return (head_class(state.mapper), *t.cast("t.Any", state.key)[1])


def _key_led_to(relation: Relation, values: t.Mapping[str, t.Any]) -> Key:
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
