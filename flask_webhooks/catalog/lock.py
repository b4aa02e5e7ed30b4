"""What receivers rely on, written down, and what has changed since.

The lock file is committed next to the catalogue. `flask webhooks check` builds it anew and compares: a change
that would break a receiver is found before it is deployed.

Shape of the lock (JSON; sorted, so that a diff shows what changed)::

    {"lock": 1,
     "channels": {"invoices": {"exclusive": null,
                               "includes": {"lines": {"[].id": "integer"}}}},
     "events": {"invoices.created": {"format": "channel", "formats": ["channel"],
                                     "fields": {"id": "integer", "lines[].product": "string"}}}}
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import ConfigurationError
from .model import Catalog

Fields: t.TypeAlias = t.Mapping[str, str]
"""Path of a field in `data` to the name of its type: `lines[].product` to `string`."""
Lock: t.TypeAlias = dict[str, t.Any]

VERSION = 1
ANY = "any"
"""A type that only the code of the schema knows; becoming or ceasing to be one is reported, not breaking."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One difference between two locks."""

    path: str
    """`invoices.created: lines[].product`: the event type (or channel) and the field."""
    message: str
    breaking: bool
    """Whether a receiver that was written for the old one can fail on the new one."""

    def __str__(self) -> str:
        return f"{'BREAKING' if self.breaking else 'added' if self.is_new else 'changed'}: {self.path}: {self.message}"

    @property
    def is_new(self) -> bool:
        """Whether something was added."""
        return self.message.startswith("is new")


def build_lock(
    catalog: Catalog,
    fields: t.Mapping[str, Fields],
    includes: t.Mapping[str, t.Mapping[str, Fields]] | None = None,
) -> Lock:
    """Return the lock of a catalogue, ready for `json.dumps(..., indent=2)`.

    :param fields: event type to the fields of its `data`; events that are missing have unknown data.
    :param includes: channel to include to the fields under it; `bindings.describe` makes both.
    """
    includes = includes or {}
    channels = {
        name: {
            "exclusive": channel.exclusive.value if channel.exclusive is not None else None,
            "includes": {
                include: _sorted(includes.get(name, {}).get(include, {}))
                for include in sorted(channel.includes)
            },
        }
        for name, channel in sorted(catalog.channels.items())
    }
    events = {
        name: {
            "format": event.format,
            "formats": sorted(event.formats),
            "fields": _sorted(fields.get(name, {})),
        }
        for name, event in sorted(catalog.events.items())
    }
    return {"lock": VERSION, "channels": channels, "events": events}


def _sorted(fields: Fields) -> dict[str, str]:
    return dict(sorted(fields.items()))


def compare(old: t.Mapping[str, t.Any], new: t.Mapping[str, t.Any]) -> list[Change]:
    """Return what changed from one lock to another, the breaking first; empty if nothing did.

    :raises ConfigurationError: if one of them is no lock of this version.
    """
    for lock in (old, new):
        if lock.get("lock") != VERSION or not {"channels", "events"} <= lock.keys():
            raise ConfigurationError(
                "The lock file is not one of this version. Write it anew from the catalogue."
            )
    changes = [*_events(old["events"], new["events"]), *_channels(old["channels"], new["channels"])]
    return sorted(changes, key=lambda change: (not change.breaking, change.path))


def _events(old: t.Mapping[str, t.Any], new: t.Mapping[str, t.Any]) -> t.Iterator[Change]:
    yield from _keys(old, new, "", "the event is gone: subscriptions to it get nothing any more.")
    for name in old.keys() & new.keys():
        was, now = old[name], new[name]
        yield from _fields(was["fields"], now["fields"], f"{name}: ")
        if was["format"] != now["format"]:
            yield Change(name, f"the format was {was['format']} and is now {now['format']}.", breaking=True)
        for lost in sorted(set(was["formats"]) - set(now["formats"]) - {was["format"]}):
            yield Change(name, f"the format {lost} can no longer be chosen.", breaking=True)
        for added in sorted(set(now["formats"]) - set(was["formats"]) - {now["format"]}):
            yield Change(name, f"is new to the formats that can be chosen: {added}.", breaking=False)


def _channels(old: t.Mapping[str, t.Any], new: t.Mapping[str, t.Any]) -> t.Iterator[Change]:
    # A channel that came or went shows in its events already.
    for name in old.keys() & new.keys():
        was, now = old[name], new[name]
        if was["exclusive"] != now["exclusive"]:
            stricter = now["exclusive"] is not None and was["exclusive"] != "owner"
            message = f"exclusive was {was['exclusive'] or 'false'} and is now {now['exclusive'] or 'false'}."
            yield Change(name, message, breaking=stricter)
        yield from _keys(was["includes"], now["includes"], f"{name}: include ", "is gone.")
        for include in was["includes"].keys() & now["includes"].keys():
            yield from _fields(
                was["includes"][include], now["includes"][include], f"{name}: include {include}: "
            )


def _fields(old: Fields, new: Fields, prefix: str) -> t.Iterator[Change]:
    yield from _keys(old, new, prefix, "the field is gone.")
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            known = ANY not in (old[name], new[name])
            yield Change(
                f"{prefix}{name}", f"the type was {old[name]} and is now {new[name]}.", breaking=known
            )


def _keys(
    old: t.Mapping[str, t.Any], new: t.Mapping[str, t.Any], prefix: str, gone: str
) -> t.Iterator[Change]:
    for name in old.keys() - new.keys():
        yield Change(f"{prefix}{name}", gone, breaking=True)
    for name in new.keys() - old.keys():
        yield Change(f"{prefix}{name}", "is new.", breaking=False)
