"""Dotted paths over mapped classes: which relationships they cross and where they end."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing as t

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.associationproxy import AssociationProxy

from ..catalog import did_you_mean, suggestion

AnyMapper: t.TypeAlias = orm.Mapper[t.Any]


class PathError(Exception):
    """A path that cannot be followed; holds what is wrong and what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy


class Unreadable(PathError):
    """A relationship that is a query: it cannot be loaded for many rows, nor kept of one that is deleted."""


def readable(relationship: orm.RelationshipProperty[t.Any]) -> None:
    """Check that a relationship can be loaded.

    :raises Unreadable: it is `dynamic` or `write_only`.
    """
    if relationship.lazy in ("dynamic", "write_only"):
        name = f"{relationship.parent.class_.__name__}.{relationship.key}"
        raise Unreadable(
            f'{name} is lazy="{relationship.lazy}": a query, which cannot be read before its row is deleted.',
            "Map it a second time with relationship(..., viewonly=True), and name that.",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedPath:
    """A path that was followed to its end."""

    relationships: tuple[str, ...]
    """The leading attributes that are relationships: what to load in bulk."""
    target: AnyMapper | None
    """The class at the end; `None`: a column or another value."""
    many: bool
    """Whether the path leads to several."""
    path: tuple[str, ...] = ()
    """The path itself, association proxies replaced by what they stand for."""


def follow(mapper: AnyMapper, path: t.Sequence[str]) -> ResolvedPath:
    """Return where a path leads.

    A property or hybrid may return anything, so what comes after one is believed.

    :raises PathError: at an attribute that does not exist, where something follows a column, and at a relationship that
        is a query.
    """
    here: AnyMapper | None = mapper
    crossed: list[str] = []
    many = False
    path = _plain(mapper, path)
    for at, name in enumerate(path):
        if here is None:
            break
        if name in here.relationships:
            relationship = here.relationships[name]
            readable(relationship)
            many = many or bool(relationship.uselist)
            crossed.append(name)
            here = relationship.mapper
            continue
        if name in here.column_attrs and at + 1 < len(path):
            message = f'"{name}" is a column of {here.class_.__name__}, nothing can follow it.'
            raise PathError(message, _relationship_for(here, name, path[at + 1]))
        if not has(here, name):
            raise PathError(
                f'{here.class_.__name__} has no attribute "{name}".', did_you_mean(name, known(here))
            )
        if not _is_value(here, name):
            message = f'"{name}" belongs to the class {here.class_.__name__}, its rows hold nothing there.'
            raise PathError(message, "Name a column, a relationship or a property.")
        here = None
    return ResolvedPath(tuple(crossed), here, many, tuple(path))


def _plain(mapper: AnyMapper, path: t.Sequence[str]) -> list[str]:
    """Return a path with each association proxy replaced by the relationship and the attribute that it stands for."""
    steps, here, at = list(path), mapper, 0
    while at < len(steps):
        found: t.Any = here.all_orm_descriptors.get(steps[at])
        if isinstance(found, AssociationProxy) and found.value_attr is not None:
            steps[at : at + 1] = [found.target_collection, found.value_attr]
        elif steps[at] in here.relationships:
            here, at = here.relationships[steps[at]].mapper, at + 1
        else:
            break
    return steps


def known(mapper: AnyMapper) -> list[str]:
    """Return the attributes of a mapped class that a catalogue can name, mapped ones first."""
    mapped = [str(key) for key in mapper.all_orm_descriptors.keys()]
    plain = [name for name in dir(mapper.class_) if isinstance(static_attribute(mapper, name), property)]
    return [name for name in dict.fromkeys([*mapped, *plain]) if not name.startswith("_")]


def has(mapper: AnyMapper, name: str) -> bool:
    """Tell whether rows of a mapped class have an attribute."""
    # What is mapped is looked up at once: `inspect.getattr_static` takes long, and each field of a schema is asked for.
    return name in mapper.all_orm_descriptors or static_attribute(mapper, name) is not None


def _is_value(mapper: AnyMapper, name: str) -> bool:
    if name in mapper.all_orm_descriptors:
        return True
    machinery = (types.FunctionType, classmethod, staticmethod, sa.MetaData, orm.registry)
    return not (
        name.startswith("__") or name == "query" or isinstance(static_attribute(mapper, name), machinery)
    )


def static_attribute(mapper: AnyMapper, name: str) -> object:
    """Return what a class has under a name, without running any descriptor; `None` for nothing."""
    # Asking the class itself would run descriptors: Flask-SQLAlchemy's `query` wants an application context.
    return inspect.getattr_static(mapper.class_, name, None)


def columns_of(mapper: AnyMapper) -> frozenset[str]:
    """Return the attributes of all columns; not those that a query computes (`column_property`)."""
    return frozenset(attr.key for attr in mapper.column_attrs if isinstance(attr.columns[0], sa.Column))


def column_of(mapper: AnyMapper, relationship: str) -> str | None:
    """Return the attribute of the foreign key behind a relationship, if it is a single column."""
    columns = mapper.relationships[relationship].local_columns
    keys = [attr.key for attr in mapper.column_attrs if columns & set(attr.columns)]
    return keys[0] if len(keys) == 1 else None


def _relationship_for(mapper: AnyMapper, column: str, then: str) -> str:
    for relationship in mapper.relationships:
        if column_of(mapper, relationship.key) == column:
            return suggestion(f"{relationship.key}.{then}")
    return f'Stop at "{column}".'
