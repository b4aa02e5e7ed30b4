"""Changes of rows that events show though no channel captures them, and of links between rows (many-to-many).

They are noted for the owner that a row had before: it sees nothing that was made after the row went to another. What is
to be noted is worked out once for each class; of most classes it is nothing.
"""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm.base import INCLUDE_PENDING_MUTATIONS, NO_VALUE, PASSIVE_NO_INITIALIZE

from ..bindings.paths import columns_of, static_attribute
from ..bindings.schema_keys import names_in
from ..bindings.serializers import nested_schema
from .loading import Path, attributes_of
from .snapshots import copied
from .sqlalchemy_internals import pending_collections, state_of

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel

__all__ = ["LinkHistory", "Observed", "ObservedClasses", "UncapturedChange", "uncaptured_change"]

Mapper: t.TypeAlias = orm.Mapper[t.Any]
Relation: t.TypeAlias = orm.RelationshipProperty[t.Any]
End = tuple[tuple[str, ...], tuple[t.Any, ...]]
"""One end of a link: columns of the secondary table, and what they hold."""
Link = tuple[t.Any, frozenset[End]]
"""A row of a secondary table."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is to be noted of the rows of one class."""

    columns: frozenset[str]
    """Nothing for a class that is captured."""
    links: tuple[Relation, ...]
    joins: tuple[tuple[End, End], ...]
    """For a class whose rows are links: attributes of its own with the columns of the table, for both ends."""


@dataclass(slots=True, eq=False)
class UncapturedChange:
    """What one flush did to one object."""

    obj: t.Any
    is_new: bool
    old_values: dict[str, t.Any]
    links: list[tuple[Link, bool, tuple[t.Any, ...]]]
    """Links that were made or taken away, whether they were there before, and what is at their ends."""


class ObservedClasses:
    """What events show of the rows of an app: found once, from schemas, includes and the code of properties."""

    def __init__(self, models: Mapping[type, Iterable[BoundChannel]]) -> None:
        self._classes: set[type] = set()
        self._links: set[Relation] = set()
        self._shown: dict[type, Observed | None] = {}
        self._models = models
        for model, bounds in models.items():
            for bound in bounds:
                if bound.owner_path and bound.channel.events:
                    self._look(inspect(model), bound)
        # Known at the start, so that apps without such links pay nothing in a flush.
        self._is_needed = bool(self._links) or not all(map(self._is_captured, self._classes))

    def __bool__(self) -> bool:
        """Whether anything is to be noted at all."""
        return self._is_needed

    def _is_captured(self, cls: type) -> bool:
        return any(base in self._models for base in cls.__mro__)

    def _look(self, mapper: Mapper, bound: BoundChannel) -> None:
        schemas: dict[int, ma.Schema] = {}
        for schema in (*bound.schemas.values(), *(each.schema for each in bound.includes.values())):
            _collect(schemas, schema)
        # Properties and methods load relationships that no schema names: their code is searched for the names.
        code = frozenset().union(*map(_names_of, schemas.values()))
        code |= bound.plain.code if bound.plain is not None else frozenset()
        self._follow(mapper, code, set())
        for path in (
            *bound.read_paths,
            *(path for each in bound.includes.values() for path in each.read_paths),
        ):
            self._walk(mapper, path, code)

    def _walk(self, mapper: Mapper, path: Path, code: frozenset[str]) -> None:
        for name in path:
            mapper = self._cross(mapper.relationships[name])
            self._follow(mapper, code, set())

    def _follow(self, mapper: Mapper, code: frozenset[str], seen: set[Mapper]) -> None:
        """Follow relationships that the code of properties, methods and functions mentions."""
        if mapper in seen:
            return
        seen.add(mapper)
        names = code | _names_in_properties(mapper)
        for relation in mapper.relationships:
            if relation.key in names:
                self._follow(self._cross(relation), code, seen)

    def _cross(self, relation: Relation) -> Mapper:
        self._classes.update(each.class_ for each in relation.mapper.self_and_descendants)
        if relation.secondary is not None:
            self._links.add(relation)
        return relation.mapper

    def observed(self, cls: type) -> Observed | None:
        """Return what is to be noted of a class; None for most."""
        try:
            return self._shown[cls]
        except KeyError:
            found = self._find(cls) if self._is_needed else None
            return self._shown.setdefault(cls, found)

    def _find(self, cls: type) -> Observed | None:
        mapper: Mapper | None = inspect(cls, raiseerr=False)
        if mapper is None:
            return None
        # Two relationships over one table are one link, whichever of them was changed.
        tables = {relation.secondary for relation in self._links}
        columns = columns_of(mapper) if cls in self._classes and not self._is_captured(cls) else frozenset()
        links = tuple(each for each in mapper.relationships if each.secondary in tables and _ends(each))
        joins = tuple(_association_ends(mapper, self._links))
        return Observed(columns, links, joins) if columns or links or joins else None


def _collect(found: dict[int, ma.Schema], schema: ma.Schema | None) -> None:
    if schema is not None and id(schema) not in found and len(found) < 100:  # schemas may nest each other
        found[id(schema)] = schema
        for each in schema.dump_fields.values():
            _collect(found, nested_schema(each))


def _names_of(schema: ma.Schema) -> frozenset[str]:
    """Names in the code of a schema: methods, functions, hooks."""
    kinds = [each for each in type(schema).__mro__ if not each.__module__.startswith("marshmallow")]
    methods = [method for kind in kinds for method in vars(kind).values()]
    functions = [getattr(each, "serialize_func", None) for each in schema.dump_fields.values()]
    return frozenset().union(*(names_in(each) for each in (*methods, *functions)))


