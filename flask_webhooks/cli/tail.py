"""The command that watches attempts as they are made."""

from __future__ import annotations

import contextlib
import json
import threading
import typing as t

import click
from flask.cli import with_appcontext

from .. import queries
from .context import open_state
from .output import say

__all__ = ["tail"]

INTERVAL = 0.5
"""Seconds between two looks."""


@click.command()
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 500),
    default=10,
    show_default=True,
    help="Number of past attempts to show first.",
)
@click.option("--follow/--no-follow", default=True, help="Continue until Ctrl-C.", show_default=True)
@click.option("--subscription", "subscription_id", metavar="ID", help="Only attempts of this subscription.")
@click.option("--failed", is_flag=True, help="Only failed attempts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_appcontext
def tail(lines: int, follow: bool, subscription_id: str | None, failed: bool, as_json: bool) -> None:
    """Show attempts as they happen, until Ctrl-C."""
    state, seen, pause = open_state(), queries.Tail(), threading.Event()

    def show(rows: t.Iterable[t.Any]) -> None:
        for row in rows:
            if subscription_id in (None, row.subscription_id) and (row.failure is not None or not failed):
                say(*([json.dumps(_values(row))] if as_json else _line(row)), keep="")

    with contextlib.suppress(KeyboardInterrupt):
        with state.own_engine.connect() as connection:
            show(seen.read_last(connection, lines))
        while follow:
            with state.own_engine.connect() as connection:
                show(seen.read_new(connection))
            pause.wait(INTERVAL)


def _values(row: t.Any) -> dict[str, t.Any]:
    return {**row._asdict(), "started_at": row.started_at.isoformat()}


def _line(row: t.Any) -> tuple[str | tuple[str, str], ...]:
    answer = str(row.status or row.failure)
    return (
        f"{row.started_at:%H:%M:%S}  ",
        (f"{answer:8}", "red" if row.failure else "green"),
        f" {row.total_seconds * 1000:6.0f} ms  {row.event or '-'}  {row.url}  "
        f"#{row.number} {row.trigger}  {row.delivery_id}",
    )
