"""The last step before COMMIT: which events happened, who listens, what they get; then the rows."""

from __future__ import annotations

import logging
import time
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import inspect
from sqlalchemy.orm import Session, selectinload

from .. import outbox, payload
from ..catalog import EventType, Kind
from ..config import ENVIRONMENTS
from ..errors import EmitError, OwnerMissingError, PayloadError, PayloadTooLargeError
from ..ids import uuid7
from ..models import State, Subscription, Trigger
from .changes import Change, Net, Values, coalesce

if t.TYPE_CHECKING:
    from ..bindings import Bound
    from ..outbox import Wanted
    from ..state import AppState

__all__ = ["Emitted", "Recorded", "settle"]

CHANGES = "changes"
"""The include that every listener may ask for: column to `{from, to}`."""

logger = logging.getLogger("flask_webhooks.capture")
Recorded = dict[str, t.Any]


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that the host emitted: with data that is JSON already, or with an object to dump at commit."""

    event: EventType
    owner: str | None
    text: str | None
    """JSON of the data; None for an object."""
    data: t.Any
    obj: t.Any = None
    bound: Bound | None = None
    dedupe_key: str | None = None


@dataclass(slots=True)
class _Occurrence:
    """An event that happened, on its way to becoming a message."""

    event: EventType
    owner: str
    bound: Bound | None
    obj: t.Any
    values: Values
    emitted: Emitted | None = None
    listeners: t.Sequence[Wanted] = ()

    @property
    def about(self) -> str:
        """What it is about, for error messages."""
        return f"{self.event.name} of {type(self.obj).__name__}" if self.obj is not None else self.event.name


def settle(state: AppState, session: Session, items: t.Sequence[Change | Emitted]) -> list[Recorded]:
    """Write messages and deliveries for what happened in a transaction; return what was written.

    :raises EmitError: data that cannot be sent, unless `WEBHOOKS_ON_ERROR` is `log`.
    """
    with session.no_autoflush:
        occurrences = list(_occurrences(state, session, items))
        if not occurrences:
            return []
        connection = _connection(session, occurrences)
        heard = _heard(state, connection, occurrences)
        if not heard:
            return []
        _load(session, heard)
        return _write(state, connection, heard)


def _connection(session: Session, occurrences: t.Sequence[_Occurrence]) -> sa.Connection:
    """The connection that the changed data is written on: a bind of its own would not be one transaction."""
    models = (item.bound.model for item in occurrences if item.bound is not None and item.bound.model)
    model = next(models, Subscription)
    return session.connection(bind_arguments={"mapper": inspect(model)})


# ---- which events happened -------------------------------------------------------------------------------


def _occurrences(
    state: AppState, session: Session, items: t.Sequence[Change | Emitted]
) -> t.Iterator[_Occurrence]:
    nets = coalesce(item for item in items if isinstance(item, Change))
    if any(net.obj is None for net in nets):
        _fetch(session, nets)
    touched = list(_touched(state, nets))
    for net in [*nets, *touched]:
        events = [event for event in net.bound.channel.events.values() if net.matches(event)]
        if not events:
            continue
        owner = net.bound.owner(net.obj)
        if owner is None:
            logger.debug("message.ownerless", extra={"channel": net.bound.channel.name})
            continue
        values = net.values if net.kind is Kind.UPDATED else {}
        for event in events:
            yield _Occurrence(event, owner, net.bound, net.obj, values)
    for item in items:
        if isinstance(item, Emitted):
            yield _emitted(item)


def _fetch(session: Session, nets: list[Net]) -> None:
    """Load the objects of which a bulk statement told only the keys; rows that are gone again are dropped."""
    by_model: dict[type, list[Net]] = {}
    for net in nets:
        if net.obj is None and net.bound.model is not None:
            by_model.setdefault(net.bound.model, []).append(net)
    for model, missing in by_model.items():
        found = {
            tuple(inspect(obj).identity): obj
            for obj in _select(session, model, [net.key[2:] for net in missing])
        }
        for net in missing:
            net.obj = found.get(tuple(net.key[2:]))
    nets[:] = [net for net in nets if net.obj is not None]


def _touched(state: AppState, nets: t.Sequence[Net]) -> t.Iterator[Net]:
    """Updates of what a changed object touches: once for each, however many of its parts changed."""
    own = {net.key: net for net in nets}
    for net in nets:
        for touch in net.bound.touches:
            bound = state.bound[touch.channel]
            for other in _related(net.obj, touch.relationship):
                if bound.model is None or not isinstance(other, bound.model):
                    continue
                mapper = inspect(other).mapper
                identity = mapper.primary_key_from_instance(other)
                key = (touch.channel, mapper.base_mapper.class_, *identity)
                known = own.get(key)
                if known is None:
                    own[key] = Net(Kind.UPDATED, bound, key, other, {}, touched=True)
                    yield own[key]
                elif known.kind is Kind.UPDATED:
                    known.touched = True


def _related(obj: t.Any, relationship: str) -> t.Sequence[t.Any]:
    value = getattr(obj, relationship)
    if value is None:
        return ()
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def _emitted(item: Emitted) -> _Occurrence:
    owner = item.owner
    if owner is None and item.bound is not None:
        owner = item.bound.owner(item.obj)
    if owner is None:
        raise OwnerMissingError(
            f"{item.event.name} was emitted for {type(item.obj).__name__} without an owner, and the object has "
            "none. Pass owner=..."
        )
    return _Occurrence(item.event, owner, item.bound, item.obj, {}, item)


# ---- who listens -----------------------------------------------------------------------------------------


def _heard(
    state: AppState, connection: sa.Connection, occurrences: t.Sequence[_Occurrence]
) -> list[_Occurrence]:
    """Return the occurrences that somebody listens to (all of them with `WEBHOOKS_RECORD = "all"`)."""
    patterns = {item.event.name: state.catalog.patterns(item.event.name) for item in occurrences}
    names = {name for some in patterns.values() for name in some}
    found = outbox.listening(connection, {item.owner for item in occurrences}, names)
    for item in occurrences:
        item.listeners = _united(
            wanted for name in patterns[item.event.name] for wanted in found.get((item.owner, name), ())
        )
    environment = state.settings.environment
    if isinstance(environment, str):
        for item in occurrences:
            item.listeners = [wanted for wanted in item.listeners if wanted.environment == environment]
    return [item for item in occurrences if item.listeners or state.settings.record == "all"]


def _united(listeners: t.Iterable[Wanted]) -> list[Wanted]:
    """One entry a subscription: what `invoices.updated` and `invoices.*` ask for is asked for together."""
    by_id: dict[str, Wanted] = {}
    for wanted in listeners:
        known = by_id.get(wanted.subscription_id)
        by_id[wanted.subscription_id] = wanted if known is None else known.joined(wanted)
    return list(by_id.values())


# ---- what they get ---------------------------------------------------------------------------------------


def _load(session: Session, occurrences: t.Sequence[_Occurrence]) -> None:
    """Load what the dumps will read, a few statements for each model instead of some for each object."""
    wanted: dict[type, tuple[set[tuple[str, ...]], list[t.Any]]] = {}
    for item in occurrences:
        bound = item.bound
        if bound is None or bound.model is None or not inspect(item.obj).persistent:
            continue
        paths, objects = wanted.setdefault(bound.model, (set(), []))
        paths.update(bound.trails)
        asked = {name for listener in item.listeners for name in listener.includes}
        paths.update(bound.includes[name].relationships for name in asked & bound.includes.keys())
        objects.append(item.obj)
    for model, (paths, objects) in wanted.items():
        columns: t.Iterable[str] = inspect(model).column_attrs.keys()
        names = {path[0] for path in paths if path} | set(columns)
        stale = [obj for obj in objects if inspect(obj).unloaded & names]
        if len(stale) > 1:
            keys = [inspect(obj).identity for obj in stale]
            _select(session, model, keys, [path for path in paths if path])


def _select(
    session: Session, model: type, keys: t.Sequence[t.Any], paths: t.Collection[tuple[str, ...]] = ()
) -> list[t.Any]:
    mapper: t.Any = inspect(model)
    columns = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    options = [_option(model, path) for path in sorted(paths)]
    rows: list[t.Any] = []
    for start in range(0, len(keys), outbox.CHUNK):
        some = keys[start : start + outbox.CHUNK]
        match = (
            columns[0].in_([key[0] for key in some]) if len(columns) == 1 else sa.tuple_(*columns).in_(some)
        )
        rows.extend(session.scalars(sa.select(model).where(match).options(*options)).unique())
    return rows


def _option(model: type, path: tuple[str, ...]) -> t.Any:
    option: t.Any = None
    cls: t.Any = model
    for name in path:
        attribute = getattr(cls, name)
        option = selectinload(attribute) if option is None else option.selectinload(attribute)
        cls = attribute.property.mapper.class_
    return option


def _write(
    state: AppState, connection: sa.Connection, occurrences: t.Sequence[_Occurrence]
) -> list[Recorded]:
    now = datetime.now(UTC)
    clock = time.time_ns() // 1000
    dumps: dict[tuple[int, str | None], tuple[t.Any, str]] = {}
    messages: list[outbox.Row] = []
    deliveries: list[outbox.Row] = []
    for item in occurrences:
        try:
            message = _message(state, item, now, clock, dumps)
        except Exception as error:
            _failed(state, item, error)
            continue
        messages.append(message)
        deliveries.extend(_deliveries(item, message, now))
    kept = outbox.record(connection, messages, deliveries)
    return kept


def _failed(state: AppState, item: _Occurrence, error: Exception) -> None:
    if state.settings.on_error == "log":
        logger.error("message.failed", exc_info=error, extra={"event": item.event.name})
    elif isinstance(error, EmitError | sa.exc.SQLAlchemyError):
        raise error
    else:
        raise PayloadError(
            f"{item.about} cannot be serialised: {type(error).__name__}: {error}. Mend its schema, or set "
            'WEBHOOKS_ON_ERROR = "log" to let the commit through without the event.'
        ) from error


def _message(
    state: AppState,
    item: _Occurrence,
    now: datetime,
    clock: int,
    dumps: dict[tuple[int, str | None], tuple[t.Any, str]],
) -> outbox.Row:
    data, text = _data(item, dumps)
    extras = _extras(item)
    size = len(text) + len(extras or "")
    if size > state.settings.payload_limit:
        raise PayloadTooLargeError(
            f"The data of {item.about} has {size} bytes; WEBHOOKS_PAYLOAD_LIMIT is {state.settings.payload_limit}. "
            "Send less, or raise the limit."
        )
    environment = _environment(state, item, data)
    return {
        "id": uuid7(),
        "event": item.event.name,
        "channel": item.event.channel,
        "owner": item.owner,
        "environment": environment,
        "occurred_at": now,
        "clock": clock,
        "entity_id": _entity_id(item, data),
        "text": item.event.message,
        "transition": item.event.transition,
        "status": _status(item, data),
        "data": text,
        "extras": extras,
        "size": size,
        "dedupe_key": item.emitted.dedupe_key if item.emitted else None,
    }


def _data(item: _Occurrence, dumps: dict[tuple[int, str | None], tuple[t.Any, str]]) -> tuple[t.Any, str]:
    """Return the main object as a dict and as JSON; one that several events are about is dumped once."""
    if item.emitted is not None and item.emitted.text is not None:
        return item.emitted.data, item.emitted.text
    key = (id(item.obj), item.event.schema)
    if key not in dumps:
        assert item.bound is not None  # noqa: S101  # an object without a bound channel is refused by emit()
        data = item.bound.dump(item.obj, item.event)
        dumps[key] = data, payload.encode(data)
    return dumps[key]


def _extras(item: _Occurrence) -> str | None:
    """Return as JSON what listeners asked for beside the main object, all of it together; None for nothing."""
    if item.bound is None:
        return None
    asked = {name for listener in item.listeners for name in listener.includes}
    extras = {name: include.dump(item.obj) for name, include in item.bound.includes.items() if name in asked}
    if CHANGES in asked and item.values:
        extras[CHANGES] = {name: {"from": old, "to": new} for name, (old, new) in sorted(item.values.items())}
    return payload.encode(extras) if extras else None


def _environment(state: AppState, item: _Occurrence, data: t.Any) -> str:
    environment = state.settings.environment
    if isinstance(environment, str):
        return environment
    chosen = environment(item.event.name, data, item.owner)
    if chosen not in ENVIRONMENTS:
        raise EmitError(
            f"WEBHOOKS_ENVIRONMENT returned {chosen!r} for {item.event.name}. Return one of {ENVIRONMENTS}."
        )
    item.listeners = [wanted for wanted in item.listeners if wanted.environment == chosen]
    return chosen


def _entity_id(item: _Occurrence, data: t.Any) -> str | None:
    if item.obj is not None:
        mapper = inspect(item.obj).mapper
        return ",".join(str(part) for part in mapper.primary_key_from_instance(item.obj))
    value = data.get("id") if isinstance(data, dict) else None
    return None if value is None else str(value)


def _status(item: _Occurrence, data: t.Any) -> str | None:
    """The value of the column that the event's condition is about, else the object's `status`."""
    name = next(iter(item.event.when), "status")
    value = data.get(name) if isinstance(data, dict) else None
    if value is None and item.obj is not None:
        value = getattr(item.obj, name, None)
    value = getattr(value, "value", value)
    return None if value is None else str(value)


def _deliveries(item: _Occurrence, message: outbox.Row, now: datetime) -> t.Iterator[outbox.Row]:
    known = set(item.bound.includes if item.bound else ()) | {CHANGES}
    for wanted in item.listeners:
        chosen = wanted.format if wanted.format in item.event.formats else item.event.format
        yield {
            "id": uuid7(),
            "message_id": message["id"],
            "subscription_id": wanted.subscription_id,
            "state": (State.PENDING if wanted.active else State.HELD).value,
            "due_at": now if wanted.active else None,
            "attempts": 0,
            "trigger": Trigger.AUTOMATIC.value,
            "format": chosen,
            "includes": ",".join(sorted(wanted.includes & known)) or None,
            "reason": None if wanted.active else "off",
        }
