"""Which app captures which class: worked out once for each class, so that most objects cost one look-up."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import typing as t
import weakref

import sqlalchemy as sa
from sqlalchemy import event, inspect, orm
from sqlalchemy.orm import Session

from ..bindings import BoundChannel
from ..bindings.owner_steps import SIGN
from ..bindings.paths import columns_of
from ..bindings.stored_values import Form, Forms, form_of
from ..catalog import Kind
from ..engines import is_in_memory, is_same_database
from ..errors import EmitError
from ..outbox import recording
from .database import HostDatabase
from .mapper_plan import MapperPlan, column_of, owner_steps
from .uncaptured import Observed, ObservedClasses

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Registry", "is_muted", "muted", "registry_for", "registry_of"]

logger = logging.getLogger("flask_webhooks.capture")

INFO = "webhooks_capture"
OPT_OUT = "webhooks"
"""`Session(info={"webhooks": False})` is never looked at."""

_muted: contextvars.ContextVar[bool] = contextvars.ContextVar("webhooks_muted", default=False)


class Registry(HostDatabase):
    """The models of one app that are captured."""

    def __init__(self, state: AppState, listeners: t.Mapping[str, t.Callable[..., None]]) -> None:
        """Find the models.

        :param listeners: to mapper events, set on each class when it is first met: after those that the host has
            set while its modules were imported and its app was made.
        """
        super().__init__(state)
        self._listeners = listeners
        # Channels by class: one class may have several, each with columns of its own.
        self.models: dict[type, list[BoundChannel]] = {}
        for bound in state.bound.values():
            if bound.model is not None and bound.kinds:
                self.models.setdefault(bound.model, []).append(bound)
        self.follows_bulk = any(
            self.bulk(bound) != "ignore" for bounds in self.models.values() for bound in bounds
        )
        """Whether bulk statements are looked at."""
        self.is_linked = any(
            name.endswith(SIGN) for bound in state.bound.values() for name in bound.owner_path or ()
        )
        """Whether any path to an owner goes over a foreign key without a relationship."""
        self.leading = self._leading()
        """Class to the columns and relationships by which paths to owners go there."""
        self.bound = {**state.bound, **self._on_the_way()}
        """Every channel, and what stands for classes that are on the way to an owner and in no channel."""
        self.events = {
            (name, kind): tuple(
                event for event in bound.channel.events.values() if kind is None or kind in event.on
            )
            for name, bound in self.bound.items()
            for kind in (*Kind, None)
        }
        """What can happen by one kind of change, and by several together (None), by channel."""
        self.observed_classes = ObservedClasses(self.models)
        self.warned: set[tuple[str, str]] = set()
        """Events, and what is dumped for them, of which a warning has said that it ends transactions."""
        self._forms: dict[type, t.Mapping[str, Form]] = {}
        self._all_forms: dict[type, Forms] = {}
        self._plans: dict[type, MapperPlan | None] = {}
        self._patterns: dict[frozenset[str], tuple[str, ...]] = {}
        self._warned: set[str] = set()
        state.engines.followers.add(self)

    def renew(self) -> None:
        """Forget what was true of the database that the app was on: its dialect and our tables in it."""
        super().renew()
        self._plans, self._forms, self._all_forms = {}, {}, {}
        # Each class is asked for anew: which apps capture it has changed.
        registries_by_class.clear()

    def _leading(self) -> dict[type, frozenset[str]]:
        found: dict[type, frozenset[str]] = {}
        for model, bounds in self.models.items():
            for bound in bounds:
                for mapper, names in owner_steps(inspect(model), bound.owner_path or ()):
                    found[mapper.class_] = found.get(mapper.class_, frozenset()) | names
        return found

    def _on_the_way(self) -> dict[str, BoundChannel]:
        """Watch classes on the way to an owner for the sake of their rows, though they have no events."""
        found: dict[str, BoundChannel] = {}
        for model, names in self.leading.items():
            mapper: orm.Mapper[t.Any] = inspect(model)
            # A class that a channel sees already is followed by that channel.
            columns = names & columns_of(mapper)
            known = [bound for base in model.__mro__ for bound in self.models.get(base, ())]
            if columns and not any(columns <= bound.columns for bound in known):
                bound = BoundChannel.on_the_way(mapper)
                found[bound.channel.name] = bound
                self.models.setdefault(model, []).append(bound)
        return found

    def plan(self, cls: type) -> MapperPlan | None:
        """Return what is captured of instances of `cls`, or None."""
        try:
            return self._plans[cls]
        except KeyError:
            bounds = tuple(bound for base in cls.__mro__ for bound in self.models.get(base, ()))
            mapper: t.Any = inspect(cls, raiseerr=False)
            leading = frozenset().union(*(self.leading.get(base, frozenset()) for base in cls.__mro__))
            is_ours = bool(bounds) and mapper is not None
            plan = MapperPlan.make(mapper, bounds, leading, self.forms(cls)) if is_ours else None
            # On the class, not on all mappers: what is not captured is not slowed down.
            for name, listener in self._listeners.items() if plan is not None else ():
                if not event.contains(cls, name, listener):
                    event.listen(cls, name, listener)
            self._plans[cls] = plan
            return plan

    def bulk(self, bound: BoundChannel) -> str:
        """Return what happens to bulk statements on a channel's model."""
        return bound.channel.bulk or self.state.settings.bulk

    def warn(self, text: str) -> None:
        """Log a warning about bulk statements, each once in a process: a loop may run thousands of them."""
        # A set, not a time: the statement stands in the host's code and will not change.
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("bulk.not_captured: %s", text)

    def observed(self, cls: type) -> Observed | None:
        """Return what is noted of instances of `cls` for owners of before."""
        return self.observed_classes.observed(cls)

    def forms(self, cls: type) -> t.Mapping[str, Form]:
        """Return what becomes of the values of a mapped class in the app's database, by column."""
        try:
            return self._forms[cls]
        except KeyError:
            columns = {
                attribute.key: attribute.columns[0]
                for attribute in t.cast("orm.Mapper[t.Any]", inspect(cls)).column_attrs
            }
            found = {
                name: form_of(column, self.state.engine.dialect)
                for name, column in columns.items()
                if isinstance(column, sa.Column)
            }
            return self._forms.setdefault(cls, found)

    def all_forms(self, cls: type) -> Forms:
        """Return the same for whoever looks at all columns of an object."""
        try:
            return self._all_forms[cls]
        except KeyError:
            return self._all_forms.setdefault(cls, Forms(self.forms(cls)))

    def may_move(self, cls: type, names: t.Collection[str]) -> bool:
        """Say whether a row whose columns of these names are set may be another owner's afterwards."""
        plan = self.plan(cls)
        if plan is None:
            return False
        paths = [bound.owner_path for bound in plan.bounds if bound.owner_path]
        is_known = all(column_of(inspect(cls), path[0]) in plan.leading for path in paths)
        return not (is_known and plan.leading.isdisjoint(names))

    def patterns(self, events: frozenset[str]) -> tuple[str, ...]:
        """Return what listeners may say to get any of these events."""
        found = self._patterns.get(events)
        if found is None:
            patterns = {pattern for event in events for pattern in self.state.catalog.patterns(event)}
            found = self._patterns[events] = tuple(sorted(patterns))
        return found

    def has_listener(self, connection: sa.Connection, events: t.Iterable[str]) -> bool:
        """Say whether anyone, of whatever owner, listens to one of these events: one look into an index."""
        patterns = self.patterns(frozenset(events))
        if not patterns or not self.is_installed(connection):
            return False
        return recording.is_anybody_listening(connection, patterns)

    def events_of(self, changes: set[tuple[str, Kind | None]]) -> set[str]:
        """Return the names of all events that changes can cause, also by what they touch.

        :param changes: names of channels, and kinds of change; None for any kind.
        """
        events: set[str] = set()
        known = set(changes)
        waiting = list(changes)
        while waiting:
            channel, kind = waiting.pop()
            events |= {event.name for event in self.events[channel, kind]}
            for touch in self.bound[channel].touches:
                other = touch.channel, Kind.UPDATED
                if other not in known:
                    known.add(other)
                    waiting.append(other)
        return events


