"""One channel bound to its model, and everything that can be wrong on the way."""

from __future__ import annotations

import dataclasses
import typing as t
from types import MappingProxyType

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm

from ..catalog import Catalog, Channel, EventType, Kind
from ..catalog.names import did_you_mean
from ..errors import Problem
from .changes import ChangeDumper, ColumnChanges, MethodChanges, SchemaChanges
from .column_checks import column_problems
from .columns import Doubt, doubts_of, fit_of, is_unwritable, raw_doubts
from .emitted import Given
from .host_code import Quiet
from .imports import Unfound, locate
from .owner_steps import owner_path as steps_to_owner
from .paths import AnyMapper, PathError, ResolvedPath, Unreadable, column_of, columns_of, follow, readable
from .plain import Plain, choice_mistakes, private_mistake
from .schema_keys import keys_of
from .serializers import (
    Dumper,
    IncludeDumper,
    OwnerReader,
    Renderer,
    RowRenderer,
    SchemaRenderer,
    column_renderer,
    each_in,
    render_anything,
    schema_trails,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


CHANGES = "changes"
"""The include that is built in."""


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
    trails: tuple[tuple[str, ...], ...]
    """`relationships`, and with what the schema reads below them."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundTouch:
    """A change of this channel's rows is an update of those."""

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
    """What makes `data` of rows where no schema does; `None` without a model."""
    dump: Callable[..., dict[str, t.Any]]
    """`dump(row, event=None)`: `data` as a new dict, by the event's schema, the channel's, or the columns."""
    quiet: Mapping[str, Quiet]
    """Event type to what says of which rows `dump` runs no code of the host's; empty without a model."""
    schemas: Mapping[str, ma.Schema]
    """Event type to the schema that `dump` takes for it; events without any are missing."""
    changes: Mapping[str, ChangeDumper]
    """Event type to what tells the include `changes` of it; empty without a model."""
    given: Mapping[str, Given]
    """Event type to what makes `data` of emitted data; empty without model and schema, then that is anything."""
    owner_path: tuple[str, ...] | None
    """Steps (see `links`) that lead from a row to its owner's key; none if all rows have one owner; `None`: nobody."""
    owner: Callable[[t.Any], str | None]
    """Row to its owner's key; `None` where the path ends early or the channel names no owner."""
    columns: frozenset[str]
    """Attribute keys of all columns; what a `column_property` computes is none."""
    shown: frozenset[str]
    """Columns that are read where no schema makes `data`."""
    watch: frozenset[str]
    """Columns whose old value the conditions need."""
    conditions: frozenset[str]
    """Columns whose value decides what the events of a new row are: of conditions, not of what an update ignores."""
    includes: Mapping[str, BoundInclude]
    relationships: tuple[str, ...]
    """Relationships of the model that the schema reads, to be loaded in bulk."""
    trails: tuple[tuple[str, ...], ...]
    """The same with what nested schemas read below them, shortest first: `("lines",), ("lines", "product")`."""
    touches: tuple[BoundTouch, ...]
    kinds: frozenset[Kind]
    """What can happen to a row that matters to an event, here or where it touches."""
    doubts: tuple[Doubt, ...]
    """Columns that JSON cannot hold, or perhaps cannot, of rows and of related rows that are sent without a schema."""
    needed: frozenset[str]
    """Relationships that owner, data, includes and touches read: to be loaded before a row is deleted."""

    @classmethod
    def on_the_way(cls, mapper: AnyMapper) -> BoundChannel:
        """Return what stands for a class without a channel whose rows lead others to their owners."""
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
            trails=(),
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


def _quiet(used: Mapping[str, ma.Schema | None], plain: Plain | None) -> dict[str, Quiet]:
    if plain is None:
        return {}
    keys = plain.keys if plain.method is None else None
    made = {each: Quiet.of(each, keys) for each in set(used.values())}
    return {name: made[each] for name, each in used.items()}


def _below(trail: ResolvedPath, schema: ma.Schema | None) -> Iterator[tuple[str, ...]]:
    if schema is None or trail.target is None:
        return
    try:
        yield from (trail.relationships + deeper for deeper in schema_trails(schema, trail.target))
    except Unreadable:  # a query: it is left to the schema
        return


class Binder:
    """Binds the channels of one catalogue and collects what is wrong."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.problems: list[Problem] = []
        self._schemas: dict[str, ma.Schema | None] = {}
        self._render_row = RowRenderer(self._shown_by_any)
        self._mappers = {name: self._mapper(channel) for name, channel in catalog.channels.items()}

    def refuse(self, path: str, message: str, remedy: str = "") -> None:
        """Note a mistake where `path` was written."""
        self.problems.append(Problem(*self.catalog.where(path), path, message, remedy))

    def bind(self, channel: Channel) -> BoundChannel:
        """Return a channel bound as far as that is possible."""
        mapper = self._mappers[channel.name]
        schema = self._schema(channel.schema, f"{channel.path}.schema")
        plain = self._plain(channel, mapper) if mapper is not None else None
        by_event = self._event_schemas(channel)
        trails = self._trails([schema, *by_event.values()], plain, channel)
        columns = columns_of(mapper) if mapper is not None else frozenset()
        owner_path = self._owner_path(channel, mapper)
        if mapper is not None:
            for event in channel.events.values():
                self._check_columns(event, mapper)
        includes = self._includes(channel, mapper)
        touches = tuple(self._touches(channel, mapper))
        used = {event.name: by_event.get(event.name, schema) for event in channel.events.values()}
        self._check_names(channel, plain, used.values())
        return BoundChannel(
            channel=channel,
            model=mapper.class_ if mapper is not None else None,
            schema=schema,
            plain=plain,
            dump=Dumper(
                self._renderer(channel, plain, schema),
                {name: SchemaRenderer(own) for name, own in by_event.items()},
            ),
            quiet=MappingProxyType(_quiet(used, plain)),
            schemas=MappingProxyType({name: each for name, each in used.items() if each is not None}),
            changes=MappingProxyType(_changes(used, plain)),
            given=MappingProxyType(
                {
                    name: Given(each, plain)
                    for name, each in used.items()
                    if each is not None or (plain is not None and plain.method is None)
                }
            ),
            owner_path=owner_path,
            owner=OwnerReader(owner_path, channel.sole_owner),
            columns=columns,
            shown=columns
            if plain is None or not plain.is_chosen
            else columns.intersection(plain.keys or columns),
            watch=frozenset().union(*(event.columns for event in channel.events.values())) & columns,
            conditions=frozenset().union(*(event.when for event in channel.events.values())) & columns,
            includes=MappingProxyType(includes),
            relationships=tuple(dict.fromkeys(trail[0] for trail in trails)),
            trails=trails,
            touches=touches,
            kinds=_kinds(channel),
            doubts=tuple(dict.fromkeys(_doubts(used, plain, includes))),
            needed=frozenset(
                [trail[0] for trail in trails]
                + [name for include in includes.values() for name in include.relationships[:1]]
                + [touch.relationship for touch in touches]
                + [name for name in (owner_path or ())[:1] if mapper and name in mapper.relationships]
            ),
        )

    def _mapper(self, channel: Channel) -> AnyMapper | None:
        if channel.model is None:
            return None
        path = f"{channel.path}.model"
        try:
            mapper = sa.inspect(locate(channel.model), raiseerr=False)
            if isinstance(mapper, orm.Mapper):
                orm.configure_mappers()
                return mapper
        except Unfound as error:
            self.refuse(path, error.message, error.remedy)
            return None
        except sa.exc.SQLAlchemyError as error:
            remedy = "Mend the model, or import every module with models before the extension is initialised."
            self.refuse(path, f"SQLAlchemy cannot configure it: {error}.", remedy)
            return None
        self.refuse(
            path, f'"{channel.model}" is no mapped class.', "Name a class that inherits from db.Model."
        )
        return None

    def _schema(self, name: str | None, path: str) -> ma.Schema | None:
        if name is None:
            return None
        if name not in self._schemas:
            self._schemas[name] = None
            try:
                self._schemas[name] = _instance(locate(name), name)
            except Unfound as error:
                self.refuse(path, error.message, error.remedy)
        return self._schemas[name]

    def _event_schemas(self, channel: Channel) -> dict[str, ma.Schema]:
        found = {}
        for event in channel.events.values():
            if event.schema != channel.schema:
                schema = self._schema(event.schema, f"{event.path}.schema")
                if schema is not None:
                    found[event.name] = schema
        return found

    def _trails(
        self, schemas: list[ma.Schema | None], plain: Plain | None, channel: Channel
    ) -> tuple[tuple[str, ...], ...]:
        if plain is None:
            return ()
        mapper = plain.mapper
        found: dict[tuple[str, ...], None] = {
            (each.key,): None
            for each in mapper.relationships
            if each.key in plain.code and each.lazy not in ("dynamic", "write_only")
        }
        for schema in schemas:
            try:
                found |= dict.fromkeys(schema_trails(schema, mapper) if schema is not None else ())
            except (ma.exceptions.RegistryError, ValueError) as error:
                remedy = "Import the module of the nested schema, or pass the class itself."
                self.refuse(f"{channel.path}.schema", f"a nested schema cannot be found: {error}.", remedy)
            except Unreadable as error:
                self.refuse(f"{channel.path}.schema", error.message, error.remedy)
        return tuple(sorted(found, key=len))

    def _plain(self, channel: Channel, mapper: AnyMapper) -> Plain:
        """What the channel says of its model's rows; names that do not fit are refused."""
        plain = Plain.of(mapper, channel)
        for path, message, remedy in choice_mistakes(plain, channel):
            self.refuse(path, message, remedy)
        return plain

    def _renderer(self, channel: Channel, plain: Plain | None, schema: ma.Schema | None) -> Renderer:
        if schema is not None:
            return SchemaRenderer(schema)
        if plain is None:
            return render_anything
        sends = any(event.schema is None for event in channel.events.values())
        if channel.schema is None and sends:
            self._check_private(plain, channel, channel.path)
        return plain.render

    def _check_private(self, plain: Plain, channel: Channel | None, path: str) -> None:
        mistake = private_mistake(plain, channel)
        if mistake is not None:
            self.refuse(path, *mistake)

    def _owner_path(self, channel: Channel, mapper: AnyMapper | None) -> tuple[str, ...] | None:
        """Return the steps to the owner, as far as they can be followed."""
        if channel.owner is None or mapper is None:
            for event in channel.events.values() if mapper is not None else ():
                if not event.on.isdisjoint((Kind.MOVED_IN, Kind.MOVED_OUT)):
                    what = "without an owner" if channel.sole_owner is None else "of the one owner"
                    message = f"a row {what} never goes from one to another."
                    self.refuse(
                        f"{event.path}.on", message, 'Add an attribute or a path as "owner" of the channel.'
                    )
            return () if channel.sole_owner is not None else channel.owner
        path = f"{channel.path}.owner"
        dotted = ".".join(channel.owner)
        inherited = "" if path in self.catalog.positions else f'the default owner "{dotted}" does not fit: '
        try:
            steps, trail = steps_to_owner(mapper, channel.owner)
        except PathError as error:
            self.refuse(path, f"{inherited}{error.message}", error.remedy)
            return channel.owner
        if trail.many:
            self.refuse(
                path, f'{inherited}"{dotted}" leads to many rows, not to one owner.', "Name a single one."
            )
        elif trail.target is not None:
            column = column_of(mapper, dotted) if len(channel.owner) == 1 else None
            key = column or f"{dotted}.{trail.target.primary_key[0].key}"
            self.refuse(path, f'{inherited}"{dotted}" is a relationship, not a key.', f'Write "{key}".')
        return steps

    def _check_columns(self, event: EventType, mapper: AnyMapper) -> None:
        explicit = f"{event.path}.ignore" in self.catalog.positions
        for path, message, remedy in column_problems(event, mapper, check_ignore=explicit):
            self.refuse(path, message, remedy)

    def _includes(self, channel: Channel, mapper: AnyMapper | None) -> dict[str, BoundInclude]:
        found = {}
        for name, include in channel.includes.items():
            path = self._include_path(channel, name)
            schema = self._schema(include.schema, f"{path}.schema")
            if mapper is None:
                continue
            try:
                trail = follow(mapper, include.path)
            except PathError as error:
                self.refuse(path, error.message, error.remedy)
                continue
            plain: Plain | None = None
            if include.schema is None and trail.target is not None:
                schema, plain = self._shown_by(trail.target)
            render = self._include_renderer(schema, plain, path)
            found[name] = BoundInclude(
                name,
                trail.path,
                trail.relationships,
                trail.many,
                IncludeDumper(trail.path, render, self._render_row),
                schema,
                plain,
                (trail.relationships, *_below(trail, schema)),
            )
        return found

    def _check_names(
        self, channel: Channel, plain: Plain | None, schemas: t.Iterable[ma.Schema | None]
    ) -> None:
        """Refuse includes that would stand in `data` in place of a field."""
        if plain is None:
            return
        for schema in dict.fromkeys(schemas):
            whose = type(schema).__name__ if schema is not None else plain.mapper.class_.__name__
            keys = keys_of(schema) if schema is not None else plain.keys
            for name, include in channel.includes.items():
                if name in keys:
                    message = f'"{name}" is a field of {whose} already, which the include would replace.'
                    remedy = f'Give it another name, as in "includes: {{{name}_included: {".".join(include.path)}}}".'
                    self.refuse(self._include_path(channel, name), message, remedy)
            if CHANGES in keys:
                message = f'{whose} has a field "{CHANGES}", which the include of that name would replace.'
                remedy = f'Send it under another name: fields...(attribute="{CHANGES}") in a schema.'
                self.refuse(f"{channel.path}.schema", message, remedy)

    def _include_renderer(self, schema: ma.Schema | None, plain: Plain | None, path: str) -> Renderer | None:
        if schema is not None:
            return SchemaRenderer(schema)
        if plain is None:
            return None
        if not plain.is_chosen:  # else the channel that has chosen it was looked at
            self._check_private(plain, None, path)
        return plain.render

    def _include_path(self, channel: Channel, name: str) -> str:
        mapped = f"{channel.path}.includes.{name}"
        if mapped in self.catalog.positions:
            return mapped
        at = list(channel.includes).index(name)
        return f"{channel.path}.includes[{at}]"

    def _shown_by(self, mapper: AnyMapper) -> tuple[ma.Schema | None, Plain]:
        """How the one channel that has this model shows its rows, if it says how; else by all columns."""
        choices: dict[t.Any, Channel] = {}
        for name, channel in self.catalog.channels.items():
            if self._mappers[name] is mapper:
                plain = Plain.of(mapper, channel)
                if channel.schema is not None or plain.is_chosen:
                    choices.setdefault(channel.schema or plain, channel)
        if len(choices) != 1:
            return None, Plain.of(mapper)
        [(choice, channel)] = choices.items()
        if isinstance(choice, Plain):
            return None, choice
        return self._schema(choice, f"{channel.path}.schema"), Plain.of(mapper)

    def _shown_by_any(self, mapper: AnyMapper) -> Renderer | None:
        """What shows a row of that class, or of one that inherits from it, if a channel says how."""
        for each in mapper.iterate_to_root():
            schema, plain = self._shown_by(each)
            if schema is not None:
                return SchemaRenderer(schema)
            if plain.is_chosen:
                return plain.render
        return None

    def _touches(self, channel: Channel, mapper: AnyMapper | None) -> t.Iterator[BoundTouch]:
        for at, name in enumerate(channel.touches):
            if mapper is None:
                return
            path = f"{channel.path}.touches[{at}]"
            relationship = name if name in mapper.relationships else self._leading_to(name, mapper, path)
            if relationship is None:
                continue
            try:
                readable(mapper.relationships[relationship])
            except Unreadable as error:
                self.refuse(path, error.message, error.remedy)
                continue
            target = mapper.relationships[relationship].mapper
            touched = [
                other for other, known in self._mappers.items() if known is not None and _meet(known, target)
            ]
            if name in touched and name != relationship:
                touched = [name]
            if not touched:
                message = f'"{name}" leads to {target.class_.__name__}, which is the model of no channel.'
                self.refuse(path, message, "Declare a channel with that model, or leave it out.")
            elif not any(_can_be_touched(self.catalog.channels[other]) for other in touched):
                message = f'nothing would happen: {" and ".join(touched)} has no plain event "updated".'
                self.refuse(path, message, "Declare one there, or leave it out here.")
            yield from (BoundTouch(other, relationship) for other in touched)

    def _leading_to(self, name: str, mapper: AnyMapper, path: str) -> str | None:
        model = mapper.class_.__name__
        if name not in self.catalog.channels:
            known = [*mapper.relationships.keys(), *self.catalog.channels]
            remedy = did_you_mean(name, known, "Name a relationship of the model, or a channel.")
            self.refuse(path, f'"{name}" is neither a relationship of {model} nor a channel.', remedy)
            return None
        target = self._mappers[name]
        if target is None:
            if self.catalog.channels[name].model is None:
                self.refuse(path, f'the channel "{name}" has no model.', "Name a channel with one.")
            return None
        leading = [found.key for found in mapper.relationships if _meet(found.mapper, target)]
        if len(leading) == 1:
            return leading[0]
        if leading:
            remedy = f"Name the relationship: {' or '.join(leading)}."
            self.refuse(path, f'{model} has {len(leading)} relationships to the channel "{name}".', remedy)
        else:
            remedy = "Add a relationship to the model, or name one that it has."
            self.refuse(path, f'{model} has no relationship to the channel "{name}".', remedy)
        return None


def _doubts(
    schemas: Mapping[str, ma.Schema | None], plain: Plain | None, includes: Mapping[str, BoundInclude]
) -> Iterator[Doubt]:
    if plain is None:
        return
    for schema in schemas.values():
        yield from _plain_doubts(plain) if schema is None else raw_doubts(schema, plain.mapper)
    for include in includes.values():
        target = follow(plain.mapper, include.path).target
        if target is not None and include.schema is not None:
            yield from raw_doubts(include.schema, target)
        elif include.plain is not None:
            yield from _plain_doubts(include.plain)


def _plain_doubts(plain: Plain) -> Iterator[Doubt]:
    """Those that concern what is sent; what the catalogue leaves out is in no doubt."""
    for doubt in doubts_of(plain.mapper):
        if not plain.is_chosen or doubt.column.partition(".")[2] in plain.keys:
            yield doubt


def _changes(schemas: Mapping[str, ma.Schema | None], plain: Plain | None) -> dict[str, ChangeDumper]:
    """Return for each event what tells what changed; events with one schema share it."""
    if plain is None:
        return {}
    mapper = plain.mapper
    made = {id(each): SchemaChanges(each, mapper) for each in schemas.values() if each is not None}
    bare = MethodChanges(plain.render, mapper) if plain.method is not None else _column_changes(plain)
    return {name: bare if each is None else made[id(each)] for name, each in schemas.items()}


def _column_changes(plain: Plain) -> ColumnChanges:
    columns = plain.mapper.column_attrs
    known = () if plain.is_chosen else columns_of(plain.mapper)
    named = [key for key in known if is_unwritable(columns[key].columns[0].type)]
    fits = {key: fit for key in plain.keys if (fit := fit_of(columns[key].columns[0])) is not None}
    return ColumnChanges(frozenset(plain.keys), frozenset(named), fits)


def _kinds(channel: Channel) -> frozenset[Kind]:
    if channel.touches:
        return frozenset(Kind)
    return frozenset().union(*(event.on for event in channel.events.values()))


def _meet(one: AnyMapper, other: AnyMapper) -> bool:
    """Whether rows of one class can be rows of the other: the same class, or one inherits from the other."""
    return one.isa(other) or other.isa(one)


def _can_be_touched(channel: Channel) -> bool:
    return bool(channel.touches) or any(
        Kind.UPDATED in event.on and not event.when and not event.changed for event in channel.events.values()
    )


def _instance(found: object, name: str) -> ma.Schema:
    if isinstance(found, ma.Schema):
        return found
    if not (isinstance(found, type) and issubclass(found, ma.Schema)):
        raise Unfound(
            f'"{name}" is no marshmallow schema.', "Name a class that inherits from marshmallow.Schema."
        )
    try:
        return found()
    # The class is the app's own: its __init__ can raise anything.
    except Exception as error:
        message = f'"{name}()" fails: {type(error).__name__}: {error}.'
        raise Unfound(message, "Make it work without arguments, or name an instance.") from error
