"""From changes in a SQLAlchemy session to rows in the outbox, inside the same transaction.

The steps, in the order they happen in one transaction:

1. `before_flush`: what is about to be deleted is loaded with what its listeners want to see of it, and old values
   that SQLAlchemy does not know are read.
2. `after_flush`: new keys are known and old values still are; each changed object becomes a `Change`, kept under
   the innermost transaction: a savepoint has a list of its own.
3. `do_orm_execute`: a bulk statement becomes a `Change` for each of its rows.
4. A savepoint is released (`after_commit` while nested): its list goes to the transaction around it. It is rolled
   back (`after_soft_rollback`): its list is dropped.
5. `before_commit` of the root: flush, then the stages of `commit`: net changes, resolved changes, events, matched
   events, rows. What other listeners of the host's flush after that is written at once.
6. `after_commit` of the root: wake the workers, send the signal. Nothing here may touch the database.

The listeners are set once per process, on `sqlalchemy.orm.Session`, so that plain `Session(engine)` is seen as well
as `db.session`. Classes that are in no catalogue cost one look-up in a dict.

======================  ==============================================================
`registry`              which app captures which class
`mapper_plan`           what is captured of a class
`listeners`             the listeners
`unit_of_work`          what each session has seen in a transaction
`history`               a flush to changes, with old values
`deletes`               which rows a flush deletes, and what is loaded before
`snapshots`             copies of deleted rows, which their events show
`bulk`                  a bulk statement to changes, or why not
`statements`            what a bulk statement concerns, and whether its rows are taken
`bulk_changes`          a bulk UPDATE or DELETE
`bulk_inserts`          a bulk INSERT
`conflict_targets`      by which keys an upsert meets existing rows
`bulk_upserts`          an upsert
`side_session`          our own sessions on the host's connection: rows of bulk statements are read there
`change`                changes of an object to its net change (pure)
`relationships`         updates of what changed rows touch (a line touches its invoice)
`uncaptured`            changes of rows that events show though no channel captures them
`owner_moves`           rows that went to another owner, and what they were before
`stored_values`         values as the rows have them
`loading`               loads rows by their keys, and what relationships lead to from them
`references`            whether a loaded relationship agrees with its columns, and what is done if not
`owners`                follows a path to its owner
`database`              the app's own database
`connections`           on which connection a session's changes were written
`commit`                the stages of a commit, one after the other
`context`               what these share
`candidates`            whom a commit may concern, read from memory
`resolution`            net changes with their objects and values
`detection`             which events they are, and whose
`matching`              which subscriptions match them
`lookup`                finds subscriptions: usually one query a commit
`dump_loading`          loads what the events' dumps will read
`reread`                reads rows again where dumping the objects in memory failed
`events`                events that happened, as values
`messages`              events to rows
`failures`              what becomes of an event that cannot be made into a row
`host_code`             calls of the host's schemas, includes and properties
`guard`                 undoes what these change, and refuses what would write
`guarded_session`       the same of one session
`fence`                 sessions and connections that refuse to write meanwhile
`undo`                  a snapshot of one object, and its restoration
`emit`                  events that the host emits itself
`sqlalchemy_internals`  every private name of SQLAlchemy's
======================  ==============================================================
"""

from __future__ import annotations

import typing as t

from . import guard, host_code
from .connections import connection_of
from .emit import emit_many
from .events import UNKNOWN, UNREADABLE_OWNER, PendingEvent, Recorded
from .failures import name_of, storable
from .guard import guarding
from .listeners import ROW_LISTENERS, announce, listen, listen_to_statements
from .loading import Path, load, option
from .messages import deliveries_of, remade, status_of, write
from .owners import load_linked, owner_of
from .registry import Registry, muted, register, registry_of
from .side_session import unfiltered

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = [
    "UNKNOWN",
    "UNREADABLE_OWNER",
    "Path",
    "PendingEvent",
    "Recorded",
    "announce",
    "connection_of",
    "deliveries_of",
    "emit_many",
    "guard",
    "guarding",
    "host_code",
    "install",
    "load",
    "load_linked",
    "muted",
    "name_of",
    "option",
    "owner_of",
    "registry_of",
    "remade",
    "status_of",
    "storable",
    "unfiltered",
    "write",
]


def install(state: AppState) -> None:
    """Begin to capture the models of an app's catalogue, for as long as the app lives."""
    # Set again for each app: what a host listens to itself must come before us, and comes with its imports.
    listen()
    registry = Registry(state, ROW_LISTENERS)
    if registry.follows_bulk:
        listen_to_statements()
    # Last, for from here on every session of the process is looked at.
    register(registry)
