"""One bulk statement, whatever its verb: which rows it concerns, and whether they are captured."""

from __future__ import annotations

import functools
import logging
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import ORMExecuteState, lazyload, selectin_polymorphic, undefer

from ..catalog import Kind
from ..errors import BulkStatementError
from ..outbox.recording import CHUNK
from .change import Change, Key, Values
from .loading import rows_where, unreadable
from .lookup import is_anybody_listening
from .side_session import SideSession, unfiltered
from .snapshots import copied
from .sqlalchemy_internals import (
    annotations_of,
    columns_to_attributes,
    insert_values,
    ordered_values,
    post_values_clause,
    state_of,
)

if t.TYPE_CHECKING:
    from .registry import Registry

__all__ = ["Result", "Statement", "Unfollowed", "clauses_of", "has_listener", "is_moving", "set_by"]

logger = logging.getLogger("flask_webhooks.capture")
Result = sa.Result[t.Any]
Parameters = list[t.Mapping[str, t.Any]]


class Unfollowed(Exception):
    """It cannot be said which rows a bulk statement changes, or how."""

    def __init__(self, why: str, result: Result | None = None) -> None:
        """Say why.

        :param why: goes on where "A bulk update of Invoice" ends.
        :param result: of the statement, if it has run.
        """
        super().__init__(why)
        self.result = result


