"""The package's statements on its log, as pieces of work that leave no trace."""

from __future__ import annotations

import functools
import itertools
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import request
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_webhooks import Principal, outbox, replay
from flask_webhooks.delivery import body, destinations
from flask_webhooks.health import Health
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, State
from flask_webhooks.outbox import Lease, Window, recording, statistics
from flask_webhooks.queries import LogQuery
from flask_webhooks.queries.deliveries import search
from flask_webhooks.queries.delivery import delivery_detail
from flask_webhooks.queries.series import series
from flask_webhooks.queries.status import engine_status
from flask_webhooks.queries.subscriptions import oldest_waiting, overviews
from flask_webhooks.queries.tail import Tail
from flask_webhooks.replay import backfill, filters
from flask_webhooks.sql.ranges import first
from flask_webhooks.subscriptions import reencryption
from tests.plans.changes import CHANGES, undone
from tests.plans.log import Log

__all__ = ["KEYS", "Piece", "Scene", "load_principal", "pieces"]

KEYS = 500
"""Deliveries that a worker asks for, or writes, at once."""
LONG = timedelta(seconds=45)
TIME = "since=2020-01-01T00:00:00Z&until=2040-01-01T00:00:00Z"
LISTS = [
    *(
        "&".join(filter(None, some))
        for some in itertools.product(
            ["", "subscription={key}"],
            ["", "state=failed", "state=delivered", "state=pending"],
            ["", "event=invoices.paid", "event=invoices.*"],
        )
    ),
    f"event=invoices.*&{TIME}",
    f"state=pending&{TIME}",
    "message={message}",
    "message={message}&state=delivered",
]
MESSAGES = [
    "&".join(filter(None, some))
    for some in itertools.product(
        ["", "event=invoices.paid", "event=invoices.*"], ["", "environment=staging"], ["", TIME]
    )
]
SEARCHES = [
    "state=delivered", "state=pending", "state=failed", "event=invoices.paid", "event=invoices.*", "status=2xx",
    "status=none", "q=invoices", "state=delivered&event=invoices.paid",
]  # fmt: skip


class Scene(t.NamedTuple):
    """What the work is about."""

    log: Log
    client: FlaskClient
    rows: int
    """Deliveries that are there now."""

    @property
    def now(self) -> datetime:
        """Later than all that is due."""
        return datetime.now(UTC) + timedelta(hours=1)

    @property
    def keys(self) -> list[str]:
        """The newest deliveries, and their messages."""
        return [self.log.delivery(n) for n in range(max(0, self.rows - KEYS), self.rows)]

    @property
    def messages(self) -> list[str]:
        """The messages of `keys`."""
        return [self.log.message(n) for n in range(max(0, self.rows - KEYS), self.rows)]

    @property
    def lanes(self) -> list[str]:
        """All subscriptions."""
        return [self.log.large.id, *(row.id for row in self.log.others)]


Piece = t.Callable[[Scene], object]
OWN = {"X-Owner": "1"}


def load_principal() -> Principal:
    """Whoever the header says; an operator, if another says so."""
    rights = frozenset({"read", "write", "secrets"})
    return Principal(request.headers["X-Owner"], rights, operator="X-Operator" in request.headers)


def pieces() -> dict[str, Piece]:
    """Return the work by name."""
    found: dict[str, Piece] = {f"API deliveries?{query}": _get(f"/api/deliveries?{query}") for query in LISTS}
    found |= {f"API messages?{query}": _get(f"/api/messages?{query}") for query in MESSAGES}
    found |= {
        f"operator deliveries?{query}": _get(f"/api/deliveries?{query}", operator=True)
        for query in LISTS[:24]
    }
    found |= {
        f"operator messages?{query}": _get(f"/api/messages?{query}", operator=True) for query in MESSAGES
    }
    found |= {f"console log?{query}": _get(f"/console/deliveries?{query}") for query in SEARCHES}
    found |= {
        path: _get(path)
        for path in (
            "/api/messages/{message}",
            "/api/messages/{message}/data",
            "/api/deliveries/{delivery}",
            "/api/deliveries/{delivery}/attempts",
            "/api/deliveries/{first}/response",
            "/api/subscriptions",
            "/api/subscriptions/{key}/stats",
            "/console/",
            "/console/webhooks/{key}",
            "/console/webhooks/{key}/edit",
            "/console/events/invoices.paid",
            "/console/deliveries/{delivery}",
            "/console/webhooks/{key}/replay",
        )
    }
    found |= {name: _on_connection(work) for name, work in _WORK.items()}
    return found | {name: functools.partial(undone, change) for name, change in CHANGES.items()}


