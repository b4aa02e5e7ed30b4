"""The package's writing statements outside of a worker, as pieces of work in a transaction that is rolled back."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import outbox, replay, subscriptions, throttle
from flask_webhooks.delivery import body
from flask_webhooks.errors import SubscriptionError
from flask_webhooks.health import Reason
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Message, State, Subscription
from flask_webhooks.outbox import recording, retention, statistics
from flask_webhooks.outbox.superseded import ObjectVersion, find_outdated
from flask_webhooks.queries.delivery import MOST, delivery_detail
from flask_webhooks.replay import backfill as backfilling
from flask_webhooks.replay import filters, repair, replays
from flask_webhooks.sql.parameters import KeyedStatement
from flask_webhooks.subscriptions import SubscriptionInput
from flask_webhooks.worker.batch import disable

if t.TYPE_CHECKING:
    from tests.plans.work import Scene

__all__ = ["CHANGES", "Change", "undone"]

Change = t.Callable[[Session, "Scene"], object]
A, D, M = (t.cast("sa.Table", model.__table__) for model in (Attempt, Delivery, Message))


def undone(change: Change, scene: Scene) -> None:
    """Make a change in a session whose commits are savepoints, and undo all of it."""
    info = {"webhooks": False}
    with scene.log.state.own_engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint", info=info) as session:
            change(session, scene)
        outer.rollback()


_OFF: dict[str, t.Any] = {"active": False}
_ON: dict[str, t.Any] = {"active": True, "held": "send"}


def _switch(session: Session, scene: Scene) -> None:
    state, key = scene.log.state, scene.log.large.id
    for values in (_OFF, _ON, {"rate_limit": 5.0, "events": ["invoices.*"]}, _OFF):
        subscriptions.change(state, session, key, SubscriptionInput(**values), owner="1")
        session.commit()
        outbox.reconcile(session.connection(), key, scene.now)
    with contextlib.suppress(SubscriptionError):  # what shall become of what is held?
        subscriptions.change(state, session, key, SubscriptionInput(active=True), owner="1")
    subscriptions.remove(state, session, key, owner="1")
    outbox.reconcile(session.connection(), key, scene.now)


def _subscription(session: Session, scene: Scene) -> None:
    state = scene.log.state
    row, _ = subscriptions.create(
        state,
        session,
        SubscriptionInput(environment="staging", url="http://127.0.0.1:1/", events=["invoices.*"]),
        owner="1",
    )
    subscriptions.rotate(state, session, row, now=scene.now)
    subscriptions.secret_id(session, row)
    session.execute(sa.update(Subscription).where(Subscription.id == row.id).values(deleted_at=sa.func.now()))
    outbox.purge_removed(session.connection(), scene.now)


def _turns(session: Session, scene: Scene) -> None:
    with throttle.turn(scene.log.state, session, "1"):
        pass
    retention.purge_rates(session.connection(), scene.now)


def _replay(session: Session, scene: Scene) -> None:
    state, now = scene.log.state, datetime.now(UTC)
    year = timedelta(days=365)
    wanted = replay.Filter((State.DELIVERED.value, filters.MISSED), (), now - year, now + year, "plans")
    row, _ = replay.start(state, session, scene.log.large, wanted)
    replays._enqueue_batch(state, session, row.id, now + year, 50)
    row.stage, row.cursor = 1, None
    row.next_at = now
    session.flush()
    replay.find(session, row.id, owner="1")
    replay.stop(session.connection(), row.id, now)
    retention.purge_replays(session.connection(), now)
    retention.purge_answers(session.connection(), now)
    replays.enqueue_batches(state)


def _missed(session: Session, scene: Scene) -> None:
    """What a replay finds that a subscription has no delivery of."""
    keys, now = scene.messages[:20], datetime.now(UTC)
    _FORGET.run(session.connection(), keys)
    wanted = replay.Filter((filters.MISSED,), (), now - timedelta(days=2), now + timedelta(days=2))
    listened = replay.listened_to(scene.log.state, scene.log.large)
    behind = scene.log.message(max(0, scene.rows - len(scene.keys) - 1))
    replays._enqueue_missed(scene.log.state, session, scene.log.large, wanted, listened, behind, [now] * 20)


_FORGET = KeyedStatement(D.c.message_id, lambda these: sa.delete(D).where(these))


def _broken(session: Session, scene: Scene) -> None:
    """A message whose data could not be made: what is asked about it, its repair, and giving it up."""
    state, connection = scene.log.state, session.connection()
    key, delivery = scene.messages[0], scene.keys[0]
    recording.record_broken(connection, {key: "?"}, scene.now)
    broken = {"state": State.BROKEN.value, "due_at": None}
    connection.execute(sa.update(D).where(D.c.id == delivery).values(broken))
    repair.list_broken(connection)
    repair.list_broken(connection, channel="invoices", after=key)
    outbox.broken(connection)
    replay.is_broken(connection, delivery)
    body.body_of(state, connection, session.get_one(Delivery, delivery))
    row = repair._lock_broken(session, key)
    assert row is not None
    item, message = repair._made_anew(state, session, row)
    repair._write(connection, row, item, message)
    recording.record_broken(connection, {key: "?"}, scene.now)
    connection.execute(sa.update(D).where(D.c.id == delivery).values(broken))
    assert repair._given_up(connection, key, "?")
    recording.unrecord(connection, [key], [key])


def _worker(session: Session, scene: Scene) -> None:
    connection = session.connection()
    outbox.heartbeat(connection, "plans", scene.now)
    outbox.heartbeat(connection, "plans", scene.now)
    outbox.count(connection, "plans", 1, 1)
    outbox.workers(connection)
    outbox.unregister(connection, "plans")
    lease = outbox.Lease("plans", uuid7(), scene.now)
    outbox.give_back(connection, lease, scene.lanes, but=True)
    disable(connection, scene.log.large.id, next(iter(Reason)))
    statistics.counts_of_hour(connection, scene.now)
    retention.purge_hours(connection, scene.now - timedelta(days=400))
    tally = statistics.HourlyCounts()
    tally.add(scene.log.large.id, scene.now, status=200, seconds=0.1, state="delivered")
    statistics.add(connection, tally)


def _log(session: Session, scene: Scene) -> None:
    """Attempts are written, so many of one delivery that a page does not hold them."""
    key = scene.log.delivery(0)
    row = session.execute(sa.select(A).where(A.c.delivery_id == key)).mappings().one()
    rows = [{**row, "id": uuid7(), "number": number} for number in range(2, MOST + 3)]
    outbox.log(session.connection(), rows)
    delivery_detail(session, key, owner="1")
    delivery_detail(session, key, owner="1", before=rows[-1]["id"])


def _outdated(session: Session, scene: Scene) -> None:
    versions = [
        ObjectVersion(key, "invoices", str((scene.rows - 1 - n) % 1000), scene.rows - 1 - n)
        for n, key in enumerate(reversed(scene.keys))
    ]
    find_outdated(session.connection(), scene.log.large.id, versions)


def _record(session: Session, scene: Scene) -> None:
    """A commit's messages with their deliveries; those of a backfill are put off one by one."""
    connection = session.connection()
    one = dict(session.execute(sa.select(M).where(M.c.id == scene.messages[-1])).mappings().one())
    two = dict(session.execute(sa.select(D).where(D.c.id == scene.keys[-1])).mappings().one())
    messages = [{**one, "id": uuid7(), "clock": 1, "nth": n, "dedupe_key": None} for n in range(50)]
    deliveries = [{**two, "id": uuid7(), "message_id": row["id"]} for row in messages]
    recording.record(connection, messages, deliveries)
    backfill = backfilling.Backfill(scene.log.state, "invoices", scene.log.large.id)
    backfill._spread_due_times(connection, [row["id"] for row in messages])


CHANGES: t.Mapping[str, Change] = {
    "switching": _switch,
    "a subscription": _subscription,
    "turns by hand": _turns,
    "a replay": _replay,
    "what was missed": _missed,
    "a broken message": _broken,
    "a worker's own": _worker,
    "attempts": _log,
    "find_outdated": _outdated,
    "recording": _record,
}
