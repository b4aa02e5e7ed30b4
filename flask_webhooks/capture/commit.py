"""The last step before COMMIT: which events happened, and who listens. `writing` makes the rows."""

from __future__ import annotations

import functools
import logging
import typing as t
from collections import Counter
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ..catalog import EventType, Kind, same
from ..errors import EmitError, OwnerMissingError
from . import host_code
from .change import LATER, Change, Key, Values, coalesce, gone, stands_for
from .connections import check_database, connection_of
from .events import NOBODY, Emitted, PendingEvent, Recorded
from .failures import check_fits, failed, name_of, on_error_of
from .guard import guarding
from .loading import LedTo, Path, agrees, is_astray, load, load_linked, owner_of, referred, walk
from .matching import SubscriptionLookup
from .matching_cache import Glance
from .messages import write
from .owner_moves import Past
from .relationships import TouchedParents, led_before
from .reread import Rereading
from .sqlalchemy_internals import head_class, is_inside_flush, state_of
from .stored_values import Stored
from .traces import Trace

if t.TYPE_CHECKING:
    from ..bindings import BoundChannel
    from ..outbox.recording import MatchedSubscription
    from ..state import AppState
    from .registry import Registry
    from .side_session import SideSession

__all__ = ["settle"]

logger = logging.getLogger("flask_webhooks.capture")


def settle(
    watch: Registry,
    session: Session,
    hearing: SubscriptionLookup,
    aside: SideSession,
    items: t.Sequence[Change | Emitted | Trace],
) -> list[Recorded]:
    """Write messages and deliveries for what happened in a transaction; return what was written.

    :raises EmitError: data that cannot be sent, if `WEBHOOKS_ON_ERROR` is `raise`.
    """
    traces = [item for item in items if isinstance(item, Trace)]
    told = t.cast("t.Sequence[Change | Emitted]", items)
    if traces:
        told = [item for item in items if not isinstance(item, Trace)]
        if not told:
            return []
    is_flushing, session.autoflush = session.autoflush, False
    try:
        hearing.connection = None
        glance = Glance(watch, session)
        if watch.state.settings.record != "all" and glance.is_nobody(hearing, told):
            return []
        with guarding(session, *_beside(watch, session), told=watch.told), Stored(watch, session) as stored:
            return _recorded(watch, session, hearing, aside, told, stored, traces, glance)
    finally:
        session.autoflush = is_flushing
        if hearing.why is not None:
            watch.state.unrecorded[hearing.why] += 1


def _beside(watch: Registry, session: Session) -> t.Iterator[Session]:
    """The host's `db.session`, if that is another: code of the host's knows it by this name."""
    scoped = watch.state.app.extensions["sqlalchemy"].session
    try:
        its = scoped() if scoped.registry.has() else session
    except RuntimeError:  # outside of an app context there is none
        return
    if its is not session:
        yield its


def _recorded(
    watch: Registry,
    session: Session,
    hearing: SubscriptionLookup,
    aside: SideSession,
    items: t.Sequence[Change | Emitted],
    stored: Stored,
    traces: t.Sequence[Trace],
    glance: Glance,
) -> list[Recorded]:
    state = watch.state
    emitted = [item for item in items if isinstance(item, Emitted)]
    changes = [item for item in items if isinstance(item, Change)] if emitted else items
    nets = coalesce(t.cast("t.Sequence[Change]", changes))
    if not glance.is_whole:
        _find(session, aside, nets)
    _complete(watch, nets, stored)
    _follow_keys(watch, nets, glance.home, stored)
    _turn_back(watch, session, nets)
    contacts = TouchedParents(state, session, aside, glance.home)
    contacts.touch(nets)
    stored.decide([net for net in nets.values() if net.is_touched], ())
    aside.begin()
    past = Past(watch, session, nets, traces, aside)
    rereading = Rereading(session, aside, stored)
    occurrences = _occurrences(watch, nets, past, aside, rereading)
    if emitted:
        stored.show(item.obj for item in emitted if item.obj is not None)
        occurrences += _emitted(state, nets, emitted, aside.led_to, rereading)
    if not occurrences:
        return []
    connection = hearing.connection
    if connection is None:
        connection = hearing.connection = _connection(watch, session, occurrences)
        occurrences = _at_home(watch, session, connection, occurrences)
        if not occurrences:
            hearing.why = "database"
            return []
    hearing.ask(
        connection,
        {item.owner for item in occurrences},
        {item.event.name for item in occurrences},
        has_written=bool(nets),
    )
    heard = _heard(state, hearing, occurrences) if hearing.why is None else []
    if not heard:
        return []
    try:
        contacts.agree(heard, stored)
        stored.part(session, heard, gone(items))
        heard = _load(heard)
        past.complete(heard)
        stored.complete(heard)
    except DBAPIError:
        raise
    except Exception as error:  # a loader of the host's, or a class that its session has no database for
        # Where one is to be recorded, each dump says for itself what it cannot read.
        if all(on_error_of(state, item.event) != "record" for item in heard):
            failed(state, heard[0].event, heard[0].obj, error)
    rereading.heard = heard
    return write(watch, connection, heard, rereading)


