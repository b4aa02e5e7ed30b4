"""What an update changed, in the language of the schema that makes `data`: the include `changes`.

The law of this room: a receiver learns from `changes` nothing that `data` would not have told it, then or now. The new
value is the one that `data` has; the old one is made by the same field from the row as it was. A column that no field
stands for is not there. A change that cannot be shown is named without values: `"place": {}`.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import typing as t

import marshmallow as ma
from marshmallow import fields as mf
from sqlalchemy import orm

from ..catalog import same
from .paths import AnyMapper, columns_of, static_attribute
from .schema_keys import all_names_in, attribute_of, code_behind, is_hooked, key_of
from .serializers import jsonable

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .columns import Fit
    from .serializers import Renderer

__all__ = ["ChangeDumper", "ColumnChanges", "MethodChanges", "SchemaChanges"]

Pair = dict[str, t.Any]
"""`{"from": ..., "to": ...}`, or nothing where it cannot be shown."""


class ChangeDumper(t.Protocol):
    """Says what an update changed."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns whose change it would show."""

    def __call__(self, row: t.Any, olds: Mapping[str, t.Any], data: Mapping[str, t.Any]) -> dict[str, Pair]:
        """Return what changed, by the key that it has in `data`.

        :param olds: columns that changed, with the value that they had.
        :param data: what was dumped of the row as it is now.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnChanges:
    """Of a channel without a schema."""

    shown: frozenset[str]
    """Columns that `data` has."""
    named: frozenset[str]
    """Columns whose values JSON cannot hold."""
    fits: Mapping[str, Fit]
    """Of columns that `data` has, which values it shows."""

    @property
    def columns(self) -> frozenset[str]:
        """All of these."""
        return self.shown | self.named

    def __call__(self, row: t.Any, olds: Mapping[str, t.Any], data: Mapping[str, t.Any]) -> dict[str, Pair]:
        """Return old and new value of each column, as `data` has them."""
        found: dict[str, Pair] = {}
        for name, old in olds.items():
            fit = self.fits.get(name)
            if name in data and (old is None or fit is None or fit(old)):
                before = jsonable(old)
                found[name] = {} if same(before, data[name]) else {"from": before, "to": data[name]}
            elif name in self.columns:
                found[name] = {}
        return found


class _Link(enum.Enum):
    """How a field of a schema has to do with a column."""

    IS = enum.auto()
    """It is the column, a synonym of it, or the composite that it is a part of."""
    LEADS = enum.auto()
    """It goes over the relationship that the column is the key of. Where that led before is not known."""
    READS = enum.auto()
    """It reads the column: a property, a hybrid, a method, a part of a JSON value."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """A field of a schema that stands for columns."""

    key: str
    """In `data`."""
    name: str
    field: mf.Field[t.Any]
    columns: frozenset[str]
    link: _Link


class SchemaChanges:
    """Of an event with a schema."""

    def __init__(self, schema: ma.Schema, mapper: AnyMapper) -> None:
        self._schema = schema
        self._is_hooked = is_hooked(schema)
        self._fields = tuple(_fields(schema, mapper))
        # What hooks make of a row may depend on any of its columns.
        names = columns_of(mapper) if self._is_hooked else ()
        self.columns: frozenset[str] = frozenset(names).union(*(each.columns for each in self._fields))

    def __call__(self, row: t.Any, olds: Mapping[str, t.Any], data: Mapping[str, t.Any]) -> dict[str, Pair]:
        """Return what changed, by keys of `data`; the old values are dumped from a copy of the row as it was."""
        concerned = [
            each
            for each in self._fields
            if each.key in data and not each.columns.isdisjoint(olds) and each.link is not _Link.LEADS
        ]
        found: dict[str, Pair] = {
            each.key: {}
            for each in self._fields
            if each.link is _Link.LEADS and each.key in data and not each.columns.isdisjoint(olds)
        }
        if concerned or (olds and self._is_hooked):
            links = {each.key: each.link for each in concerned}
            if not self._is_hooked:
                known = self._each(_as_it_was(row, olds), concerned)
            elif (whole := self._whole(row, olds, concerned)) is not None:
                known = whole
            else:
                known = {}
                found |= _roughly(self._schema.dump, row, olds, data)
            for key in dict.fromkeys((*known, *links)):
                if key in found or key not in data:
                    continue
                if key in known and not same(known[key], data[key]):
                    found[key] = {"from": known[key], "to": data[key]}
                elif key not in known or links.get(key) is _Link.IS:
                    found[key] = {}
        return found

    def _each(self, before: t.Any, fields: t.Iterable[_Shown]) -> dict[str, t.Any]:
        """Dump the fields that are asked for, and no others."""
        found = {}
        for each in fields:
            try:
                value = each.field.serialize(each.name, before, accessor=self._schema.get_attribute)
            except Exception:  # noqa: S112  # the host's code; it may read what is not known of the row as it was
                continue
            if value is not ma.missing:
                found[each.key] = value
        return found

    def _whole(
        self, row: t.Any, olds: Mapping[str, t.Any], fields: t.Iterable[_Shown]
    ) -> dict[str, t.Any] | None:
        """Dump all: a hook may hide, mask or rename what fields make, and that holds for old values too."""
        before = _as_it_was(row, olds)
        try:
            found = dict(self._schema.dump(before, many=False))
        except Exception:  # the host's code; what it makes of the row as it was is not known then
            return None
        # Hooks often leave out what is null: then all that is known is that it was null.
        nulls = self._each(before, [each for each in fields if each.key not in found])
        return found | {key: None for key, value in nulls.items() if value is None}


class MethodChanges:
    """Of an event whose `data` a method of the model returns: it is called for the row as it was, too."""

    def __init__(self, render: Renderer, mapper: AnyMapper) -> None:
        self._render = render
        self.columns: frozenset[str] = columns_of(mapper)

    def __call__(self, row: t.Any, olds: Mapping[str, t.Any], data: Mapping[str, t.Any]) -> dict[str, Pair]:
        """Return what changed, by keys of `data`."""
        try:
            known = self._render(_as_it_was(row, olds)) if olds else {}
        except Exception:  # the host's code; it may read what is not known of the row as it was
            rough = _roughly(self._render, row, olds, data)
            return {**rough, **{name: {} for name in olds if name in data}}
        found: dict[str, Pair] = {
            key: {"from": old, "to": data[key]}
            for key, old in known.items()
            if key in data and not same(old, data[key])
        }
        return found | {name: {} for name in olds if name in data and name not in found}


def _roughly(
    dump: t.Callable[[t.Any], t.Any], row: t.Any, olds: Mapping[str, t.Any], data: Mapping[str, t.Any]
) -> dict[str, Pair]:
    """Name keys of `data` that had another value, where not all that is read is known of the row as it was.

    The rows it referred to may have changed too, so only the fact of a change can be shown.
    """
    try:
        near = dump(_as_it_was(row, olds, with_reached=True))
    except Exception:  # the host's code
        return {}
    return {key: {} for key, value in near.items() if key in data and not same(value, data[key])}


def _fields(schema: ma.Schema, mapper: AnyMapper) -> Iterator[_Shown]:
    """Yield the fields that stand for a column of the row."""
    known = columns_of(mapper)
    for name, field in schema.dump_fields.items():
        columns, link = _columns(schema, name, field, mapper)
        if columns & known:
            yield _Shown(key_of(name, field), name, field, columns & known, link)


def _columns(
    schema: ma.Schema, name: str, field: mf.Field[t.Any], mapper: AnyMapper
) -> tuple[frozenset[str], _Link]:
    if isinstance(field, mf.Method | mf.Function):
        return _read_by(code_behind(schema, field), mapper, type(schema)), _Link.READS
    if not getattr(field, "_CHECK_ATTRIBUTE", True):
        return frozenset(), _Link.READS
    head, _, rest = attribute_of(name, field).partition(".")
    columns, link = _columns_of(head, mapper)
    return columns, _Link.READS if rest and link is _Link.IS else link


def _columns_of(name: str, mapper: AnyMapper) -> tuple[frozenset[str], _Link]:
    """Return the columns that an attribute of a row has to do with."""
    while name in mapper.synonyms:
        name = mapper.synonyms[name].name
    if name in mapper.column_attrs:
        return frozenset({name}), _Link.IS
    if name in mapper.composites:
        return frozenset(prop.key for prop in mapper.composites[name].props), _Link.IS
    if name in mapper.relationships:
        return _keys_of(mapper.relationships[name]), _Link.LEADS
    found = static_attribute(mapper, name)
    found = getattr(found, "fget", None) or getattr(found, "func", None)
    return _read_by(found, mapper), _Link.READS


def _read_by(function: object, mapper: AnyMapper, *classes: type) -> frozenset[str]:
    """Return the columns that code may read, directly or by what it calls."""
    found: set[str] = set()
    for name in all_names_in(function, mapper.class_, *classes):
        if name in mapper.attrs:
            found |= _columns_of(name, mapper)[0]
    return frozenset(found)


def _keys_of(relationship: orm.RelationshipProperty[t.Any]) -> frozenset[str]:
    if relationship.direction is not orm.RelationshipDirection.MANYTOONE:
        return frozenset()
    columns = relationship.local_columns
    return frozenset(attr.key for attr in relationship.parent.column_attrs if columns & set(attr.columns))


def _as_it_was(row: t.Any, olds: Mapping[str, t.Any], *, with_reached: bool = False) -> t.Any:
    """Return a copy of a row as it was before some of its columns changed.

    It is detached: what is not known of it raises when it is read, instead of telling how it is now.

    :param with_reached: with the rows that its foreign keys led to: read from the database unless they are loaded.
    """
    state = row._sa_instance_state
    mapper = state.mapper
    before = state.manager.new_instance()
    before._sa_instance_state.key = state.key
    left_out = _depending(mapper, olds.keys())
    held = before.__dict__
    for name, value in row.__dict__.items():
        if name in mapper.column_attrs:
            held[name] = _copied(value)
        elif name in mapper.attrs or not hasattr(static_attribute(mapper, name), "__get__"):
            if name not in left_out:  # what a property keeps is how it is now, too
                held[name] = value
    held.update(olds)
    if with_reached:
        held.update(_reached(state, held, left_out))
    return before


def _reached(state: t.Any, held: Mapping[str, t.Any], names: Collection[str]) -> Iterator[tuple[str, t.Any]]:
    """Yield the rows that the held columns lead to, by relationship."""
    for relation in state.mapper.relationships:
        target = relation.mapper
        if relation.key not in names or relation.direction is not orm.RelationshipDirection.MANYTOONE:
            continue
        by_column = {
            remote: held.get(state.mapper.get_property_by_column(local).key)
            for local, remote in relation.local_remote_pairs
        }
        if by_column.keys() == set(target.primary_key) and state.session is not None:
            key = tuple(by_column[column] for column in target.primary_key)
            yield relation.key, None if None in key else state.session.get(target.class_, key)


def _depending(mapper: AnyMapper, columns: Collection[str]) -> set[str]:
    """Return what of a row may have been something else while these columns were."""
    left_out = {"_sa_instance_state", *mapper.composites.keys()}
    left_out.update(each.key for each in mapper.relationships if not _keys_of(each).isdisjoint(columns))
    return left_out


def _copied(value: t.Any) -> t.Any:
    """Return what the host's code may change in place without changing the row."""
    for kind in (dict, list, set):
        if isinstance(value, kind):
            plain = kind(value)
            try:
                return copy.deepcopy(plain)
            except Exception:  # a lock, a generator: the host may hold what it likes
                return plain
    return value
