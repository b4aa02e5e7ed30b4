"""What is captured of one mapped class, worked out once: which columns, which paths, and by what a row may move."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from ..bindings import BoundChannel
from ..bindings.owner_steps import SIGN, KeyLink, link_of
from ..bindings.stored_values import Form, Forms
from .loading import Path, attributes_of
from .sqlalchemy_internals import head_class

__all__ = ["MapperPlan", "column_of", "owner_steps"]


@dataclass(frozen=True, slots=True)
class MapperPlan:
    """What is captured of one mapped class, by one app."""

    bounds: tuple[BoundChannel, ...]
    """Its own channels and those of the classes it inherits from."""
    head: type
    """The class that heads its inheritance: rows of concrete tables are others though they have the same key."""
    keys: tuple[str, ...]
    """Attributes of the primary key."""
    columns: frozenset[str]
    """Columns that some channel sees."""
    attributes: frozenset[str]
    """The same, and what a `column_property` computes: all that must be read before a row is deleted."""
    touched: frozenset[Path]
    """Relationships to what it touches."""
    read: frozenset[Path]
    """Paths that data, includes and owner follow."""
    along: frozenset[Path]
    """Those whose first step leads to what the database deletes along by itself."""
    owners: frozenset[str]
    """Columns that the path to the owner begins with."""
    leading: frozenset[str]
    """Columns by which a path to an owner goes on, and relationships: of its own channels, or of those it is on the
    way of. Where one of them changes, a row may have moved to another owner."""
    deciding: frozenset[str]
    """Columns that say what row it is, whose it is and what it belongs to."""
    automatic: tuple[str, ...]
    """Columns that an UPDATE sets although nothing was assigned to them: `onupdate`, computed, the version counter."""
    is_linked: bool
    """Whether a path to one of its owners goes over a foreign key without a relationship, here or further on."""
    links: tuple[KeyLink, ...]
    """Foreign keys without a relationship by which a path to an owner goes on."""
    forms: t.Mapping[str, Form]
    """What becomes of the values of columns in the database."""
    leading_forms: Forms | None
    """The same of the leading columns alone; None if there are none."""
    opaque: frozenset[str]
    """Columns of which only the row can tell that."""
    references: t.Mapping[str, tuple[str, ...]]
    """Many-to-one relationships, which set their columns only during the flush."""
    followed: t.Mapping[str, tuple[tuple[str, tuple[str, ...], bool], ...]]
    """Those of them that events read, by channel: each with its columns, and whether it leads to what is touched."""

    @classmethod
    def make(
        cls,
        mapper: orm.Mapper[t.Any],
        bounds: tuple[BoundChannel, ...],
        leading: frozenset[str],
        forms: t.Mapping[str, Form],
    ) -> MapperPlan:
        """Work out the plan of a class."""
        columns = frozenset().union(*(bound.columns for bound in bounds))
        keys = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
        paths = [bound.owner_path for bound in bounds if bound.owner_path]
        # Of a class that only leads to owners nothing is shown, so only what leads has to be read.
        is_on_the_way = not any(bound.channel.events or bound.touches for bound in bounds)
        owners = frozenset(column_of(mapper, path[0].removesuffix(SIGN)) for path in paths) & columns
        references = _references(mapper)
        # Loading them into the host's objects would make SQLAlchemy delete row by row what the database deletes
        # itself.
        passive = {each.key for each in mapper.relationships if each.passive_deletes}
        touched = {(touch.relationship,) for bound in bounds for touch in bound.touches}
        read = {path for bound in bounds for path in _read_by(bound)}
        return cls(
            bounds=bounds,
            head=head_class(mapper),
            keys=keys,
            columns=columns,
            attributes=leading & columns if is_on_the_way else columns.union(mapper.column_attrs.keys()),
            touched=frozenset(path for path in touched if path[0] not in passive),
            read=frozenset(path for path in read if path and path[0] not in passive),
            along=frozenset(path for path in read if path and path[0] in passive),
            owners=owners,
            leading=leading,
            deciding=owners.union(keys, *references.values()),
            automatic=tuple(attr.key for attr in mapper.column_attrs if _is_automatic(mapper, attr)),
            is_linked=any(name.endswith(SIGN) for path in paths for name in path),
            links=tuple(
                t.cast("KeyLink", link_of(mapper, name)) for name in sorted(leading) if name.endswith(SIGN)
            ),
            forms=forms,
            leading_forms=Forms(first)
            if (first := {name: forms[name] for name in leading & forms.keys()})
            else None,
            opaque=frozenset(name for name, form in forms.items() if form.is_opaque),
            references=references,
            followed={bound.channel.name: _followed(bound, references) for bound in bounds},
        )

    def stored(self, name: str, value: t.Any) -> t.Any:
        """Return what the row has where this was assigned; `SERVER_GENERATED` where only the row can tell."""
        form = self.forms.get(name)
        return value if form is None or form.is_opaque else form(value)


def _references(mapper: orm.Mapper[t.Any]) -> dict[str, tuple[str, ...]]:
    return {
        relation.key: names
        for relation in mapper.relationships
        if relation.direction is orm.MANYTOONE
        if (names := attributes_of(mapper, relation.local_columns))
        # A join by an expression names no columns.
        if attributes_of(relation.mapper, relation.remote_side)
    }


def _followed(
    bound: BoundChannel, references: t.Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, tuple[str, ...], bool], ...]:
    touched = {touch.relationship for touch in bound.touches}
    return tuple((name, names, name in touched) for name, names in references.items() if name in bound.needed)


def _read_by(bound: BoundChannel) -> t.Iterator[Path]:
    yield from bound.read_paths
    yield from (include.relationships for include in bound.includes.values())
    yield from ((name,) for name in bound.needed)


def owner_steps(
    mapper: orm.Mapper[t.Any], path: Path
) -> t.Iterator[tuple[orm.Mapper[t.Any], frozenset[str]]]:
    """Yield the classes on the path to an owner, each with what the path goes by there."""
    for name in path:
        column = column_of(mapper, name)
        relation = link_of(mapper, name)
        if relation is None:
            yield mapper, frozenset({column} if column in mapper.column_attrs else ())
            return
        yield mapper, frozenset({name, *attributes_of(mapper, relation.local_columns)})
        mapper = relation.mapper


def column_of(mapper: orm.Mapper[t.Any], name: str) -> str:
    """Follow a synonym to the column that it stands for."""
    while name in mapper.synonyms:
        name = mapper.synonyms[name].name
    return name


def _is_automatic(mapper: orm.Mapper[t.Any], attribute: orm.ColumnProperty[t.Any]) -> bool:
    column = attribute.columns[0]
    if not isinstance(column, sa.Column):
        return False
    # SQLAlchemy raises the counter itself, without anything assigned.
    return column is mapper.version_id_col or not (column.onupdate is None and column.server_onupdate is None)
