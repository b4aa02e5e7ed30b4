"""The command about encryption keys."""

from __future__ import annotations

import json

import click
from flask.cli import with_appcontext

from ..state import current_webhooks
from ..subscriptions import reencryption
from .output import progress, say

__all__ = ["rotate_encryption"]


@click.command("rotate-encryption")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_appcontext
def rotate_encryption(as_json: bool) -> None:
    """Seal every stored secret with the first of WEBHOOKS_ENCRYPTION_KEYS.

    Put the new key first and restart everything, run this, then drop the old key. Exits 1 if a secret opens with none
    of the keys; it stays as it is.
    """
    state, sums = current_webhooks, reencryption.Resealed()
    with progress(range(reencryption.count(state)), label="Sealing", hidden=as_json) as bar:
        for sums in reencryption.reseal(state):
            bar.update(sums.done + sums.unreadable - bar.pos)
    if as_json:
        say(json.dumps({"done": sums.done, "unreadable": sums.unreadable}))
    else:
        say(f"Sealed {sums.done} anew; {sums.unreadable} could not be opened.")
    if sums.unreadable:
        raise SystemExit(1)
