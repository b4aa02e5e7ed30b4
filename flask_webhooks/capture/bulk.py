"""Bulk statements through the ORM: `update(Model)`, `delete(Model)`, `insert(Model)` and the legacy `Query` forms.

They change rows that no session holds. So the rows are read before, into a session of our own on the same
connection, and after an UPDATE once more. The statement itself runs as the host wrote it.
"""

from __future__ import annotations

import logging
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.engine.result import null_result
from sqlalchemy.orm import ORMExecuteState, Session, undefer

from .. import outbox
from ..catalog import Kind
from ..errors import BulkStatementError
from .changes import Change, Key, Values
from .hearing import check_database
from .loading import load, option
from .reading import frozen, reads
from .watching import watching

if t.TYPE_CHECKING:
    from .watching import Plan, Watch

__all__ = ["Aside", "run", "watch_below"]

logger = logging.getLogger("flask_webhooks.capture")
Result = sa.Result[t.Any]


class Aside:
    """A session of our own inside the host's transaction, so that rows read here never meet the host's objects."""

    def __init__(self, session: Session, watch: Watch) -> None:
        self._host, self._watch = session, watch
        self._shared: dict[sa.Connection, Session] = {}
        self._all: list[Session] = []

    def session(self, mapper: orm.Mapper[t.Any]) -> Session:
        """Return the session for the rows of a class."""
        connection = self._host.connection(bind_arguments={"mapper": mapper})
        if connection not in self._shared:
            self._shared[connection] = self._open(connection)
        return self._shared[connection]

    def another(self, mapper: orm.Mapper[t.Any]) -> Session:
        """Return a session that nobody else reads with: what is about to be deleted must stay as it is."""
        return self._open(self._host.connection(bind_arguments={"mapper": mapper}))

    def _open(self, connection: sa.Connection) -> Session:
        # It must not end a transaction that is the host's.
        session = Session(
            connection, autoflush=False, info={"webhooks": False}, join_transaction_mode="rollback_only"
        )
        self._all.append(session)
        return session

    def fetch(self, nets: dict[Key, Change]) -> None:
        """Give nets of bulk statements their objects, as they are now; drop those whose row is gone."""
        groups: dict[type, list[Change]] = {}
        for net in nets.values():
            if net.obj is None and net.bound.model is not None:
                groups.setdefault(net.bound.model, []).append(net)
        for model, some in groups.items():
            mapper: t.Any = inspect(model)
            found = load(self.session(mapper), model, [net.key[2:] for net in some], columns=True, again=True)
            by_key = {tuple(mapper.primary_key_from_instance(obj)): obj for obj in found}
            for net in some:
                net.obj = by_key.get(tuple(net.key[2:]))
                if net.obj is None:
                    del nets[net.key]

    def close(self) -> None:
        """Let go of the rows; the transaction is not touched."""
        for session in self._all:
            session.close()


def watch_below(session: Session, mapper: orm.Mapper[t.Any]) -> Watch | None:
    """Return the app that captures a class which inherits from the statement's."""
    for below in mapper.self_and_descendants:
        watch = watching(session, below.class_)
        if watch is not None:
            return watch
    return None


def run(execution: ORMExecuteState, watch: Watch, aside: Aside) -> tuple[Result | None, list[Change]]:
    """Run a bulk statement and return its result with what it changed.

    :return: None as the result: SQLAlchemy shall run the statement as if nobody had looked.
    :raises BulkStatementError: `WEBHOOKS_BULK` does not let it through, or it concerns too many rows.
    """
    mapper = t.cast("orm.Mapper[t.Any]", execution.bind_mapper)
    kind = Kind.UPDATED if execution.is_update else Kind.DELETED if execution.is_delete else Kind.CREATED
    plans = [plan for below in mapper.self_and_descendants if (plan := watch.plan(below.class_))]
    if not any(kind in bound.kinds for plan in plans for bound in plan.bounds):
        return None, []
    mode = watch.state.settings.bulk
    about = f"A bulk {execution.statement.__visit_name__} of {mapper.class_.__name__}"
    if mode == "raise":
        raise BulkStatementError(
            f"{about} is not let through by WEBHOOKS_BULK = 'raise'. Change the objects one by one, or set "
            "WEBHOOKS_BULK to 'capture', 'warn' or 'ignore'."
        )
    if mode == "warn":
        logger.warning("bulk.not_captured: %s. Use emit_many, or WEBHOOKS_BULK = 'capture'.", about)
        return None, []
    connection = execution.session.connection(bind_arguments={"mapper": mapper})
    check_database(watch, connection.engine, mapper.class_)
    if execution.session.autoflush:  # SQLAlchemy does so only after us
        execution.session.flush()
    if not _is_heard(watch, connection, plans, kind):
        return None, []
    statement = _Statement(execution, watch, aside, mapper, about)
    return {
        Kind.UPDATED: statement.update,
        Kind.DELETED: statement.delete,
        Kind.CREATED: statement.insert,
    }[kind]()


