"""Commands that send many deliveries at a bounded rate: recorded ones (`replay`), and existing rows (`backfill`)."""

from __future__ import annotations

import json
import threading
import typing as t
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext

from .. import subscriptions
from ..models import Replay
from ..principal import ALL_OWNERS
from ..replay import filters, replays
from ..replay.backfill import Backfill
from ..state import AppState
from .context import open_session, open_state, refusals
from .durations import duration
from .output import progress, say

__all__ = ["backfill", "replay"]


def _moment(text: str | None, option: str) -> datetime | None:
    """Return the moment that `2026-05-01`, `2026-05-01T12:00Z` (without an offset: UTC) or an age (`90m`) names."""
    if text is None:
        return None
    try:
        if (age := duration(text)) is not None:
            return datetime.now(UTC) - age
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is not a time. Use 2026-05-01T12:00Z, or an age: 90m, 24h, 7d."
        raise click.BadParameter(message, param_hint=option) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _states(text: str | None, mode: str | None) -> tuple[str, ...]:
    if text is None:
        return filters.MODES[mode or "failed"]
    if mode is not None:
        raise click.UsageError("Use either --mode or --states.")
    names = {name.strip() for name in text.split(",")}
    for name in sorted(names - set(filters.STATES)):
        message = f"{name!r} is none of {', '.join(filters.STATES)}."
        raise click.BadParameter(message, param_hint="--states")
    return tuple(state for state in filters.STATES if state in names)


# ---- replay ----------------------------------------------------------------------------------------------


@click.command()
@click.argument("subscription_id", metavar="ID")
@click.option(
    "--since", metavar="TIME", help="Recorded at or after this time, or an age such as 24h.  [default: all]"
)
@click.option("--until", metavar="TIME", help="Recorded before this time.  [default: now]")
@click.option("--states", metavar="LIST", help=f"Some of {', '.join(filters.STATES)}, separated by commas.")
@click.option("--mode", type=click.Choice(list(filters.MODES)), help="Short for --states.  [default: failed]")
@click.option("--event", "patterns", multiple=True, help="Only these event types or patterns.")
@click.option("--dry-run", is_flag=True, help="Only count the deliveries.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_appcontext
def replay(
    subscription_id: str,
    since: str | None,
    until: str | None,
    states: str | None,
    mode: str | None,
    patterns: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send deliveries again: same idempotency key, same bytes, new signature, at WEBHOOKS_REPLAY_RATE.

    Ctrl-C only stops watching: running workers continue. The same command, while the replay runs, watches it again.
    """
    state, now, events = open_state(), datetime.now(UTC), tuple(sorted(patterns))
    chosen = _states(states, mode)
    wanted = filters.Filter(
        states=chosen,
        events=_events(state, events),
        since=_moment(since, "--since") or now - state.settings.retention,
        until=min(_moment(until, "--until") or now, now),
        digest=filters.digest(
            "cli", chosen, events, since, until
        ),  # the age itself: the same command later finds the running replay
    )
    with refusals():
        if dry_run:
            _tell(_count(state, subscription_id, wanted), 0, "dry_run", as_json)
            return
        found = _begin(state, subscription_id, wanted)
        total, queued, ended = _follow(state, found, as_json)
    _tell(total, queued, ended, as_json)
    if ended != "done":
        raise SystemExit(1)


def _events(state: AppState, patterns: t.Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for pattern in patterns:
        names = [event.name for event in state.catalog.expand(pattern)]
        if not names:
            raise click.BadParameter(f"There is no event {pattern!r} in the catalogue.", param_hint="--event")
        found.update(dict.fromkeys(names))
    return tuple(found)


def _count(state: AppState, subscription_id: str, wanted: filters.Filter) -> int:
    with open_session(state) as session:
        row = subscriptions.find(session, subscription_id, owner=ALL_OWNERS)
        return filters.count(session.connection(), row, wanted, replays.listened_to(state, row))


def _begin(state: AppState, subscription_id: str, wanted: filters.Filter) -> str:
    if not state.settings.enabled:
        raise click.ClickException("WEBHOOKS_ENABLED is False, so nothing is sent. Set it to True first.")
    with open_session(state) as session:
        row = subscriptions.find(session, subscription_id, owner=ALL_OWNERS, to_change=True)
        found, _ = replays.start(state, session, row, wanted)
        session.commit()
        return found.id


def _follow(state: AppState, replay_id: str, is_quiet: bool) -> tuple[int, int, str]:
    """Enqueue batches, as workers do too, until all deliveries are queued or the replay is cancelled."""
    pause = threading.Event()
    with open_session(state) as session:
        row = session.get_one(Replay, replay_id)
        with progress(range(row.total), label="Queueing", hidden=is_quiet) as bar:
            while True:
                session.rollback()
                replays.enqueue_batches(state)
                session.refresh(row)
                bar.update(row.queued - bar.pos)
                if row.state != "running":
                    return row.total, row.queued, row.state
                pause.wait(max(0.05, min(1.0, (row.next_at - datetime.now(UTC)).total_seconds())))


def _tell(total: int, queued: int, state: str, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"state": state, "total": total, "queued": queued}))
    elif state == "dry_run":
        say(f"{total} would be sent.")
    else:
        say(f"Queued {queued} of {total}; the replay is {state}. Workers send them.")


# ---- backfill --------------------------------------------------------------------------------------------


@click.command()
@click.argument("channel")
@click.option(
    "--subscription", "subscription_id", required=True, metavar="ID", help="The subscription to send them to."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Deliveries per second.  [default: WEBHOOKS_REPLAY_RATE]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_appcontext
def backfill(channel: str, subscription_id: str, rate: float | None, as_json: bool) -> None:
    """Send the existing rows of CHANNEL to one subscription, as `created` events.

    May be stopped at any time; the same command continues where it stopped. No row is sent twice.
    """
    state, pause, seen, queued = open_state(), threading.Event(), 0, 0
    with refusals():
        job = Backfill(state, channel, subscription_id, rate=rate)
        with progress(range(job.count()), label="Queueing", hidden=as_json) as bar:
            for batch in job.batches():
                bar.update(batch.seen)
                seen, queued = seen + batch.seen, queued + batch.queued
                pause.wait(batch.queued / job.rate)
    if as_json:
        say(json.dumps({"rows": seen, "queued": queued}))
    else:
        say(f"Queued {queued} of {seen} rows. Workers send them.")