_registries: dict[int, weakref.ref[Registry]] = {}
registries_by_class: dict[type, tuple[weakref.ref[Registry], ...]] = {}
"""Mapped class to the apps that capture it; filled as classes are met, emptied when an app comes or goes."""


def register(registry: Registry) -> None:
    """Begin to capture for one app, for as long as the app lives."""
    registry.state.app.extensions[INFO] = registry
    number = id(registry)
    _registries[number] = weakref.ref(registry, lambda _: _forget(number))
    registries_by_class.clear()


def _forget(number: int) -> None:
    _registries.pop(number, None)
    registries_by_class.clear()


def all_registries() -> list[Registry]:
    """Return all apps that live."""
    return [registry for ref in list(_registries.values()) if (registry := ref()) is not None]


def has_registries() -> bool:
    """Say whether any app captures anything."""
    return bool(_registries)


def registry_of(state: AppState) -> Registry:
    """Return the registry of an app."""
    return t.cast("Registry", state.app.extensions[INFO])


# ---- which app -------------------------------------------------------------------------------------------


def registry_for(session: Session, cls: type) -> Registry | None:
    """Return the app that captures `cls` in this session, or None.

    :raises EmitError: several apps on one database capture it, each with a catalogue of its own.
    """
    refs = registries_by_class.get(cls)
    if refs is None:
        refs = registries_by_class[cls] = tuple(
            ref
            for ref in list(_registries.values())
            if (registry := ref()) is not None and (registry.plan(cls) or registry.observed(cls))
        )
    if not refs or _muted.get() or session.info.get(OPT_OUT) is False:
        return None
    # One app in the process, as nearly always: its engine need not be asked for.
    if len(_registries) == 1:
        return refs[0]()
    return _choose(session, cls, [registry for ref in refs if (registry := ref()) is not None])


