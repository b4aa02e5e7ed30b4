"""Replays: sending many deliveries again, in the background."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from .. import models, replay, subscriptions
from ..catalog import unknown_event
from ..errors import SubscriptionError, SubscriptionMissingError
from ..state import AppState
from ..web import Refused, manual
from . import schemas
from .operations import Answer, Call, operation

_SHOWN = (
    "id",
    "subscription_id",
    "state",
    "states",
    "events",
    "since",
    "until",
    "total",
    "queued",
    "created_at",
    "finished_at",
)


def _shown(row: models.Replay) -> dict[str, t.Any]:
    return {name: getattr(row, name) for name in _SHOWN}


def _again(call: Call, made: t.Sequence[str], subscription_id: str) -> t.Any:
    return _shown(_found(call, made[0]))


def _still_cancelled(call: Call, made: t.Sequence[str], replay_id: str) -> t.Any:
    return _shown(_found(call, replay_id))


@operation(
    "POST",
    "/subscriptions/<subscription_id>/replay",
    "Replay deliveries",
    right="write",
    body=schemas.NewReplay,
    answer=schemas.Replay,
    status=202,
    errors=(409,),
    repeat=_again,
)
def replay_subscription(call: Call, subscription_id: str) -> t.Any:
    """Sends again what failed, was held, was delivered, or was missed: same idempotency key, same bytes, new signature.

    It runs in the background at a bounded rate, next to live events. What is on its way already is left alone, so
    asking twice sends nothing twice. With `dry_run` it answers 200 with the count and does nothing.
    """
    now = datetime.now(UTC)
    subscriptions.find(call.session, subscription_id, owner=call.owner)
    wanted = _filter(call, now)
    if call.body["dry_run"]:
        return Answer(_dry(call, subscription_id, wanted, now), status=200, made=None)
    try:
        row = manual.start_replay(call, subscription_id, wanted)
    except SubscriptionMissingError:
        raise
    except SubscriptionError as error:
        raise Refused(409, str(error)) from error
    return Answer(_shown(row), made=(row.id,))


def _filter(call: Call, now: datetime) -> replay.Filter:
    body = call.body
    states = body.get("states") or replay.MODES[body.get("mode", "failed")]
    chosen = tuple(state for state in replay.STATES if state in states)
    bounds = {name: str(body[name]) for name in ("since", "until") if name in body}
    events = _events(call.state, body.get("events", ()))
    digest = replay.digest(chosen, sorted(events), bounds)
    since = body.get("since") or now - call.state.settings.retention
    return replay.Filter(chosen, events, since, min(body.get("until") or now, now), digest)


def _events(state: AppState, patterns: t.Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for at, pattern in enumerate(patterns):
        names = [event.name for event in state.catalog.expand(pattern)]
        if not names:
            message = unknown_event(pattern, state.catalog.suggest(pattern))
            raise Refused(422, message, fields={f"events.{at}": [message]})
        found.update(dict.fromkeys(names))
    return tuple(found)


def _dry(call: Call, subscription_id: str, wanted: replay.Filter, now: datetime) -> dict[str, t.Any]:
    total = manual.count_replay(call, subscription_id, wanted)
    # On SQLite a transaction that has read may not be able to write, and the kept answer of an Idempotency-Key is
    # written.
    call.session.rollback()
    return {
        "id": None,
        "subscription_id": subscription_id,
        "state": "dry_run",
        "states": wanted.states,
        "events": wanted.events,
        "since": wanted.since,
        "until": wanted.until,
        "total": total,
        "queued": 0,
        "created_at": now,
        "finished_at": now,
    }


@operation("GET", "/replays/<replay_id>", "Show a replay", right="read", answer=schemas.Replay)
def get_replay(call: Call, replay_id: str) -> t.Any:
    """How far it is. `done` means that everything is queued; what came of it is in the deliveries."""
    return _shown(_found(call, replay_id))


@operation(
    "POST",
    "/replays/<replay_id>/cancel",
    "Cancel a replay",
    right="write",
    answer=schemas.Replay,
    repeat=_still_cancelled,
)
def cancel_replay(call: Call, replay_id: str) -> t.Any:
    """Queues no more. What is queued already, some seconds' worth, is still sent."""
    _found(call, replay_id)
    manual.stop_replay(call, replay_id)
    return _shown(call.session.get_one(models.Replay, replay_id, populate_existing=True))


def _found(call: Call, replay_id: str) -> models.Replay:
    row = replay.find(call.session, replay_id, owner=call.owner)
    if row is None:
        raise Refused(404, "There is no such replay.")
    return row