@functools.lru_cache(maxsize=1024)
def _names_in_properties(mapper: Mapper) -> frozenset[str]:
    found = (static_attribute(mapper, name) for name in dir(mapper.class_) if not name.startswith("__"))
    return frozenset().union(*(names_in(getattr(each, "fget", None)) for each in found))


# ---- links -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _ends(relation: Relation) -> tuple[End, End] | None:
    """By which attributes each end of a many-to-many relationship goes: (columns of the table, attributes)."""
    mine = _end(relation.parent, relation.synchronize_pairs)
    theirs = _end(relation.mapper, relation.secondary_synchronize_pairs or ())
    return (mine, theirs) if mine and theirs else None


def _end(mapper: Mapper, pairs: t.Sequence[tuple[t.Any, t.Any]]) -> End | None:
    # Both sides name the same columns, perhaps in another order.
    pairs = sorted(pairs, key=lambda pair: pair[1].key)
    names = attributes_of(mapper, [column for column, _ in pairs])
    return (tuple(each.key for _, each in pairs), names) if names else None


def _association_ends(mapper: Mapper, links: Iterable[Relation]) -> Iterator[tuple[End, End]]:
    """The ends of a class whose rows are links (an association object)."""
    for relation in links:
        ends = _ends(relation)
        if relation.secondary is not mapper.local_table or ends is None:
            continue
        [mine, theirs] = [
            (columns, attributes_of(mapper, [relation.secondary.c[column] for column in columns]))
            for columns, _ in ends
        ]
        if mine[1] and theirs[1]:
            yield mine, theirs


def _held(obj: t.Any, end: End) -> End:
    columns, names = end
    held = obj.__dict__
    return columns, tuple([held[name] if name in held else _keyed(obj, name) for name in names])


def _keyed(obj: t.Any, name: str) -> t.Any:
    """Return a part of its key. Nothing is loaded: its row may be gone by now, and a flush is no time for that."""
    state = state_of(obj)
    keys = attributes_of(state.mapper, state.mapper.primary_key)
    return state.key[1][keys.index(name)] if state.key is not None and name in keys else None


class LinkHistory:
    """The links between rows that one transaction has made or taken away."""

    def __init__(self, changes: Iterable[UncapturedChange]) -> None:
        self._before: dict[Link, tuple[bool, dict[End, t.Any]]] = {}
        """Whether each was there before, and what is at its ends."""
        for each in changes:
            # The first flush that changed a link knows what was there before the transaction.
            for link, was_there, ends in each.links:
                self._before.setdefault(link, (was_there, dict(ends)))

    def is_new(self, relation: Relation, obj: t.Any, other: t.Any) -> bool:
        """Say whether a relationship has led from one to the other only since."""
        ends = _ends(relation) if self._before and relation.secondary is not None else None
        if ends is None:
            return False
        link = relation.secondary, frozenset({_held(obj, ends[0]), _held(other, ends[1])})
        return not self._before.get(link, (True, {}))[0]

    def taken(self, relation: Relation, obj: t.Any) -> list[t.Any]:
        """Return what it has led to before, and does no more."""
        ends = _ends(relation) if self._before and relation.secondary is not None else None
        if ends is None:
            return []
        mine = _held(obj, ends[0])
        return [
            other
            for (table, link), (was_there, at) in self._before.items()
            if was_there and table is relation.secondary and mine in link
            for end, other in at.items()
            if end != mine and end[0] == ends[1][0]
        ]


# ---- one flush ---------------------------------------------------------------------------------------------


def uncaptured_change(state: orm.InstanceState[t.Any], observed: Observed) -> UncapturedChange | None:
    """Return what the flush that is about to end did to an object; None if it is nothing that is shown."""
    is_new = state.key is None
    held, committed = state.dict, state.committed_state
    old_values: dict[str, t.Any] = {}
    # A new row was not there before: that it is new says all.
    if observed.columns and not is_new:
        for name in observed.columns & committed.keys():
            old = committed[name]
            old_values[name] = None if old is NO_VALUE or isinstance(old, sa.ClauseElement) else copied(old)
    links: list[tuple[Link, bool, tuple[t.Any, ...]]] = []
    for relation in observed.links:
        if relation.key in committed or relation.key in pending_collections(state):
            links += _changed(state, relation)
    if is_new:
        for mine, theirs in observed.joins:
            link = frozenset(
                (columns, tuple(held.get(name) for name in names)) for columns, names in (mine, theirs)
            )
            links.append(((state.mapper.local_table, link), False, ()))
    if not links and not old_values and not (is_new and observed.columns):
        return None
    return UncapturedChange(state.obj(), is_new and bool(observed.columns), old_values, links)


def _changed(
    state: orm.InstanceState[t.Any], relation: Relation
) -> Iterator[tuple[Link, bool, tuple[t.Any, ...]]]:
    obj = state.obj()
    ends = _ends(relation)
    if ends is None:
        return
    # Without a statement, for this runs inside a flush.
    passive = PASSIVE_NO_INITIALIZE | INCLUDE_PENDING_MUTATIONS
    history = state.manager[relation.key].impl.get_history(state, state.dict, passive)
    for others, was_there in ((history.added, False), (history.deleted, True)):
        for other in others or ():
            if other is not None:
                mine, theirs = _held(obj, ends[0]), _held(other, ends[1])
                at = ((mine, obj), (theirs, other))
                yield (relation.secondary, frozenset({mine, theirs})), was_there, at
