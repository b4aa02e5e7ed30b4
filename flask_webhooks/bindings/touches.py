"""The touches of a channel: the rows that a change of its own rows updates as well."""

from __future__ import annotations

import typing as t

from ..catalog import Channel, Kind, did_you_mean
from .channel import BoundTouch
from .paths import AnyMapper, Unreadable, readable
from .resolver import Resolver


def touches_of(resolver: Resolver, channel: Channel, mapper: AnyMapper | None) -> t.Iterator[BoundTouch]:
    """Yield what a channel touches; what leads nowhere is refused."""
    for at, name in enumerate(channel.touches):
        if mapper is None:
            return
        path = f"{channel.path}.touches[{at}]"
        relationship = name if name in mapper.relationships else _leading_to(resolver, name, mapper, path)
        if relationship is None:
            continue
        try:
            readable(mapper.relationships[relationship])
        except Unreadable as error:
            resolver.refuse(path, error.message, error.remedy)
            continue
        target = mapper.relationships[relationship].mapper
        touched = [
            other for other, known in resolver.mappers.items() if known is not None and _meet(known, target)
        ]
        if name in touched and name != relationship:
            touched = [name]
        if not touched:
            message = f'"{name}" leads to {target.class_.__name__}, which is the model of no channel.'
            resolver.refuse(path, message, "Declare a channel with that model, or leave it out.")
        elif not any(_can_be_touched(resolver.catalog.channels[other]) for other in touched):
            message = f'nothing would happen: {" and ".join(touched)} has no plain event "updated".'
            resolver.refuse(path, message, "Declare one there, or leave it out here.")
        yield from (BoundTouch(other, relationship) for other in touched)


def _leading_to(resolver: Resolver, name: str, mapper: AnyMapper, path: str) -> str | None:
    model = mapper.class_.__name__
    if name not in resolver.catalog.channels:
        known = [*mapper.relationships.keys(), *resolver.catalog.channels]
        remedy = did_you_mean(name, known, "Name a relationship of the model, or a channel.")
        resolver.refuse(path, f'"{name}" is neither a relationship of {model} nor a channel.', remedy)
        return None
    target = resolver.mappers[name]
    if target is None:
        if resolver.catalog.channels[name].model is None:
            resolver.refuse(path, f'the channel "{name}" has no model.', "Name a channel with one.")
        return None
    leading = [found.key for found in mapper.relationships if _meet(found.mapper, target)]
    if len(leading) == 1:
        return leading[0]
    if leading:
        remedy = f"Name the relationship: {' or '.join(leading)}."
        resolver.refuse(path, f'{model} has {len(leading)} relationships to the channel "{name}".', remedy)
    else:
        remedy = "Add a relationship to the model, or name one that it has."
        resolver.refuse(path, f'{model} has no relationship to the channel "{name}".', remedy)
    return None


def _meet(one: AnyMapper, other: AnyMapper) -> bool:
    """Whether rows of one class can be rows of the other: the same class, or one inherits from the other."""
    return one.isa(other) or other.isa(one)


def _can_be_touched(channel: Channel) -> bool:
    return bool(channel.touches) or any(
        Kind.UPDATED in event.on and not event.when and not event.changed for event in channel.events.values()
    )
