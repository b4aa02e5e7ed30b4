"""A channel bound to its model: what capture and the other rooms ask of it."""

from __future__ import annotations

import dataclasses
import typing as t
from types import MappingProxyType

import marshmallow as ma

from ..catalog import Channel, Kind
from .changes import ChangeDumper
from .columns import Doubt
from .emitted import Given
from .host_code import Quiet
from .paths import AnyMapper, columns_of
from .plain import Plain
from .serializers import (
    OwnerReader,
    column_renderer,
    each_in,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


CHANGES = "changes"
"""The include that every channel has: what an update changed, column to `{from, to}`."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundInclude:
    """One include of a channel, ready to be dumped."""

    name: str
    path: tuple[str, ...]
    relationships: tuple[str, ...]
    """Leading part of the path that is relationships, for loading in bulk."""
    many: bool
    """Whether `dump` returns a list."""
    dump: Callable[[t.Any], t.Any]
    """Row to the value that stands under `name` in `data`."""
    schema: ma.Schema | None
    """`None`: see `plain`, or a value."""
    plain: Plain | None
    """How rows are shown that no schema shows; `None` without rows."""
    read_paths: tuple[tuple[str, ...], ...]
    """`relationships`, and with what the schema reads below them."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundTouch:
    """A change of this channel's rows counts as an update of related rows."""

    channel: str
    """The touched channel."""
    relationship: str
    """Attribute of this channel's rows that leads to the touched row or rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundChannel:
    """One channel bound to its model."""

    channel: Channel
    model: type | None
    schema: ma.Schema | None
    """The channel's schema, created once; `None`: see `plain`."""
    plain: Plain | None
    """Makes `data` of rows without a schema; `None` without a model."""
    dump: Callable[..., dict[str, t.Any]]
    """`dump(row, event=None)`: `data` as a new dict, by the event's schema, the channel's, or the columns."""
    quiet: Mapping[str, Quiet]
    """Event type to the check for rows whose `dump` runs no code of the host's; empty without a model."""
    schemas: Mapping[str, ma.Schema]
    """Event type to the schema that `dump` uses for it; events without one are missing."""
    changes: Mapping[str, ChangeDumper]
    """Event type to what makes its include `changes`; empty without a model."""
    given: Mapping[str, Given]
    """Event type to what makes `data` of emitted data; empty without model and schema: then anything is accepted."""
    owner_path: tuple[str, ...] | None
    """Steps (see `owner_steps`) from a row to its owner's key; empty: all rows have one owner; `None`: no owner."""
    owner: Callable[[t.Any], str | None]
    """Row to its owner's key; `None` where the path ends early or the channel names no owner."""
    columns: frozenset[str]
    """Attribute keys of all columns, without computed ones (`column_property`)."""
    shown: frozenset[str]
    """Columns that are read where no schema makes `data`."""
    watch: frozenset[str]
    """Columns whose old value the conditions need."""
    conditions: frozenset[str]
    """Columns whose value decides what the events of a new row are: of conditions, not of what an update ignores."""
    includes: Mapping[str, BoundInclude]
    relationships: tuple[str, ...]
    """Relationships of the model that the schema reads, to be loaded in bulk."""
    read_paths: tuple[tuple[str, ...], ...]
    """The same with what nested schemas read below them, shortest first: `("lines",), ("lines", "product")`."""
    touches: tuple[BoundTouch, ...]
    kinds: frozenset[Kind]
    """What can happen to a row and matters to an event of this channel or of one that it touches."""
    doubts: tuple[Doubt, ...]
    """Columns of rows that are sent without a schema which JSON cannot represent, or possibly cannot."""
    needed: frozenset[str]
    """Relationships that owner, data, includes and touches read: to be loaded before a row is deleted."""

    @classmethod
    def on_the_way(cls, mapper: AnyMapper) -> BoundChannel:
        """Return a substitute for a class without a channel that is on the path of other rows to their owners."""
        name = f"{mapper.class_.__module__}:{mapper.class_.__qualname__}"
        nothing: Mapping[str, t.Any] = MappingProxyType({})
        channel = Channel(
            name=name,
            title=name,
            label=name,
            description="",
            model=name,
            schema=None,
            fields=None,
            exclude=(),
            public=(),
            data=None,
            owner=None,
            sole_owner=None,
            events=nothing,
            includes=nothing,
            touches=(),
            exclusive=None,
            format="channel",
            formats=(),
            retry=None,
        )
        return cls(
            channel=channel,
            model=mapper.class_,
            schema=None,
            plain=None,
            dump=column_renderer(mapper),
            quiet=nothing,
            schemas=nothing,
            changes=nothing,
            given=nothing,
            owner_path=None,
            owner=OwnerReader(None),
            columns=columns_of(mapper),
            shown=columns_of(mapper),
            watch=frozenset(),
            conditions=frozenset(),
            includes=nothing,
            relationships=(),
            read_paths=(),
            touches=(),
            kinds=frozenset(),
            doubts=(),
            needed=frozenset(),
        )

    def touched(self, row: t.Any, bound: Mapping[str, BoundChannel]) -> Iterator[tuple[BoundChannel, t.Any]]:
        """Yield (channel, row) of everything that a change of `row` updates; a row may come more than once.

        Reads relationships, which may load them.

        :param bound: all channels of the catalogue by name.
        """
        for touch in self.touches:
            target = bound[touch.channel]
            for other in each_in(getattr(row, touch.relationship)):
                if target.model is not None and isinstance(other, target.model):
                    yield target, other
