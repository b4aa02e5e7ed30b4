"""What the dumps of a commit's events will read, loaded before: a few statements a class instead of some an object."""

from __future__ import annotations

import functools
import typing as t

from sqlalchemy import inspect, orm
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from .change import deleted_keys
from .failures import fail_or_log, on_error_of
from .loading import Path, load, load_path
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from .change import Change
    from .context import CommitContext
    from .events import PendingEvent
    from .owner_moves import RowsBefore
    from .relationships import TouchedParents

__all__ = ["load_for_dumps"]

State = orm.InstanceState[t.Any]
Wanted = dict[tuple[Session, type], tuple[set[Path], dict[int, t.Any]]]
"""Session and class to the paths that are read, and the objects that they begin at."""


def load_for_dumps(
    context: CommitContext,
    parents: TouchedParents,
    past: RowsBefore,
    events: t.Sequence[PendingEvent],
    changes: t.Sequence[Change],
) -> t.Sequence[PendingEvent]:
    """Load and show what dumps will read; return the events whose row is still there.

    :param changes: of the transaction, as they came: what a bulk statement deleted SQLAlchemy may not know.
    """
    if not events:
        return events
    stored, state = context.stored, context.registry.state
    try:
        parents.expire_stale(events, stored)
        stored.hide_deleted(context.session, events, deleted_keys(changes))
        events = _loaded(events)
        past.complete(events)
        stored.show_read(events)
    except DBAPIError:
        raise
    except Exception as error:  # a loader of the host's, or a class that its session has no database for
        # Where one event is to be recorded as broken, each dump says for itself what it cannot read.
        if all(on_error_of(state, item.event) != "record" for item in events):
            fail_or_log(state, events[0].event, events[0].obj, error)
    return events


def _loaded(events: t.Sequence[PendingEvent]) -> list[PendingEvent]:
    """Leave out events whose row is gone: a statement that nothing could follow has deleted it."""
    gone: set[int] = set()
    for (session, model), (paths, objects) in _wanted(events).items():
        _load_missing(session, model, paths, list(objects.values()))
        if paths:
            gone |= {id(obj) for obj in objects.values() if not _is_loaded(obj, paths)}
    return [item for item in events if id(item.obj) not in gone]


def _wanted(events: t.Sequence[PendingEvent]) -> Wanted:
    found: Wanted = {}
    for item in events:
        if item.bound is None or item.obj is None or item.error is not None:
            continue
        state = state_of(item.obj)
        if not state.persistent or state.session is None:
            continue
        paths, objects = found.setdefault((state.session, type(item.obj)), (set(), {}))
        paths.update(item.paths())
        if item.bound.schema is None:  # then columns are sent, deferred ones too
            paths.update((name,) for name in item.bound.shown)
        objects[id(item.obj)] = item.obj
    return found


def _load_missing(session: Session, model: type, paths: set[Path], objects: t.Sequence[t.Any]) -> None:
    # Only the first step can be missing on these objects; what lies behind it is loaded with it.
    needed = {path[0] for path in paths if path}
    columns, raising = _columns_of(model)
    stale, forbidden = [], False
    for obj in objects:
        state = state_of(obj)
        if _lacks(state, needed):
            stale.append(obj)
        forbidden = forbidden or _is_forbidden(state, columns, raising)
    # A single object is loaded as fast by its own attributes, unless these are forbidden to load.
    if len(stale) > 1 or forbidden:
        load(
            session,
            model,
            [inspect(obj).identity for obj in (objects if forbidden else stale)],
            [path for path in paths if path and path[0] not in columns],
            columns=forbidden or not needed.isdisjoint(columns),
        )


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
                load_path(obj, path)
    except orm.exc.ObjectDeletedError:
        return False
    return True


def _lacks(state: State, names: t.AbstractSet[str]) -> bool:
    return bool(state.expired_attributes) or not names <= state.dict.keys()


def _is_forbidden(state: State, columns: t.AbstractSet[str], forbidden: t.AbstractSet[str]) -> bool:
    """Whether it lacks columns that may be forbidden (`raiseload`), by options of its query or by its mapping."""
    names = columns if state.load_options or state.callables else forbidden
    return not names <= state.dict.keys()
