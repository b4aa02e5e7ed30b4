"""Commands that deliver, show the state of deliveries, and delete old ones."""

from __future__ import annotations

import json
import logging
import typing as t
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta

import click
from flask import current_app
from flask.cli import with_appcontext

from .. import checks, jobs, outbox, queue, replay
from ..config import ENVIRONMENTS
from ..errors import QueueError
from ..shutdown import ShutdownFlag
from ..state import AppState, current_webhooks, state_of
from ..visible import visible
from ..worker import TRANSIENT_ERRORS, Coordinator, Maintenance, Report, is_stalled, reconcile_all
from .durations import Duration
from .output import say

__all__ = ["deliver", "purge", "status", "worker"]


def _state() -> AppState:
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


@click.command()
@click.option("--burst", is_flag=True, help="Stop when the queue is empty.")
@click.option("--verbose", is_flag=True, help="Log every attempt.")
@with_appcontext
def worker(burst: bool, verbose: bool) -> None:
    """Deliver as soon as an event is committed, and look for due deliveries every two seconds.

    SIGTERM or Ctrl-C stops the worker when the requests in flight have finished; a second one stops it at once.
    """
    state = _state()
    log_to_terminal(verbose)
    checks.refuse_missing_tables(state.engine)
    url = state.settings.redis_url or state.embedded.start()
    name = jobs.worker_name()
    with jobs.stopping() as stop:  # first: a caller that reads the next line may send SIGTERM at once
        say(
            f"Worker {name} waits on queue {state.settings.queue!r} at {queue.shown(url)}, and sends for "
            f"{', '.join(sorted(state.settings.sent_environments or ENVIRONMENTS))}. Ctrl-C stops it."
        )
        engine = jobs.DeliveryThread(state, stop)
        with Maintenance(state, name, stop=stop, wake=engine.wake), engine:
            queue.work(url, state.settings.queue, name, stop=stop, burst=burst)
    if state.settings.redis_url is None:
        state.embedded.stop_if_last()
    say(f"Worker {name} has stopped.")


class _Wide(logging.Formatter):
    """A log record on one line, with its extra values after the message."""

    _plain = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        extra = [f"{name}={value}" for name, value in vars(record).items() if name not in self._plain]
        return visible(" ".join([super().format(record), *extra]))