class Statement:
    """One bulk statement that is captured."""

    kind: Kind | None
    """What it does to rows; None: that has to be seen."""

    def __init__(
        self,
        execution: ORMExecuteState,
        registry: Registry,
        side_session: SideSession,
        mapper: orm.Mapper[t.Any],
        connection: sa.Connection,
    ) -> None:
        self.execution, self.registry, self.side_session, self.mapper = (
            execution,
            registry,
            side_session,
            mapper,
        )
        self.connection, self.session = connection, side_session.session(connection)
        self.limit = registry.state.settings.bulk_limit
        self.dml: t.Any = execution.statement
        self.about = f"A bulk {self.dml.__visit_name__} of {mapper.class_.__name__}"
        given = execution.parameters
        self.given: Parameters | None = t.cast("Parameters", given) if isinstance(given, list) else None
        """The rows of a statement that comes with a list of them."""

    is_sent = False
    result: Result | None = None
    """What the host gets, as soon as it has run."""

    def captured(self) -> tuple[Result | None, list[Change]]:
        """Capture it, or let it through where a type of the host's cannot read a row: without us it is not read."""
        try:
            return self.capture()
        except Exception as error:
            cause = None if isinstance(error, Unfollowed) else unreadable(self.mapper, error)
            if cause is None or (self.is_sent and self.result is None):
                raise
            logger.warning(
                "bulk.not_captured: %s meets a row of which %s cannot be read: %s. Mend the row, and use emit_many.",
                self.about,
                cause,
                type(error).__name__,
            )
            self.side_session.unread_classes.add(self.mapper.class_)
            return self.result, []

    def capture(self) -> tuple[Result | None, list[Change]]:
        """Run it; return its result, or None for SQLAlchemy to run it, and what it has changed."""
        raise NotImplementedError

    def send(self, statement: t.Any = None) -> Result:
        """Run it, or what stands for it."""
        self.is_sent = True
        return (
            self.execution.invoke_statement()
            if statement is None
            else self.execution.invoke_statement(statement)
        )

    # ---- whether its rows are taken ----

    def admits(self, count: int) -> bool:
        """Say whether so many rows are captured: up to the limit always, above it only if a subscription listens.

        A subscription may be created between statement and commit, so up to the limit none is asked for. What none
        listens to may be a million rows: they are let through, also in many statements of one transaction.

        :raises BulkStatementError: a subscription listens, and the statement concerns more rows than the limit.
        """
        # Counted over the transaction: a loop of small statements must not hold a million rows.
        if self.side_session.captured_rows + count > self.limit:
            if not self._is_heard:
                logger.info("bulk.unheard: %s passes the limit; no subscription listens.", self.about)
                return False
            if count > self.limit:
                raise BulkStatementError(
                    f"{self.about} concerns more than {self.limit} rows, the limit in WEBHOOKS_BULK_LIMIT. Work in "
                    "smaller parts, raise the limit, or set WEBHOOKS_BULK to 'warn' or 'ignore'.",
                    limit=self.limit,
                )
        self.side_session.captured_rows += count
        return True

    @functools.cached_property
    def _is_heard(self) -> bool:
        return has_listener(self.execution, self.registry, self.mapper, self.connection, self.kind)

    # ---- its rows ----

    @property
    def entity(self) -> t.Any:
        """The class that it names, or an alias of it."""
        return annotations_of(self.dml.table).get("parententity", self.mapper).entity

    @property
    def is_core(self) -> bool:
        """Whether SQLAlchemy adds no criteria of its own: of a tenant, or of the classes in a single table."""
        strategy = self.execution.execution_options.get("dml_strategy")
        return strategy == "core_only" or "parententity" not in annotations_of(self.dml.table)

    def keys(self) -> list[t.Any]:
        """The attributes of the entity that are its primary key."""
        props = [self.mapper.get_property_by_column(column) for column in self.mapper.primary_key]
        return [getattr(self.entity, prop.key) for prop in props]

    def select(self) -> sa.Select[t.Any]:
        """A SELECT of whole rows, as they stand in the database now, in the order in which all lock them."""
        # Deferred columns too: afterwards the old values are gone.
        options: list[t.Any] = [undefer("*")]
        # A JOIN could be neither locked nor counted.
        eager = [prop for prop in self.mapper.relationships if prop.lazy in ("joined", False)]
        options += [lazyload(getattr(self.entity, prop.key)) for prop in eager]
        if self.entity is self.mapper.class_:
            below = [each.class_ for each in self.mapper.self_and_descendants if each is not self.mapper]
            options += [selectin_polymorphic(self.entity, below)] if below else []
        found = sa.select(self.entity).options(*options).order_by(*self.keys())
        return found.execution_options(populate_existing=True)

    def rows_of(self, keys: t.Sequence[t.Any], *, lock: bool = False) -> list[t.Any]:
        """The rows with these primary keys that are there."""
        found: list[t.Any] = []
        for start in range(0, len(keys), CHUNK):
            select = self.select().where(rows_where(self.keys(), keys[start : start + CHUNK]))
            with unfiltered(self.session):
                found.extend(self.session.scalars(self.locked(select) if lock else select))
        return found

    def locked(self, select: sa.Select[t.Any]) -> sa.Select[t.Any]:
        """The same, with its rows locked until the transaction ends. SQLite locks the database: see `lock`."""
        # An alias has its own name in the statement, which the lock must name.
        entity: t.Any = inspect(self.entity)
        tables = [entity.selectable] if entity.is_aliased_class else list(self.mapper.tables)
        # As an UPDATE of no key would: inserts that refer to the row need not wait for it, nor it for them.
        return select.with_for_update(of=tables, key_share=self.kind is Kind.UPDATED)

    def become_writer(self) -> None:
        """Keep others from writing before we read; only SQLite has no locks for rows."""
        if self.connection.dialect.name == "sqlite":
            table = t.cast("sa.Table", self.mapper.local_table)
            self.connection.execute(sa.delete(table).where(sa.false()))

    def rows_left(self, keys: t.Sequence[t.Any]) -> list[t.Any]:
        """What the statement left of rows that are ours by now.

        MariaDB would show a row that got the values it has already as its snapshot has it, perhaps from before
        another transaction gave it these. What is locked it shows as it is.
        """
        return self.rows_of(keys, lock=self.connection.dialect.name in ("mysql", "mariadb"))

    # ---- what happened to them ----

    def key(self, obj: t.Any) -> Key:
        """Return the primary key of a row."""
        key: t.Any = state_of(obj).key
        return t.cast("Key", key[1])

    def values(self, obj: t.Any) -> dict[str, t.Any]:
        """Return the columns of a row that some channel sees."""
        plan = self.registry.plan(type(obj))
        if plan is None:
            return {}
        held = obj.__dict__
        return {name: copied(held[name] if name in held else getattr(obj, name)) for name in plan.columns}

    def changes(self, row: t.Any, obj: t.Any, values: Values, kind: Kind | None = None) -> t.Iterator[Change]:
        """Make the change of a row, for each channel that sees it and captures bulk statements.

        :param kind: where the statement does not do the same to all rows.
        """
        kind = t.cast("Kind", kind or self.kind)
        plan = self.registry.plan(type(row))
        if plan is None:
            return
        for bound in plan.bounds:
            # Each channel says for itself what bulk statements mean to it.
            if self.registry.bulk(bound) != "capture":
                continue
            seen = values
            if len(plan.bounds) > 1:
                seen = {name: pair for name, pair in values.items() if name in bound.columns}
            if seen or kind is not Kind.UPDATED:
                key = (bound.channel.name, plan.head, *self.key(row))
                yield Change(kind, bound, plan, key, obj, seen)

    @functools.cached_property
    def discriminator(self) -> str | None:
        """The attribute that says of which class a row is."""
        column = self.mapper.polymorphic_on
        return self.mapper.get_property_by_column(column).key if isinstance(column, sa.Column) else None

    def untraceable(self, result: Result) -> Unfollowed:
        """What to raise for a statement that has run and whose rows cannot be found again."""
        what = "primary keys" if self.mapper.polymorphic_on is None else "primary keys or classes"
        return Unfollowed(f"changes {what}, so its rows cannot be followed", result)


