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


def _repeat_start(call: Call, made: t.Sequence[str], subscription_id: str) -> t.Any:
    return _shown(_find(call, made[0]))


def _repeat_cancel(call: Call, made: t.Sequence[str], replay_id: str) -> t.Any:
    return _shown(_find(call, replay_id))


@operation(
    "POST",
    "/subscriptions/<subscription_id>/replay",
    "Replay deliveries",
    right="write",
    body=schemas.NewReplay,
    answer=schemas.Replay,
    status=202,
    errors=(409,),
    repeat=_repeat_start,
)
def replay_subscription(call: Call, subscription_id: str) -> t.Any:
    """Sends deliveries again that failed, were held, were delivered or are missing: same key and bytes, new signature.

    It runs in the background at a bounded rate, together with live events. Deliveries that are pending stay as they
    are, so a repeated request sends nothing twice. With `dry_run` the answer is 200 with the count; nothing is sent.
    """
    now = datetime.now(UTC)
    subscriptions.find(call.session, subscription_id, owner=call.owner)
    wanted = _filter(call, now)
    if call.body["dry_run"]:
        return Answer(_dry_run(call, subscription_id, wanted, now), status=200, made=None)
    try:
        row = manual.start_replay(call, subscription_id, wanted)
    except SubscriptionMissingError:  # a SubscriptionError too, but answered 404
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
    # The log has nothing older than its retention, and what is recorded from now on is no part of the replay.
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


def _dry_run(call: Call, subscription_id: str, wanted: replay.Filter, now: datetime) -> dict[str, t.Any]:
    total = manual.count_replay(call, subscription_id, wanted)
    # The Idempotency-Key of this request is written next, and a transaction of SQLite that has read may not begin to
    # write.
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
    """The progress of a replay. `done` means that all deliveries are queued; the log shows their outcome."""
    return _shown(_find(call, replay_id))


@operation(
    "POST",
    "/replays/<replay_id>/cancel",
    "Cancel a replay",
    right="write",
    answer=schemas.Replay,
    repeat=_repeat_cancel,
)
def cancel_replay(call: Call, replay_id: str) -> t.Any:
    """Stops queuing. Deliveries that are queued already, as many as are sent in some seconds, are still sent."""
    _find(call, replay_id)
    manual.stop_replay(call, replay_id)
    # `stop_replay` changes the row by a statement, which the session does not notice.
    return _shown(call.session.get_one(models.Replay, replay_id, populate_existing=True))


def _find(call: Call, replay_id: str) -> models.Replay:
    row = replay.find(call.session, replay_id, owner=call.owner)
    if row is None:
        raise Refused(404, "There is no such replay.")
    return row