def _is_heard(watch: Watch, connection: sa.Connection, plans: list[Plan], kind: Kind) -> bool:
    """Whether anybody at all listens to what the statement can cause: one look into an index."""
    state = watch.state
    if state.settings.record == "all":
        return True
    events = set()
    waiting = [bound for plan in plans for bound in plan.bounds]
    reached = set()
    for bound in waiting:
        own = kind if bound.channel.name not in reached else Kind.UPDATED
        events |= {event.name for event in bound.channel.events.values() if own in event.on or bound.touches}
        for touch in bound.touches:
            if touch.channel not in reached:
                reached.add(touch.channel)
                waiting.append(state.bound[touch.channel])
                updates = state.bound[touch.channel].channel.events.values()
                events |= {event.name for event in updates if Kind.UPDATED in event.on}
    patterns = {pattern for event in events for pattern in state.catalog.patterns(event)}
    return outbox.is_anybody_listening(connection, patterns)


class _Statement:
    """One bulk statement that is captured."""

    def __init__(
        self,
        execution: ORMExecuteState,
        watch: Watch,
        aside: Aside,
        mapper: orm.Mapper[t.Any],
        about: str,
    ) -> None:
        self.execution, self.watch, self.mapper, self.about = execution, watch, mapper, about
        self.aside, self.session = aside, aside.session(mapper)
        self.limit = watch.state.settings.bulk_limit

    def update(self) -> tuple[Result, list[Change]]:
        """Read the rows, run it, read them again."""
        before = {self._key(obj): (obj, self._values(obj)) for obj in self._rows(lock=True)}
        result = self.execution.invoke_statement()
        after = load(self.session, self.mapper.class_, list(before), columns=True, again=True)
        if len(after) < len(before):
            raise BulkStatementError(
                f"{self.about} changes primary keys, so its rows cannot be followed. Change the objects one by one, "
                "or set WEBHOOKS_BULK to 'warn' or 'ignore' and use emit_many."
            )
        found: list[Change] = []
        for obj in after:
            _, old = before[self._key(obj)]
            values = {name: (old[name], new) for name, new in self._values(obj).items() if old[name] != new}
            found.extend(self._changes(Kind.UPDATED, obj, None, values))
        return result, found

    def delete(self) -> tuple[Result, list[Change]]:
        """Read the rows with all that a listener may ask for, then run it."""
        found: list[Change] = []
        self.session = self.aside.another(self.mapper)
        for obj in self._rows(lock=True, paths=True):
            values = {name: (old, None) for name, old in self._values(obj).items()}
            found.extend(self._changes(Kind.DELETED, obj, obj, values))
        return self.execution.invoke_statement(), found

    def insert(self) -> tuple[Result, list[Change]]:
        """Run it, learn the keys of its rows, and read them."""
        self._check_count(len(self._parameters() or ()))
        self._refuse_upsert()
        result, keys = self._insert_returning()
        self._check_count(len(keys))
        found: list[Change] = []
        for obj in load(self.session, self.mapper.class_, keys, columns=True, again=True):
            values = {name: (None, new) for name, new in self._values(obj).items()}
            found.extend(self._changes(Kind.CREATED, obj, None, values))
        return result, found

    def _insert_returning(self) -> tuple[Result, list[t.Any]]:
        statement: t.Any = self.execution.statement
        keys = [
            self.mapper.get_property_by_column(column).class_attribute for column in self.mapper.primary_key
        ]
        if not self.session.connection().dialect.insert_returning:
            return self._insert_of_known_keys([key.key for key in keys])
        own = len(statement._returning)
        result: t.Any = self.execution.invoke_statement(statement.returning(*keys))
        if not own:
            return null_result(), [tuple(row) for row in result]
        width = len(result.keys()) - len(keys)
        frozen = result.freeze()
        identities = [tuple(row[width:]) for row in frozen()]
        return frozen().columns(*range(width)), identities

    def _insert_of_known_keys(self, names: list[str]) -> tuple[Result, list[t.Any]]:
        rows = self._parameters() or [t.cast("t.Mapping[str, t.Any]", self.execution.parameters or {})]
        if not all(row.get(name) is not None for row in rows for name in names):
            raise BulkStatementError(
                f"{self.about} leaves its keys to a database that cannot return them. Give the keys, add the "
                "objects one by one, or set WEBHOOKS_BULK to 'warn' or 'ignore' and use emit_many."
            )
        return self.execution.invoke_statement(), [tuple(row[name] for name in names) for row in rows]

    def _parameters(self) -> list[t.Mapping[str, t.Any]] | None:
        """The rows of a statement that comes with a list of them."""
        parameters = self.execution.parameters
        return parameters if isinstance(parameters, list) else None

    def _refuse_upsert(self) -> None:
        if getattr(self.execution.statement, "_post_values_clause", None) is not None:
            raise BulkStatementError(
                f"{self.about} with ON CONFLICT does not tell which rows were there before. Use emit_many, with "
                "WEBHOOKS_BULK = 'warn' or 'ignore', or two statements."
            )

    def _rows(self, *, lock: bool, paths: bool = False) -> list[t.Any]:
        """The rows that the statement is about to change, never more than one above the limit."""
        statement: t.Any = self.execution.statement
        cls = self.mapper.class_
        select = sa.select(cls).options(undefer("*")).order_by(*self.mapper.primary_key).limit(self.limit + 1)
        parameters = self.execution.parameters
        if isinstance(parameters, list):
            self._check_count(len(parameters))
            keys = [prop.key for prop in self.mapper._identity_key_props]
            rows = load(
                self.session,
                cls,
                [tuple(row[key] for key in keys) for row in parameters],
                columns=True,
                again=True,
            )
            return rows
        select = select.where(*statement._where_criteria)
        if lock and self.session.connection().dialect.name != "sqlite":
            select = select.with_for_update(of=cls)
        if paths:
            plan = self.watch.plan(cls)
            select = select.options(
                *(option(cls, path) for path in sorted(reads(plan) if plan else ()) if path)
            )
        select = select.execution_options(populate_existing=True)
        rows = list(self.session.scalars(select, parameters or {}).unique())
        self._check_count(len(rows))
        return rows

    def _check_count(self, count: int) -> None:
        if count > self.limit:
            raise BulkStatementError(
                f"{self.about} concerns more than {self.limit} rows, the limit in WEBHOOKS_BULK_LIMIT. Work in "
                "smaller parts, raise the limit, or set WEBHOOKS_BULK to 'warn' or 'ignore'."
            )

    def _key(self, obj: t.Any) -> tuple[t.Any, ...]:
        return tuple(inspect(obj).mapper.primary_key_from_instance(obj))

    def _values(self, obj: t.Any) -> dict[str, t.Any]:
        plan = self.watch.plan(type(obj))
        return {name: frozen(getattr(obj, name)) for name in plan.columns} if plan is not None else {}

    def _changes(self, kind: Kind, row: t.Any, obj: t.Any, values: Values) -> t.Iterator[Change]:
        plan = self.watch.plan(type(row))
        for bound in plan.bounds if plan is not None else ():
            seen = {name: pair for name, pair in values.items() if name in bound.columns}
            if seen or kind is not Kind.UPDATED:
                key = (bound.channel.name, t.cast("Plan", plan).head, *self._key(row))
                yield Change(kind, bound, key, obj, seen)
