"""Every private name of SQLAlchemy that this package reads, in one place: what a new release of SQLAlchemy may break.

The law of this room: elsewhere in `capture` no attribute of SQLAlchemy's that begins with an underscore is read or set.
`fence` alone overrides private methods, since a subclass cannot do that from here.

Most names are getters made in C: they are called for each object of a commit, and a function of Python would cost more
than what it reads.
"""

from __future__ import annotations

import typing as t
from operator import attrgetter, methodcaller

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.base import instance_state as state_of

__all__ = [
    "STATE",
    "adapter_of",
    "add_new",
    "add_persistent",
    "annotations_of",
    "begin_implicitly",
    "collection_names",
    "columns_to_attributes",
    "conditions",
    "connections_in",
    "deleted_states",
    "deleted_states_in",
    "dirty_states",
    "dirty_states_in",
    "expire_attributes",
    "expunge_states",
    "flush_if_due",
    "forget_inherited_yield_per",
    "forget_pending",
    "from_objects",
    "has_row_limit",
    "head_class",
    "independent_ctes",
    "insert_values",
    "is_clean",
    "is_criteria_option",
    "is_deleted",
    "is_inside_flush",
    "is_orphan",
    "key_attributes",
    "later_listeners",
    "listen_last",
    "mark_deleted",
    "modified_states",
    "multiple_values",
    "nested_transaction_of",
    "new_states",
    "new_states_in",
    "options_of",
    "ordered_values",
    "orphan_rules",
    "parents_of",
    "pending_collections",
    "post_values_clause",
    "prefixes",
    "result_metadata",
    "returned_columns",
    "reverse_relationships",
    "running_method",
    "savepoint_of",
    "select_names",
    "set_adapter",
    "set_strong_reference",
    "state_of",
    "transaction_of",
    "without_conditions",
    "without_orm_criteria",
]

State = orm.InstanceState[t.Any]
States = t.Mapping[State, t.Any]

# ---- objects -------------------------------------------------------------------------------------------------

STATE = "_sa_instance_state"
"""The attribute that `state_of` reads: for `hasattr` and `getattr` on what may be no mapped object."""

is_deleted: t.Callable[[State], bool] = attrgetter("_deleted")
"""Whether the row was deleted. `InstanceState.deleted` is false of what has left its session since."""
pending_collections: t.Callable[[State], t.Mapping[str, t.Any]] = attrgetter("_pending_mutations")
"""What waits to be added to collections that are not loaded."""
PENDING_COLLECTIONS = "_pending_mutations"
"""The name of the same, among the attributes of a state that are made when they are needed."""


def mark_deleted(state: State) -> None:
    """Let an object be one whose row was deleted."""
    state._deleted = True


def expire_attributes(state: State, names: t.Iterable[str]) -> None:
    """Let attributes be loaded anew, without an event of SQLAlchemy's."""
    state._expire_attributes(state.dict, names)


def set_strong_reference(state: State, obj: t.Any) -> None:
    """Keep an object in memory as long as it waits to be flushed; None: no longer."""
    state._strong_obj = obj


def forget_pending(state: State) -> None:
    """Drop what waits to be added to collections that are not loaded."""
    vars(state).pop(PENDING_COLLECTIONS, None)


def is_orphan(state: State) -> bool:
    """Say whether an object cannot live without the parent that it has lost."""
    return bool(state.mapper._is_orphan(state))


def adapter_of(collection: t.Any) -> t.Any:
    """Return what SQLAlchemy fills a collection by; None if the object is no collection of SQLAlchemy's."""
    return getattr(collection, "_sa_adapter", None)


def set_adapter(collection: t.Any, adapter: t.Any) -> None:
    """Tie a collection to what SQLAlchemy fills it by; None: to nothing."""
    collection._sa_adapter = adapter


def parents_of(value: t.Any) -> t.Any:
    """Return the objects that a `MutableDict` or its like marks as changed; None of other values."""
    return getattr(value, "_parents", None)


# ---- sessions and transactions -------------------------------------------------------------------------------

new_states: t.Callable[[Session], States] = attrgetter("_new")
deleted_states: t.Callable[[Session], dict[State, t.Any]] = attrgetter("_deleted")
"""Objects marked by `session.delete()`."""
dirty_states: t.Callable[[Session], t.Iterable[State]] = attrgetter("_dirty_states")
modified_states: t.Callable[[Session], set[State]] = attrgetter("identity_map._modified")
"""The set itself, from which `undo` takes objects while code of the host's runs."""
is_inside_flush: t.Callable[[Session], bool] = attrgetter("_flushing")
is_clean: t.Callable[[Session], bool] = methodcaller("_is_clean")
flush_if_due: t.Callable[[Session], None] = methodcaller("_autoflush")
begin_implicitly: t.Callable[[Session], t.Any] = methodcaller("_autobegin_t")
"""Begin a transaction as the first change of an object does: no connection is taken yet."""
transaction_of: t.Callable[[Session], SessionTransaction | None] = attrgetter("_transaction")
"""The innermost, a flush's own included."""
savepoint_of: t.Callable[[Session], SessionTransaction | None] = attrgetter("_nested_transaction")

new_states_in: t.Callable[[SessionTransaction], States] = attrgetter("_new")
dirty_states_in: t.Callable[[SessionTransaction], States] = attrgetter("_dirty")
deleted_states_in: t.Callable[[SessionTransaction], States] = attrgetter("_deleted")
running_method: t.Callable[[SessionTransaction], t.Any] = attrgetter("_current_fn")
"""The method, such as `commit`, that a transaction is inside of; None: it is inside of none."""
connections_in: t.Callable[[SessionTransaction], t.Mapping[t.Any, tuple[t.Any, ...]]] = attrgetter(
    "_connections"
)
"""By connection, and by engine once more."""
nested_transaction_of: t.Callable[[sa.Connection], tuple[t.Any, t.Any]] = attrgetter(
    "_transaction", "_nested_transaction"
)
"""The transaction of a connection, and its innermost savepoint."""