def has_listener(
    execution: ORMExecuteState,
    registry: Registry,
    mapper: orm.Mapper[t.Any],
    connection: sa.Connection,
    kind: Kind | None,
) -> bool:
    """Say whether a subscription listens to what a bulk statement can cause.

    :param kind: what it does to rows; None: anything.
    """
    channels = {
        bound.channel.name
        for below in mapper.self_and_descendants
        if (plan := registry.plan(below.class_))
        for bound in plan.bounds
        if registry.bulk(bound) == "capture"
    }
    # An UPDATE that moves rows to other owners is a deletion and a creation.
    if is_moving(execution, registry, mapper):
        kind = None
    return is_anybody_listening(registry, connection, {(channel, kind) for channel in channels})


def clauses_of(statement: t.Any) -> tuple[t.Any, ...]:
    """Return the clauses behind the values of an INSERT, such as ON CONFLICT; SQLite takes several."""
    found = post_values_clause(statement)
    return () if found is None else tuple(getattr(found, "clauses", (found,)))


def is_moving(execution: ORMExecuteState, registry: Registry, mapper: orm.Mapper[t.Any]) -> bool:
    """Say whether it changes rows that are there, and sets what paths to owners go by."""
    if not (execution.is_update or clauses_of(execution.statement)):
        return False
    names = set_by(execution, mapper)
    return any(registry.may_move(below.class_, names) for below in mapper.self_and_descendants)


def set_by(execution: ORMExecuteState, mapper: orm.Mapper[t.Any]) -> set[str]:
    """Return the attributes that it sets of rows that are there, as far as it names them."""
    statement: t.Any = execution.statement
    statement = statement.element if execution.is_from_statement else statement
    parameters: t.Any = execution.parameters or {}
    named = [*(insert_values(statement) or ()), *(pair[0] for pair in ordered_values(statement))]
    clauses = clauses_of(statement)
    if clauses:
        sets = (
            getattr(clause, name, None) for clause in clauses for name in ("update_values_to_set", "update")
        )
        named = [key for some in sets for key in dict(some or ())]  # pairs in SQLAlchemy 2.0
    names: set[str] = set()
    # An UPDATE without values takes its columns from the parameters.
    if not clauses and (isinstance(parameters, list) or not named):
        names.update(*(parameters if isinstance(parameters, list) else [parameters]))
    for each in named:
        key = getattr(each, "key", each)
        names.add(key)
        column = mapper.local_table.c.get(key)
        if column is not None and column in columns_to_attributes(mapper):
            names.add(mapper.get_property_by_column(column).key)
    return {mapper.synonyms[name].name if name in mapper.synonyms else name for name in names}
