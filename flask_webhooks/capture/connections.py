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
from ..outbox import recording
from .registry import Registry, everybody
from .sqlalchemy_internals import connections_in

__all__ = ["check_database", "connection_of", "connections_of"]


def connection_of(watch: Registry, session: Session, model: type | None) -> sa.Connection:
    """Return the connection that the changed data is written on: any other would not be one transaction.

    A session that reads from a replica names that one when it is asked outside of a flush.
    """
    ours = only_connection(watch, session)
    if ours is not None and is_same_database(ours.engine, watch.state.engine):
        # Asked for once more, for a savepoint begins on a connection only when it is.
        known = connections_in(t.cast("t.Any", session.get_transaction()))
        found = session.connection(bind_arguments={"bind": ours.engine if ours.engine in known else ours})
    else:
        found = session.connection(bind_arguments={"mapper": inspect(model or Subscription)})
    watch.state.naming.apply(found.dialect)  # of an engine that the host has made beside the app's
    return found


def connections_of(session: Session) -> set[sa.Connection]:
    """Return the connections of a session's transaction."""
    transaction: t.Any = session.get_transaction()
    return {entry[0] for entry in connections_in(transaction).values()} if transaction is not None else set()


def only_connection(watch: Registry, session: Session) -> sa.Connection | None:
    """Return the connection of a session's transaction if it has one alone, or one alone to the app's database.

    What was flushed can only be there. To ask the session by model takes five times as long.
    """
    found = connections_of(session)
    if len(found) > 1:
        found = {each for each in found if is_same_database(each.engine, watch.state.engine)}
    return found.pop() if len(found) == 1 else None


def check_database(watch: Registry, engine: sa.Engine, model: type | None) -> bool:
    """Say whether a session is on the app's database. On another one nobody would ever look for messages.

    Where nobody listens nothing is lost: a copy of rows, a test with a database of its own.

    :raises EmitError: somebody listens; names both databases.
    """
    ours = watch.state.engine
    if engine is ours:
        return True
    watch.state.naming.apply(engine.dialect)
    if is_same_database(engine, ours):
        return True
    candidates = [watch]
    if model is not None and not watch.state.engines.is_current:  # then nothing tells whose it is
        candidates = [each for each in everybody() if each.plan(model)]
    for each in candidates:
        if _is_anybody_at_home(each, model):
            raise EmitError(
                f"{_astray(each, engine, model)}: its events could not be written in the same transaction. {_REMEDY}"
            )
    about = f"{_astray(watch, engine, model)}. Nobody listens, so the commit goes through. {_REMEDY}"
    watch.say("database.other", logging.WARNING, about)
    return False


_REMEDY = (
    'Opt out with Session(info={"webhooks": False}), or lead the app there (`db.engines`), or initialise an app on '
    "that database."
)


def _astray(watch: Registry, engine: sa.Engine, model: type | None) -> str:
    what = model.__name__ if model is not None else "An event"
    app, ours = watch.state.app, watch.state.engine
    return f"{what} was written to {engine.url!r}, but the webhooks of {app.name!r} live in {ours.url!r}"


def _is_anybody_at_home(watch: Registry, model: type | None) -> bool:
    """Say whether anybody listens, in the app's own database, to what becomes of a class; None: to anything."""
    plan = watch.plan(model) if model is not None else None
    channels = {bound.channel.name for bound in plan.bounds} if plan is not None else watch.bound.keys()
    patterns = watch.patterns(frozenset(watch.events_of({(name, None) for name in channels})))
    try:
        with watch.beside().connect() as connection:
            return watch.is_installed(connection) and recording.is_anybody_listening(connection, patterns)
    except sa.exc.SQLAlchemyError:  # it is away: then nobody of the host's has written there
        return False