def _choose(session: Session, cls: type, registries: list[Registry]) -> Registry | None:
    """Return the app whose database the session is on: others may capture the class, on databases of theirs."""
    engine = session.get_bind(mapper=inspect(cls)).engine
    same = _owning(engine, registries)
    if not same:
        if _owning(engine, all_registries()):
            return None  # of an app that does not capture it
        # The database is of no app: the app of the current context says whether its subscriptions are missed.
        return next(
            (registry for registry in registries if registry.state.engines.is_current), registries[-1]
        )
    if any(registry.state.catalog != same[0].state.catalog for registry in same):
        raise EmitError(
            f"{len(registries)} apps capture {cls.__name__}, and the session's engine {engine.url!r} belongs to "
            f"{len(same)} of them. Use the engine of one app, or opt out with Session(info={{'{OPT_OUT}': False}})."
        )
    return same[-1]


def _owning(engine: sa.Engine, registries: list[Registry]) -> list[Registry]:
    """Return the apps that are on a database; those with this very engine, if there are any."""
    return [registry for registry in registries if registry.state.engine.pool is engine.pool] or [
        registry
        for registry in registries
        if not is_in_memory(engine.url) and is_same_database(registry.state.engine, engine)
    ]


# ---- opting out ------------------------------------------------------------------------------------------


def is_muted() -> bool:
    """Whether this thread or greenlet is inside `muted()`."""
    return _muted.get()


@contextlib.contextmanager
def muted(session: Session | None) -> t.Iterator[None]:
    """Capture nothing of what is changed inside; what was changed before is kept.

    :param session: flushed on entry and on exit, so that the border is where the block is and not where
        SQLAlchemy happens to flush.
    """
    _flush(session)
    # After the flush: what was changed before the block is captured.
    mark = _muted.set(True)
    try:
        yield
        _flush(session)
    finally:
        _muted.reset(mark)


def _flush(session: Session | None) -> None:
    if session is not None and (session.new or session.dirty or session.deleted):
        session.flush()
