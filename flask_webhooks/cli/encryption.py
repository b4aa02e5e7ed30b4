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
    """Encrypt every stored secret again, with the first of WEBHOOKS_ENCRYPTION_KEYS.

    Put the new key first, restart all processes, run this command, then remove the old key. Exit code 1 if none of
    the keys decrypts some secret, which is then left unchanged.
    """
    state, sums = current_webhooks, reencryption.Resealed()
    with progress(range(reencryption.count(state)), label="Sealing", hidden=as_json) as bar:
        for sums in reencryption.reseal(state):
            bar.update(sums.done + sums.unreadable - bar.pos)
    if as_json:
        say(json.dumps({"done": sums.done, "unreadable": sums.unreadable}))
    else:
        say(f"Encrypted {sums.done} again; {sums.unreadable} could not be decrypted.")
    if sums.unreadable:
        raise SystemExit(1)
