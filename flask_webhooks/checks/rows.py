"""What becomes of rows that exist: the newest of each channel is dumped as its events would be; nothing is written.

A schema is looked at when the app starts, but what its methods and properties do only a row shows: what fails, what the
database is asked for row by row, how long a commit would wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
import typing as t
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import orm

from .. import payload
from ..bindings.json_types import mismatch
from ..capture import guard, host_code, load, name_of, owner_of, status_of
from ..config import ENVIRONMENTS
from ..errors import ConfigurationError
from ..messages import size_of
from ..reference import data_schema

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import marshmallow as ma
    from sqlalchemy.orm import ORMExecuteState, Session

    from ..bindings import BoundChannel, BoundInclude
    from ..capture import Path
    from ..catalog import EventType
    from ..state import AppState

__all__ = ["Fault", "RowCheck", "check_rows", "checked_channels"]

T = t.TypeVar("T")
OWNERLESS = "this row has no owner, so no subscription would get its events"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that would fail."""

    part: str
    """`data of invoices.created`, `include client`, `owner`"""
    schema: str | None
    field: str | None
    error: str

    def __str__(self) -> str:
        where = f" at the field {self.field!r} of {self.schema}" if self.field is not None else ""
        return f"{self.part}{where}: {self.error}"


@dataclass(slots=True)
class RowCheck:
    """What came of the newest row of one channel."""

    channel: str
    row: str | None = None
    """`Invoice 7`; None: the channel has no row."""
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    loads: dict[str, int] = field(default_factory=dict)
    """Relationships that were loaded for this row alone, `Line.product`, with the number of statements."""
    statements: int = 0
    """Statements that its events need, without the one that reads the row."""
    seconds: float = 0.0
    size: int = 0
    """Bytes of the largest body, with all includes."""

    @property
    def ok(self) -> bool:
        """Whether nothing would fail."""
        return not self.faults


def checked_channels(state: AppState, only: str | None = None) -> list[BoundChannel]:
    """Return the channels whose rows can be looked at.

    :param only: the name of one.
    :raises ConfigurationError: there is no such channel, or it has no model.
    """
    found = [each for each in state.bound.values() if each.model is not None and each.channel.events]
    if only is None:
        return found
    names = {each.channel.name: each for each in found}
    if only not in names:
        about = "has no model" if only in state.bound else "does not exist"
        raise ConfigurationError(f"The channel {only!r} {about}. Channels with rows: {', '.join(names)}.")
    return [names[only]]


def check_rows(state: AppState, channels: Sequence[BoundChannel]) -> Iterator[RowCheck]:
    """Look at the newest row of each channel, in the host's own session; what it has begun is rolled back."""
    session = state.host_session
    for bound in channels:
        found = RowCheck(bound.channel.name)
        try:
            with session.no_autoflush, _noting(session, found):
                _look(state, session, bound, found)
        except sa.exc.SQLAlchemyError as error:
            found.faults.append(Fault("reading the row", None, None, _said(error)))
        finally:
            session.rollback()
            session.expunge_all()
        yield found


def _look(state: AppState, session: Session, bound: BoundChannel, found: RowCheck) -> None:
    model = t.cast("type", bound.model)
    mapper: orm.Mapper[t.Any] = sa.inspect(model)
    newest: sa.Select[t.Any] = sa.select(model).order_by(*map(sa.desc, mapper.primary_key)).limit(1)
    row = session.scalars(newest).unique().first()
    if row is None:
        return
    found.row = name_of(row)
    found.statements = 0
    with guard.guarding(session):
        _Look(state, session, bound, row, found).make()


