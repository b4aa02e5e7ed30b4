"""The rows of bulk statements: read beside the host's session, and counted while nobody listens to them."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session

from ..bindings.owner_steps import Relation
from ..catalog import Kind
from ..outbox import recording
from .change import Change, Key
from .connections import connection_of
from .history import complete
from .loading import Path, load, referred, unfiltered
from .sqlalchemy_internals import state_of

if t.TYPE_CHECKING:
    from .registry import Registry

__all__ = ["SideSession", "is_heard", "unfiltered"]


class SideSession:
    """Sessions of our own inside the host's transaction, so that rows read here never meet the host's objects.

    They hold on to no row: what a deletion's event will say is held by its `Change`, and goes with it.
    """

    kept = 0
    """How many rows of bulk statements this transaction has taken, heard or not."""

    def __init__(self, session: Session, watch: Registry) -> None:
        self._host, self._watch = session, watch
        self._shared: dict[sa.Connection, Session] = {}
        self._all: list[Session] = []
        self._hidden: Session | None = None
        self._found: dict[t.Any, t.Any] = {}
        self.loose: set[type] = set()
        """Classes of which a bulk statement has changed rows that were not read: how they were is not known."""

    def session(self, connection: sa.Connection) -> Session:
        """Return the session for rows on a connection of the host's."""
        if connection not in self._shared:
            self._shared[connection] = self.another(connection)
        return self._shared[connection]

    def another(self, connection: sa.Connection) -> Session:
        """Return a session that nobody else reads with: what is about to be deleted must stay as it is."""
        # It must not end a transaction that is the host's. Listeners of the host's on all sessions see what they have
        # noted in theirs, such as the tenant.
        info = {**self._host.info, "webhooks": False}
        session = Session(connection, autoflush=False, info=info, join_transaction_mode="rollback_only")
        self._all.append(session)
        return session

    def begin(self) -> None:
        """Look anew for what filters hide: a commit begins, or a deletion."""
        self._hidden = None
        self._found.clear()

    def led_to(self, relation: Relation, values: t.Mapping[str, t.Any]) -> t.Any:
        """Return the row that a relationship leads to, whatever filter of the host's hides it; None if there is none.

        It is read into a session of ours: the host's shall not come upon what its filter hides.

        :param values: of the row that refers to it, by attribute.
        """
        key = (relation, *values.values())
        if key in self._found:
            return self._found[key]
        if self._hidden is None:
            self._hidden = self.another(self._connection(relation.mapper.class_))
        with unfiltered(self._hidden):
            found = self._found[key] = referred(self._hidden, relation, values)
        return found

    def fetch(self, nets: dict[Key, Change]) -> None:
        """Give nets of bulk statements their objects, as they are now; drop those whose row is gone.

        Dropped as well is what nobody listens to: it takes one look into an index to spare reading all rows again.
        """
        lost = [net for net in nets.values() if net.obj is None and net.bound.model is not None]
        is_needed = all(net.is_touched for net in lost) or self._leads(lost, nets)
        if lost and not is_needed and not self._is_heard(lost):
            for net in lost:
                del nets[net.key]
            return
        groups: dict[type, list[Change]] = {}
        for net in lost:
            groups.setdefault(t.cast("type", net.bound.model), []).append(net)
        for model, some in groups.items():
            mapper: t.Any = inspect(model)
            session = self.session(self._connection(model))
            with unfiltered(session):
                found = load(session, model, [net.key[2:] for net in some], columns=True, again=True)
                complete(session, model, found)
            by_key = {tuple(mapper.primary_key_from_instance(obj)): obj for obj in found}
            for net in some:
                net.obj = by_key.get(tuple(net.key[2:]))
                if net.obj is None:
                    del nets[net.key]

    def again(self, model: type, keys: t.Sequence[t.Any], paths: t.Collection[Path]) -> dict[t.Any, t.Any]:
        """Return fresh objects for rows by their keys, with what lies along the paths: as all that is now."""
        mapper: orm.Mapper[t.Any] = inspect(model)
        session = self.another(self._connection(model))
        along = [path for path in paths if path and path[0] not in mapper.column_attrs]
        with unfiltered(session):
            found = load(session, model, keys, along, columns=True)
            complete(session, model, found)
        return {state_of(obj).identity: obj for obj in found}

    def owns(self, session: Session) -> bool:
        """Say whether a session is one of these."""
        return any(each is session for each in self._all)

    def _leads(self, lost: t.Sequence[Change], nets: t.Mapping[Key, Change]) -> bool:
        """Say whether it decides whose others are that have changed too."""
        leading = self._watch.leading
        return len(lost) < len(nets) and any(
            not leading.get(t.cast("type", net.bound.model), frozenset()).isdisjoint(net.values)
            for net in lost
        )

    def _is_heard(self, nets: t.Sequence[Change]) -> bool:
        connection = self._connection(t.cast("type", nets[0].bound.model))
        # A net may stand for several kinds of change: a row that was made, and then came to be paid.
        return is_heard(self._watch, connection, {(net.bound.channel.name, None) for net in nets})

    def is_event_heard(self, events: t.Iterable[str]) -> bool:
        """Say whether anybody listens to one of these events, of whatever owner."""
        patterns = self._watch.patterns(frozenset(events))
        if not patterns:
            return False
        connection = connection_of(self._watch, self._host, None)
        return self._watch.is_installed(connection) and recording.is_anybody_listening(connection, patterns)

    def _connection(self, model: type) -> sa.Connection:
        return connection_of(self._watch, self._host, model)

    def close(self) -> None:
        """Let go of the rows; the transaction is not touched."""
        self.begin()
        for session in self._all:
            session.close()


def is_heard(watch: Registry, connection: sa.Connection, changes: set[tuple[str, Kind | None]]) -> bool:
    """Say whether anybody at all, of whatever owner, listens to what changes can cause: one look into an index.

    :param changes: names of channels, and kinds of change; None for any kind. What they touch is thought of.
    """
    if watch.state.settings.record == "all":
        return True
    patterns = watch.patterns(frozenset(watch.events_of(changes)))
    if not patterns:
        return False
    if not watch.is_installed(connection):
        return False
    if recording.is_anybody_listening(connection, patterns):
        return True
    if not _may_be_snapshot(connection):
        return False
    with watch.beside(connection).connect() as fresh:
        return recording.is_anybody_listening(fresh, patterns)


def _may_be_snapshot(connection: sa.Connection) -> bool:
    """Whether a subscription that was made since the transaction began may not be seen in it.

    Not on SQLite: nobody else can write while the host's transaction does.
    """
    name = connection.dialect.name
    if name == "postgresql":
        return connection.get_isolation_level() != "READ COMMITTED"
    return name != "sqlite"
