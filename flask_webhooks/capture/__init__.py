"""From changes in a SQLAlchemy session to rows in the outbox, inside the same transaction.

The steps, in the order they happen in one transaction:

1. `before_flush`: what is about to be deleted is loaded with what its listeners want to see of it.
2. `after_flush`: new keys are known and old values still are; each changed object becomes a `Change`, kept under
   the innermost transaction: a savepoint has a list of its own.
3. A savepoint is released (`after_commit` while nested): its list goes to the transaction around it. It is rolled
   back (`after_transaction_end`): its list is dropped.
4. `before_commit` of the root: flush, coalesce, ask once who listens, dump, write. Whatever other listeners of the
   host's flush after that is written at once.
5. `after_commit` of the root: ring the bell, send the signal. Nothing here may touch the database.

The listeners are set once per process, on `sqlalchemy.orm.Session`, so that plain `Session(engine)` is seen as well
as `db.session`. Classes that are in no catalogue cost one look-up in a dict.
"""

from __future__ import annotations

import typing as t

from . import capture as _capture
from .capture import muted
from .emitting import emit_many
from .settling import settle

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["emit_many", "install", "muted"]


def install(state: AppState) -> None:
    """Begin to capture the models of an app's catalogue, for as long as the app lives."""
    _capture.install(state, settle)
