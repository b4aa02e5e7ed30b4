"""The rows of bulk statements, read in sessions of our own on the host's connection, and counted."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session

from ..bindings.owner_steps import Relation
from ..catalog import Kind
from .change import Change, Key
from .connections import connection_of
from .history import complete
from .loading import Path, load, unfiltered
from .lookup import is_anybody_listening
from .references import referred
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from .registry import Registry

__all__ = ["SideSession", "unfiltered"]


class SideSession:
    """Sessions of our own inside the host's transaction, so that rows read here never meet the host's objects.

    They hold on to no row: what a deletion's event will say is held by its `Change`, and goes with it.
    """

    captured_rows = 0
    """How many rows of bulk statements this transaction has captured, whether anyone listens or not."""

    def __init__(self, session: Session, registry: Registry) -> None:
        self._host, self._registry = session, registry
        self._shared: dict[sa.Connection, Session] = {}
        self._all: list[Session] = []
        self._hidden: Session | None = None
        self._found: dict[t.Any, t.Any] = {}
        self.unread_classes: set[type] = set()
        """Classes of which a bulk statement has changed rows that were not read: how they were is not known."""

    def session(self, connection: sa.Connection) -> Session:
        """Return the session for rows on a connection of the host's."""
        if connection not in self._shared:
            self._shared[connection] = self.new_session(connection)
        return self._shared[connection]

    def new_session(self, connection: sa.Connection) -> Session:
        """Return a session that no other statement reads with: what is about to be deleted must stay as it is."""
        # It must not end a transaction that is the host's. Listeners of the host's on all sessions see what they have
        # noted in theirs, such as the tenant.
        info = {**self._host.info, "webhooks": False}
        session = Session(connection, autoflush=False, info=info, join_transaction_mode="rollback_only")
        self._all.append(session)
        return session

    def forget_hidden_rows(self) -> None:
        """Forget which rows filters of the host's hide: a commit begins, or a deletion."""
        self._hidden = None
        self._found.clear()

    def hidden_row(self, relation: Relation, values: t.Mapping[str, t.Any]) -> t.Any:
        """Return the row that a relationship leads to, whatever filter of the host's hides it; None if there is none.

        It is read into a session of ours: the host's shall not come upon what its filter hides.

        :param values: of the row that refers to it, by attribute.
        """
        key = (relation, *values.values())
        # Rows of one commit mostly lead to few owners.
        if key in self._found:
            return self._found[key]
        if self._hidden is None:
            self._hidden = self.new_session(self._connection(relation.mapper.class_))
        with unfiltered(self._hidden):
            found = self._found[key] = referred(self._hidden, relation, values)
        return found

    def fetch(self, changes: t.Sequence[Change]) -> list[Change]:
        """Give changes of bulk statements their objects, as they are now; leave out those whose row is gone.

        Left out as well is what no subscription listens to: one look into an index spares reading all rows again.
        """
        lost = [change for change in changes if change.obj is None and change.bound.model is not None]
        is_needed = all(change.is_touched for change in lost) or self._leads(lost, changes)
        rows: dict[tuple[type, Key], t.Any] = {}
        if is_needed or self._has_listener(lost):
            groups: dict[type, list[Key]] = {}
            for change in lost:
                groups.setdefault(t.cast("type", change.bound.model), []).append(change.key[2:])
            for model, keys in groups.items():
                rows |= {(model, key): obj for key, obj in self._rows(model, keys).items()}
        found = [
            change._replace(obj=rows.get((change.bound.model, tuple(change.key[2:]))))
            if change.obj is None and change.bound.model is not None
            else change
            for change in changes
        ]
        return [change for change in found if change.obj is not None or change.bound.model is None]

    def _rows(self, model: type, keys: t.Sequence[Key]) -> dict[Key, t.Any]:
        mapper: t.Any = inspect(model)
        session = self.session(self._connection(model))
        with unfiltered(session):
            found = load(session, model, keys, columns=True, again=True)
            complete(session, model, found)
        return {tuple(mapper.primary_key_from_instance(obj)): obj for obj in found}

    def again(self, model: type, keys: t.Sequence[t.Any], paths: t.Collection[Path]) -> dict[t.Any, t.Any]:
        """Return fresh objects for rows by their keys, with what lies along the paths: as all that is now."""
        mapper: orm.Mapper[t.Any] = inspect(model)
        session = self.new_session(self._connection(model))
        along = [path for path in paths if path and path[0] not in mapper.column_attrs]
        with unfiltered(session):
            found = load(session, model, keys, along, columns=True)
            complete(session, model, found)
        return {state_of(obj).identity: obj for obj in found}

    def owns(self, session: Session) -> bool:
        """Say whether a session is one of these."""
        return any(each is session for each in self._all)

    def _leads(self, lost: t.Sequence[Change], changes: t.Sequence[Change]) -> bool:
        """Say whether some of them decide who owns others that have changed too."""
        leading = self._registry.leading
        return len(lost) < len(changes) and any(
            not leading.get(t.cast("type", change.bound.model), frozenset()).isdisjoint(change.values)
            for change in lost
        )

    def _has_listener(self, changes: t.Sequence[Change]) -> bool:
        connection = self._connection(t.cast("type", changes[0].bound.model))
        # A net change may stand for several kinds: a row that was made, and then became paid.
        kinds: set[tuple[str, Kind | None]] = {(change.bound.channel.name, None) for change in changes}
        return is_anybody_listening(self._registry, connection, kinds)

    def has_listener(self, events: t.Iterable[str]) -> bool:
        """Say whether anyone, of whatever owner, listens to one of these events."""
        return self._registry.has_listener(connection_of(self._registry, self._host, None), events)

    def _connection(self, model: type) -> sa.Connection:
        return connection_of(self._registry, self._host, model)

    def close(self) -> None:
        """Close our sessions, which forget their rows; the transaction goes on."""
        self.forget_hidden_rows()
        for session in self._all:
            session.close()
