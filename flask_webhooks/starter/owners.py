"""Whose data is it? Guessed from foreign keys, and from the names that people give to such columns."""

from __future__ import annotations

import re
import typing as t
from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

__all__ = ["Tenancy", "guess_tenancy"]

AnyMapper = orm.Mapper[t.Any]

_STRONG = (
    "tenant organisation organization org workspace account company business firm team merchant partner shop store "
    "owner"
).split()
_WEAK = ("customer", "client", "project", "user")
"""Often they are somebody inside a tenant, so they count only where nothing else is there."""
_COLUMN = re.compile(rf"({'|'.join((*_STRONG, *_WEAK))})(_(id|key|uuid|code))?")
_FAR = 3
"""Relationships that a path to the owner may cross."""


@dataclass(frozen=True)
class Tenancy:
    """The column that says whose data a row is."""

    column: str
    """Its name, which is the same in every model that has it."""
    tenant: sa.Table | None
    """The table it refers to; None: it refers to none."""
    key: str | None
    """The column of that table."""
    models: int
    """How many models have it."""

    def path(self, mapper: AnyMapper) -> str | None:
        """Return the dotted path from a row to its owner, the shortest there is; None if there is none."""
        if self.tenant is not None and mapper.local_table is self.tenant:
            return next((attr.key for attr in mapper.column_attrs if attr.columns[0].name == self.key), None)
        waiting: list[tuple[tuple[str, ...], AnyMapper]] = [((), mapper)]
        for path, here in waiting:
            own = _attribute(here, self.column)
            if own is not None:
                return ".".join((*path, own))
            if len(path) < _FAR:
                # Only what must be there: an owner that is missing now and then is no owner.
                parents = sorted(_parents(here), key=lambda each: (not each[2], each[0]))
                waiting += [((*path, name), target) for name, target, _ in parents]
        return None


def guess_tenancy(mappers: t.Sequence[AnyMapper]) -> Tenancy | None:
    """Return the likeliest tenancy of an app; None if nothing looks like one."""
    counts: Counter[str] = Counter()
    targets: dict[str, sa.Column[t.Any]] = {}
    for mapper in mappers:
        for column in _columns(mapper):
            referred = [key.column for key in column.foreign_keys]
            if _COLUMN.fullmatch(column.name) and (referred or not column.primary_key):
                counts[column.name] += 1
                if referred:
                    targets.setdefault(column.name, referred[0])
    if not counts:
        return _most_referred(mappers)
    name = max(counts, key=lambda each: (_strength(each), counts[each], each in targets))
    target = targets.get(name)
    return Tenancy(
        name,
        target.table if target is not None else None,
        target.name if target is not None else None,
        counts[name],
    )


def _strength(column: str) -> bool:
    return (found := _COLUMN.fullmatch(column)) is not None and found[1] in _STRONG


def _most_referred(mappers: t.Sequence[AnyMapper]) -> Tenancy | None:
    """The table that more than half of the models refer to, by a column of one name."""
    counts: Counter[tuple[str, sa.Column[t.Any]]] = Counter()
    for mapper in mappers:
        for column in _columns(mapper):
            counts.update((column.name, key.column) for key in column.foreign_keys)
    if not counts:
        return None
    ((name, target), count) = counts.most_common(1)[0]
    if count * 2 <= len(mappers):
        return None
    return Tenancy(name, target.table, target.name, count)


def _columns(mapper: AnyMapper) -> list[sa.Column[t.Any]]:
    return [attr.columns[0] for attr in mapper.column_attrs if isinstance(attr.columns[0], sa.Column)]


def _attribute(mapper: AnyMapper, column: str) -> str | None:
    return next((attr.key for attr in mapper.column_attrs if attr.columns[0].name == column), None)


def _parents(mapper: AnyMapper) -> t.Iterator[tuple[str, AnyMapper, bool]]:
    """Yield (attribute, class, whether it must be there) of every relationship to one other row."""
    for relationship in mapper.relationships:
        if (
            relationship.direction is orm.RelationshipDirection.MANYTOONE
            and relationship.mapper is not mapper
        ):
            must = all(not column.nullable for column in relationship.local_columns)
            yield relationship.key, relationship.mapper, must
