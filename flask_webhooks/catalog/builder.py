"""From the checked values of a file to channels and event types, with every default worked in.

Nothing is refused here. Values that were refused before (`INVALID`) count as not written, so that what is left
of a catalogue with mistakes can still be checked against the models.
"""

from __future__ import annotations

import re
import typing as t
from types import MappingProxyType

from .conditions import Condition, Kind
from .key_rules import kinds_of
from .model import Channel, Deprecation, EventType, Include, Scope
from .names import singular
from .validators import INVALID, Json

MESSAGE = "{label} {event} successfully."
FORMAT = "channel"


def build_channels(document: Json) -> dict[str, Channel]:
    """Return the channels of one file by name."""
    defaults = _valid(document.get("defaults"))
    channels = _valid(document.get("channels"))
    return {name: _channel(name, _valid(value), defaults) for name, value in channels.items()}


def _valid(value: t.Any) -> Json:
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if item is not INVALID}


def _channel(name: str, given: Json, defaults: Json) -> Channel:
    title = given.get("title") or _words(name, title=True)
    rendering = _rendering(defaults, {"format": FORMAT, "formats": (), "retry": None})
    rendering = _rendering(given, rendering)
    owner = given.get("owner") or defaults.get("owner")
    channel = Channel(
        name=name,
        title=title,
        label=given.get("label") or singular(title),
        description=given.get("description", ""),
        model=given.get("model"),
        schema=given.get("schema"),
        fields=tuple(_sound(given["fields"])) if "fields" in given else None,
        exclude=tuple(_sound(given.get("exclude"))),
        public=tuple(_sound(given.get("public"))),
        data=given.get("data"),
        owner=tuple(owner.split(".")) if isinstance(owner, str) else None,
        sole_owner=_valid(owner).get("value"),
        events={},
        includes=MappingProxyType(_includes(given.get("includes"))),
        touches=tuple(_sound(given.get("touches"))),
        exclusive=_scope(given.get("exclusive")),
        format=rendering["format"],
        formats=_formats(rendering),
        retry=rendering["retry"],
        bulk=given.get("bulk"),
        on_error=given.get("on_error"),
    )
    events = {
        event: _event(channel, event, value, rendering, defaults)
        for event, value in _events(given.get("events"))
    }
    object.__setattr__(channel, "events", MappingProxyType(events))
    return channel


def _events(given: t.Any) -> list[tuple[str, Json]]:
    if isinstance(given, list):
        return [(name, {}) for name in _sound(given)]
    return [(name, _valid(value)) for name, value in _valid(given).items()]


def _event(channel: Channel, event: str, given: Json, rendering: Json, defaults: Json) -> EventType:
    rendering = _rendering(given, rendering)
    words = _words(event)
    message = given.get("message") or defaults.get("message") or MESSAGE
    when = _valid(given.get("when"))
    changed = when.pop("changed") if isinstance(when.get("changed"), list) else ()
    on = frozenset(Kind(kind) for kind in kinds_of(event, given, has_model=channel.model is not None))
    ignore = given.get("ignore") or (defaults.get("ignore") if Kind.UPDATED in on else ())
    return EventType(
        name=f"{channel.name}.{event}",
        channel=channel.name,
        event=event,
        title=given.get("title") or f"{channel.label} {words}",
        description=given.get("description", ""),
        on=on,
        when=MappingProxyType({column: _condition(value) for column, value in when.items()}),
        changed=frozenset(_sound(changed)),
        ignore=frozenset(_sound(ignore)),
        transition=given.get("transition"),
        message=message.format(label=channel.label, event=words, channel=channel.name, title=channel.title),
        schema=given.get("schema") or channel.schema,
        format=rendering["format"],
        formats=_formats(rendering),
        retry=rendering["retry"],
        deprecated=_deprecation(given.get("deprecated")),
        sample=given.get("sample"),
    )


def _rendering(given: Json, around: Json) -> Json:
    """Format, formats and retry: what is written here, else what holds around it."""
    found = {key: given.get(key, around[key]) for key in ("format", "formats", "retry")}
    if isinstance(found["retry"], list):
        found["retry"] = tuple(float(seconds) for seconds in _sound(found["retry"]))
    return found


def _formats(rendering: Json) -> tuple[str, ...]:
    return tuple(dict.fromkeys((rendering["format"], *_sound(rendering["formats"]))))


def _sound(values: t.Any) -> list[t.Any]:
    return [value for value in values or () if value is not INVALID]


def _condition(given: t.Any) -> Condition:
    operands = _valid(given) if isinstance(given, dict) else {"to": given}
    return Condition.of({name: _values(values) for name, values in operands.items()})


def _values(given: t.Any) -> tuple[t.Any, ...]:
    return tuple(_sound(given)) if isinstance(given, list) else (given,)


def _includes(given: t.Any) -> dict[str, Include]:
    if isinstance(given, list):
        given = dict.fromkeys(_sound(given))
    found = {}
    for name, value in _valid(given).items():
        details = {"path": value} if isinstance(value, str) else _valid(value)
        path = details.get("path") or name
        found[name] = Include(name, tuple(path.split(".")), details.get("schema"))
    return found


def _scope(given: t.Any) -> Scope | None:
    if given is True:
        return Scope.SUBSCRIPTION
    return Scope(given) if isinstance(given, str) else None


def _deprecation(given: t.Any) -> Deprecation | None:
    if given is None:
        return None
    if isinstance(given, str):
        return Deprecation(given, None)
    details = _valid(given)
    return Deprecation(details.get("reason", ""), details.get("replacement"))


def _words(name: str, *, title: bool = False) -> str:
    """`pay_runs` to `Pay Runs` or `pay runs`, `SUBMITTED` to `submitted`, `PayRun` to `Pay Run`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("_", " ").strip() or name
    return " ".join(word[0].upper() + word[1:] for word in spaced.split()) if title else spaced.lower()
