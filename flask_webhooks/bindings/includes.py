"""The includes of a channel: additional values in `data`, and what serialises them."""

from __future__ import annotations

import typing as t

import marshmallow as ma

from ..catalog import Channel
from .channel import CHANGES, BoundInclude
from .paths import AnyMapper, PathError, ResolvedPath, Unreadable, follow
from .plain import Plain
from .resolver import Resolver
from .schema_keys import keys_of
from .serializers import (
    IncludeDumper,
    Renderer,
    RowRenderer,
    SchemaRenderer,
    schema_paths,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterator


class IncludeBinder:
    """Binds the includes of all channels of one catalogue."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._render_row = RowRenderer(self._shown_by_any)

    def bind(self, channel: Channel, mapper: AnyMapper | None) -> dict[str, BoundInclude]:
        """Return the includes of a channel by name, as far as they can be followed."""
        found = {}
        for name, include in channel.includes.items():
            path = self._include_path(channel, name)
            schema = self._resolver.schema(include.schema, f"{path}.schema")
            if mapper is None:
                continue
            try:
                resolved = follow(mapper, include.path)
            except PathError as error:
                self._resolver.refuse(path, error.message, error.remedy)
                continue
            plain: Plain | None = None
            if include.schema is None and resolved.target is not None:
                schema, plain = self._shown_by(resolved.target)
            render = self._include_renderer(schema, plain, path)
            found[name] = BoundInclude(
                name,
                resolved.path,
                resolved.relationships,
                resolved.many,
                IncludeDumper(resolved.path, render, self._render_row),
                schema,
                plain,
                (resolved.relationships, *_below(resolved, schema)),
            )
        return found

    def check_names(
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
                    self._resolver.refuse(self._include_path(channel, name), message, remedy)
            if CHANGES in keys:
                message = f'{whose} has a field "{CHANGES}", which the include of that name would replace.'
                remedy = f'Send it under another name: fields...(attribute="{CHANGES}") in a schema.'
                self._resolver.refuse(f"{channel.path}.schema", message, remedy)

    def _include_renderer(self, schema: ma.Schema | None, plain: Plain | None, path: str) -> Renderer | None:
        if schema is not None:
            return SchemaRenderer(schema)
        if plain is None:
            return None
        if not plain.is_chosen:  # else the channel that has chosen it was looked at
            self._resolver.refuse_private(plain, None, path)
        return plain.render

    def _include_path(self, channel: Channel, name: str) -> str:
        mapped = f"{channel.path}.includes.{name}"
        if mapped in self._resolver.catalog.positions:
            return mapped
        at = list(channel.includes).index(name)
        return f"{channel.path}.includes[{at}]"

    def _shown_by(self, mapper: AnyMapper) -> tuple[ma.Schema | None, Plain]:
        """Return how the only channel with this model shows its rows; by default by all columns."""
        choices: dict[t.Any, Channel] = {}
        for name, channel in self._resolver.catalog.channels.items():
            if self._resolver.mappers[name] is mapper:
                plain = Plain.of(mapper, channel)
                if channel.schema is not None or plain.is_chosen:
                    choices.setdefault(channel.schema or plain, channel)
        if len(choices) != 1:
            return None, Plain.of(mapper)
        [(choice, channel)] = choices.items()
        if isinstance(choice, Plain):
            return None, choice
        return self._resolver.schema(choice, f"{channel.path}.schema"), Plain.of(mapper)

    def _shown_by_any(self, mapper: AnyMapper) -> Renderer | None:
        """Return what shows a row of that class or of a subclass, if a channel says how."""
        for each in mapper.iterate_to_root():
            schema, plain = self._shown_by(each)
            if schema is not None:
                return SchemaRenderer(schema)
            if plain.is_chosen:
                return plain.render
        return None


def _below(resolved: ResolvedPath, schema: ma.Schema | None) -> Iterator[tuple[str, ...]]:
    if schema is None or resolved.target is None:
        return
    try:
        yield from (resolved.relationships + deeper for deeper in schema_paths(schema, resolved.target))
    except Unreadable:  # a query: it is left to the schema
        return