def _connection(watch: Registry, session: Session, occurrences: t.Sequence[PendingEvent]) -> sa.Connection:
    """The one connection that everything was written on."""
    return connection_of(watch, session, next(iter(_models(occurrences)), None))


def _models(occurrences: t.Sequence[PendingEvent]) -> set[type | None]:
    return {item.bound.model for item in occurrences if item.bound is not None}


def _at_home(
    watch: Registry, session: Session, connection: sa.Connection, occurrences: list[PendingEvent]
) -> list[PendingEvent]:
    """Leave out what was written to another database than the app's, to which nobody listens.

    :raises EmitError: somebody does.
    """
    models = _models(occurrences)
    if len(models) < 2:
        return occurrences if check_database(watch, connection.engine, next(iter(models), None)) else []
    engines = {model: session.get_bind(inspect(model)).engine for model in models if model is not None}
    strange = {model for model, engine in engines.items() if not check_database(watch, engine, model)}
    return [item for item in occurrences if item.bound is None or item.bound.model not in strange]


def _follow_keys(
    watch: Registry, nets: dict[Key, Change], home: set[orm.InstanceState[t.Any]], stored: Stored
) -> None:
    """Let relationships that were loaded lead where their keys lead since somebody set these: `line.invoice_id = 7`.

    SQLAlchemy does that only after the commit. Until then owner, includes and touches would be those of before. It does
    so neither when the object that was loaded becomes that of another row.

    :param home: states of objects whose relationships to what they touch need not be looked at, unless keys were set.
    """
    stale: dict[tuple[Session, type], tuple[set[Path], list[t.Any]]] = {}
    deleted = Kind.DELETED
    last: tuple[type, BoundChannel] | None = None
    followed: t.Sequence[tuple[str, tuple[str, ...], bool]] = ()
    for net in nets.values():
        if net.kind is deleted:
            continue
        cls, bound = type(net.obj), net.bound
        if last is None or cls is not last[0] or bound is not last[1]:  # they come class by class
            last, plan = (cls, bound), watch.plan(cls)
            # What nobody here reads stays as it is: the host may read it after the session is closed.
            followed = plan.followed.get(bound.channel.name, ()) if plan is not None else ()
        if not followed:
            continue
        state: t.Any = state_of(net.obj)
        may_have_set = bool(net.values or net.steps)
        for name, keys, is_touched in followed:
            if name not in net.obj.__dict__:
                continue
            is_sure = is_touched and state in home
            is_set = may_have_set and net.has_set(keys)
            if (not is_sure and is_astray(state, name)) or (is_set and not agrees(state, name)):
                home.discard(state)
                stored.lay_aside(net.obj, name)
                paths, identities = stale.setdefault((state.session, type(net.obj)), (set(), []))
                paths.add((name,))
                identities.append(state.identity)
    for (session, model), (paths, identities) in stale.items():
        load(session, model, identities, paths)


def _turn_back(watch: Registry, session: Session, nets: dict[Key, Change]) -> None:
    """Let what remains of a row say whose it was before the transaction, and where: nobody else has known it."""
    for net in nets.values():
        if net.kind is not Kind.DELETED:
            continue
        plan = watch.plan(type(net.obj))
        for name in plan.references if plan is not None else ():
            _lead_back(session, state_of(net.obj), name)
        if not net.steps:
            continue
        for name in plan.references if plan is not None else ():
            before = led_before(session, net, name)
            if before is not None:
                net.obj.__dict__[name] = before
        names = plan.deciding & net.values.keys() if plan is not None else set()
        if plan is not None and any(_is_moved(net, name) for name in plan.leading & names):
            names |= plan.columns & net.values.keys()  # what it became for another is not told
            net.obj.__dict__.update(dict.fromkeys(_computed(inspect(net.obj).mapper)))
        for name in names:
            net.obj.__dict__[name] = net.values[name][0]


def _computed(mapper: orm.Mapper[t.Any]) -> list[str]:
    """What a query computes (`column_property`): of columns as they were nobody can know it."""
    return [attr.key for attr in mapper.column_attrs if not isinstance(attr.columns[0], sa.Column)]