def log_to_terminal(verbose: bool) -> None:
    """Show the package's log on the terminal, unless the app has arranged for its log already."""
    logger = logging.getLogger("flask_webhooks")
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    if not (logger.handlers or logging.getLogger().handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(_Wide("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


@click.command()
@click.option("--watch", is_flag=True, help="Continue until stopped, without Redis.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_appcontext
def deliver(watch: bool, as_json: bool) -> None:
    """Send once what is due, then exit. Needs no Redis."""
    state, total = _state(), Report()
    log_to_terminal(verbose=False)
    checks.refuse_missing_tables(state.engine)
    with jobs.stopping() as stop, _sweep(state, stop) if watch else nullcontext():
        while True:
            try:
                report = _deliver_once(state, stop, is_swept=watch)
            except TRANSIENT_ERRORS:
                if not watch:
                    raise
                continue
            total.delivered += report.delivered
            total.failed += report.failed
            total.next_due = report.next_due
            if not watch or stop.is_set():
                break
            stop.wait(_until(report) if state.settings.enabled else 1.0)
    _tell(total, as_json)


def _sweep(state: AppState, stop: ShutdownFlag) -> Maintenance:
    return Maintenance(state, jobs.worker_name(), stop=stop, wakes=False)


def _deliver_once(state: AppState, stop: ShutdownFlag, *, is_swept: bool) -> Report:
    if state.settings.enabled:
        with suppress(*TRANSIENT_ERRORS):  # the run that follows retries and logs it once
            if not is_swept:
                reconcile_all(state, stop)
            replay.enqueue_batches(state)
    return Coordinator(state, holder=jobs.worker_name(), stop=stop).run()


def _until(report: Report) -> float:
    """Seconds to wait before the next look: half a second, or less if something is due sooner."""
    return 0.5 if report.next_in is None else min(0.5, max(0.02, report.next_in))


def _tell(report: Report, as_json: bool) -> None:
    due = report.next_due.isoformat() if report.next_due else None
    if as_json:
        say(json.dumps({"delivered": report.delivered, "failed": report.failed, "next_due": due}))
        return
    say(f"Delivered {report.delivered}, failed {report.failed}. Next due: {due or 'nothing'}.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.option(
    "--fail-if-older",
    type=Duration(),
    metavar="DURATION",
    help="Exit 1 if a delivery has been due for longer: 5m, 1h30m; a plain number is seconds.",
)
@with_appcontext
def status(as_json: bool, fail_if_older: timedelta | None) -> None:
    """Show the backlog, the oldest due delivery, the queue and the workers."""
    facts = _facts()
    if as_json:
        say(json.dumps(facts))
    else:
        for name, value in facts.items():
            say(f"{name.replace('_', ' '):24} {value if value is not None else '-'}")
        if facts["broken_messages"]:
            say(
                "Broken messages wait for `flask webhooks repair`: a schema or property failed in their commit."
            )
        if facts["waiting_for_us"]:
            say(
                "Workers cannot reach any receiver: check the proxy, the name server and the network, and "
                "WEBHOOKS_ENCRYPTION_KEYS (`secret.unreadable` in their log)."
            )
        for name, count in facts["subscribed_elsewhere"].items():
            say(
                f"Active subscriptions for {name}: {count}. They get nothing from this app, whose events are all for "
                f"{facts['environment']} (WEBHOOKS_ENVIRONMENT)."
            )
        for name, count in facts["pending_elsewhere"].items():
            say(
                f"{count} deliveries stay pending: they are for subscriptions of {name}, and this app sends for "
                f"{', '.join(facts['sends_for'])} only (WEBHOOKS_ENVIRONMENT, WEBHOOKS_SEND_ENVIRONMENTS)."
            )
    if fail_if_older is not None and (facts["oldest_due_seconds"] or 0) > fail_if_older.total_seconds():
        raise SystemExit(1)


def _facts() -> dict[str, t.Any]:
    state = current_webhooks
    with state.own_engine.connect() as connection:
        now = outbox.now(connection)
        ours = state.settings.sent_environments
        lanes = outbox.backlog(connection, now, ours)
        others = outbox.elsewhere(connection, ours)
        broken = outbox.broken(connection)
        subscribed = outbox.subscribed(connection)
        stalled = outbox.waiting_for_us(connection, now)
        alive = [row.name for row in outbox.workers(connection) if not is_stalled(row.seen_at, now)]
    environment = state.settings.only_environment
    due = [row.due_at for row in lanes if row.due_at <= now]
    try:
        depth: int | None = state.bell.depth()
    except QueueError:
        depth = None
    return {
        "enabled": state.settings.enabled,
        "workers": alive,
        "subscriptions_with_work": len(lanes),
        "subscriptions_due": len(due),
        "oldest_due_seconds": round((now - min(due)).total_seconds(), 3) if due else None,
        "broken_messages": broken,
        "environment": environment or "as the app says of each event",
        "subscribed_elsewhere": {
            name: count for name, count in subscribed.items() if environment and name != environment
        },
        "sends_for": sorted(ours or ENVIRONMENTS),
        "waiting_for_us": stalled,
        "pending_elsewhere": {each.environment: each.deliveries for each in others},
        "redis_url": queue.shown(state.bell.url),
        "jobs_queued": depth,
    }


@click.command()
@click.option(
    "--older-than",
    "--days",
    "age",
    type=Duration("d"),
    metavar="DURATION",
    help="Minimum age: 36h, 30d; a plain number is days.  [default: WEBHOOKS_RETENTION]",
)
@with_appcontext
def purge(age: timedelta | None) -> None:
    """Delete finished messages, with their deliveries and attempts, that are older than the retention.

    Removed subscriptions are deleted with their last delivery.
    """
    state, now, count = current_webhooks, datetime.now(UTC), 0
    try:
        before = now - (state.settings.retention if age is None else age)
    except OverflowError as error:
        raise click.BadParameter(
            f"{age} ago is before the first possible date.", param_hint="--older-than"
        ) from error
    with click.progressbar(length=0, label="Purging", show_percent=False, show_eta=False) as bar:
        for gone in outbox.purge(state.own_engine, before, now, is_log_only=True):
            count += gone
            bar.update(gone)
    say(f"Deleted {count} messages that occurred before {before.isoformat(timespec='seconds')}.")
