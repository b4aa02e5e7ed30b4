"""Sends rows that are older than a subscription: each becomes one `created` event for that subscription alone.

The law of this room: a message of a backfill carries a dedupe key made of the subscription and the row's primary key.
So a second run records nothing twice, and a run after an interrupted one skips the rows that have a message. Rows are
read in batches, in the order of their primary key, and fall due one after the other at a bounded rate, so that live
events are sent in between. If a newer state of a row has been sent meanwhile, its older one is not sent: see
`outbox.superseded`. Rows that another transaction has locked are skipped, and tried again one by one at the end: a
transaction that waits for one lock and holds no other cannot end in a deadlock with the host's.
"""

from __future__ import annotations

import functools
import hashlib
import typing as t
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from .. import outbox, replay, subscriptions
from ..capture import (
    PendingEvent,
    Recorded,
    announce,
    guarding,
    host_code,
    load_linked,
    option,
    registry_of,
    write,
)
from ..catalog import EventType, Kind
from ..errors import ErrorText, OtherEnvironmentError, SubscriptionError
from ..ids import BACKFILL
from ..models import DELIVERIES, MESSAGES, Subscription
from ..outbox.recording import MatchedSubscription
from ..principal import ALL_OWNERS
from ..sql import parameters
from ..sql.transactions import repeated

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Backfill", "Batch"]

Key = tuple[t.Any, ...]
"""The primary key of a row."""
AHEAD = 5.0
"""Seconds of sending that one batch queues; an interrupted run still sends at most these."""
MOST = 250
"""Rows of one batch: their locks are held for the time it takes to dump them."""


@dataclass(frozen=True)
class Batch:
    """What one transaction did."""

    seen: int
    """Rows that were read."""
    queued: int
    """Rows among these that were queued; the others had been sent before, or are another owner's."""