def _lead_back(session: Session, state: orm.InstanceState[t.Any], name: str) -> None:
    """Let what remains of a row lead to the row that it did, where the object has become another's meanwhile."""
    if is_astray(state, name):
        found = referred(state.session or session, state.mapper.relationships[name], state.dict)
        if found is not None:
            state.dict[name] = found


def _is_moved(net: Change, name: str) -> bool:
    return not same(net.values[name][0], net.obj.__dict__.get(name))


# ---- which events happened -------------------------------------------------------------------------------


def _find(session: Session, aside: SideSession, nets: dict[Key, Change]) -> None:
    """Give every net an object."""
    key = session.hash_key
    lost = [net for net in nets.values() if net.obj is None or _is_lost(net, key)]
    if lost:
        for net in lost:
            net.obj = None
        aside.fetch(nets)


def _complete(watch: Registry, nets: dict[Key, Change], stored: Stored) -> None:
    """Give every net every value that a condition will look at."""
    vague = [net for net in nets.values() if net.is_later and _is_vague(watch, net)]
    stored.decide(list(nets.values()), vague)
    if not vague:
        return
    _refresh([net.obj for net in vague])
    for net in vague:
        if not _is_resolved(net) or (net.kind is Kind.UPDATED and not net.is_changed()):
            del nets[net.key]


def _is_lost(net: Change, key: int) -> bool:
    """Whether it was expunged, so that nothing can be loaded for it, or stands for another row by now."""
    if net.kind is Kind.DELETED:
        return False
    state = state_of(net.obj)
    return state.session_id != key or not stands_for(state, net)


def _is_vague(watch: Registry, net: Change) -> bool:
    """Whether it takes the database to say what happened, or whether anything did."""
    if net.kind is Kind.DELETED:
        return False
    later = [name for name, (_, new) in net.values.items() if new is LATER]
    if not later:
        return False
    if net.is_remade or len(later) == len(net.values) or not net.bound.watch.isdisjoint(later):
        return True
    plan = watch.plan(type(net.obj))
    return plan is not None and not plan.leading.isdisjoint(later)


def _is_resolved(net: Change) -> bool:
    """Read what only the database knew; False if there is nothing left to tell."""
    try:
        net.values = _resolved(net.obj, net.values)
        for step in net.steps:
            step.values = _resolved(net.obj, step.values)
    except orm.exc.ObjectDeletedError:  # by a statement that nobody could see
        return False
    return True


def _resolved(obj: t.Any, values: Values) -> Values:
    return {name: (old, getattr(obj, name) if new is LATER else new) for name, (old, new) in values.items()}


def _occurrences(
    watch: Registry, nets: dict[Key, Change], past: Past, aside: SideSession, rereading: Rereading
) -> list[PendingEvent]:
    found = [
        (net, events, may_have_moved)
        for net in nets.values()
        if net.bound.channel.events or net.bound.owner_path
        if ((events := _events(watch, net)), may_have_moved := past.may_have_moved(net)) != ([], False)
    ]
    if len(found) > 1:
        _refresh([net.obj for net, _, _ in found])
    linked = found if watch.is_linked else ()
    led = load_linked((net.bound, net.obj, net.values) for net, _, _ in linked)  # held while owners are read
    occurrences = []
    ownerless: list[EventType] = []
    for net, events, may_have_moved in found:
        try:
            owner, before = rereading.owned(_owners, net, past, aside, may_have_moved)
            moved = past.told(net, before, owner) if before != owner else ()
        except orm.exc.ObjectDeletedError:  # by a statement that nobody could see: there is nothing to tell
            continue
        except Exception as error:  # a property of the host's
            lost = events or [_first(watch, net, events)]
            if on_error_of(watch.state, lost[0]) == "record":
                occurrences += [
                    PendingEvent(event, NOBODY, net.bound, net.obj, {}, error=error) for event in lost
                ]
            else:
                failed(watch.state, lost[0], net.obj, error)
            continue
        if before != owner:
            occurrences += [PendingEvent(event, whose, net.bound, obj, {}) for event, whose, obj in moved]
            continue
        if owner is None:
            ownerless += events
            continue
        values = net.values if net.kind is Kind.UPDATED else {}
        obj = past.gone(net) if net.steps and net.kind is Kind.DELETED else net.obj
        occurrences += [PendingEvent(event, owner, net.bound, obj, values) for event in events]
    del led
    if ownerless:
        _tell_ownerless(watch, aside, ownerless)
    return occurrences