class _Look:
    """What is made of one row. Each part reads the row again, so that none profits from what another has loaded."""

    def __init__(
        self, state: AppState, session: Session, bound: BoundChannel, row: t.Any, found: RowCheck
    ) -> None:
        self._state, self._session, self._bound, self._found = state, session, bound, found
        self._key = type(row), row._sa_instance_state.identity

    def make(self) -> None:
        """Make all parts."""
        bound, found = self._bound, self._found
        owner = self._part("owner", None, (), self._owner)
        found.loads.clear()  # on the way to an owner rows are read one by one in any case
        if owner is None and bound.channel.owner is not None and found.ok:
            found.warnings.append(OWNERLESS)
        events = list(bound.channel.events.values())
        extras = 0
        for include in bound.includes.values():
            dump = functools.partial(self._include, events[0], include)
            text = self._part(f"include {include.name}", include.schema, [include.relationships], dump)
            extras += size_of(text)
        known: set[str | None] = set()
        for event in events:
            if event.schema not in known:
                known.add(event.schema)
                self._data(event, owner, extras)

    def _owner(self, row: t.Any) -> str | None:
        return host_code.owned(self._bound, row, owner_of, self._bound, row)

    def _include(self, event: EventType, include: BoundInclude, row: t.Any) -> str:
        return payload.encode(host_code.included(event, include, row))

    def _data(self, event: EventType, owner: str | None, extras: int) -> None:
        bound, found, part = self._bound, self._found, f"data of {event.name}"
        schema = bound.schemas.get(event.name)

        def dump(row: t.Any) -> str:
            for name in bound.watch:  # what conditions look at
                getattr(row, name)
            data = host_code.dump(bound, event, row)
            status_of(event, data, bound, row)
            if owner is not None:
                self._environment(event, data, owner)
            return payload.encode(data)

        text = self._part(part, schema, bound.read_paths, dump)
        if text is None:
            return
        size, limit = size_of(text) + extras, self._state.settings.payload_limit
        found.size = max(found.size, size)
        if size > limit:
            said = f"it has {size} bytes with all includes, and WEBHOOKS_PAYLOAD_LIMIT is {limit}"
            found.faults.append(Fault(part, None, None, said))
        data = json.loads(text)
        for name in sorted(bound.includes.keys() & data.keys() if isinstance(data, dict) else ()):
            found.warnings.append(
                f"{part} has {name!r}, which the include of that name replaces: rename the include"
            )
        said = mismatch(data_schema(bound, event), data)
        if said:
            found.warnings.append(f"{part} does not fit the published schema: {said}")

    def _environment(self, event: EventType, data: t.Any, owner: str) -> None:
        environment = self._state.settings.environment
        if not isinstance(environment, str):
            about = guard.About(event.name, "WEBHOOKS_ENVIRONMENT")
            chosen = guard.call(about, environment, event.name, data, owner)
            if chosen not in ENVIRONMENTS:
                raise ValueError(f"WEBHOOKS_ENVIRONMENT returned {chosen!r}, and not one of {ENVIRONMENTS}")

    def _part(
        self, part: str, schema: ma.Schema | None, paths: Sequence[Path], make: Callable[[t.Any], T]
    ) -> T | None:
        """Make a part of an event; what fails is noted.

        :param paths: relationships that a commit loads for all its rows together.
        """
        found, (model, identity) = self._found, self._key
        mapper: orm.Mapper[t.Any] = sa.inspect(model)
        along = [path for path in paths if path and path[0] not in mapper.column_attrs]
        began = time.perf_counter()
        self._session.expunge_all()
        [row] = load(self._session, model, [identity], along, columns=self._bound.schema is None)
        found.statements -= 1
        try:
            return make(row)
        except Exception as error:  # whatever the host's schemas and properties raise
            if isinstance(error, sa.exc.DBAPIError) and not guard.is_survived(error):
                raise
            self._note(part, schema, paths, row, error)
            return None
        finally:
            found.seconds += time.perf_counter() - began

    def _note(
        self, part: str, schema: ma.Schema | None, paths: Sequence[Path], row: t.Any, error: Exception
    ) -> None:
        found = self._found
        statements, loads = found.statements, dict(found.loads)
        include = next(
            (each for each in self._bound.includes.values() if part == f"include {each.name}"), None
        )
        rows = [row] if include is None else host_code.rows_of(include, row)
        at = next((name for each in rows if (name := host_code.failing_field(schema, each))), None)
        found.statements, found.loads = statements, loads  # the search is made in no commit
        name = None if schema is None else type(schema).__name__
        found.faults.append(Fault(part, name, at, _said(error)))


def _said(error: Exception) -> str:
    said = getattr(error, "orig", None) or error
    return f"{type(error).__name__}: {said}".strip().splitlines()[0]


# ---- what happens meanwhile --------------------------------------------------------------------------------


class _Remarks(logging.Handler):
    """Keeps what the guard warns of."""

    def __init__(self, found: RowCheck) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self._found.warnings.append(record.getMessage().partition(": ")[2])


@contextlib.contextmanager
def _noting(session: Session, found: RowCheck) -> Iterator[None]:
    """Count statements and what is loaded lazily meanwhile, and keep warnings instead of logging them."""

    def execute(execution: ORMExecuteState) -> None:
        found.statements += 1
        if execution.is_select and execution.lazy_loaded_from is not None:
            name = _relationship(execution)
            found.loads[name] = found.loads.get(name, 0) + 1

    logger, remarks = guard.logger, _Remarks(found)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(remarks)
    sa.event.listen(session, "do_orm_execute", execute)
    try:
        yield
    finally:
        sa.event.remove(session, "do_orm_execute", execute)
        logger.removeHandler(remarks)
        logger.propagate = propagates


def _relationship(execution: ORMExecuteState) -> str:
    path: t.Any = execution.loader_strategy_path
    state: t.Any = execution.lazy_loaded_from
    name = getattr(getattr(path, "prop", None), "key", None)
    return f"{state.class_.__name__}.{name or '?'}"