def _get(path: str, *, operator: bool = False) -> Piece:
    def ask(scene: Scene) -> None:
        at = scene.rows - 1
        places = {
            "key": scene.log.large.id,
            "message": scene.log.message(at),
            "delivery": scene.log.delivery(at),
            "first": scene.log.delivery(0),
        }
        headers = {**OWN, "X-Operator": "1"} if operator else OWN
        answer = scene.client.get(f"/webhooks{path.format(**places)}", headers=headers)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True)[:500])

    return ask


def _on_connection(work: t.Callable[[sa.Connection, Scene], object]) -> Piece:
    def do(scene: Scene) -> None:
        with scene.log.state.engine.connect() as connection:
            work(connection, scene)
            connection.rollback()

    return do


def _lease(connection: sa.Connection, scene: Scene) -> None:
    lease = Lease("test", "00000000-0000-7000-8000-000000000001", scene.now + LONG)
    outbox.lease(connection, lease, scene.now, 100)
    known = dict.fromkeys(scene.lanes, Health())
    outbox.fence(connection, lease, known, renew=True)
    rows = [{"lane": key, "failures": 1, "pauses": 0} for key in scene.lanes]
    outbox.health(connection, lease, rows)
    outbox.give_back(connection, lease, scene.lanes)
    connection.commit()


def _heads(connection: sa.Connection, scene: Scene) -> None:
    found = outbox.select_due(connection, dict.fromkeys(scene.lanes, Window(20)), scene.now)
    behind = {key: Window(100, (rows[-1].due_at, rows[-1].id)) for key, rows in found.items() if rows}
    outbox.select_due(connection, behind, scene.now)


def _retries(connection: sa.Connection, scene: Scene) -> None:
    rows: t.Any = connection.execute(
        sa.select(Delivery.id, Delivery.due_at).where(Delivery.id.in_(scene.keys))
    ).all()
    result = {"next_state": "pending", "next_due": scene.now, "made": 1, "why": "timeout", "sent": b"{}"}
    outbox.reschedule(
        connection, [{**result, "delivery": row.id, "was_due": row.due_at, "ended": None} for row in rows]
    )


def _filter(*states: str, events: tuple[str, ...] = ()) -> filters.Filter:
    year = timedelta(days=365)
    return filters.Filter(states, events, datetime.now(UTC) - year, datetime.now(UTC) + year)


def _count(*states: str, events: tuple[str, ...] = ()) -> t.Callable[[sa.Connection, Scene], object]:
    def count(connection: sa.Connection, scene: Scene) -> None:
        wanted = _filter(*states, events=events)
        filters.count(connection, scene.log.large, wanted, {"invoices.paid", "invoices.updated"})

    return count


def _select(
    make: t.Callable[[sa.Dialect, Scene], sa.Select[t.Any]],
) -> t.Callable[[sa.Connection, Scene], object]:
    return lambda connection, scene: connection.execute(first(make(connection.dialect, scene), 250)).all()


def _search(**wanted: t.Any) -> t.Callable[[sa.Connection, Scene], object]:
    return lambda connection, scene: search(connection, LogQuery(subscriptions=scene.lanes, **wanted), 50)


def _tail(connection: sa.Connection, scene: Scene) -> None:
    watcher = Tail(datetime.now(UTC) - timedelta(days=2))
    watcher.read_last(connection, 50)
    list(itertools.islice(Tail(datetime.now(UTC) - timedelta(days=2)).read_new(connection), 500))


def _dedupe(connection: sa.Connection, scene: Scene) -> None:
    keys = [f"k{n}" for n in range(max(0, scene.rows - 250), scene.rows)]
    backfill.recorded_keys(connection, "1", "staging", "invoices.updated", keys)


def _delivery(connection: sa.Connection, scene: Scene) -> None:
    with Session(connection) as session:
        row = session.get_one(Delivery, scene.log.delivery(0))
        body.body_of(scene.log.state, connection, row)
        delivery_detail(session, row.id, owner="1")


def _lists(connection: sa.Connection, scene: Scene) -> None:
    with Session(connection) as session:
        overviews(session, owner="1", now=scene.now)
    for state in State:
        oldest_waiting(connection, scene.log.large.id, state)
        outbox.count_in_state(connection, scene.log.large.id, state)


def _of_environments(connection: sa.Connection, scene: Scene) -> None:
    """What a worker asks that sends for one environment alone."""
    lease = Lease("test", "00000000-0000-7000-8000-000000000002", scene.now + LONG)
    outbox.lease(connection, lease, scene.now, 100, environments={"staging"})
    outbox.give_back(connection, lease, scene.lanes)
    connection.commit()
    outbox.next_due(connection, scene.now, LONG, {"staging"})
    outbox.waiting(connection, scene.now, LONG, 100, {"staging"})
    engine_status(connection, scene.now, environments={"staging"})


