"""The catalogue as values: what the rest of the package works with once the YAML is read.

Everything here is frozen and knows nothing of YAML, Flask or SQLAlchemy. Paths such as
`channels.invoices.events.paid` are kept with file and line (`Catalog.where`), so that later checks against
Python objects can still say where a mistake was written.
"""

from __future__ import annotations

import dataclasses
import enum
import typing as t

from ..errors import UnknownEventError
from .conditions import DEPARTURES, Condition, Kind, same
from .exclusivity import check_exclusive
from .names import nearest, suggestion

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_UNCHANGED = (None, None)


class Scope(enum.StrEnum):
    """How far an exclusive channel reaches."""

    SUBSCRIPTION = "subscription"
    """A subscription that listens to it listens to nothing else."""
    OWNER = "owner"
    """All active subscriptions of an owner in one environment listen to nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deprecation:
    """An event that receivers should stop using; it is still sent."""

    reason: str
    replacement: str | None
    """Another event type of the same catalogue."""


@dataclasses.dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event, with everything the defaults and the channel say about it worked in."""

    name: str
    """`invoices.paid`: what a receiver sees and a listener names."""
    channel: str
    event: str
    title: str
    description: str
    """May be empty."""
    on: frozenset[Kind]
    """What makes it happen by itself; empty: only `emit()` does."""
    when: Mapping[str, Condition]
    """Column to condition; all must hold."""
    changed: frozenset[str]
    """At least one of these columns must have changed; empty: not asked."""
    ignore: frozenset[str]
    """An update of only these columns is no event."""
    transition: str | None
    """`PAY`: what the format `entity` calls the step."""
    message: str
    """`Invoice paid successfully.`: finished text."""
    schema: str | None
    """Import path of the marshmallow schema: the event's own, else the channel's."""
    format: str
    """Envelope for a subscription that does not choose one."""
    formats: tuple[str, ...]
    """Envelopes that a subscription may choose; `format` is the first."""
    retry: str | tuple[float, ...] | None
    """`standard`, `none`, seconds between attempts; `None`: the app's `WEBHOOKS_RETRY`."""
    deprecated: Deprecation | None
    sample: Mapping[str, object] | None
    """Example of `data`."""

    @property
    def path(self) -> str:
        """Where the event stands in the YAML."""
        return f"channels.{self.channel}.events.{self.event}"

    @property
    def columns(self) -> frozenset[str]:
        """Columns that the conditions look at."""
        return frozenset(self.when) | self.changed | self.ignore

    @property
    def is_soft_delete(self) -> bool:
        """Whether it is `deleted` and an update may count as that: then `when` speaks of the update alone."""
        return self.event == Kind.DELETED.value and Kind.UPDATED in self.on

    def matches(
        self, kind: Kind, changes: Mapping[str, tuple[object, object]], *, touched: bool = False
    ) -> bool:
        """Tell whether a change of a row is this event.

        :param changes: column to (old, new). A created row has `None` as every old value, a deleted one as
            every new value. Pairs of equal values count as unchanged.
        :param touched: something that `touches` this row changed as well: an update even if no column did.
        """
        if kind not in self.on:
            return False
        if kind in DEPARTURES and self.is_soft_delete:
            # What was called deleted when its update came is not deleted once more with its row.
            return not self.when or not all(
                condition.is_reached(changes.get(column, _UNCHANGED)[0])
                for column, condition in self.when.items()
            )
        for column, condition in self.when.items():
            if not condition.holds(kind, *changes.get(column, _UNCHANGED)):
                return False
        if kind is not Kind.UPDATED:
            return True
        moved = [column for column, (old, new) in changes.items() if not same(old, new)]
        if self.changed and self.changed.isdisjoint(moved):
            return False
        return touched or not self.ignore.issuperset(moved)


