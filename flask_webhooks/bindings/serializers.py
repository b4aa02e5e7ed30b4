"""Rows to `data`: by a marshmallow schema, or plainly by their columns."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import operator
import typing as t
from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import timedelta
from decimal import Decimal

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.associationproxy import _AssociationDict, _AssociationList, _AssociationSet

from .. import payload
from ..errors import PayloadError
from .columns import fit_of, is_binary, is_unwritable
from .owner_steps import SIGN, KeyLink, link_of, linked
from .paths import AnyMapper, PathError, ResolvedPath, Unreadable, follow, has
from .private import private_columns
from .schema_keys import attribute_of

if t.TYPE_CHECKING:
    from ..catalog import EventType

logger = logging.getLogger("flask_webhooks.capture")
Check = t.Callable[[t.Any], bool]


class Renderer(t.Protocol):
    """One row to JSON values."""

    def __call__(self, row: t.Any) -> dict[str, t.Any]:
        """Return a new dict."""


@dataclasses.dataclass(frozen=True, slots=True)
class SchemaRenderer:
    """What the app's own GET returns."""

    schema: ma.Schema

    def __call__(self, row: t.Any) -> dict[str, t.Any]:
        return dict(self.schema.dump(row, many=False))


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnRenderer:
    """The column attributes of a row under their own names; bytes and what JSON cannot hold are left out.

    A value that the column's type cannot return is left out as well: the database has it, and by what is promised
    of the column it cannot be there.
    """

    mapper: AnyMapper
    keys: tuple[str, ...]
    _odd: dict[tuple[type, ...], tuple[tuple[str, Check | None], ...]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By the classes of all values: the keys whose values need a look."""
    _read: t.Callable[[t.Any], tuple[t.Any, ...]] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Of one name alone it gives no tuple.
        many = operator.attrgetter(*self.keys) if len(self.keys) > 1 else None
        read = many or (lambda row: tuple(getattr(row, key) for key in self.keys))
        object.__setattr__(self, "_read", read)

    def __call__(self, row: t.Any) -> dict[str, t.Any]:
        values = self._read(row)
        kinds = tuple(map(type, values))
        found = dict(zip(self.keys, values, strict=True))
        odd = self._odd.get(kinds)
        for key, check in self._look(kinds) if odd is None else odd:
            value = found[key]
            if check is None or check(value):
                found[key] = jsonable(value)
            else:
                del found[key]
                _tell(self.mapper, key)
        return found

    def _look(self, kinds: tuple[type, ...]) -> tuple[tuple[str, Check | None], ...]:
        found: list[tuple[str, Check | None]] = []
        for key, kind in zip(self.keys, kinds, strict=True):
            fit = None if kind is type(None) else fit_of(self.mapper.column_attrs[key].columns[0])
            check: Check | None = None
            if fit is not None and not fit.by_class(kind):
                check = _never
            elif fit is not None and fit.words is not None:
                check = fit.words.__contains__
            if check is not None or issubclass(kind, timedelta | float | Decimal):
                found.append((key, check))
        if len(self._odd) < _MOST_KNOWN:
            self._odd[kinds] = tuple(found)
        return tuple(found)


def _never(value: t.Any) -> bool:
    return False


_MOST_KNOWN = 256
"""A host may make classes of its own without end."""


@functools.lru_cache(maxsize=1024)
def _tell(mapper: AnyMapper, key: str) -> None:
    """Warn once of a column."""
    logger.warning(
        "value.left_out: %s.%s has a value that its type %r does not give back. Mend the row.",
        mapper.class_.__name__,
        key,
        mapper.column_attrs[key].columns[0].type,
    )


def jsonable(value: t.Any) -> t.Any:
    """Return the value of a column in a form for the JSON encoder, which handles dates, UUIDs, enums and others itself.

    A NaN in the database is no mistake of the current commit: as a float it becomes null, as in JavaScript.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return value if value.is_finite() else str(value)
    return value


def column_renderer(mapper: AnyMapper) -> ColumnRenderer:
    """Return the plain renderer of a mapped class."""
    kinds = {attr.key: attr.columns[0].type for attr in mapper.column_attrs}
    return ColumnRenderer(
        mapper,
        tuple(key for key, kind in kinds.items() if not (is_binary(kind) or is_unwritable(kind))),
    )


def render_anything(row: t.Any) -> dict[str, t.Any]:
    """Return `data` for an event whose channel has neither model nor schema.

    :raises PayloadError: if it is neither a mapping nor a row of a mapped class.
    """
    if isinstance(row, Mapping):
        return dict(row)
    mapper = sa.inspect(type(row), raiseerr=False)
    if isinstance(mapper, orm.Mapper):
        return column_renderer(mapper)(row)
    raise PayloadError(
        f"{type(row).__name__} cannot be made into data: the channel has no schema. Pass a dict, or add a schema."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Dumper:
    """`dump` of a channel: its schema, or the event's own."""

    default: Renderer
    by_event: Mapping[str, Renderer]
    """Event type to the schema it has of its own."""

    def __call__(self, row: t.Any, event: EventType | None = None) -> dict[str, t.Any]:
        """Return `data` of a row, as a new dict whose values the JSON encoder accepts."""
        render = self.by_event.get(event.name, self.default) if event is not None else self.default
        return render(row)


class RowRenderer:
    """Serialises rows that are found only at run time, such as those that a property returns.

    Where no channel says how, their columns are sent, except those that look private.

    :param chosen: mapped class to what a channel has chosen to show its rows by.
    """

    def __init__(self, chosen: t.Callable[[AnyMapper], Renderer | None]) -> None:
        self._chosen = chosen
        self._known: dict[AnyMapper, Renderer] = {}

    def __call__(self, row: t.Any) -> dict[str, t.Any]:
        mapper = row._sa_instance_state.mapper
        if mapper not in self._known:
            self._known[mapper] = self._renderer(mapper)
        return self._known[mapper](row)

    def _renderer(self, mapper: AnyMapper) -> Renderer:
        chosen = self._chosen(mapper)
        if chosen is not None:
            return chosen
        # They are found only now, when refusing them would fail the app's commit.
        keys = column_renderer(mapper).keys
        private = private_columns(mapper, keys)
        return ColumnRenderer(mapper, tuple(key for key in keys if key not in private))


@dataclasses.dataclass(frozen=True, slots=True)
class IncludeDumper:
    """`dump` of an include: follows the path and renders what is there."""

    path: tuple[str, ...]
    render: Renderer | None
    """`None`: the value as it is."""
    render_row: Renderer | None = None
    """Of rows inside such a value."""

    def __call__(self, row: t.Any) -> t.Any:
        """Return a dict, a value, `None` where the path ends early, or a list where it leads to several."""
        found = _reach(row, self.path)
        if isinstance(found, list):
            return [self._rendered(each) for each in found]
        return self._rendered(found)

    def _rendered(self, value: t.Any) -> t.Any:
        if value is None or isinstance(value, str | int | float):
            return value
        return self.render(value) if self.render is not None else self._value(value)

    def _value(self, value: t.Any) -> t.Any:
        """Return a value of the host's with its rows dumped, at whatever depth."""
        value = listed(value)
        if isinstance(value, list):
            return [self._value(each) for each in value]
        if isinstance(value, Mapping):
            return {key: self._value(each) for key, each in value.items()}
        is_row = self.render_row is not None and hasattr(value, "_sa_instance_state")
        return self.render_row(value) if is_row and self.render_row is not None else value


def _reach(value: t.Any, path: tuple[str, ...]) -> t.Any:
    for at, name in enumerate(path):
        if value is None:
            return None
        if isinstance(value, list):
            found = [_reach(each, path[at:]) for each in value]
            return [leaf for part in found for leaf in (part if isinstance(part, list) else [part])]
        value = listed(getattr(value, name))
    return value


_SEVERAL = (
    tuple,
    orm.Query,
    sa.Result,
    sa.ScalarResult,
    Iterator,
    KeysView,
    ValuesView,
    ItemsView,
    deque,
    _AssociationList,
)
_SETS = (set, frozenset, _AssociationSet)


def listed(value: t.Any) -> t.Any:
    """Return what holds several as a list, and anything else as it is: a collection of a relationship, a generator."""
    # A collection of a relationship may be a set, a query, or a dict keyed by an attribute.
    if isinstance(value, dict) and hasattr(value, "_sa_adapter"):
        return list(value.values())
    if isinstance(value, _AssociationDict):
        return dict(value)
    if isinstance(value, _SETS):
        return _ordered(value)
    return list(value) if isinstance(value, _SEVERAL) else value


def each_in(value: t.Any) -> list[t.Any]:
    """Return what an attribute leads to, one or several, as a list; None is a member too."""
    found = listed(value)
    return found if isinstance(found, list) else [found]


def _ordered(values: t.Any) -> list[t.Any]:
    """Return a set as a list, in an order that another process would choose too if that can be."""
    try:
        return payload.ordered(frozenset(values))
    except (TypeError, ValueError, AttributeError):
        pass
    try:
        return sorted(values, key=lambda row: row._sa_instance_state.identity)
    except (TypeError, AttributeError):
        return list(values)


@dataclasses.dataclass(frozen=True, slots=True)
class OwnerReader:
    """`owner` of a channel."""

    path: tuple[str, ...] | None
    """By steps (see `links`)."""
    sole: str | None = None
    """Of all rows."""

    def __call__(self, row: t.Any) -> str | None:
        """Return the owner's key; `None` if the path ends early or in nothing. A dict is read by its keys."""
        if not self.path:
            return self.sole
        for name in self.path:
            row = _ahead(row, name)
            if row is None:
                return None
        return str(row) or None


def _ahead(row: t.Any, name: str) -> t.Any:
    if isinstance(row, Mapping):
        return row.get(name)
    if not name.endswith(SIGN):
        return getattr(row, name, None)
    return linked(row, t.cast("KeyLink", link_of(row._sa_instance_state.mapper, name)))


def schema_paths(schema: ma.Schema, mapper: AnyMapper, depth: int = 5) -> list[tuple[str, ...]]:
    """Return the chains of relationships that dumping a row by a schema will cross, shortest first.

    At most five deep, which also ends schemas that nest each other. Properties and functions are not seen.

    :raises Unreadable: one of them is a query.
    """
    found: dict[tuple[str, ...], None] = {}
    for name, field in schema.dump_fields.items():
        path = attribute_of(name, field).split(".")
        if not has(mapper, path[0]):
            continue
        crossed = _crossed(mapper, path)
        for end in range(1, len(crossed.relationships) + 1):
            found[crossed.relationships[:end]] = None
        nested = nested_schema(field)
        if nested is not None and crossed.target is not None and depth:
            for deeper in schema_paths(nested, crossed.target, depth - 1):
                found[crossed.relationships + deeper] = None
    return sorted(found, key=len)


def _crossed(mapper: AnyMapper, path: list[str]) -> ResolvedPath:
    try:
        return follow(mapper, path)
    except Unreadable:
        raise
    except PathError:  # marshmallow skips what is not there
        return ResolvedPath((), None, False)


def nested_schema(field: ma.fields.Field[t.Any]) -> ma.Schema | None:
    """Return the schema of a nested field, also inside a list."""
    if isinstance(field, ma.fields.List):
        return nested_schema(field.inner)
    return field.schema if isinstance(field, ma.fields.Nested) else None