def _dry_run(connection: sa.Connection, scene: Scene) -> None:
    """A request with a key, which is kept."""
    answer = scene.client.post(
        f"/webhooks/api/subscriptions/{scene.log.large.id}/replay",
        headers={**OWN, "Idempotency-Key": uuid7()},
        json={"mode": "failed", "dry_run": True},
    )
    assert answer.status_code == 200, answer.get_data(as_text=True)


_WORK: dict[str, t.Callable[[sa.Connection, Scene], object]] = {
    "lease": _lease,
    "heads": _heads,
    "retries": _retries,
    "next due": lambda connection, scene: outbox.next_due(connection, scene.now, LONG),
    "waiting": lambda connection, scene: outbox.waiting(connection, scene.now, LONG, 100),
    "backlog": lambda connection, scene: outbox.backlog(connection, scene.now),
    "messages": lambda connection, scene: outbox.messages(connection, scene.messages),
    "bodies": lambda connection, scene: outbox.bodies(connection, scene.keys),
    "still due": lambda connection, scene: outbox.still_due(connection, scene.keys),
    "still due, few": lambda connection, scene: outbox.still_due(connection, scene.keys[:20]),
    "logged": lambda connection, scene: outbox.logged(connection, scene.keys),
    "succeed": lambda connection, scene: outbox.succeed(connection, scene.keys, scene.now),
    "succeed, few": lambda connection, scene: outbox.succeed(connection, scene.keys[:20], scene.now),
    "destinations": lambda connection, scene: destinations(
        scene.log.state, connection, scene.lanes, scene.now
    ),
    "hold": lambda connection, scene: outbox.hold(connection, scene.log.large.id, "off"),
    "send held": lambda connection, scene: outbox.send_held(connection, scene.log.large.id, scene.now),
    "cancel": lambda connection, scene: outbox.cancel_all(
        connection, scene.log.large.id, "removed", scene.now
    ),
    "stranded": lambda connection, scene: outbox.find_inconsistent(connection),
    "purge": lambda connection, scene: outbox.purge_messages(connection, scene.now),
    "unrecord": lambda connection, scene: recording.unrecord(connection, scene.messages),
    "listening": lambda connection, scene: recording.find_matches(
        connection, ["1", "2"], ("*", "invoices.*", "invoices.paid")
    ),
    "anybody": lambda connection, scene: recording.is_anybody_listening(connection, ["invoices.paid"]),
    "engine": lambda connection, scene: engine_status(connection, scene.now),
    "chart, an hour": lambda connection, scene: series(connection, scene.log.large.id, "1h", scene.now),
    "chart, a day": lambda connection, scene: series(connection, scene.log.large.id, "24h", scene.now),
    "hours": lambda connection, scene: statistics.read(
        connection, scene.log.large.id, scene.now - timedelta(days=1), scene.now
    ),
    "retry by hand": lambda connection, scene: replay.retry(connection, scene.keys[0], scene.now),
    "retry by hand what is due": lambda connection, scene: replay.retry(
        connection, scene.keys[-1], scene.now
    ),
    "cancel by hand": lambda connection, scene: replay.cancel(connection, scene.keys[0], scene.now),
    "count delivered": _count("delivered"),
    "count of an event": _count("delivered", events=("invoices.paid",)),
    "count missed": _count("missed"),
    "replay delivered": _select(
        lambda dialect, scene: filters.delivered(dialect, scene.log.large.id, _filter(), "delivered", None)
    ),
    "replay of an event": _select(
        lambda dialect, scene: filters.delivered(
            dialect,
            scene.log.large.id,
            _filter(events=("invoices.paid",)),
            "delivered",
            scene.log.delivery(0),
        )
    ),
    "replay missed": _select(
        lambda dialect, scene: filters.missed(
            dialect, scene.log.large, _filter(), {"invoices.paid", "invoices.updated"}, None
        )
    ),
    "search": _search(),
    "search by text": _search(text="7"),
    "search by event": _search(event="invoices.paid"),
    "search by answer": _search(status="2xx"),
    "search without answer": _search(status="none"),
    "tail": _tail,
    "dedupe": _dedupe,
    "a delivery": _delivery,
    "lists": _lists,
    "elsewhere": lambda connection, scene: outbox.elsewhere(connection, {"production"}),
    "of these environments": _of_environments,
    "sealed": lambda connection, scene: list(reencryption.reseal(scene.log.state)),
    "count sealed": lambda connection, scene: reencryption.count(scene.log.state),
    "dry run": _dry_run,
}
