"""Whose data is it? One tenant for the whole app: where most models lead, by the shortest ways.

Each model that others refer to is tried, and each column that is called like an owner and refers to nothing. What
counts is how many models lead there, over relationships and foreign keys; a long way counts less, and so does one that
may be missing. Names only tip the scales: people are rarely the tenant, lists of states and types never.
"""

from __future__ import annotations

import heapq
import itertools
import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import orm

from ...bindings.owner_steps import SIGN, link_of
from ...bindings.paths import PathError
from ...bindings.private import words_of
from ...catalog import did_you_mean

__all__ = ["NoTenant", "Tenancy", "candidates", "tenancy_of"]

AnyMapper = orm.Mapper[t.Any]
Path = tuple[str, ...]

_STRONG = frozenset(
    "tenant organisation organization org workspace account company business firm team merchant partner shop store "
    "owner studio".split()
)
_PEOPLE = frozenset(
    "user person people member author creator employee staff profile contact assignee".split()
)
_LISTS = frozenset(
    "status state type kind category role language country currency template tag label plugin".split()
)
_OWNING = re.compile(rf"({'|'.join(sorted(_STRONG))}|customer|client|project|user)(_(id|key|uuid|code))?")
_FAR = 4
"""Steps of a path to an owner."""
_STEP, _PERHAPS, _FADING = 1, 2, 0.6


class NoTenant(Exception):
    """No model is called so; the text says what was meant perhaps."""


@dataclass(frozen=True)
class Tenancy:
    """What says whose data a row is."""

    name: str
    """A class, or a column that is called alike in every model."""
    tenant: sa.FromClause | None = None
    """The table of that class."""
    paths: t.Mapping[AnyMapper, str] = field(default_factory=dict)
    """Dotted, from a row to its owner."""
    score: float = 0
    others: tuple[str, ...] = ()
    """Further ones that it might have been, each with how many models lead there."""
    is_chosen: bool = False
    """Chosen by the user of `init`."""

    def path(self, mapper: AnyMapper) -> str | None:
        """Return what the catalogue says of a model's owner; None if nothing leads there."""
        return self.paths.get(mapper)

    @property
    def default(self) -> str | None:
        """What most models say."""
        common = Counter(self.paths.values()).most_common(1)
        return common[0][0] if common else None


def candidates(mappers: t.Sequence[AnyMapper]) -> list[Tenancy]:
    """Return what may be the tenant of an app, the likeliest first."""
    ways = _Ways(mappers)
    found = [ways.to_class(mapper) for mapper in mappers] + [
        ways.to_column(name) for name in ways.unrelated_columns()
    ]
    known = [each for each in found if len(each.paths) > (1 if each.tenant is not None else 0)]
    return sorted(known, key=lambda each: (-each.score, each.name))


def tenancy_of(mappers: t.Sequence[AnyMapper], name: str) -> Tenancy:
    """Return the tenancy of a class that is named by itself, by its import path, or by its table.

    :raises NoTenant: there is none.
    """
    by_name: dict[str, AnyMapper] = {}
    for mapper in mappers:
        cls = mapper.class_
        table = mapper.local_table
        names = (f"{cls.__module__}:{cls.__qualname__}", cls.__name__, getattr(table, "name", cls.__name__))
        by_name |= {each: mapper for each in names if each not in by_name}
    if name not in by_name:
        classes = [mapper.class_.__name__ for mapper in mappers]
        raise NoTenant(f"No model is called {name!r}. {did_you_mean(name, classes, 'Name a class.')}")
    return _Ways(mappers).to_class(by_name[name])


