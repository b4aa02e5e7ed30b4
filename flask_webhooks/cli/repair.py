"""`flask webhooks repair`: renders messages again whose schema or property failed at the commit."""

from __future__ import annotations

import json
import typing as t
import uuid

import click
from flask.cli import with_appcontext

from .. import outbox
from ..replay.repair import LONGEST_REASON, Repair, give_up, list_broken, repair_message
from ..state import AppState
from .context import open_state
from .output import progress, say

__all__ = ["repair"]


@click.command()
@click.argument("message_ids", metavar="[ID]...", nargs=-1)
@click.option("--channel", metavar="NAME", help="Select all broken messages of a channel.")
@click.option("--all", "is_all", is_flag=True, help="Select all broken messages.")
@click.option(
    "--give-up", "reason", metavar="REASON", help="Cancel their deliveries instead, with this reason."
)
@click.option("--dry-run", is_flag=True, help="Only report what would happen.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_appcontext
def repair(
    message_ids: tuple[str, ...],
    channel: str | None,
    is_all: bool,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render the data of broken messages again, from the rows as they are now, and send them.

    A message is broken if a schema or property failed in its commit (WEBHOOKS_ON_ERROR = "record"). Fix that first.
    Give up messages that cannot be rendered, for example because their row no longer exists, with --give-up.
    Without arguments, the command lists the broken messages.
    """
    state = open_state()
    _check(state, message_ids, channel, is_all, reason)
    if not message_ids and channel is None and not is_all:
        _list(state, as_json)
        return
    found: list[Repair] = []
    with state.own_engine.connect() as connection:
        length = len(message_ids) or (outbox.broken(connection) if channel is None else None)
    with progress(_ids(state, message_ids, channel), length=length, label="Repairing", hidden=as_json) as ids:
        for key in ids:
            found.append(_one(state, key, reason, dry_run))
    _tell(found, as_json, is_given_up=reason is not None, dry_run=dry_run)
    if any(each.error is not None for each in found):
        raise SystemExit(1)


def _check(
    state: AppState, message_ids: t.Sequence[str], channel: str | None, is_all: bool, reason: str | None
) -> None:
    if bool(message_ids) + (channel is not None) + is_all > 1:
        raise click.UsageError("Use only one of ids, --channel and --all.")
    for key in message_ids:
        try:
            uuid.UUID(key)
        except ValueError as error:
            raise click.BadParameter(f"{key!r} is not the id of a message.", param_hint="ID") from error
    if channel is not None and channel not in state.catalog.channels:
        names = ", ".join(sorted(state.catalog.channels))
        raise click.BadParameter(f"There is no channel {channel!r}: {names}.", param_hint="--channel")
    if reason is not None and not 0 < len(reason.strip()) <= LONGEST_REASON:
        message = f"The reason must have 1 to {LONGEST_REASON} characters."
        raise click.BadParameter(message, param_hint="--give-up")
    if reason is not None and not (message_ids or channel is not None or is_all):
        raise click.UsageError("Select the messages to give up: ids, --channel or --all.")


def _ids(state: AppState, message_ids: t.Sequence[str], channel: str | None) -> t.Iterator[str]:
    if message_ids:
        yield from message_ids
        return
    after = ""
    while True:
        with state.own_engine.connect() as connection:
            rows = list_broken(connection, channel=channel, after=after)
        yield from (row.id for row in rows)
        if not rows:
            return
        after = rows[-1].id  # by id and not by offset: repaired messages leave the list meanwhile


def _one(state: AppState, key: str, reason: str | None, dry_run: bool) -> Repair:
    if reason is None:
        found = repair_message(state, key, dry_run=dry_run)
    else:
        is_done = dry_run or give_up(state, key, reason.strip())
        found = Repair(key, "", None) if is_done else None
    return found or Repair(key, "", "It is not broken, or has been given up.")


def _tell(found: t.Sequence[Repair], as_json: bool, *, is_given_up: bool, dry_run: bool) -> None:
    done = [each for each in found if each.error is None]
    name = "given_up" if is_given_up else "repaired"
    if as_json:
        failed = [
            {"id": each.message_id, "event": each.event, "error": each.error}
            for each in found
            if each.error is not None
        ]
        say(
            json.dumps(
                {
                    "dry_run": dry_run,
                    name: len(done),
                    "deliveries": sum(each.deliveries for each in done),
                    "still_broken": failed,
                }
            )
        )
        return
    for each in found:
        if each.error is not None:
            say(f"{each.message_id} {each.event}: {each.error}", err=True)
    would = "would be " if dry_run else ""
    say(f"{len(done)} of {len(found)} {would}{name.replace('_', ' ')}.")


def _list(state: AppState, as_json: bool) -> None:
    with state.own_engine.connect() as connection:
        rows = list_broken(connection)
        count = outbox.broken(connection)
    if as_json:
        names = ("id", "event", "owner", "entity_id", "error")
        say(
            json.dumps(
                {"broken": count, "messages": [{name: getattr(row, name) for name in names} for row in rows]}
            )
        )
        return
    for row in rows:
        say(f"{row.id}  {row.event}  {row.entity_id or '-'}  {row.error}")
    say(f"{count} broken. `flask webhooks repair --all` renders their data again.")
