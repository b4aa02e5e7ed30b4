"""Bulk statements through the ORM: `update(Model)`, `delete(Model)`, `insert(Model)` and the legacy `Query` forms.

They change rows that no session holds. So the rows are read before, into a session of our own on the same
connection, and after an UPDATE once more. What a statement gives back is what it gives without us. What cannot be
followed is refused if a subscription listens, and let through with a warning if none does: a feature of the host's must
not break on the day of the installation.
"""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import ORMExecuteState, Session

from ..catalog import Kind
from ..errors import BulkStatementError
from .bulk_changes import Deletion, Update, has_dml
from .bulk_inserts import Insert
from .bulk_upserts import Upsert
from .change import Change
from .conflict_targets import is_upsert
from .connections import check_database
from .registry import registry_for
from .side_session import SideSession
from .sqlalchemy_internals import annotations_of, flush_if_due, key_attributes, later_listeners, listen_last
from .statements import Result, Unfollowed, has_listener, is_moving, set_by

if t.TYPE_CHECKING:
    from .registry import Registry

__all__ = ["SideSession", "registry_below", "run"]

logger = logging.getLogger("flask_webhooks.capture")
Captured = tuple[Result | None, list[Change]]


def registry_below(session: Session, mapper: orm.Mapper[t.Any]) -> Registry | None:
    """Return the app that captures a class which inherits from the statement's."""
    for below in mapper.self_and_descendants:
        registry = registry_for(session, below.class_)
        if registry is not None:
            return registry
    return None


def run(execution: ORMExecuteState, registry: Registry, side_session: SideSession) -> Captured:
    """Run a bulk statement and return its result with what it changed.

    :return: None as the result: SQLAlchemy shall run the statement by itself.
    :raises BulkStatementError: a channel's `bulk` or `WEBHOOKS_BULK` does not let it through; or a subscription
        listens, and it concerns too many rows, or it cannot be said what it changes.
    """
    if not _has_rows(execution):
        return None, []
    mapper = t.cast("orm.Mapper[t.Any]", execution.bind_mapper)
    kinds = _kinds(execution) if _is_of(execution, mapper) else set()
    # A statement that sets an owner, or what leads to one, is a deletion for one owner and a creation for another.
    may_move = bool(kinds) and is_moving(execution, registry, mapper)
    kinds |= set(Kind) if may_move else set()
    plans = [plan for below in mapper.self_and_descendants if (plan := registry.plan(below.class_))]
    concerned = [bound for plan in plans for bound in plan.bounds if not kinds.isdisjoint(bound.kinds)]
    about = f"A bulk {_verb(execution)} of {mapper.class_.__name__}"
    if may_move and not any(bound.kinds for plan in plans for bound in plan.bounds):
        is_followed = set_by(execution, mapper).isdisjoint(_keys_of(mapper))
        if registry.state.settings.bulk != "capture" or not is_followed:
            return None, []
        return _last(
            execution,
            lambda inner: _capture(inner, registry, side_session, mapper, about, is_on_the_way=True),
        )
    # Channels on one model may want different things: the strictest decides, for there is one statement.
    modes = {registry.bulk(bound) for bound in concerned}
    if "raise" in modes:
        raise BulkStatementError(
            f"{about} is not let through by WEBHOOKS_BULK = 'raise'. Change the objects one by one, or set "
            "WEBHOOKS_BULK, or `bulk` in the channel, to 'capture', 'warn' or 'ignore'."
        )
    if "warn" in modes:
        logger.warning("bulk.not_captured: %s. Use emit_many, or WEBHOOKS_BULK = 'capture'.", about)
    if "capture" not in modes:
        return None, []
    return _last(execution, lambda inner: _capture(inner, registry, side_session, mapper, about))


def _has_rows(execution: ORMExecuteState) -> bool:
    """Read parameters that come as an iterable into a list; False if there is nothing to capture.

    SQLAlchemy takes the rows of a bulk INSERT from any iterable. A generator gives them once, and both of us need them.
    """
    given: t.Any = execution.parameters
    if given is None or isinstance(given, list | Mapping):
        return True
    # Any other strategy takes a list or a mapping alone: SQLAlchemy says so itself.
    if annotations_of(execution.statement).get("dml_strategy") != "bulk":
        return False
    rows = [dict(row) for row in given]
    # An empty list would be one row of defaults to SQLAlchemy; an iterable without rows is none.
    if rows:
        execution.parameters = rows
    return bool(rows)


def _keys_of(mapper: orm.Mapper[t.Any]) -> t.Iterator[str]:
    """The attributes by which a row is followed: its key, and what says of which class it is."""
    yield from (mapper.get_property_by_column(column).key for column in mapper.primary_key)
    if isinstance(mapper.polymorphic_on, sa.Column):
        yield mapper.get_property_by_column(mapper.polymorphic_on).key