def _owners(
    net: Change, past: Past, aside: SideSession, may_have_moved: bool
) -> tuple[str | None, str | None]:
    """Return whose a row is, and whose it was."""
    owner = host_code.owned(net.bound, net.obj, owner_of, net.bound, net.obj, aside.led_to)
    return owner, host_code.owned(net.bound, net.obj, past.owner, net) if may_have_moved else owner


def _tell_ownerless(watch: Registry, aside: SideSession, events: t.Sequence[EventType]) -> None:
    """Warn of events that nobody can be told of, and count them, if anybody at all listens to such events."""
    counts = Counter(event.name for event in events)
    about = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    if not aside.is_event_heard(counts):
        logger.debug("message.ownerless: %s", about)
        return
    watch.state.ownerless.update(counts)
    logger.warning(
        "message.ownerless: nobody owns the rows of %s, so nobody is told. Look at `owner` in the catalogue, and at "
        "these rows.",
        about,
        extra={"events": dict(counts)},
    )


def _first(watch: Registry, net: Change, events: t.Sequence[EventType]) -> EventType:
    """An event to name in an error."""
    return next(iter(events or watch.events[net.bound.channel.name, None]))


def _events(watch: Registry, net: Change) -> list[EventType]:
    possible = watch.events[net.bound.channel.name, None if net.steps else net.kind]
    return [event for event in possible if net.matches(event)]


def _refresh(objects: t.Sequence[t.Any]) -> None:
    """Load objects that are expired as a whole, in one statement for each class instead of one for each object."""
    stale = [obj for obj in objects if _is_stale(state_of(obj))]
    if len(stale) > 1:
        for (session, model), some in _by_class(stale).items():
            load(session, model, [state_of(obj).identity for obj in some])


def _is_stale(state: orm.InstanceState[t.Any]) -> bool:
    return bool(state.expired_attributes) and state.persistent


def _by_class(objects: t.Iterable[t.Any]) -> dict[tuple[Session, type], list[t.Any]]:
    found: dict[tuple[Session, type], list[t.Any]] = {}
    for obj in objects:
        state = inspect(obj)
        if state.session is not None:
            found.setdefault((state.session, type(obj)), []).append(obj)
    return found


def _emitted(
    state: AppState,
    nets: t.Mapping[Key, Change],
    items: t.Sequence[Emitted],
    led_to: LedTo,
    rereading: Rereading,
) -> t.Iterator[PendingEvent]:
    """What the host emitted; of objects as they are now, or as they were last."""
    _refresh([item.obj for item in items if item.obj is not None])
    for each in items:
        item = _as_it_was(nets, each)
        try:
            owner = item.owner if item.obj is None else rereading.owned(_owner_now, item, led_to)
        except Exception as error:  # a property of the host's, or nothing to tell
            if on_error_of(state, item.event) == "record":
                owner = item.owner or NOBODY
                yield PendingEvent(
                    item.event, owner, item.bound, item.obj, {}, dedupe_key=item.dedupe_key, error=error
                )
            else:
                failed(state, item.event, item.obj, error)
            continue
        assert owner is not None  # noqa: S101  # data without an owner is refused by emit()
        yield PendingEvent(
            item.event,
            owner,
            item.bound,
            item.obj,
            {},
            item.text,
            item.entity_id,
            item.status,
            item.dedupe_key,
        )


def _as_it_was(nets: t.Mapping[Key, Change], item: Emitted) -> Emitted:
    if item.obj is None or item.bound is None or not state_of(item.obj).deleted:
        return item
    state: t.Any = state_of(item.obj)
    net = nets.get((item.bound.channel.name, head_class(state.mapper), *state.identity))
    return item if net is None or net.kind is not Kind.DELETED else replace(item, obj=net.obj)


def _owner_now(item: Emitted, led_to: LedTo) -> str:
    """Return whose an emitted object is.

    :raises EmitError: no row stands for it, or nobody owns it.
    """
    state = inspect(item.obj)
    about = f"{item.event.name} was emitted for {name_of(item.obj)}"
    if not (state.persistent or state.deleted or _is_being_flushed(state)):
        raise EmitError(f"{about}, {_DETACHED if state.detached else _TRANSIENT}")
    try:
        state.mapper.primary_key_from_instance(item.obj)  # of an expired one this loads all
        owner = item.owner
        if owner is None and item.bound is not None:
            owner = host_code.owned(item.bound, item.obj, owner_of, item.bound, item.obj, led_to)
    except orm.exc.ObjectDeletedError as error:
        raise EmitError(f"{about}, whose row is gone. Emit before it is deleted, or pass a dict.") from error
    if owner is None:
        raise OwnerMissingError(f"{about}, which has no owner. Pass owner=...", event=item.event.name)
    check_fits(item.event, item.obj, "owner", owner)
    return owner