def add_new(session: Session, state: State) -> None:
    """Let an object wait for its INSERT again, without an event of SQLAlchemy's."""
    session._save_impl(state)


def add_persistent(session: Session, state: State) -> None:
    """Let an object belong to a session again, without an event of SQLAlchemy's."""
    session._update_impl(state)


def expunge_states(session: Session, states: t.Iterable[State]) -> None:
    """Take objects out of a session; by the class's own method, which a fence may have overridden."""
    Session._expunge_states(session, states)


# ---- mappers -------------------------------------------------------------------------------------------------

head_class: t.Callable[[orm.Mapper[t.Any]], type] = attrgetter("_identity_class")
"""The class that heads an inheritance: by it, and by the primary key, the identity map finds objects."""
key_attributes: t.Callable[[orm.Mapper[t.Any]], t.Sequence[orm.ColumnProperty[t.Any]]] = attrgetter(
    "_identity_key_props"
)
columns_to_attributes: t.Callable[[orm.Mapper[t.Any]], t.Mapping[t.Any, t.Any]] = attrgetter(
    "_columntoproperty"
)
orphan_rules: t.Callable[[orm.Mapper[t.Any]], t.Sequence[t.Any]] = attrgetter("_delete_orphans")
"""The relationships to parents that a row is deleted without."""
reverse_relationships: t.Callable[
    [orm.RelationshipProperty[t.Any]], t.Iterable[orm.RelationshipProperty[t.Any]]
] = attrgetter("_reverse_property")
collection_names: t.Callable[[t.Any], frozenset[str]] = attrgetter("_collection_impl_keys")
"""Of a class manager: its attributes that are collections."""

# ---- statements ----------------------------------------------------------------------------------------------

annotations_of: t.Callable[[t.Any], t.Mapping[str, t.Any]] = attrgetter("_annotations")
conditions: t.Callable[[t.Any], tuple[sa.ColumnElement[bool], ...]] = attrgetter("_where_criteria")
independent_ctes: t.Callable[[t.Any], tuple[t.Any, ...]] = attrgetter("_independent_ctes")
from_objects: t.Callable[[t.Any], t.Iterable[t.Any]] = attrgetter("_from_objects")
options_of: t.Callable[[t.Any], t.Iterable[t.Any]] = attrgetter("_with_options")
is_criteria_option: t.Callable[[t.Any], bool] = attrgetter("_is_criteria_option")
"""Whether an option is a `with_loader_criteria`, which is added to the conditions of a statement."""
returned_columns: t.Callable[[t.Any], tuple[t.Any, ...]] = attrgetter("_returning")
multiple_values: t.Callable[[t.Any], tuple[t.Any, ...]] = attrgetter("_multi_values")
insert_values: t.Callable[[t.Any], t.Mapping[t.Any, t.Any] | None] = attrgetter("_values")
select_names: t.Callable[[t.Any], t.Sequence[t.Any]] = attrgetter("_select_names")
prefixes: t.Callable[[t.Any], t.Iterable[tuple[t.Any, t.Any]]] = attrgetter("_prefixes")
has_row_limit: t.Callable[[t.Any], bool] = attrgetter("_has_row_limiting_clause")
result_metadata: t.Callable[[t.Any], t.Any] = attrgetter("_metadata")
later_listeners: t.Callable[[ORMExecuteState], t.Sequence[t.Any]] = methodcaller("_remaining_events")
"""The listeners on a statement's execution that are still to be called."""


def listen_last(execution: ORMExecuteState, listener: t.Callable[[ORMExecuteState], t.Any]) -> None:
    """Call a listener once, for this execution, after all others."""
    execution._events_todo.append(listener)


def ordered_values(statement: t.Any) -> t.Sequence[tuple[t.Any, t.Any]]:
    """Return the pairs of `ordered_values()`, which SQLAlchemy 2.0 keeps apart from the other values."""
    return getattr(statement, "_ordered_values", None) or ()


def post_values_clause(statement: t.Any) -> t.Any:
    """Return what comes behind the values of an INSERT, such as ON CONFLICT; None for nothing."""
    return getattr(statement, "_post_values_clause", None)


def without_conditions(statement: t.Any) -> t.Any:
    """Return a copy of an UPDATE or DELETE that concerns all rows."""
    found = statement._generate()
    found._where_criteria = ()
    return found


def without_orm_criteria(select: sa.Select[t.Any]) -> sa.Select[t.Any]:
    """Let a SELECT be compiled as one of Core: criteria that the ORM adds to classes do not reach it."""
    select._propagate_attrs = {}
    return select


def forget_inherited_yield_per(execution: ORMExecuteState) -> None:
    """Let a SELECT that loads a relationship run as it does where no `do_orm_execute` listener is registered.

    As soon as there is one, SQLAlchemy before 2.1 works out the options of a statement twice. The second time the
    SELECT of `selectinload` takes over the `yield_per` of the SELECT whose rows it completes, and raises
    InvalidRequestError (sqlalchemy#13301). What it was asked for itself stands in its load options.
    """
    options = execution.local_execution_options
    if "yield_per" in options and "sa_top_level_orm_context" in options:
        execution.update_execution_options(yield_per=execution.load_options._yield_per)
