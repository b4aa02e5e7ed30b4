"""One channel bound to its model, with everything that can be wrong on the way."""

from __future__ import annotations

import typing as t
from types import MappingProxyType

import marshmallow as ma

from ..catalog import Catalog, Channel, EventType, Kind
from ..errors import Problem
from .changes import ChangeDumper, ColumnChanges, MethodChanges, SchemaChanges
from .channel import BoundChannel, BoundInclude
from .column_checks import column_problems
from .columns import Doubt, doubts_of, fit_of, is_unwritable, raw_doubts
from .emitted import Given
from .host_code import Quiet
from .includes import IncludeBinder
from .owner_steps import owner_path as steps_to_owner
from .paths import AnyMapper, PathError, Unreadable, column_of, columns_of, follow
from .plain import Plain, choice_mistakes
from .resolver import Resolver
from .serializers import (
    Dumper,
    OwnerReader,
    Renderer,
    SchemaRenderer,
    render_anything,
    schema_paths,
)
from .touches import touches_of

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Binder:
    """Binds the channels of one catalogue and collects what is wrong."""

    def __init__(self, catalog: Catalog) -> None:
        self._resolver = Resolver(catalog)
        self._includes = IncludeBinder(self._resolver)

    @property
    def problems(self) -> list[Problem]:
        """Everything that does not exist or does not fit, each where it was written."""
        return self._resolver.problems

    def bind(self, channel: Channel) -> BoundChannel:
        """Return a channel bound as far as that is possible."""
        mapper = self._resolver.mappers[channel.name]
        schema = self._resolver.schema(channel.schema, f"{channel.path}.schema")
        plain = self._plain(channel, mapper) if mapper is not None else None
        by_event = self._event_schemas(channel)
        read_paths = self._read_paths([schema, *by_event.values()], plain, channel)
        columns = columns_of(mapper) if mapper is not None else frozenset()
        owner_path = self._owner_path(channel, mapper)
        if mapper is not None:
            for event in channel.events.values():
                self._check_columns(event, mapper)
        includes = self._includes.bind(channel, mapper)
        touches = tuple(touches_of(self._resolver, channel, mapper))
        used = {event.name: by_event.get(event.name, schema) for event in channel.events.values()}
        self._includes.check_names(channel, plain, used.values())
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
            given=MappingProxyType(_given(used, plain)),
            owner_path=owner_path,
            owner=OwnerReader(owner_path, channel.sole_owner),
            columns=columns,
            shown=columns
            if plain is None or not plain.is_chosen
            else columns.intersection(plain.keys or columns),
            watch=frozenset().union(*(event.columns for event in channel.events.values())) & columns,
            conditions=frozenset().union(*(event.when for event in channel.events.values())) & columns,
            includes=MappingProxyType(includes),
            relationships=tuple(dict.fromkeys(path[0] for path in read_paths)),
            read_paths=read_paths,
            touches=touches,
            kinds=_kinds(channel),
            doubts=tuple(dict.fromkeys(_doubts(used, plain, includes))),
            needed=frozenset(
                [path[0] for path in read_paths]
                + [name for include in includes.values() for name in include.relationships[:1]]
                + [touch.relationship for touch in touches]
                + [name for name in (owner_path or ())[:1] if mapper and name in mapper.relationships]
            ),
        )

    def _event_schemas(self, channel: Channel) -> dict[str, ma.Schema]:
        found = {}
        for event in channel.events.values():
            if event.schema != channel.schema:
                schema = self._resolver.schema(event.schema, f"{event.path}.schema")
                if schema is not None:
                    found[event.name] = schema
        return found

    def _read_paths(
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
                found |= dict.fromkeys(schema_paths(schema, mapper) if schema is not None else ())
            except (ma.exceptions.RegistryError, ValueError) as error:
                remedy = "Import the module of the nested schema, or pass the class itself."
                self._resolver.refuse(
                    f"{channel.path}.schema", f"a nested schema cannot be found: {error}.", remedy
                )
            except Unreadable as error:
                self._resolver.refuse(f"{channel.path}.schema", error.message, error.remedy)
        return tuple(sorted(found, key=len))

    def _plain(self, channel: Channel, mapper: AnyMapper) -> Plain:
        """Return what the channel says about the rows of its model; names that do not fit are refused."""
        plain = Plain.of(mapper, channel)
        for path, message, remedy in choice_mistakes(plain, channel):
            self._resolver.refuse(path, message, remedy)
        return plain

    def _renderer(self, channel: Channel, plain: Plain | None, schema: ma.Schema | None) -> Renderer:
        if schema is not None:
            return SchemaRenderer(schema)
        if plain is None:
            return render_anything
        sends = any(event.schema is None for event in channel.events.values())
        if channel.schema is None and sends:
            self._resolver.refuse_private(plain, channel, channel.path)
        return plain.render

    def _owner_path(self, channel: Channel, mapper: AnyMapper | None) -> tuple[str, ...] | None:
        """Return the steps to the owner, as far as they can be followed."""
        if channel.owner is None or mapper is None:
            for event in channel.events.values() if mapper is not None else ():
                if not event.on.isdisjoint((Kind.MOVED_IN, Kind.MOVED_OUT)):
                    what = "without an owner" if channel.sole_owner is None else "of the one owner"
                    message = f"a row {what} never goes from one to another."
                    self._resolver.refuse(
                        f"{event.path}.on", message, 'Add an attribute or a path as "owner" of the channel.'
                    )
            return () if channel.sole_owner is not None else channel.owner
        path = f"{channel.path}.owner"
        dotted = ".".join(channel.owner)
        inherited = (
            "" if path in self._resolver.catalog.positions else f'the default owner "{dotted}" does not fit: '
        )
        try:
            steps, resolved = steps_to_owner(mapper, channel.owner)
        except PathError as error:
            self._resolver.refuse(path, f"{inherited}{error.message}", error.remedy)
            return channel.owner
        if resolved.many:
            self._resolver.refuse(
                path, f'{inherited}"{dotted}" leads to many rows, not to one owner.', "Name a single one."
            )
        elif resolved.target is not None:
            column = column_of(mapper, dotted) if len(channel.owner) == 1 else None
            key = column or f"{dotted}.{resolved.target.primary_key[0].key}"
            self._resolver.refuse(
                path, f'{inherited}"{dotted}" is a relationship, not a key.', f'Write "{key}".'
            )
        return steps

    def _check_columns(self, event: EventType, mapper: AnyMapper) -> None:
        explicit = f"{event.path}.ignore" in self._resolver.catalog.positions
        for path, message, remedy in column_problems(event, mapper, check_ignore=explicit):
            self._resolver.refuse(path, message, remedy)


def _quiet(used: Mapping[str, ma.Schema | None], plain: Plain | None) -> dict[str, Quiet]:
    if plain is None:
        return {}
    keys = plain.keys if plain.method is None else None
    made = {each: Quiet.of(each, keys) for each in set(used.values())}
    return {name: made[each] for name, each in used.items()}


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
    """Yield the doubts about columns that are sent."""
    for doubt in doubts_of(plain.mapper):
        if not plain.is_chosen or doubt.column.partition(".")[2] in plain.keys:
            yield doubt


def _given(used: Mapping[str, ma.Schema | None], plain: Plain | None) -> dict[str, Given]:
    """What checks the dicts that the host emits, by event; a method of the model checks none."""
    is_checked = plain is not None and plain.method is None
    return {name: Given(each, plain) for name, each in used.items() if each is not None or is_checked}


def _changes(schemas: Mapping[str, ma.Schema | None], plain: Plain | None) -> dict[str, ChangeDumper]:
    """Return for each event what makes its `changes`; events with the same schema share it."""
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