_DETACHED = "which is in no session and cannot be read. Add it to the session again, or pass a dict."
_TRANSIENT = (
    "which is not in the database: it was never added, or its savepoint was rolled back. Add it before the commit, "
    "or pass a dict."
)


def _is_being_flushed(state: orm.InstanceState[t.Any]) -> bool:
    """Whether its INSERT belongs to the flush that is running: a listener of that has emitted it."""
    session: t.Any = state.session
    if session is None or not is_inside_flush(session):
        return False
    return None not in state.mapper.primary_key_from_instance(state.obj())


# ---- who listens -----------------------------------------------------------------------------------------


def _heard(
    state: AppState, hearing: SubscriptionLookup, occurrences: t.Sequence[PendingEvent]
) -> list[PendingEvent]:
    """Return the occurrences that somebody listens to (all of them with `WEBHOOKS_RECORD = "all"`)."""
    environment = state.settings.environment
    heard = []
    known: dict[tuple[str, str], list[MatchedSubscription]] = {}
    for item in occurrences:
        whose = item.event.name, item.owner
        if whose not in known:
            listeners = hearing.wanted(item.event, item.owner)
            if isinstance(environment, str):
                listeners = [wanted for wanted in listeners if wanted.environment == environment]
            known[whose] = listeners
        item.listeners = listeners = known[whose]
        is_lost = item.owner == NOBODY and hearing.is_anybody(item.event)
        if listeners or is_lost or state.settings.record == "all":
            heard.append(item)
    return heard


def _load(occurrences: t.Sequence[PendingEvent]) -> list[PendingEvent]:
    """Load what the dumps will read, a few statements for each model instead of some for each object.

    Returned are those whose row is still there: a statement that nobody could see may have deleted others.
    """
    gone: set[int] = set()
    wanted: dict[tuple[Session, type], tuple[set[Path], dict[int, t.Any]]] = {}
    for item in occurrences:
        if item.bound is None or item.obj is None or item.error is not None:
            continue
        state = state_of(item.obj)
        if not state.persistent or state.session is None:
            continue
        paths, objects = wanted.setdefault((state.session, type(item.obj)), (set(), {}))
        paths.update(item.paths())
        if item.bound.schema is None:  # then columns are sent, deferred ones too
            paths.update((name,) for name in item.bound.shown)
        objects[id(item.obj)] = item.obj
    for (session, model), (paths, objects) in wanted.items():
        needed = {path[0] for path in paths if path}
        columns, raising = _columns_of(model)
        stale = [obj for obj in objects.values() if _lacks(state_of(obj), needed)]
        forbidden = any(_is_forbidden(state_of(obj), columns, raising) for obj in objects.values())
        if len(stale) > 1 or forbidden:
            stale = list(objects.values()) if forbidden else stale
            load(
                session,
                model,
                [inspect(obj).identity for obj in stale],
                [path for path in paths if path and path[0] not in columns],
                columns=forbidden or not needed.isdisjoint(columns),
            )
        if paths:
            gone |= {id(obj) for obj in objects.values() if not _is_loaded(obj, paths)}
    return [item for item in occurrences if id(item.obj) not in gone]


@functools.lru_cache(maxsize=1024)
def _columns_of(model: t.Any) -> tuple[frozenset[str], frozenset[str]]:
    """All columns of a class, and those that its mapping forbids to load."""
    attributes: t.Any = inspect(model).column_attrs
    return frozenset(attributes.keys()), frozenset(each.key for each in attributes if each.raiseload)


def _is_loaded(obj: t.Any, paths: t.Iterable[Path]) -> bool:
    """Load what is missing of the paths; False if the row is gone."""
    try:
        for path in paths:
            if len(path) > 1 or (path and path[0] not in obj.__dict__):
                walk(obj, path)
    except orm.exc.ObjectDeletedError:
        return False
    return True


def _lacks(state: orm.InstanceState[t.Any], names: t.AbstractSet[str]) -> bool:
    return bool(state.expired_attributes) or not names <= state.dict.keys()


def _is_forbidden(
    state: orm.InstanceState[t.Any], columns: t.AbstractSet[str], forbidden: t.AbstractSet[str]
) -> bool:
    """Whether it lacks columns that may be forbidden (`raiseload`), by options of its query or by its mapping."""
    names = columns if state.load_options or state.callables else forbidden
    return not names <= state.dict.keys()
