"""Which connection a session's changes were written on, and whether that leads to the app's own database."""

from __future__ import annotations

import logging
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from ..engines import is_same_database
from ..errors import EmitError
from ..models import Subscription
from .registry import Registry, all_registries
from .sqlalchemy_internals import connections_in

if t.TYPE_CHECKING:
    from .events import PendingEvent

__all__ = ["check_database", "connection_of", "connections_of", "in_own_database"]


def connection_of(registry: Registry, session: Session, model: type | None) -> sa.Connection:
    """Return the connection that the changed data is written on: any other would not be one transaction.

    A session that reads from a replica names that one when it is asked outside of a flush.
    """
    ours = only_connection(registry, session)
    if ours is not None and is_same_database(ours.engine, registry.state.engine):
        # Asked for once more, for a savepoint begins on a connection only when it is.
        known = connections_in(t.cast("t.Any", session.get_transaction()))
        found = session.connection(bind_arguments={"bind": ours.engine if ours.engine in known else ours})
    else:
        found = session.connection(bind_arguments={"mapper": inspect(model or Subscription)})
    registry.state.naming.apply(found.dialect)  # of an engine of the host's other than the app's
    return found


def connections_of(session: Session) -> set[sa.Connection]:
    """Return the connections of a session's transaction."""
    transaction: t.Any = session.get_transaction()
    return {entry[0] for entry in connections_in(transaction).values()} if transaction is not None else set()


def only_connection(registry: Registry, session: Session) -> sa.Connection | None:
    """Return the connection of a session's transaction if it has one alone, or one alone to the app's database.

    What was flushed can only be there. To ask the session by model takes five times as long.
    """
    found = connections_of(session)
    if len(found) > 1:
        found = {each for each in found if is_same_database(each.engine, registry.state.engine)}
    return found.pop() if len(found) == 1 else None


def check_database(registry: Registry, engine: sa.Engine, model: type | None) -> bool:
    """Say whether a session is on the app's database. On another one no worker would ever look for messages.

    Without subscriptions nothing is lost: a copy of rows, a test with a database of its own.

    :raises EmitError: there are subscriptions; names both databases.
    """
    ours = registry.state.engine
    # Nearly always: no URL has to be compared.
    if engine is ours:
        return True
    registry.state.naming.apply(engine.dialect)
    if is_same_database(engine, ours):
        return True
    apps = [registry]
    if model is not None and not registry.state.engines.is_current:  # then nothing tells whose it is
        apps = [each for each in all_registries() if each.plan(model)]
    for each in apps:
        if _has_listener(each, model):
            raise EmitError(
                f"{_elsewhere(each, engine, model)}: its events could not be written in the same transaction. {_REMEDY}"
            )
    about = f"{_elsewhere(registry, engine, model)}. No subscription listens, so the commit goes through. {_REMEDY}"
    registry.say("database.other", logging.WARNING, about)
    return False


_REMEDY = (
    'Opt out with Session(info={"webhooks": False}), or lead the app there (`db.engines`), or initialise an app on '
    "that database."
)


def _elsewhere(registry: Registry, engine: sa.Engine, model: type | None) -> str:
    what = model.__name__ if model is not None else "An event"
    app, ours = registry.state.app, registry.state.engine
    return f"{what} was written to {engine.url!r}, but the webhooks of {app.name!r} live in {ours.url!r}"


def _has_listener(registry: Registry, model: type | None) -> bool:
    """Say whether the app's own database has subscriptions to what becomes of a class; None: to anything."""
    plan = registry.plan(model) if model is not None else None
    channels = {bound.channel.name for bound in plan.bounds} if plan is not None else registry.bound.keys()
    try:
        with registry.fresh_engine().connect() as connection:
            return registry.has_listener(connection, registry.events_of({(name, None) for name in channels}))
    except sa.exc.SQLAlchemyError:  # it is away: then the host has written nothing there
        return False


def in_own_database(
    registry: Registry, session: Session, connection: sa.Connection, events: t.Sequence[PendingEvent]
) -> t.Sequence[PendingEvent]:
    """Leave out events of what was written to another database than the app's, to which no subscription listens.

    :raises EmitError: one does.
    """
    models = {item.bound.model for item in events if item.bound is not None}
    if len(models) < 2:
        return events if check_database(registry, connection.engine, next(iter(models), None)) else []
    engines = {model: session.get_bind(inspect(model)).engine for model in models if model is not None}
    elsewhere = {model for model, engine in engines.items() if not check_database(registry, engine, model)}
    return [item for item in events if item.bound is None or item.bound.model not in elsewhere]