class Backfill:
    """One run for one channel and one subscription.

    :param rate: deliveries a second; None: `WEBHOOKS_REPLAY_RATE`.
    :raises SubscriptionError: no such channel or subscription, it is off, or it does not listen to the event.
    """

    def __init__(
        self, state: AppState, channel: str, subscription_id: str, *, rate: float | None = None
    ) -> None:
        self.state, self.rate = state, rate or state.settings.replay_rate
        self._key = subscription_id
        self._event, self._bound = _event_of(state, channel), state.bound[channel]
        self._mapper: t.Any = sa.inspect(t.cast("type", self._bound.model))
        with self._session() as session:
            self._owner = self._subscription(session, to_change=False).owner

    def count(self) -> int:
        """Return how many rows the run will read."""
        with self._session() as session:
            rows = self._where(sa.select(*self._mapper.primary_key).select_from(self._mapper))
            return session.scalar(sa.select(sa.func.count()).select_from(rows.subquery())) or 0

    def batches(self) -> t.Iterator[Batch]:
        """Yield each batch after its commit. A caller keeps to the rate by waiting `queued / rate` s."""
        after: Key | None = None
        most = max(1, min(MOST, int(self.rate * AHEAD)))
        busy: list[Key] = []
        while keys := self._next_keys(after, most):
            after = keys[-1]
            # Waiting while we hold the locks of other rows could deadlock with the host's transaction.
            left, recorded = self._repeated(keys, waits=False)
            busy += left
            yield self._announced(len(keys), recorded)
        for key in busy:
            yield self._announced(0, self._repeated([key], waits=True)[1])

    def _announced(self, seen: int, recorded: list[Recorded]) -> Batch:
        if recorded:
            announce(self.state, recorded)
        return Batch(seen, sum("error" not in message for message in recorded))

    def _repeated(self, keys: t.Sequence[Key], *, waits: bool) -> tuple[list[Key], list[Recorded]]:
        return repeated(self.state.own_engine, functools.partial(self._enqueue_batch, keys=keys, waits=waits))

    def _enqueue_batch(
        self, session: Session, *, keys: t.Sequence[Key], waits: bool
    ) -> tuple[list[Key], list[Recorded]]:
        """Return the keys of rows that another transaction has locked, or that are gone; and what was recorded."""
        wanted = self._subscription(session, to_change=True)
        rows = self._locked_rows(session, wanted, keys, waits=waits)
        found = {tuple(self._mapper.primary_key_from_instance(row)) for row in rows}
        recorded = self._record(session, wanted, rows)
        session.commit()
        return [key for key in keys if key not in found], recorded

    # ---- the subscription -----------------------------------------------------------------------------------

    def _session(self) -> Session:
        return Session(self.state.own_engine, info={"webhooks": False})

    def _subscription(self, session: Session, *, to_change: bool) -> MatchedSubscription:
        """Check that it may be sent to. `to_change` locks its owner's row, so no request can switch it off."""
        row = subscriptions.find(session, self._key, owner=ALL_OWNERS, to_change=to_change)
        if not row.active:
            raise SubscriptionError(ErrorText("switched_off"))
        listened = replay.listened_to(self.state, row)
        if self._event.name not in listened:
            raise SubscriptionError(ErrorText("does_not_listen", event=self._event.name))
        self._check_environment(row)
        includes = frozenset(listened[self._event.name])
        return MatchedSubscription(row.id, row.owner, row.environment, True, row.format, includes)

    def _check_environment(self, row: Subscription) -> None:
        environment = self.state.settings.only_environment
        if environment is not None and environment != row.environment:
            raise SubscriptionError(
                ErrorText("environment_of_app", environment=row.environment, here=environment)
            )
        if not self.state.settings.sends_to(row.environment):
            raise OtherEnvironmentError(row.environment)

    # ---- which rows ------------------------------------------------------------------------------------

    def _where(self, rows: sa.Select[t.Any]) -> sa.Select[t.Any]:
        """Select only the owner's rows if SQL can express that; `_is_for` checks each row in any case."""
        path = self._bound.owner_path or ()
        if len(path) != 1 or path[0] not in self._mapper.column_attrs:
            return rows
        column = self._mapper.column_attrs[path[0]].columns[0]
        # Only types whose text has one form: a database might compare values of other types differently than Python.
        if isinstance(column.type, sa.Integer) and self._owner.isdecimal():
            return rows.where(column == int(self._owner))
        return rows.where(column == self._owner) if type(column.type) in (sa.String, sa.Text) else rows

    def _next_keys(self, after: Key | None, most: int) -> list[Key]:
        """Return the keys of the rows that come next."""
        keys = self._mapper.primary_key
        found = self._where(sa.select(*keys).select_from(self._mapper)).order_by(*keys).limit(most)
        if after is not None:
            found = found.where(
                keys[0] > after[0] if len(keys) == 1 else sa.tuple_(*keys) > sa.tuple_(*after)
            )
        with self._session() as session:
            return [tuple(row) for row in session.execute(found)]

    def _locked_rows(
        self, session: Session, wanted: MatchedSubscription, keys: t.Sequence[Key], *, waits: bool
    ) -> t.Sequence[t.Any]:
        """Return rows, locked: a change that another transaction makes meanwhile is recorded later, as the newer one.

        :param waits: wait for a lock instead of skipping the row. Only with one key: a wait while other locks are held
            can end in a deadlock, and the database might roll back the host's transaction.
        """
        bound, model = self._bound, t.cast("type", self._bound.model)
        columns = self._mapper.primary_key
        asked = [bound.includes[name].relationships for name in wanted.includes if name in bound.includes]
        paths = {
            path for path in (*bound.read_paths, *asked) if path and path[0] in self._mapper.relationships
        }
        one = len(columns) == 1
        these = columns[0].in_([key[0] for key in keys]) if one else sa.tuple_(*columns).in_(keys)
        found = self._where(sa.select(model)).where(these).order_by(*columns)
        found = found.options(*(option(model, path) for path in sorted(paths)))
        locked = found.with_for_update(read=True, of=model, skip_locked=not waits)
        return session.scalars(locked).unique().all()

    # ---- sending ---------------------------------------------------------------------------------------

    def _record(
        self, session: Session, wanted: MatchedSubscription, rows: t.Sequence[t.Any]
    ) -> list[Recorded]:
        with guarding(session):
            return self._write(session.connection(), wanted, rows)

    def _write(
        self, connection: sa.Connection, wanted: MatchedSubscription, rows: t.Sequence[t.Any]
    ) -> list[Recorded]:
        # A session holds these rows weakly, and owners are read from them.
        held = load_linked((self._bound, row, {}) for row in rows)
        items = {self._dedupe_key(row): row for row in rows if self._is_for(row, wanted)}
        del held
        # The unique index would refuse them too, but only after each row has been dumped.
        for key in recorded_keys(connection, wanted.owner, wanted.environment, self._event.name, list(items)):
            del items[key]
        occurrences = [
            PendingEvent(self._event, wanted.owner, self._bound, row, {}, dedupe_key=key, listeners=[wanted])
            for key, row in items.items()
        ]
        recorded = write(registry_of(self.state), connection, occurrences)
        self._spread_due_times(connection, [message["id"] for message in recorded if "error" not in message])
        return recorded

    def _is_for(self, row: t.Any, wanted: MatchedSubscription) -> bool:
        if host_code.owner(self._bound, row) != wanted.owner:
            return False
        environment = self.state.settings.environment
        if isinstance(environment, str):
            return True
        data = host_code.dump(self._bound, self._event, row)
        return environment(self._event.name, data, wanted.owner) == wanted.environment

    def _dedupe_key(self, row: t.Any) -> str:
        """Return the dedupe key: a hash, because the column holds 255 characters and a primary key may have more."""
        key = repr([str(part) for part in self._mapper.primary_key_from_instance(row)])
        return f"{BACKFILL}:{self._key}:{hashlib.sha256(key.encode()).hexdigest()}"

    def _spread_due_times(self, connection: sa.Connection, ids: t.Sequence[str]) -> None:
        if not ids:
            return
        now = outbox.now(connection)
        one = sa.update(DELIVERIES).where(
            DELIVERIES.c.message_id == sa.bindparam("message"), DELIVERIES.c.subscription_id == self._key
        )
        rows = [
            {"message": key, "due": now + timedelta(seconds=number / self.rate)}
            for number, key in enumerate(ids)
        ]
        connection.execute(one.values(due_at=sa.bindparam("due")), rows)