@dataclasses.dataclass(frozen=True, slots=True)
class Include:
    """Something that a listener may ask to have added to `data`."""

    name: str
    """Its key inside `data`."""
    path: tuple[str, ...]
    """Attributes to follow from the row."""
    schema: str | None
    """Import path of the schema of what is found there; `None`: see `bindings`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """A stream of events about one resource."""

    name: str
    title: str
    label: str
    """One of them, in messages: `Invoice`."""
    description: str
    """May be empty."""
    model: str | None
    """Import path of the mapped class; `None`: events come from `emit()` alone."""
    schema: str | None
    fields: tuple[str, ...] | None
    """Columns that make `data` instead of a schema; `None`: all that JSON can hold."""
    exclude: tuple[str, ...]
    """Columns that are left out of that."""
    public: tuple[str, ...]
    """Columns that sound private and are not."""
    data: str | None
    """Method of the model that returns `data`."""
    owner: tuple[str, ...] | None
    """Attributes that lead from a row to the key of its owner."""
    sole_owner: str | None
    """Key of the one owner of all rows: `{value: studio}`."""
    events: Mapping[str, EventType]
    """By their short names; empty for a channel that only touches others."""
    includes: Mapping[str, Include]
    touches: tuple[str, ...]
    """Relationships of the model, or channels, that a change here updates too."""
    exclusive: Scope | None
    format: str
    formats: tuple[str, ...]
    retry: str | tuple[float, ...] | None
    bulk: str | None = None
    """What happens to bulk statements on its model; `None`: the app's `WEBHOOKS_BULK`."""
    on_error: str | None = None
    """What happens to a row that cannot be serialised; `None`: the app's `WEBHOOKS_ON_ERROR`."""

    @property
    def path(self) -> str:
        """Where the channel stands in the YAML."""
        return f"channels.{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Catalog:
    """All channels and event types of an app, in the order they were written."""

    title: str
    channels: Mapping[str, Channel]
    events: Mapping[str, EventType]
    """By event type, `invoices.paid`."""
    positions: Mapping[str, tuple[str, int]] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )
    """Path to (file, line)."""

    def where(self, path: str) -> tuple[str, int]:
        """Return file and line of a path, or of the nearest thing around it that was written."""
        while path not in self.positions and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.positions.get(path, ("", 1))

    def expand(self, pattern: str) -> tuple[EventType, ...]:
        """Return the event types that a listener's pattern stands for.

        :param pattern: `invoices.created`, `invoices.*` or `*`. The last leaves out exclusive channels.
        :return: empty if nothing is known under that name.
        """
        if pattern == "*":
            return tuple(
                event for event in self.events.values() if self.channels[event.channel].exclusive is None
            )
        channel, _, event = pattern.partition(".")
        if event == "*":
            return tuple(self.channels[channel].events.values()) if channel in self.channels else ()
        return (self.events[pattern],) if pattern in self.events else ()

    def patterns(self, event: str) -> tuple[str, ...]:
        """Return what a listener may say to get an event type, closest first; empty if it is unknown."""
        if event not in self.events:
            return ()
        channel = self.channels[self.events[event].channel]
        named = (event, f"{channel.name}.*")
        return named if channel.exclusive is not None else (*named, "*")

    def is_listened(self, event: str, patterns: t.AbstractSet[str]) -> bool:
        """Say whether one of a subscription's patterns stands for an event type.

        An event that is unknown here, such as that of a newer process, is taken for one of an ordinary channel.
        """
        closest = self.patterns(event) or (event, f"{event.partition('.')[0]}.*", "*")
        return not patterns.isdisjoint(closest)

    def check_exclusive(self, patterns: Iterable[str], held: Iterable[str] = ()) -> None:
        """Refuse channels that may not be held together.

        :param patterns: what the subscription is to listen to.
        :param held: what the owner's other active subscriptions in that environment listen to.
        :raises ExclusivityError: names the channels and what to unsubscribe.
        """
        exclusive = {
            name: channel.exclusive.value
            for name, channel in self.channels.items()
            if channel.exclusive is not None
        }
        check_exclusive(exclusive, patterns, held)

    def suggest(self, name: str) -> str | None:
        """Return the event type that an unknown name was probably meant to be."""
        return nearest(name, self.events)

    def event_called(self, name: str, otherwise: str) -> EventType:
        """Return an event type.

        :param otherwise: what to do where no known name is near enough.
        :raises UnknownEventError: there is none.
        """
        if name not in self.events:
            remedy = suggestion(self.suggest(name), otherwise, mark="")
            raise UnknownEventError(f"{name!r} is not an event of the catalogue. {remedy}", event=name)
        return self.events[name]