def _is_of(execution: ORMExecuteState, mapper: orm.Mapper[t.Any]) -> bool:
    """Whether it changes the table of that class, and not a plain one that criteria bring together with it."""
    if execution.is_from_statement:
        return True
    table: t.Any = t.cast("t.Any", execution.statement).table
    return "parententity" in annotations_of(table) or table is mapper.local_table


def _kinds(execution: ORMExecuteState) -> set[Kind]:
    if execution.is_update:
        return {Kind.UPDATED}
    if execution.is_delete:
        return {Kind.DELETED}
    if not execution.is_insert:
        return set()
    # What replaces a row makes none, or one of another's key.
    is_plain = execution.is_from_statement or not is_upsert(execution.statement)
    return {Kind.CREATED} if is_plain else set(Kind)


def _verb(execution: ORMExecuteState) -> str:
    return "update" if execution.is_update else "delete" if execution.is_delete else "insert"


def _last(execution: ORMExecuteState, capture: t.Callable[[ORMExecuteState], Captured]) -> Captured:
    """Capture after all other listeners: they may change the statement, or run it by themselves, or not at all."""
    if not later_listeners(execution):
        return capture(execution)
    found: list[Change] = []

    # SQLAlchemy calls listeners in turn; what is appended while it does so is called in that turn too.
    def at_last(inner: ORMExecuteState) -> Result | None:
        result, changes = capture(inner)
        found.extend(changes)
        return result

    listen_last(execution, at_last)
    return execution.invoke_statement(), found


def _capture(
    execution: ORMExecuteState,
    registry: Registry,
    side_session: SideSession,
    mapper: orm.Mapper[t.Any],
    about: str,
    *,
    is_on_the_way: bool = False,
) -> Captured:
    """Run it with its rows read before and after.

    :param is_on_the_way: it is of a class that has no channel, but leads to owners: nothing of it is refused.
    """
    connection = execution.session.connection(bind_arguments={**execution.bind_arguments})
    # Before anything is read: on another database there are no subscriptions.
    if not check_database(registry, connection.engine, mapper.class_):
        return None, []
    is_ours = execution.is_insert and not execution.is_from_statement and is_upsert(execution.statement)
    try:
        _check(execution, connection)
        return _followed(execution, registry, side_session, mapper, connection)
    except Unfollowed as error:
        side_session.unread_classes.add(mapper.class_)
        what = f"{about} {error}."
        if is_on_the_way:
            logger.info("bulk.not_captured: %s", what)
        elif is_ours:
            registry.warn(f"{what} It runs, but no event is recorded for its rows. {_INSTEAD}")
        elif has_listener(execution, registry, mapper, connection, None):
            raise BulkStatementError(f"{what} {_INSTEAD}") from None
        else:
            registry.warn(
                f"{what} No subscription listens, so it runs; as soon as one does, it is refused. {_INSTEAD}"
            )
        return error.result, []


_INSTEAD = (
    "Emit the events with emit_many, run it in `with webhooks.muted():` if it needs none, or set "
    "WEBHOOKS_BULK, or `bulk` in the channel, to 'warn' or 'ignore'."
)


def _followed(
    execution: ORMExecuteState,
    registry: Registry,
    side_session: SideSession,
    mapper: orm.Mapper[t.Any],
    connection: sa.Connection,
) -> Captured:
    options = execution.execution_options
    if options.get("autoflush", True):  # SQLAlchemy does so only after us
        flush_if_due(execution.session)
    if execution.is_insert:
        kind = Upsert if is_upsert(execution.statement) else Insert
        return kind(execution, registry, side_session, mapper, connection).captured()
    if isinstance(execution.parameters, list):
        names = [prop.key for prop in key_attributes(mapper)]
        if execution.is_delete or any(name not in row for row in execution.parameters for name in names):
            return None, []  # SQLAlchemy has its own error for that
    cls = Update if execution.is_update else Deletion
    return cls(execution, registry, side_session, mapper, connection).captured()


def _check(execution: ORMExecuteState, connection: sa.Connection) -> None:
    """Find what cannot be captured.

    :raises Unfollowed: says why, and what to do instead.
    """
    options = execution.execution_options
    schemas = options.get("schema_translate_map")
    strategy = options.get("dml_strategy")
    if execution.is_from_statement:
        why = "inside from_statement() cannot be captured. Run it by itself: with returning() it gives objects too"
    elif strategy == "core_only" and isinstance(execution.parameters, list):
        why = (
            "with dml_strategy='core_only' and a list of parameters cannot be followed. Run it once for each"
        )
    elif strategy == "core_only" and t.cast("orm.Mapper[t.Any]", execution.bind_mapper).single:
        why = "with dml_strategy='core_only' concerns other classes of its table too. Leave that away"
    elif has_dml(execution.statement):
        why = (
            "with another INSERT, UPDATE or DELETE in a CTE cannot be read before it runs. Use two statements"
        )
    elif schemas and schemas != connection.get_execution_options().get("schema_translate_map"):
        why = "has a schema_translate_map of its own. Set it on the session's connection or engine"
    else:
        return
    raise Unfollowed(why)