def recorded_keys(
    connection: sa.Connection, owner: str, environment: str, event: str, keys: t.Sequence[str]
) -> list[str]:
    """Return which dedupe keys an owner has used before for an event."""
    of_event = MESSAGES.c.owner == owner, MESSAGES.c.environment == environment, MESSAGES.c.event == event
    done = sa.select(MESSAGES.c.dedupe_key)
    if connection.dialect.name != "postgresql":
        return list(connection.scalars(done.where(*of_event, MESSAGES.c.dedupe_key.in_(keys))))
    # One probe of the index for each key. Without statistics of the table the planner takes every index for equally
    # good. A range of keys in their order can be answered only by the right one.
    given = sa.bindparam("keys", list(keys), type_=postgresql.ARRAY(MESSAGES.c.dedupe_key.type))
    each = parameters.each_of(given)
    of_key = MESSAGES.c.dedupe_key.between(each.c.key, each.c.key)
    one = (
        done.where(*of_event, of_key)
        .order_by(MESSAGES.c.dedupe_key)
        .limit(sa.literal_column("1"))
        .lateral("one")
    )
    return list(connection.scalars(sa.select(one.c.dedupe_key).select_from(each.join(one, sa.true()))))


def _event_of(state: AppState, channel: str) -> EventType:
    """Return the channel's unconditional event for created rows."""
    found = state.catalog.channels.get(channel)
    if found is None:
        raise SubscriptionError(
            ErrorText(
                "no_channel_to_backfill", channel=repr(channel), known=", ".join(state.catalog.channels)
            )
        )
    if state.bound[channel].model is None:
        raise SubscriptionError(ErrorText("channel_without_model", channel=channel))
    for event in found.events.values():
        if Kind.CREATED in event.on and not event.when:
            return event
    raise SubscriptionError(ErrorText("channel_without_creation", channel=channel))