class _Ways:
    """How the models of an app lead to each other."""

    def __init__(self, mappers: t.Sequence[AnyMapper]) -> None:
        self._mappers = mappers
        self._into: dict[AnyMapper, list[tuple[AnyMapper, str, bool]]] = {}
        """Model to those that refer to it: each with the step, and whether it must be there."""
        for mapper in mappers:
            for step, target, must in _parents(mapper):
                self._into.setdefault(target, []).append((mapper, step, must))

    def to_class(self, tenant: AnyMapper) -> Tenancy:
        """Return how models lead to one of them."""
        keys = t.cast("tuple[sa.Column[t.Any], ...]", tenant.primary_key)
        name, table = tenant.class_.__name__, tenant.local_table
        if len(keys) != 1:
            return Tenancy(name, table)
        ends = {mapper: _referring(mapper, keys[0]) for mapper in self._mappers if mapper is not tenant}
        common = Counter(column.name for found in ends.values() for _, column in found)
        usual = common.most_common(1)[0][0] if common else None
        if usual is not None and _OWNING.fullmatch(usual):  # it may refer to the tenant without saying so
            for mapper, found in ends.items():
                ends[mapper] = found or _called(mapper, usual)
        starts: dict[AnyMapper, tuple[float, str]] = {}
        for mapper, found in ends.items():
            named = [each for each in found if each[1].name == usual] or found
            if len(named) == 1:
                starts[mapper] = _PERHAPS if named[0][1].nullable else 0, named[0][0]
        own = tenant.get_property_by_column(keys[0]).key
        return self._tenancy(name, table, starts, {tenant: own})

    def unrelated_columns(self) -> list[str]:
        """Return columns that are called like an owner and refer to nothing."""
        return sorted(
            {
                column.name
                for mapper in self._mappers
                for _, column in _columns(mapper)
                if _OWNING.fullmatch(column.name) and not column.foreign_keys and not column.primary_key
            }
        )

    def to_column(self, name: str) -> Tenancy:
        """Return how models lead to one that has such a column."""
        starts: dict[AnyMapper, tuple[float, str]] = {}
        for mapper in self._mappers:
            for key, column in _called(mapper, name):
                starts[mapper] = _PERHAPS if column.nullable else 0, key
        return self._tenancy(name, None, starts, {})

    def _tenancy(
        self,
        name: str,
        table: sa.FromClause | None,
        starts: t.Mapping[AnyMapper, tuple[float, str]],
        own: t.Mapping[AnyMapper, str],
    ) -> Tenancy:
        counter = itertools.count()
        waiting = [(cost, 1, key, next(counter), mapper) for mapper, (cost, key) in starts.items()]
        heapq.heapify(waiting)
        paths, weight = dict(own), float(len(own))
        while waiting:
            cost, steps, path, _, mapper = heapq.heappop(waiting)
            if mapper in paths:
                continue
            paths[mapper] = path
            weight += _FADING**cost
            for child, step, must in self._into.get(mapper, ()) if steps < _FAR else ():
                further = cost + _STEP + (0 if must else _PERHAPS)
                heapq.heappush(waiting, (further, steps + 1, f"{step}.{path}", next(counter), child))
        return Tenancy(name, table, paths, weight * _liking(name))


def _liking(name: str) -> float:
    words = set(words_of(name))
    if words & _LISTS:
        return 0.2
    return 2.0 if words & _STRONG else 0.5 if words & _PEOPLE else 1.0


def _columns(mapper: AnyMapper) -> list[tuple[str, sa.Column[t.Any]]]:
    return [
        (attr.key, attr.columns[0]) for attr in mapper.column_attrs if isinstance(attr.columns[0], sa.Column)
    ]


def _called(mapper: AnyMapper, name: str) -> list[tuple[str, sa.Column[t.Any]]]:
    """Columns of that name that refer to nothing."""
    return [
        (key, column) for key, column in _columns(mapper) if column.name == name and not column.foreign_keys
    ]


def _referring(mapper: AnyMapper, target: sa.Column[t.Any]) -> list[tuple[str, sa.Column[t.Any]]]:
    """Columns that refer to the key of a tenant."""
    found = []
    for key, column in _columns(mapper):
        try:
            if any(each.column is target for each in column.foreign_keys):
                found.append((key, column))
        except sa.exc.SQLAlchemyError:  # to a table that no module has made
            continue
    return found


def _parents(mapper: AnyMapper) -> t.Iterator[tuple[str, AnyMapper, bool]]:
    """Yield (step, class, whether it must be there) of all that a row refers to, by relationship or by key."""
    related: set[t.Any] = set()
    for relation in mapper.relationships:
        if relation.direction is not orm.RelationshipDirection.MANYTOONE or relation.uselist:
            continue
        related |= set(relation.local_columns)
        if relation.mapper is not mapper and relation.lazy not in ("dynamic", "write_only"):
            must = all(not column.nullable for column in relation.local_columns)
            yield relation.key, relation.mapper, must
    for key, column in _columns(mapper):
        if not column.foreign_keys or column in related:
            continue
        try:
            link = link_of(mapper, f"{key}{SIGN}")
        except PathError:
            continue
        if link is not None and link.mapper is not mapper:
            yield key, link.mapper, not column.nullable
