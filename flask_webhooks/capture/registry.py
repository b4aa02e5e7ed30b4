"""Which app captures which class: worked out once for each class, so that most objects cost one look-up."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import typing as t
import weakref
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import event, inspect, orm
from sqlalchemy.orm import Session

from ..bindings import BoundChannel
from ..bindings.owner_steps import SIGN, KeyLink, link_of
from ..bindings.paths import columns_of
from ..bindings.stored_values import Form, Forms, form_of
from ..catalog import Kind
from ..engines import is_in_memory, is_same_database
from ..errors import EmitError
from .database import HostDatabase
from .loading import Path, attributes_of
from .sqlalchemy_internals import head_class
from .traces import Shown, Sights

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["MapperPlan", "Registry", "is_muted", "muted", "registry_of", "watching"]

logger = logging.getLogger("flask_webhooks.capture")

INFO = "webhooks_capture"
OPT_OUT = "webhooks"
"""`Session(info={"webhooks": False})` is never looked at."""

_muted: contextvars.ContextVar[bool] = contextvars.ContextVar("webhooks_muted", default=False)


@dataclass(frozen=True, slots=True)
class MapperPlan:
    """What is captured of one mapped class, by one app."""

    bounds: tuple[BoundChannel, ...]
    """Its own channels and those of the classes it inherits from."""
    head: type
    """The class that heads its inheritance: rows of concrete tables are others though they have the same key."""
    keys: tuple[str, ...]
    """Attributes of the primary key."""
    columns: frozenset[str]
    """Columns that some channel sees."""
    attributes: frozenset[str]
    """The same, and what a `column_property` computes: all that must be read before a row is deleted."""
    touched: frozenset[Path]
    """Relationships to what it touches."""
    read: frozenset[Path]
    """Paths that data, includes and owner follow."""
    along: frozenset[Path]
    """Those whose first step leads to what the database deletes along by itself."""
    owners: frozenset[str]
    """Columns that the path to the owner begins with."""
    leading: frozenset[str]
    """Columns by which a path to an owner goes on, and relationships: of its own channels, or of those it is on the
    way of. Where one of them changes, a row may have moved to another owner."""
    deciding: frozenset[str]
    """Columns that say what row it is, whose it is and what it belongs to."""
    automatic: tuple[str, ...]
    """Columns that an UPDATE sets although nobody assigned them: `onupdate`, computed, the version counter."""
    is_linked: bool
    """Whether a path to one of its owners goes over a foreign key without a relationship, here or further on."""
    links: tuple[KeyLink, ...]
    """Foreign keys without a relationship by which a path to an owner goes on."""
    forms: t.Mapping[str, Form]
    """What becomes of the values of columns in the database."""
    leading_forms: Forms | None
    """The same of the leading columns alone; None if there are none."""
    opaque: frozenset[str]
    """Columns of which only the row can tell that."""
    references: t.Mapping[str, tuple[str, ...]]
    """Many-to-one relationships, which set their columns only during the flush."""
    followed: t.Mapping[str, tuple[tuple[str, tuple[str, ...], bool], ...]]
    """Those of them that somebody reads, by channel: each with its columns, and whether it leads to what is touched."""

    @classmethod
    def make(
        cls,
        mapper: orm.Mapper[t.Any],
        bounds: tuple[BoundChannel, ...],
        leading: frozenset[str],
        forms: t.Mapping[str, Form],
    ) -> MapperPlan:
        """Work out the plan of a class."""
        columns = frozenset().union(*(bound.columns for bound in bounds))
        keys = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
        paths = [bound.owner_path for bound in bounds if bound.owner_path]
        is_on_the_way = not any(bound.channel.events or bound.touches for bound in bounds)
        owners = frozenset(_column_of(mapper, path[0].removesuffix(SIGN)) for path in paths) & columns
        references = {
            relation.key: names
            for relation in mapper.relationships
            if relation.direction is orm.MANYTOONE
            if (names := attributes_of(mapper, relation.local_columns))
            if attributes_of(relation.mapper, relation.remote_side)
        }
        passive = {each.key for each in mapper.relationships if each.passive_deletes}
        touched = {(touch.relationship,) for bound in bounds for touch in bound.touches}
        read = {path for bound in bounds for path in _read_by(bound)}
        return cls(
            bounds=bounds,
            head=head_class(mapper),
            keys=keys,
            columns=columns,
            attributes=leading & columns if is_on_the_way else columns.union(mapper.column_attrs.keys()),
            touched=frozenset(path for path in touched if path[0] not in passive),
            read=frozenset(path for path in read if path and path[0] not in passive),
            along=frozenset(path for path in read if path and path[0] in passive),
            owners=owners,
            leading=leading,
            deciding=owners.union(keys, *references.values()),
            automatic=tuple(attr.key for attr in mapper.column_attrs if _is_automatic(mapper, attr)),
            is_linked=any(name.endswith(SIGN) for path in paths for name in path),
            links=tuple(
                t.cast("KeyLink", link_of(mapper, name)) for name in sorted(leading) if name.endswith(SIGN)
            ),
            forms=forms,
            leading_forms=Forms(first)
            if (first := {name: forms[name] for name in leading & forms.keys()})
            else None,
            opaque=frozenset(name for name, form in forms.items() if form.is_opaque),
            references=references,
            followed={
                bound.channel.name: tuple(
                    (name, names, any(touch.relationship == name for touch in bound.touches))
                    for name, names in references.items()
                    if name in bound.needed
                )
                for bound in bounds
            },
        )

    def stored(self, name: str, value: t.Any) -> t.Any:
        """Return what the row has where this was assigned; `LATER` where only the row can tell."""
        form = self.forms.get(name)
        return value if form is None or form.is_opaque else form(value)


def _read_by(bound: BoundChannel) -> t.Iterator[Path]:
    yield from bound.trails
    yield from (include.relationships for include in bound.includes.values())
    yield from ((name,) for name in bound.needed)


def _steps(mapper: orm.Mapper[t.Any], path: Path) -> t.Iterator[tuple[orm.Mapper[t.Any], frozenset[str]]]:
    """Yield the classes on the path to an owner, each with what the path goes by there."""
    for name in path:
        column = _column_of(mapper, name)
        relation = link_of(mapper, name)
        if relation is None:
            yield mapper, frozenset({column} if column in mapper.column_attrs else ())
            return
        yield mapper, frozenset({name, *attributes_of(mapper, relation.local_columns)})
        mapper = relation.mapper


def _column_of(mapper: orm.Mapper[t.Any], name: str) -> str:
    """Follow a synonym to the column that it stands for."""
    while name in mapper.synonyms:
        name = mapper.synonyms[name].name
    return name


def _is_automatic(mapper: orm.Mapper[t.Any], attribute: orm.ColumnProperty[t.Any]) -> bool:
    column = attribute.columns[0]
    if not isinstance(column, sa.Column):
        return False
    return column is mapper.version_id_col or not (column.onupdate is None and column.server_onupdate is None)


class Registry(HostDatabase):
    """The models of one app that are captured."""

    def __init__(self, state: AppState, listeners: t.Mapping[str, t.Callable[..., None]]) -> None:
        """Find the models.

        :param listeners: to mapper events, set on each class when it is first met: after those that the host has
            set while its modules were imported and its app was made.
        """
        super().__init__(state)
        self._listeners = listeners
        self.models: dict[type, list[BoundChannel]] = {}
        for bound in state.bound.values():
            if bound.model is not None and bound.kinds:
                self.models.setdefault(bound.model, []).append(bound)
        self.is_minding = any(
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
        self.sights = Sights(self.models)
        self.told: set[tuple[str, str]] = set()
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
        known.clear()

    def _leading(self) -> dict[type, frozenset[str]]:
        found: dict[type, frozenset[str]] = {}
        for model, bounds in self.models.items():
            for bound in bounds:
                for mapper, names in _steps(inspect(model), bound.owner_path or ()):
                    found[mapper.class_] = found.get(mapper.class_, frozenset()) | names
        return found

    def _on_the_way(self) -> dict[str, BoundChannel]:
        """Watch classes on the way to an owner for the sake of their rows, though they have no events."""
        found: dict[str, BoundChannel] = {}
        for model, names in self.leading.items():
            mapper: orm.Mapper[t.Any] = inspect(model)
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
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("bulk.not_captured: %s", text)

    def shown(self, cls: type) -> Shown | None:
        """Return what is noted of instances of `cls` for owners of before."""
        return self.sights.shown(cls)

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
        is_known = all(_column_of(inspect(cls), path[0]) in plan.leading for path in paths)
        return not (is_known and plan.leading.isdisjoint(names))

    def patterns(self, events: frozenset[str]) -> tuple[str, ...]:
        """Return what listeners may say to get any of these events."""
        found = self._patterns.get(events)
        if found is None:
            patterns = {pattern for event in events for pattern in self.state.catalog.patterns(event)}
            found = self._patterns[events] = tuple(sorted(patterns))
        return found


_watches: dict[int, weakref.ref[Registry]] = {}
known: dict[type, tuple[weakref.ref[Registry], ...]] = {}
"""Mapped class to the apps that capture it; filled as classes are met, emptied when an app comes or goes."""


def register(watch: Registry) -> None:
    """Begin to capture for one app, for as long as the app lives."""
    watch.state.app.extensions[INFO] = watch
    number = id(watch)
    _watches[number] = weakref.ref(watch, lambda _: _forget(number))
    known.clear()


def _forget(number: int) -> None:
    _watches.pop(number, None)
    known.clear()


def everybody() -> list[Registry]:
    """Return all apps that live."""
    return [watch for ref in list(_watches.values()) if (watch := ref()) is not None]


def anybody() -> bool:
    """Say whether any app captures anything."""
    return bool(_watches)


def registry_of(state: AppState) -> Registry:
    """Return the watch of an app."""
    return t.cast("Registry", state.app.extensions[INFO])


# ---- which app -------------------------------------------------------------------------------------------


def watching(session: Session, cls: type) -> Registry | None:
    """Return the app that captures `cls` in this session, or None.

    :raises EmitError: several apps on one database capture it, each with a catalogue of its own.
    """
    refs = known.get(cls)
    if refs is None:
        refs = known[cls] = tuple(
            ref
            for ref in list(_watches.values())
            if (watch := ref()) is not None and (watch.plan(cls) or watch.shown(cls))
        )
    if not refs or _muted.get() or session.info.get(OPT_OUT) is False:
        return None
    if len(_watches) == 1:
        return refs[0]()
    return _choose(session, cls, [watch for ref in refs if (watch := ref()) is not None])


def _choose(session: Session, cls: type, watches: list[Registry]) -> Registry | None:
    """Return the app whose database the session is on: others may capture the class, on databases of theirs."""
    engine = session.get_bind(mapper=inspect(cls)).engine
    same = _owning(engine, watches)
    if not same:
        if _owning(engine, everybody()):
            return None  # of an app that does not capture it
        # Of no app: whose context this is will say whether that matters to anybody.
        return next((watch for watch in watches if watch.state.engines.is_current), watches[-1])
    if any(watch.state.catalog != same[0].state.catalog for watch in same):
        raise EmitError(
            f"{len(watches)} apps capture {cls.__name__}, and the session's engine {engine.url!r} belongs to "
            f"{len(same)} of them. Use the engine of one app, or opt out with Session(info={{'{OPT_OUT}': False}})."
        )
    return same[-1]


def _owning(engine: sa.Engine, watches: list[Registry]) -> list[Registry]:
    """Return the apps that are on a database; those with this very engine, if there are any."""
    return [watch for watch in watches if watch.state.engine.pool is engine.pool] or [
        watch
        for watch in watches
        if not is_in_memory(engine.url) and is_same_database(watch.state.engine, engine)
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
    mark = _muted.set(True)
    try:
        yield
        _flush(session)
    finally:
        _muted.reset(mark)


def _flush(session: Session | None) -> None:
    if session is not None and (session.new or session.dirty or session.deleted):
        session.flush()
